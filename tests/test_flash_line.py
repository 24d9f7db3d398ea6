# SPDX-License-Identifier: Apache-2.0
"""A host and a board with a line between them: what the line does to frames, what cables and power do to both ends."""

import random
import threading
import time

import pytest
from flashing import digest, model, noise, remote, stored, virtual, write
from simulated import Simulated

from edgelearn.errors import LinkError, MismatchError, PortError, UnhealthyError, UsageError
from edgelearn.flash.board import Identity
from edgelearn.flash.faults import Faults, read
from edgelearn.flash.host import Remote
from edgelearn.flash.link import LineGoneError, open_link
from edgelearn.flash.session import Options
from edgelearn.flash.wires import Pty

BIG, SOME = noise(300_000), noise(80_000)


@pytest.mark.parametrize("tcp", [False, True], ids=["pty", "tcp"])
@pytest.mark.parametrize("framing", ["console", "cobs"])
def test_a_model_arrives_whole_and_is_confirmed(tmp_path, tcp, framing):
    with virtual(tmp_path, tcp=tcp) as board, remote(board, framing=framing) as host:
        host.prepare_line(len(BIG))
        assert host.client.framing == framing
        done = write(host, BIG)
        assert (done.state, done.bytes_sent, done.resumed_at) == ("written", len(BIG), 0)
        host.try_out("model", digest(BIG), 5)
        assert stored(board) == [BIG]
        assert host.state("model")["slots"][done.slot]["confirmed"]
        assert write(host, BIG).state == "present"
        assert host.verify("model", digest(BIG)) == done.slot


@pytest.mark.parametrize("framing", ["console", "cobs"])
@pytest.mark.parametrize("faults", ["flip=10%", "drop=5%", "dup=10%", "flip=3%,drop=3%,dup=3%,noise=20%"])
def test_frames_that_break_get_lost_or_come_twice(tmp_path, faults, framing):
    small = Identity(buffer=4200)
    with virtual(tmp_path, faults, identity=small) as board, remote(board, framing=framing, attempts=20) as host:
        host.prepare_line(0)
        assert write(host, SOME).state == "written"
        assert stored(board) == [SOME]
        assert sum(strikes.struck for strikes in board._strikes) > 0


@pytest.mark.parametrize("stall", ["0.6s", pytest.param("5s", marks=pytest.mark.soak)])
def test_a_stalling_card_is_waited_for(tmp_path, stall):
    with virtual(tmp_path, f"stall={stall}") as board, remote(board) as host:
        assert write(host, BIG).state == "written"
        assert board._disk.stalls > 0
        assert stored(board) == [BIG]


def test_the_power_goes_in_the_middle_and_the_same_call_goes_on(tmp_path):
    """The board itself comes up again; what was durable is not sent twice."""
    big, told = noise(3 << 20), []
    fast = Identity(baud=3_000_000)
    with virtual(tmp_path, "cut@120", identity=fast) as board, remote(board, patience=20) as host:
        done = write(host, big, told=lambda done, total: told.append((board.cuts, done)))
        assert board.cuts == 1
        assert min(done for cuts, done in told if cuts) >= 1 << 20
        assert done.state == "written"
        assert stored(board) == [big]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_cable_that_is_pulled_and_comes_back(tmp_path, share):
    """The second host is another process for all the board knows, on another port."""
    pulled = []

    def pull(done, total):
        if done >= share * total and not pulled:
            pulled.append(done)
            host.client.link.close()

    with virtual(tmp_path, tcp=True) as board:
        with remote(board, connect=None, patience=0) as host, pytest.raises(LinkError, match="same command"):
            write(host, BIG, told=pull)
        assert pulled
        with remote(board) as host:
            done = write(host, BIG)
            assert done.resumed_at >= pulled[0]
            assert done.bytes_sent == len(BIG) - done.resumed_at
            assert stored(board) == [BIG]


@pytest.mark.parametrize("resume", [True, False])
def test_a_cable_that_comes_back_soon_is_waited_for(tmp_path, resume):
    """Without `resume` only the beginning is at zero, not each time that the line comes back."""
    pulled, seen = [], []

    def pull(done, total):
        seen.append(done)
        if done > total / 2 and not pulled:
            pulled.append(done)
            host.client.link.close()

    with virtual(tmp_path, tcp=True) as board, remote(board, patience=10) as host:
        assert write(host, BIG, told=pull, resume=resume).state == "written"
        assert pulled
        assert seen == sorted(seen)
        assert stored(board) == [BIG]


def test_no_resume_begins_at_zero(tmp_path):
    with virtual(tmp_path, tcp=True) as board:
        with remote(board, connect=None, patience=0) as host, pytest.raises(LinkError):
            write(host, BIG, told=lambda done, total: host.client.link.close())
        with remote(board) as host:
            assert write(host, BIG, resume=False).resumed_at == 0
            assert stored(board) == [BIG]


def test_a_model_that_is_not_well_is_rolled_back(tmp_path):
    old, new = model(2000, 1), model(2100, 2)
    with virtual(tmp_path) as board, remote(board) as host:
        write(host, old)
        host.try_out("model", digest(old), 1)
    with virtual(tmp_path, "health=loses 4 of 5 canaries") as board, remote(board) as host:
        write(host, new, version=2)
        with pytest.raises(UnhealthyError, match="4 of 5 canaries"):
            host.try_out("model", digest(new), 0.3)
        state = host.state("model")
        assert state["slots"][state["running"]]["sha256"].hex() == digest(old)
        assert state["wrong"] == ""  # what ran before is well
        with pytest.raises(UnhealthyError, match="failed here before"):
            write(host, new, version=2)


def test_the_first_model_of_a_board_is_tried_as_well(tmp_path):
    with virtual(tmp_path, "health=answers nothing") as board, remote(board) as host:
        write(host, SOME)
        with pytest.raises(UnhealthyError, match="answers nothing"):
            host.try_out("model", digest(SOME), 0.1)
        assert host.state("model")["running"] is None


def test_a_payload_that_is_not_what_its_manifest_says_is_refused(tmp_path):
    with virtual(tmp_path) as board, remote(board) as host:
        for sent in (b"x" * len(BIG), BIG[:-1], BIG + b"more"):
            with pytest.raises(MismatchError):
                write(host, BIG, sent=sent)
        assert stored(board) == []
        assert host.state("model")["slots"] == [None, None]


@pytest.mark.parametrize("date", ["1970-01-01", "2099-12-31"])
def test_no_clock_is_asked_for_the_date(tmp_path, monkeypatch, date):
    moment = time.mktime(time.strptime(date, "%Y-%m-%d"))
    monkeypatch.setattr(time, "time", lambda: moment)
    with virtual(tmp_path) as board, remote(board) as host:
        small = noise(5000)
        write(host, small)
        host.try_out("model", digest(small), 5)


def test_a_port_that_goes_is_a_lost_line_whatever_is_asked_of_it(tmp_path):

    for ask in (lambda link: link.set_baud(230_400), lambda link: link.write(b"x" * 10), lambda link: link.read(0.2)):
        with virtual(tmp_path) as board:
            link = open_link(board.wire.name, 115_200)
        with pytest.raises(LineGoneError, match="same command again"):
            ask(link)
        link.close()


def test_faults_are_read_and_nonsense_is_refused():

    want = Faults(drop=0.01, flip=0.005, dup=0.01, stall=2.0, cut=37)
    assert read("drop=1%,flip=0.5%,dup=1%,stall=2s,cut@37") == want
    for text in ("drop=200%", "drop", "dorp=1%", "cut@x", "flip=-1%"):
        with pytest.raises(UsageError, match="joined by commas"):
            read(text)


def test_a_line_of_its_rate_is_as_slow_as_that(tmp_path):
    """Forty thousand bytes at 460,800 baud in base64 are a second and a bit."""
    identity = Identity(baud=460_800, baud_max=460_800)
    with virtual(tmp_path, paced=True, identity=identity) as board, remote(board, framing="console") as host:
        start = time.monotonic()
        write(host, BIG[:40_000])
        assert time.monotonic() - start > 40_000 * 1.36 * 10 / 460_800


def bad_line(seed):
    """Every kind of fault at once, a tenth of the frames altogether, with a power cut."""
    rng = random.Random(seed)
    share = [f"{name}={rng.uniform(0.1, 3.3):.2f}%" for name in ("flip", "drop", "dup", "noise")]
    return f"{','.join(share)},cut@{rng.randrange(1, 90)}"


SAMPLE = (0, 102)  # at 102 the power goes when all is there and no answer said so
SEEDS = [*SAMPLE, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(200) if seed not in SAMPLE)]


@pytest.mark.parametrize("seed", SEEDS)
def test_hours_of_a_bad_line(quick_path, monkeypatch, seed):
    """And a card that hangs for five seconds at times; on a clock of its own, so that each takes half a second."""
    big, told = noise(1 << 20, seed), []
    line = Simulated(quick_path, read(f"{bad_line(seed)},stall=5s"), seed, monkeypatch)
    host = Remote(line, Options(attempts=30, patience=60))
    host.hello()
    host.prepare_line(len(big))
    write(host, big, told=lambda done, total: told.append(done))
    assert (line.cuts, told[-1]) == (1, len(big))
    assert min(line.struck, host.client.retries) > 0
    assert stored(line.endpoint.board) == [big]


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(200, 205))
def test_minutes_of_a_bad_line_in_real_time(tmp_path, seed):
    big = noise(1 << 20, seed)
    with virtual(tmp_path, bad_line(seed), seed=seed) as board:
        with remote(board, attempts=30, patience=60) as host:
            host.prepare_line(len(big))
            write(host, big)
        assert board.cuts == 1
        assert min(sum(strikes.struck for strikes in board._strikes), host.client.retries) > 0
        assert big in stored(board)


def test_text_before_each_frame_of_cobs_costs_nothing(quick_path, monkeypatch):
    """A kernel that logs to a line that was thought to be for frames alone."""
    line = Simulated(quick_path, read("noise=100%"), 0, monkeypatch)
    host = Remote(line, Options())
    host.hello()
    host.prepare_line(0)
    assert host.client.framing == "cobs"
    assert host.client.echo("here")
    assert host.client.retries == 0


def test_the_name_of_a_terminal_goes_with_its_last_board(tmp_path):
    first = Pty(tmp_path / "board")
    second = Pty(tmp_path / "board")
    first.close()
    assert (tmp_path / "board").is_char_device()
    second.close()
    assert not (tmp_path / "board").is_symlink()


def test_two_hosts_at_once_take_turns_on_one_port(tmp_path):
    from edgelearn.flash.link import open_link

    with virtual(tmp_path) as board, remote(board) as host:
        holder = threading.Thread(target=host.hello)
        holder.start()
        with pytest.raises(PortError):
            open_link(board.wire.name, 115_200)
        holder.join()

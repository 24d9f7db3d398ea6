# SPDX-License-Identifier: Apache-2.0
"""A host and a board with a line between them: what the line does to frames, what cables and power do to both ends."""

import os
import random
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from flashing import digest, model, noise, remote, virtual, write

from edgelearn.errors import LinkError, MismatchError, UnhealthyError
from edgelearn.flash import baud
from edgelearn.flash.board import Board, Identity, Policy
from edgelearn.flash.client import Client
from edgelearn.flash.endpoint import Endpoint
from edgelearn.flash.faults import Faults, read
from edgelearn.flash.framing import ConsoleDecoder, encode_console
from edgelearn.flash.smp import El, Group, Message, Op, Os, decode, encode

BIG, SOME = noise(300_000), noise(80_000)


def stored(board, image="model"):
    """The bytes that a slot of the board's disk holds."""
    return [path.read_bytes() for path in (board.folder / image / "versions").glob("*.bin")]


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


def test_a_stalling_card_is_waited_for(tmp_path):
    with virtual(tmp_path, "stall=0.6s") as board, remote(board) as host:
        assert write(host, BIG).state == "written"
        assert stored(board) == [BIG]


def test_the_power_goes_in_the_middle_and_the_same_call_goes_on(tmp_path):
    """The board itself comes up again; what was durable is not sent twice."""
    big = noise(3 << 20)
    with virtual(tmp_path, "cut@160") as board, remote(board, patience=20) as host:
        done = write(host, big)
        assert board.cuts == 1
        assert done.state == "written"
        assert stored(board) == [big]
        assert host.client.retries > 0


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


def test_a_cable_that_comes_back_soon_is_waited_for(tmp_path):
    pulled = []

    def pull(done, total):
        if done > total / 2 and not pulled:
            pulled.append(done)
            host.client.link.close()

    with virtual(tmp_path, tcp=True) as board, remote(board, patience=10) as host:
        assert write(host, BIG, told=pull).state == "written"
        assert pulled
        assert stored(board) == [BIG]


HOST = """
import os, sys
sys.path[:0] = [{tests!r}]
from flashing import write, remote, noise
from types import SimpleNamespace
from edgelearn.flash.board import Identity
board = SimpleNamespace(wire=SimpleNamespace(name={name!r}), identity=Identity())
def told(done, total):
    if done > {at}:
        os.kill(os.getpid(), 9)
with remote(board) as host:
    write(host, noise(300_000), told=told)
"""


@pytest.mark.parametrize("at", [0, 150_000, 299_000])
def test_a_host_that_is_killed_leaves_no_lock_and_the_next_one_goes_on(tmp_path, at):
    tests = os.path.dirname(os.path.abspath(__file__))
    with virtual(tmp_path) as board:
        code = textwrap.dedent(HOST).format(tests=tests, name=board.wire.name, at=at)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == -9, done.stderr
        with remote(board) as host:
            written = write(host, BIG)
            assert written.resumed_at > at
            assert stored(board) == [BIG]


def test_no_resume_begins_at_zero(tmp_path):
    with virtual(tmp_path, tcp=True) as board:
        with remote(board, connect=None, patience=0) as host, pytest.raises(LinkError):
            write(host, BIG, told=lambda done, total: host.client.link.close())
        with remote(board) as host:
            assert write(host, BIG, resume=False).resumed_at == 0
            assert stored(board) == [BIG]


def test_the_rate_climbs_as_far_as_the_line_carries(tmp_path, monkeypatch):
    """A board that says it can do three million, on a line that carries no more than 460,800."""
    real = Endpoint._turn

    def limited(self, request):
        answer = real(self, request)
        if self.baud > 460_800:
            self.baud = 1200  # at that rate nobody hears anybody
        return answer

    monkeypatch.setattr(Endpoint, "_turn", limited)
    monkeypatch.setattr(baud, "PATIENCE", 1.3)
    with virtual(tmp_path) as board, remote(board) as host:
        start = time.monotonic()
        host.prepare_line(50_000_000)
        assert host.client.link.baud == 460_800
        assert time.monotonic() - start < 8
        assert board.endpoint.baud == 460_800
        assert write(host, BIG).state == "written"
        host.leave_line()
        assert board.endpoint.baud == host.client.link.baud == 115_200


def test_a_new_rate_without_an_echo_is_taken_back_within_a_second(tmp_path):
    clock = [0.0]
    endpoint = Endpoint(_board(tmp_path), lambda: clock[0])
    _ask(endpoint, Message(Op.WRITE, Group.EDGELEARN, El.SET_BAUD, 1, {"baud": 921_600, "framing": "cobs"}))
    assert (endpoint.baud, endpoint.framing) == (921_600, "cobs")
    clock[0] = 0.99
    endpoint.tick()
    assert endpoint.baud == 921_600
    clock[0] = 1.01
    endpoint.tick()
    assert (endpoint.baud, endpoint.framing) == (115_200, "console")
    refused = _ask(endpoint, Message(Op.WRITE, Group.EDGELEARN, El.SET_BAUD, 2, {"baud": 10_000_000}))
    assert refused.body["err"] == {"group": 64, "rc": 3}


def test_a_board_that_hears_only_noise_goes_back_to_its_first_rate(tmp_path):
    clock = [0.0]
    endpoint = Endpoint(_board(tmp_path), lambda: clock[0])
    _ask(endpoint, Message(Op.WRITE, Group.EDGELEARN, El.SET_BAUD, 1, {"baud": 921_600}))
    _ask(endpoint, Message(Op.WRITE, Group.OS, Os.ECHO, 2, {"d": "here"}))
    clock[0] = 60.0
    endpoint.tick()
    assert endpoint.baud == 921_600  # silence alone is no reason
    list(endpoint.feed(bytes(range(256))))
    endpoint.tick()
    assert endpoint.baud == 115_200


def test_cobs_is_given_up_after_three_bad_frames_and_console_is_always_heard(tmp_path):
    endpoint = Endpoint(_board(tmp_path))
    for rounds in range(2):
        _ask(endpoint, Message(Op.WRITE, Group.EDGELEARN, El.SET_BAUD, rounds, {"framing": "cobs"}))
        assert endpoint.framing == "cobs"
        if rounds:
            answer = _ask(endpoint, Message(Op.WRITE, Group.OS, Os.ECHO, 9, {"d": "a new host"}))
            assert answer.body == {"r": "a new host"}
        else:
            list(endpoint.feed(b"\0\x05\x11\x22\x33\x44\0" * 3))
        assert endpoint.framing == "console"


def _board(folder):
    board = Board(folder, Identity(), Policy(unsigned=True))
    board.boot()
    return board


def _ask(endpoint, message):
    (answer,) = endpoint.feed(encode_console(encode(message)))
    decoded = [decode(found) for found in ConsoleDecoder().feed(answer)]
    return decoded[0] if decoded else None


def test_the_same_request_gets_the_same_answer_and_is_done_once(tmp_path):
    endpoint = Endpoint(_board(tmp_path))
    reset = encode_console(encode(Message(Op.WRITE, Group.OS, Os.RESET, 7, {})))
    first = list(endpoint.feed(reset))
    endpoint.board.restarting = False
    assert list(endpoint.feed(reset)) == first
    assert not endpoint.board.restarting
    list(endpoint.feed(encode_console(encode(Message(Op.WRITE, Group.OS, Os.RESET, 8, {})))))
    assert endpoint.board.restarting


def test_broken_frames_are_told_at_once_only_to_who_understands_it(tmp_path):
    endpoint = Endpoint(_board(tmp_path))
    broken = b"\x06\x09AP8A!!\n"
    assert list(endpoint.feed(broken)) == []
    _ask(endpoint, Message(Op.READ, Group.EDGELEARN, El.HELLO, 1, {}))
    (told,) = endpoint.feed(broken)
    (message,) = (decode(found) for found in ConsoleDecoder().feed(told))
    assert (message.group, message.command) == (Group.EDGELEARN, El.NAK)
    _ask(endpoint, Message(Op.READ, Group.OS, Os.PARAMS, 2, {}))  # an mcumgr comes to the line
    assert list(endpoint.feed(broken)) == []


class Scripted:
    """A line whose other end says what a test tells it to, when something was written."""

    name, baud, has_baud = "script", 115_200, False

    def __init__(self, replies):
        self.replies, self.waiting, self.written = list(replies), b"", []

    def read(self, timeout):
        if not self.waiting:
            time.sleep(min(timeout, 0.01))
        data, self.waiting = self.waiting, b""
        return data

    def write(self, data):
        (message,) = ConsoleDecoder().feed(data)
        self.written.append(decode(message))
        if self.replies and (reply := self.replies.pop(0)) is not None:
            self.waiting += reply(self.written[-1])

    def set_baud(self, baud):
        self.baud = baud

    def close(self):
        pass


def reply(sequence=None, **body):
    def make(request):
        number = request.sequence if sequence is None else sequence(request.sequence)
        return encode_console(encode(Message(Op(request.op + 1), request.group, request.command, number, body)))

    return make


def test_late_answers_are_dropped_over_the_wrap_of_the_sequence():
    """The answer to the request before, after its time-out; 600 requests wrap the eight bits twice."""
    late = reply(lambda n: n - 1 & 0xFF, r="late")
    client = Client(Scripted(lambda request, n=n: late(request) + reply(r=f"{n}")(request) for n in range(600)))
    for n in range(600):
        assert client.request(Op.WRITE, Group.OS, Os.ECHO, {"d": f"{n}"}) == {"r": f"{n}"}
    assert client.retries == 0


def test_silence_is_answered_by_sending_again_and_ends_in_an_error():
    client = Client(Scripted([None, None, reply(r="there")]), scale=0.1)
    assert client.request(Op.WRITE, Group.OS, Os.ECHO, {"d": "x"}) == {"r": "there"}
    assert client.retries == 2
    assert len({(m.sequence, str(m.body)) for m in client.link.written}) == 1  # the same request, not another
    with pytest.raises(LinkError, match="check cable"):
        client.request(Op.WRITE, Group.OS, Os.ECHO, {"d": "x"}, tries=2)


def test_time_outs_follow_the_line():
    client = Client(Scripted([]))
    assert client.wait_of(100) == pytest.approx(0.2, abs=0.05)
    assert client.wait_of(30_000) == pytest.approx(3 * (0.05 + 30_000 * 10 / 115_200), abs=0.1)
    for _ in range(30):
        client.learn(2.0, 100)
    assert client.wait_of(100) > 5
    assert client.wait_of(10**9) == 10.0


def test_a_model_that_is_not_well_is_rolled_back(tmp_path):
    old, new = model(2000, 1), model(2100, 2)
    with virtual(tmp_path, "health=loses 4 of 5 canaries") as board, remote(board) as host:
        write(host, old)
        host.try_out("model", digest(old), 1)
        write(host, new, version=2)
        with pytest.raises(UnhealthyError, match="4 of 5 canaries"):
            host.try_out("model", digest(new), 0.3)
        state = host.state("model")
        assert state["slots"][state["running"]]["sha256"].hex() == digest(old)
        with pytest.raises(UnhealthyError, match="failed here before"):
            write(host, new, version=2)


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


def test_at_commands_of_a_modem_manager_do_no_harm(tmp_path):
    endpoint = Endpoint(_board(tmp_path))
    list(endpoint.feed(b"AT\r\nATZ\r\nAT+GCAP\r\n\x7e\x00\x78\xf0\x7e"))
    assert _ask(endpoint, Message(Op.WRITE, Group.OS, Os.ECHO, 1, {"d": "still here"})).body == {"r": "still here"}


def test_a_port_that_goes_is_a_lost_line_whatever_is_asked_of_it(tmp_path):
    from edgelearn.flash.link import LineGoneError, open_link

    for ask in (lambda link: link.set_baud(230_400), lambda link: link.write(b"x" * 10), lambda link: link.read(0.2)):
        with virtual(tmp_path) as board:
            link = open_link(board.wire.name, 115_200)
        with pytest.raises(LineGoneError, match="same command again"):
            ask(link)
        link.close()


def test_faults_are_read_and_nonsense_is_refused():
    from edgelearn.errors import UsageError

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


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
def test_hours_of_a_bad_line(tmp_path, seed):
    """Every kind of fault at once, a tenth of the frames altogether, with a power cut."""
    rng = random.Random(seed)
    share = [f"{name}={rng.uniform(0.1, 3.3):.2f}%" for name in ("flip", "drop", "dup", "noise")]
    big = noise(1 << 20, seed)
    with virtual(tmp_path, f"{','.join(share)},cut@{rng.randrange(1, 150)}", seed=seed) as board:
        with remote(board, attempts=30, patience=60) as host:
            host.prepare_line(len(big))
            write(host, big)
        assert big in stored(board)


def test_two_hosts_at_once_take_turns_on_one_port(tmp_path):
    from edgelearn.errors import PortError
    from edgelearn.flash.link import open_link

    with virtual(tmp_path) as board, remote(board) as host:
        holder = threading.Thread(target=host.hello)
        holder.start()
        with pytest.raises(PortError):
            open_link(board.wire.name, 115_200)
        holder.join()

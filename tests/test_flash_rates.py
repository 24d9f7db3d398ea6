# SPDX-License-Identifier: Apache-2.0
"""A line that falls back to a low rate climbs again within the transfer, whatever is lost on the way; on a simulated
clock."""

from itertools import pairwise

import pytest
from flashing import noise, stored, write
from simulated import Simulated

from edgelearn.errors import LinkError
from edgelearn.flash.baud import ALONE
from edgelearn.flash.board import Identity
from edgelearn.flash.faults import Faults, read
from edgelearn.flash.framing import CobsDecoder, ConsoleDecoder
from edgelearn.flash.host import Remote
from edgelearn.flash.session import Options
from edgelearn.flash.smp import El, Group, Op, Os, decode
from edgelearn.flash.upload import GIVE_UP

BASE, TOP = 115_200, 921_600
BIG = noise(1_500_000)
EARLY = 3.0
"""Seconds in which nothing above the first rate carries, so that the climb at the beginning fails."""


def started(folder, monkeypatch, spoils, **options):
    line = Simulated(folder, Faults(), 0, monkeypatch, Identity(baud_max=TOP))
    line.spoils = spoils
    host = Remote(line, Options(**options))
    host.hello()
    host.prepare_line(len(BIG))
    return line, host


def seconds_to_write(line, host):
    start = line.now
    write(host, BIG)
    assert stored(line.endpoint.board) == [BIG]
    assert line.baud == line.endpoint.baud
    return line.now - start


def fast_is_spoiled(begin, end):
    """Above the first rate nothing arrives from `begin` to `end`, in seconds."""
    return lambda line, to_board, baud, data: baud > BASE and begin <= line.now < end


@pytest.mark.parametrize(("begin", "end"), [(0, EARLY), (4, 9)], ids=["at the beginning", "in the middle"])
def test_a_line_that_had_a_bad_minute_is_fast_again(quick_path, monkeypatch, begin, end):
    line, host = started(quick_path, monkeypatch, fast_is_spoiled(begin, end))
    assert (line.baud == BASE) == (not begin)
    assert seconds_to_write(line, host) < 0.5 * len(BIG) * 10 / BASE
    assert line.baud == TOP


def asked(message, to_board, baud):
    return to_board and message.command == El.SET_BAUD and message.op == Op.WRITE and message.body["baud"] > BASE


def granted(message, to_board, baud):
    return not to_board and message.command == El.SET_BAUD and message.body.get("baud", 0) > BASE


def said(message, to_board, baud):
    return to_board and baud > BASE and (message.group, message.command) == (Group.OS, Os.ECHO)


def answered(message, to_board, baud):
    return not to_board and baud > BASE and (message.group, message.command) == (Group.OS, Os.ECHO)


def message_in(data):
    """The message of a frame in either framing; a line of a console may stand before it."""
    found = [frame for decoder in (CobsDecoder(), ConsoleDecoder()) for frame in decoder.feed(data)]
    return next((decode(frame) for frame in found if isinstance(frame, bytes)), None)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("strikes", [asked, granted, said, answered], ids=lambda strikes: strikes.__name__)
def test_whatever_is_lost_while_the_rate_changes(quick_path, monkeypatch, strikes, times):
    """The request, its answer, what is said at the new rate, the answer to that: both sides end at one rate, no byte is
    wrong, and the line is fast in the end."""
    lost = []

    def spoils(line, to_board, baud, data):
        if line.now < EARLY:
            return baud > BASE
        message = message_in(data)
        if message and asked(message, to_board, baud):
            assert not line._waiting  # an answer that is still on its way would be garbage
        if len(lost) < times and message and strikes(message, to_board, baud):
            lost.append(line.now)
            return True
        return False

    line, host = started(quick_path, monkeypatch, spoils)
    seconds = seconds_to_write(line, host)
    assert len(lost) == times
    assert line.baud == TOP
    assert seconds < 0.75 * len(BIG) * 10 / BASE


def test_a_line_that_cannot_hold_a_rate_is_asked_ever_more_seldom(quick_path, monkeypatch):
    tries = []

    def spoils(line, to_board, baud, data):
        message = message_in(data)
        if message and asked(message, to_board, baud):
            tries.append(line.now)
        return baud > BASE

    line, host = started(quick_path, monkeypatch, spoils)
    seconds = seconds_to_write(line, host)
    gaps = [later - sooner for sooner, later in pairwise(tries)]
    assert len(gaps) >= 2
    assert all(gap >= ALONE * 2**n for n, gap in enumerate(gaps, 1))
    line, host = started(quick_path / "slow", monkeypatch, lambda *_: False, baud=BASE)
    assert seconds < 1.08 * seconds_to_write(line, host)


def test_a_rate_that_carries_only_short_frames_is_left(quick_path, monkeypatch):
    """Echoes came back, chunks did not: each beginning of the transfer would climb there and fall silent again."""
    line, host = started(quick_path, monkeypatch, lambda line, to_board, baud, data: baud > 460_800 and len(data) > 900)
    assert line.baud == TOP
    seconds_to_write(line, host)
    assert line.baud == 460_800


def test_little_that_is_left_is_not_worth_a_climb(quick_path, monkeypatch):
    asks = []

    def spoils(line, to_board, baud, data):
        message = message_in(data)
        if message and asked(message, to_board, baud):
            asks.append(line.now)
        return baud > BASE and line.now < EARLY

    line, host = started(quick_path, monkeypatch, spoils)
    small = noise(200_000, 1)
    write(host, small)
    assert stored(line.endpoint.board) == [small]
    assert line.baud == BASE
    assert max(asks) < EARLY


def test_a_line_that_dies_while_the_rate_changes_is_gone_on_with(quick_path, monkeypatch):
    """Nothing at all is heard for a while, at no rate: the transfer is begun again where the board is."""
    deaf, tells = [], []

    def spoils(line, to_board, baud, data):
        if line.now < EARLY:
            return baud > BASE
        message = message_in(data)
        if not deaf and message and asked(message, to_board, baud):
            deaf.append(line.now)
        return bool(deaf) and line.now < deaf[0] + 30

    line, host = started(quick_path, monkeypatch, spoils, patience=60)
    write(host, BIG, told=lambda done, total: tells.append(done))
    assert stored(line.endpoint.board) == [BIG]
    assert deaf
    assert tells == sorted(tells)
    assert line.baud == TOP


def test_a_line_that_stays_dead_while_the_rate_changes_is_given_up(quick_path, monkeypatch):
    deaf = []

    def spoils(line, to_board, baud, data):
        message = message_in(data)
        deaf.extend([True] if message and line.now > EARLY and asked(message, to_board, baud) else [])
        return bool(deaf) or (baud > BASE and line.now < EARLY)

    _, host = started(quick_path, monkeypatch, spoils)
    with pytest.raises(LinkError, match="same command"):
        write(host, BIG)
    assert deaf


def test_chunks_shrink_on_a_line_that_breaks_and_grow_when_it_is_well(quick_path, monkeypatch):
    """Some broken frames are no reason either for the board to go back to its first rate."""
    sizes = []

    def spoils(line, to_board, baud, data):
        message = message_in(data) if to_board else None
        if message and message.command == El.CHUNK and message.group == Group.EDGELEARN:
            sizes.append(len(message.body["data"]))
        return 3 < line.now < 6 and len(data) > 12_000

    line, host = started(quick_path, monkeypatch, spoils, framing="console")
    monkeypatch.setattr(host, "reconnect", lambda: pytest.fail("the line was not lost"))
    seconds_to_write(line, host)
    assert sizes[0] == max(sizes) == 32 << 10
    assert min(sizes[:-1]) == 16 << 10
    assert sizes[-2] == max(sizes)


def test_frames_lost_now_and_then_are_no_lost_line(quick_path, monkeypatch):
    """Far more than the silences in a row after which a line is given up."""
    line = Simulated(quick_path, read("drop=15%"), 1, monkeypatch, Identity(baud_max=TOP, buffer=4200))
    host = Remote(line, Options())
    host.hello()
    host.prepare_line(len(BIG))
    monkeypatch.setattr(host, "reconnect", lambda: pytest.fail("the line was not lost"))
    seconds_to_write(line, host)
    assert line.struck > 5 * GIVE_UP


def test_a_board_that_heard_what_the_host_did_not_comes_back_from_above(quick_path, monkeypatch):
    """It stays at the new rate while the host is at the one before: only the first rate brings them together."""
    lost = []

    def spoils(line, to_board, baud, data):
        message = message_in(data) if baud > 230_400 and len(lost) < 2 else None
        if message and answered(message, to_board, baud):
            lost.append(line.now)
            return True
        return False

    line, host = started(quick_path, monkeypatch, spoils)
    assert len(lost) == 2
    monkeypatch.setattr(host, "reconnect", lambda: pytest.fail("the two sides are at different rates"))
    assert seconds_to_write(line, host) < 0.5 * len(BIG) * 10 / BASE


def test_a_rate_that_carried_for_long_is_taken_up_again_as_soon_as_at_first(quick_path, monkeypatch):
    bursts, returns = (20, 60, 100), []

    def spoils(line, to_board, baud, data):
        if baud > BASE and to_board and line.now > (*bursts, 1e9)[len(returns)] + 5:
            returns.append(line.now)
        return baud > BASE and any(begin <= line.now < begin + 5 for begin in bursts)

    line = Simulated(quick_path, Faults(), 0, monkeypatch, Identity(baud_max=230_400))
    line.spoils = spoils
    host = Remote(line, Options())
    host.hello()
    host.prepare_line(2 << 20)
    write(host, noise(2_500_000))
    assert len(returns) == len(bursts)
    assert all(back < begin + 5 + 4 * ALONE for back, begin in zip(returns, bursts, strict=True))

# SPDX-License-Identifier: Apache-2.0
"""The board's end of a line: rates and framings, repeated requests, broken frames, bytes that are meant for others."""

import threading

from daemons import until
from flashing import noise, remote, virtual, write

from edgelearn.flash import baud
from edgelearn.flash.board import Board, Identity, Policy
from edgelearn.flash.endpoint import Endpoint
from edgelearn.flash.framing import ConsoleDecoder, encode_console
from edgelearn.flash.smp import El, Group, Message, Op, Os, decode, encode
from edgelearn.flash.virtual import Virtual
from edgelearn.flash.wires import Wire


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
        host.prepare_line(50_000_000)
        assert host.client.link.baud == 460_800
        assert board.endpoint.baud == 460_800
        assert write(host, noise(100_000)).state == "written"
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


def test_the_request_for_a_rate_come_twice_is_no_word_at_that_rate(tmp_path):
    """A driver hands over both copies after the rate has changed: the board must still go back when nothing follows."""
    clock = [0.0]
    endpoint = Endpoint(_board(tmp_path), lambda: clock[0])
    ask = encode_console(encode(Message(Op.WRITE, Group.EDGELEARN, El.SET_BAUD, 1, {"baud": 921_600})))
    assert len(list(endpoint.feed(ask + ask))) == 1
    assert endpoint.baud == 921_600
    clock[0] = 1.01
    endpoint.tick()
    assert endpoint.baud == 115_200


def test_a_board_that_hears_only_noise_goes_back_to_its_first_rate(tmp_path):
    clock = [0.0]
    endpoint = Endpoint(_board(tmp_path), lambda: clock[0])
    _ask(endpoint, Message(Op.WRITE, Group.EDGELEARN, El.SET_BAUD, 1, {"baud": 921_600}))
    _ask(endpoint, Message(Op.WRITE, Group.OS, Os.ECHO, 2, {"d": "here"}))
    clock[0] = 1.0
    list(endpoint.feed(bytes(range(256))))
    clock[0] = 60.0
    endpoint.tick()
    assert endpoint.baud == 921_600  # silence alone is no reason, and neither is one frame that broke before it
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


def test_at_commands_of_a_modem_manager_do_no_harm(tmp_path):
    endpoint = Endpoint(_board(tmp_path))
    list(endpoint.feed(b"AT\r\nATZ\r\nAT+GCAP\r\n\x7e\x00\x78\xf0\x7e"))
    assert _ask(endpoint, Message(Op.WRITE, Group.OS, Os.ECHO, 1, {"d": "still here"})).body == {"r": "still here"}


class Flood(Wire):
    """A host that sends on and on."""

    sent = 0

    def read(self, timeout):
        self.sent += 1
        return bytes(2048)

    def write(self, data):
        pass

    def close(self):
        pass


def test_a_board_that_is_flooded_ends_when_it_is_told_to(tmp_path, monkeypatch):
    board, works = Virtual(Flood(), tmp_path, paced=False), threading.Event()
    monkeypatch.setattr(board, "_serve", lambda data: works.wait())  # its disk is slow
    thread = threading.Thread(target=board.run, daemon=True)
    thread.start()
    until(lambda: board._in.full() and board.wire.sent > board._in.maxsize + 1)
    board.stop()
    works.set()
    thread.join(20)
    assert not thread.is_alive()

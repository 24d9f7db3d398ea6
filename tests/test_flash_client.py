# SPDX-License-Identifier: Apache-2.0
"""The host's requests against a line that does what a test says: late answers, silence, time-outs."""

import time

import pytest

from edgelearn.errors import LinkError, RefusedError
from edgelearn.flash.client import Client
from edgelearn.flash.framing import ConsoleDecoder, encode_console
from edgelearn.flash.host import Remote
from edgelearn.flash.smp import Group, Message, Op, Os, decode, encode


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
    replies = (lambda request, n=n: late(request) + reply(r=f"{n}")(request) for n in range(600))
    client = Client(Scripted(replies), scale=50)
    for n in range(600):
        assert client.request(Op.WRITE, Group.OS, Os.ECHO, {"d": f"{n}"}) == {"r": f"{n}"}
    assert client.retries == 0


def test_silence_is_answered_by_sending_again_and_ends_in_an_error():
    client = Client(Scripted([None, None, reply(r="there")]), scale=0.1)
    before = client.round_trip
    assert client.request(Op.WRITE, Group.OS, Os.ECHO, {"d": "x"}) == {"r": "there"}
    assert client.round_trip == before  # which of the three was answered, nobody knows
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


def test_console_text_inside_a_frame_costs_that_frame_and_it_is_sent_again():
    def torn(request):
        whole = reply(r="there")(request)
        return whole[:20] + b"[   12.5] usb 1-1: new device\r\n" + whole[20:]

    client = Client(Scripted([torn, reply(r="there")]), scale=10)
    assert client.request(Op.WRITE, Group.OS, Os.ECHO, {"d": "x"}) == {"r": "there"}
    assert client.retries == 1
    assert client.link.written[0] == client.link.written[1]


def test_a_file_that_becomes_shorter_while_it_is_read_ends_in_an_error():
    remote = Remote(Scripted([reply(off=0, len=10, data=b"12345"), reply(off=5, data=b"")]))
    with pytest.raises(RefusedError, match="became shorter"):
        remote.file("logs/a.log")

# SPDX-License-Identifier: Apache-2.0
"""A board on a line, without the line: bytes in, bytes out. Framing, answers to repeated requests, words about broken
frames, and a change of rate that is taken back when nobody is heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from edgelearn.errors import EdgelearnError
from edgelearn.flash import smp
from edgelearn.flash.board import Board
from edgelearn.flash.framing import ENCODERS, Broken, CobsDecoder, ConsoleDecoder
from edgelearn.flash.smp import El, Group, Message, Op, Os, Why

PATIENCE = 1.0
"""Seconds in which something must be heard at a new rate."""
QUIET = 3.0
"""Seconds since the last request after which noise lets a board listen at its first rate again: frames that broke just
before are no reason."""
BAD_FRAMES = 3
"""In a row, after which COBS is given up."""


class Endpoint:
    """What a board does with the bytes of one line. `baud` is the rate that the line should have now."""

    def __init__(self, board: Board, clock: Callable[[], float] = time.monotonic) -> None:
        self.board, self._clock = board, clock
        self.limit = board.identity.buffer
        self.baud = board.identity.baud
        self.framing = "console"
        self.broken = 0
        self._before: tuple[int, str] | None = None
        self._deadline = 0.0
        self._heard = self._sounded = clock()
        self._bad = 0
        self._tells = False
        self._last: tuple[bytes, bytes] = (b"", b"")
        self._asked = b""
        self._decoders()

    def _decoders(self) -> None:
        self._console = ConsoleDecoder(self.limit)
        self._cobs = CobsDecoder(self.limit)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What to send for these bytes, piece by piece. The rate may change after a piece."""
        if data:
            self._sounded = self._clock()
        if self.framing == "cobs":
            for found in self._cobs.feed(data):
                yield from self._take(found)
        for found in self._console.feed(data):
            if self.framing == "console":
                yield from self._take(found)
            elif isinstance(found, bytes):  # a host that starts anew speaks console
                self.framing = "console"
                yield from self._take(found)

    def _take(self, found: bytes | Broken) -> Iterator[bytes]:
        if isinstance(found, Broken):
            yield from self._broken(found)
            return
        try:
            request = smp.decode(found)
        except smp.SmpError as error:
            yield from self._broken(Broken(str(error)))
            return
        if not request.is_request or (self._before and found == self._asked):
            return  # what asked for this rate, come twice, is no word at it
        self._heard, self._bad, self._before = self._clock(), 0, None
        yield self._answer(found, request)

    def _broken(self, frame: Broken) -> Iterator[bytes]:
        self.broken += 1
        self._bad += 1
        if self.framing == "cobs" and self._bad >= BAD_FRAMES:
            self.framing, self._bad = "console", 0
        if self._tells:
            yield self._encode(Message(Op.WRITE_RESPONSE, Group.EDGELEARN, El.NAK, 0, {"why": frame.reason}))

    def _encode(self, message: Message) -> bytes:
        return ENCODERS[self.framing](smp.encode(message))

    def _answer(self, raw: bytes, request: Message) -> bytes:
        """The same request again gets the same answer again: its first one may have been lost."""
        if request.op == Op.WRITE and raw == self._last[0]:
            return ENCODERS[self.framing](self._last[1])
        # Clients that know group 64 know what a NAK is, others would take it for the answer.
        standard = request.group != Group.EDGELEARN and (request.group, request.command) != (Group.OS, Os.ECHO)
        self._tells = request.group == Group.EDGELEARN or (self._tells and not standard)
        if (request.group, request.command, request.op) == (Group.EDGELEARN, El.SET_BAUD, Op.WRITE):
            self._asked = raw
            return self._turn(request)
        answer = smp.encode(self.board.answer(request))
        self._last = (raw, answer)
        return ENCODERS[self.framing](answer)

    def _turn(self, request: Message) -> bytes:
        """Change rate and framing behind the answer; without a word at the new rate within a second, back again."""
        who = self.board.identity
        baud, framing = request.body.get("baud", self.baud), request.body.get("framing", self.framing)
        if not isinstance(baud, int) or not 1200 <= baud <= who.baud_max or framing not in who.framings:
            reason = f"up to {who.baud_max} baud in {' or '.join(who.framings)}: ask for less"
            return self._encode(request.refusal(Why.INVALID, Group.EDGELEARN, reason))
        answer = self._encode(request.answer({"baud": baud, "framing": framing}))
        self._before = (self.baud, self.framing)
        self._deadline = self._clock() + PATIENCE
        self.baud, self.framing = baud, framing
        self._decoders()
        return answer

    def tick(self, idle: bool = True) -> None:
        """Look at the clock; `idle` when the line has been silent for a moment, which is time for the disk."""
        now = self._clock()
        if self._before and now > self._deadline:
            (self.baud, self.framing), self._before = self._before, None
            self._decoders()
        elif self._sounded - self._heard > QUIET and self.baud != self.board.identity.baud:
            self.baud, self.framing = self.board.identity.baud, "console"
            self._decoders()
        if idle:
            with suppress(OSError, EdgelearnError):  # what cannot be made durable now is not said to be
                self.board.staging.sync()

    def restart(self) -> None:
        """What a start of the board does to the line."""
        self.baud, self.framing, self._tells, self._before = self.board.identity.baud, "console", False, None
        self._last = (b"", b"")
        self._decoders()

# SPDX-License-Identifier: Apache-2.0
"""Requests and answers over a line: framing, time-outs that follow the line, sending again, dropping what is late."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edgelearn.errors import (
    FlashError,
    IncompatibleError,
    LinkError,
    MismatchError,
    NothingToDoError,
    RefusedError,
    TrustError,
    UnhealthyError,
)
from edgelearn.flash import smp
from edgelearn.flash.framing import DECODERS, ENCODERS, Broken
from edgelearn.flash.link import Link
from edgelearn.flash.smp import El, Group, Message, Op, Rc

SHORTEST, LONGEST = 0.2, 10.0
"""Seconds that an answer is waited for, whatever was measured."""
TRIES = 5
"""Times that a request is sent before the line counts as lost."""

ERRORS: dict[int, type[FlashError]] = {
    kind.exit_code: kind
    for kind in (IncompatibleError, TrustError, MismatchError, RefusedError, UnhealthyError, NothingToDoError)
}
"""What a refusal of group 64 is on this side."""

Trace = Callable[[str, bytes], None]


class NotSupportedError(FlashError):
    """The board does not know the command: it speaks plain SMP, or an older edgelearn."""


class Client:
    """One side of a conversation. `retries` counts what had to be sent again."""

    def __init__(self, link: Link, trace: Trace | None = None, scale: float = 1.0) -> None:
        self.link, self.retries, self.scale = link, 0, scale
        self.base = link.baud
        self.round_trip = 0.05
        self._trace = trace
        self._sequence = int(time.monotonic() * 1000) & 0xFF  # another than the last process had, most likely
        self._pending: list[Message | Broken] = []
        self.use("console")

    def use(self, framing: str) -> None:
        """Change the framing; what is half received is gone."""
        self.framing = framing
        self._decoder = DECODERS[framing]()
        self._bad = 0

    def wait_of(self, count: int) -> float:
        """Seconds to wait for the answer to `count` bytes: thrice what they take, within bounds."""
        line = count * 10 / self.link.baud
        return self.scale * min(LONGEST, max(SHORTEST, 3 * (self.round_trip + line)))

    def post(self, op: Op, group: int, command: int, body: dict[str, Any]) -> tuple[Message, int]:
        """Send a request and do not wait; it, and the bytes that it took."""
        self._sequence = (self._sequence + 1) & 0xFF
        message = Message(op, group, command, self._sequence, body)
        return message, self.send(message)

    def send(self, message: Message) -> int:
        """Put a message on the line."""
        wire = ENCODERS[self.framing](smp.encode(message))
        if self._trace:
            self._trace(">", wire)
        self.link.write(wire)
        return len(wire)

    def receive(self, timeout: float) -> Message | Broken | None:
        """The next message, a frame that broke on its way here, or None when there was neither in time."""
        end = time.monotonic() + timeout
        while not self._pending:
            left = end - time.monotonic()
            data = self.link.read(max(0.0, left))
            if data and self._trace:
                self._trace("<", data)
            self._pending += [self._decoded(found) for found in self._decoder.feed(data)]
            if not data and left <= 0:
                return None
        return self._pending.pop(0)

    def _decoded(self, found: bytes | Broken) -> Message | Broken:
        if isinstance(found, bytes):
            try:
                return smp.decode(found)
            except smp.SmpError as error:
                return Broken(str(error))
        return found

    def drain(self) -> None:
        """Forget what has arrived: late answers to requests that were given up."""
        self._pending = []
        while self.link.read(0.0):
            pass
        self._decoder = DECODERS[self.framing]()

    def request(
        self, op: Op, group: int, command: int, body: dict[str, Any], timeout: float = 0.0, tries: int = TRIES
    ) -> dict[str, Any]:
        """Send until there is an answer; its body. `timeout`: seconds that the board needs beside the line's.

        Raises:
            LinkError: no answer.
            FlashError: the board's refusal, as its class here.
        """
        message, count = self.post(op, group, command, body)
        start = time.monotonic()
        wait, end, attempt = self.wait_of(count), start + timeout, 0
        # A board that takes its time gets the request again meanwhile: if it had it, the answer is the same one.
        while attempt < tries or time.monotonic() < end:
            if attempt:
                self.retries += 1
                self.send(message)
            attempt += 1
            answer = self._answer_to(message, min(LONGEST, wait * attempt))
            if answer is not None:
                if attempt == 1:  # Karn: an answer after sending twice says nothing of the line
                    self.learn(min(wait, time.monotonic() - start), count)
                return opened(answer)
        raise LinkError(f"{self.link.name} does not answer: check cable and power, then give the same command again")

    def learn(self, seconds: float, count: int) -> None:
        """Smooth what a round trip takes beside the bytes themselves (RFC 6298, without the variance)."""
        line = count * 10 / self.link.baud
        self.round_trip += (min(LONGEST, max(0.0, seconds - line)) - self.round_trip) / 8

    def _answer_to(self, message: Message, timeout: float) -> Message | None:
        """The answer; late ones to others are dropped. A broken frame, here or there, ends the wait at once."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            found = self.receive(left)
            if found is None:
                return None
            if isinstance(found, Broken):
                self._bad += 1
                if not self._pending:  # text before a frame of COBS is one more broken frame, and the answer is here
                    return None
                continue
            if found.answers(message):
                self._bad = 0
                return found
            if (found.group, found.command) == (Group.EDGELEARN, El.NAK):
                return None
        return None

    def echo(self, text: str, tries: int = TRIES) -> bool:
        """Whether the other side hears and is heard."""
        from edgelearn.flash.smp import Os

        try:
            return self.request(Op.WRITE, Group.OS, Os.ECHO, {"d": text}, tries=tries).get("r") == text
        except LinkError:
            return False


def opened(answer: Message) -> dict[str, Any]:
    """The body of an answer.

    Raises:
        FlashError: it is a refusal.
    """
    error, reason = answer.body.get("err"), str(answer.body.get("rsn", ""))
    if isinstance(error, dict):
        group, rc = error.get("group"), error.get("rc")
        if group == Group.EDGELEARN and rc in ERRORS:
            raise ERRORS[int(rc)](f"the board refused: {reason}")
        raise RefusedError(f"the board refused (group {group}, code {rc}): {reason or 'see its log'}")
    if rc := answer.body.get("rc"):
        if rc == Rc.NOT_SUPPORTED:
            raise NotSupportedError("the board does not know this command: update the edgelearn on it")
        raise RefusedError(f"the board refused (code {rc}): {reason or 'see its log'}")
    return answer.body

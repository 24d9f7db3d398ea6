# SPDX-License-Identifier: Apache-2.0
"""Chunks on their way to a board, two at a time so that the line never waits for an answer. The board says where the
next byte belongs; what it did not get is sent again, in smaller chunks while the line is bad. When it is well the
chunks grow, and a higher rate is tried."""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgelearn.errors import LinkError
from edgelearn.flash.baud import Ladder
from edgelearn.flash.client import Client, opened
from edgelearn.flash.framing import Broken
from edgelearn.flash.smp import El, Group, Message, Op

SMALLEST, LARGEST = 1 << 10, 32 << 10
"""Bytes of a chunk."""
GROW = 16
"""Good chunks in a row after which they grow again, and a rate that failed may be tried again."""
WINDOW = 2
"""Chunks that are sent before the first one's answer, so that the line is busy while the board writes and answers."""
LONG = 1.0
"""Seconds that a chunk may be on the line: a slow one has smaller chunks, so that little is lost with each."""
GIVE_UP = 6
"""Silences in a row after which the line counts as lost."""

Progress = Callable[[int, int], None]
"""Told how many bytes are there, and how many there were to be."""


@dataclass
class Sent:
    """A chunk that waits for its answer; `ahead` are the bytes of the line up to its end when it was sent."""

    message: Message
    off: int
    size: int
    wire: int
    ahead: int
    at: float


class Upload:
    """The bytes of one transfer, from `off` on."""

    def __init__(
        self, client: Client, ladder: Ladder, sid: bytes, data: bytes, off: int, largest: int, told: Progress
    ) -> None:
        self._client, self._ladder, self._sid, self._data, self._told = client, ladder, sid, data, told
        self.off = self._next = off
        self._most = min(LARGEST, largest)
        self.chunk = self.largest
        self._good = self._silences = 0
        self._climbs = False
        self._window: deque[Sent] = deque()

    @property
    def largest(self) -> int:
        """Bytes of a chunk on a line that is well."""
        fits = LONG * self._client.link.baud / 10 / 1.37
        return int(max(SMALLEST, min(self._most, fits)))

    def run(self) -> None:
        """Send until the board has all.

        Raises:
            LinkError: it fell silent.
            NothingToDoError: it has restarted and knows nothing of the transfer: begin it again.
            FlashError: it refused a chunk.
        """
        if self.off:  # gone on with, maybe at its very end
            self._told(self.off, len(self._data))
        while self.off < len(self._data):
            if self._climbs and not self._window:
                self._climb()
            while not self._climbs and len(self._window) < WINDOW and self._next < len(self._data):
                self._send()
            self._receive()

    def _climb(self) -> None:
        """Both sides change their rate while nothing is on its way."""
        self._ladder.climb(len(self._data) - self.off)
        self._climbs, self.chunk = False, min(self.chunk, self.largest)

    def _send(self) -> None:
        data = self._data[self._next : self._next + self.chunk]
        body = {"sid": self._sid, "off": self._next, "crc": zlib.crc32(data), "data": data}
        message, wire = self._client.post(Op.WRITE, Group.EDGELEARN, El.CHUNK, body)
        ahead = wire + sum(sent.wire for sent in self._window)
        self._window.append(Sent(message, self._next, len(data), wire, ahead, time.monotonic()))
        self._next += len(data)

    def _receive(self) -> None:
        waiting = sum(sent.wire for sent in self._window)
        found = self._client.receive(self._client.wait_of(waiting))
        if found is None:
            self._silence()
        elif isinstance(found, Broken):
            if len(self._window) == 1:  # else the next answer tells what became of this one's chunk
                self._lost()
        elif (found.group, found.command) == (Group.EDGELEARN, El.NAK):
            self._lost()
        else:
            self._answered(found)

    def _answered(self, answer: Message) -> None:
        sent = next((s for s in self._window if answer.answers(s.message)), None)
        if sent is None:
            return  # late, of a chunk that was given up
        self._silences = 0
        off = int(opened(answer)["off"])
        while self._window and self._window[0] is not sent:
            self._window.popleft()  # answers come in order: that one's was lost
        self._window.popleft()
        if off >= sent.off + sent.size:
            self._client.learn(time.monotonic() - sent.at, sent.ahead)
            self._good += 1
            self.off, self._next = max(self.off, off), max(self._next, off)
            self._told(self.off, len(self._data))
            if self._good >= GROW:
                self.chunk, self._good = min(self.largest, 2 * self.chunk), 0
                self._climbs = self._ladder.due(len(self._data) - self.off) > 0
        elif not self._window or off != self._window[0].off:
            self._client.retries += 1
            self._rewind(off)

    def _lost(self) -> None:
        """A frame broke, on its way there or back: the board says where it is when the oldest chunk comes again."""
        if self._window:
            self._client.retries += 1
            self._shrink()
            self._rewind(self._window[0].off)

    def _silence(self) -> None:
        self._silences += 1
        if self._silences >= GIVE_UP:
            raise LinkError(
                f"{self._client.link.name} fell silent at {self.off:,} of {len(self._data):,} bytes: "
                "give the same command again, it goes on there"
            )
        self._client.drain()
        self._lost()

    def _shrink(self) -> None:
        self.chunk, self._good = max(SMALLEST, self.chunk // 2), 0

    def _rewind(self, off: int) -> None:
        if off > self.off:
            self._told(off, len(self._data))
        self.off = self._next = off
        self._window.clear()

# SPDX-License-Identifier: Apache-2.0
"""What happens, as it happens: kept for those who come late, logged, and streamed as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any

from edgelearn.daemon import log

_KEPT = 200
_BEHIND = 200
"""Events that a client may be behind before it is cut off; it comes back with the id of the last that it saw."""

KEEPALIVE_SECONDS = 15.0

_WARNINGS = frozenset(
    {"clock", "damage", "disk_full", "dropped", "refused", "trainer", "learner_damage", "learner_refused"}
)
"""Kinds that somebody who looks after boards should see: `journalctl -p warning`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `id` counts from 1 within a run of the daemon, `kind` is one of a few words for
    programs, `message` a sentence for people, `data` what belongs to it."""

    id: int
    kind: str
    message: str
    created: float
    data: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """As the text/event-stream format has it."""
        return (
            f"id: {self.id}\nevent: {self.kind}\ndata: {json.dumps(asdict(self), separators=(',', ':'))}\n\n".encode()
        )


class Events:
    """The last of them, and who is listening. All of it is for the thread of the loop."""

    def __init__(self) -> None:
        self.kept: deque[Event] = deque(maxlen=_KEPT)
        self.counts: Counter[str] = Counter()
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self.last = 0

    def tell(self, kind: str, message: str, *, quiet: bool = False, **data: Any) -> Event:
        """Something happened; `quiet` leaves it out of the log."""
        self.last += 1
        event = Event(self.last, kind, message, time.time(), data)
        self.kept.append(event)
        self.counts[kind] += 1
        if not quiet:
            is_bad = kind in _WARNINGS or data.get("state") == "failed"
            log.line(log.WARNING if is_bad else log.NOTICE, message, event=kind)
        self._stream(event)
        return event

    def pass_on(self, kind: str, message: str, **data: Any) -> None:
        """For those who listen now; nobody else will miss it."""
        self._stream(Event(self.last, kind, message, time.time(), data))

    def _stream(self, event: Event) -> None:
        for queue in list(self._queues):
            if queue.full():
                self._queues.discard(queue)
            else:
                queue.put_nowait(event)

    def close(self) -> None:
        """End all streams."""
        for queue in self._queues:
            if not queue.full():
                queue.put_nowait(None)

    def after(self, last: int) -> list[Event]:
        """Those that are kept and came after an id."""
        return [event for event in self.kept if event.id > last]

    async def stream(self, last: int) -> AsyncIterator[bytes]:
        """The kept ones after `last`, then each as it comes, and a comment when nothing does, until the client is gone
        or too far behind."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_BEHIND)
        self._queues.add(queue)
        try:
            yield b"retry: 2000\n\n"
            for event in self.after(last):
                yield event.encode()
            while (part := await _next(queue)) and (queue in self._queues or not queue.empty()):
                yield part
        finally:
            self._queues.discard(queue)


async def _next(queue: asyncio.Queue[Event | None]) -> bytes:
    """The next event, a comment that shows that the line is alive, or nothing at the end."""
    try:
        event = await asyncio.wait_for(queue.get(), KEEPALIVE_SECONDS)
        return event.encode() if event else b""
    except (TimeoutError, asyncio.TimeoutError):
        return b": alive\n\n"

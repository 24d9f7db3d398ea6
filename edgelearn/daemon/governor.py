# SPDX-License-Identifier: Apache-2.0
"""When training gives way: a pure function of what the board says and what was decided before, with hysteresis.

It has its own limit of memory, because memory cgroups are off on stock Raspberry Pi OS and limits set there are
silently ignored.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_

from edgelearn.daemon.board import Reading
from edgelearn.daemon.sections import Govern, Keep, size_of

UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1, 2, 4, 8
"""Bits of Raspberry Pi's throttling word that say what is now."""

RUN, PAUSE, STOP = "run", "pause", "stop"
"""Work; stand still where it is; leave memory, to go on from a checkpoint."""

CAUSES = ("memory", "size", "pressure", "heat", "supply", "throttled", "battery", "time", "disk")
"""What holds training back: memory that is short, the trainer's own size, tasks that wait for memory, ..."""

_SLOW = 0.5
_EASE = 1.25
"""Free memory or disk must be this many times its floor before work goes on."""

_PRESSED = 20.0
"""Percent of time that tasks wait for memory: the board is thrashing."""

_EASED = 5.0

_CALM = 20
"""Readings, half a second apart while there is training, in which a bit of the throttling word must not show before it
counts as over: a weak supply flickers."""

_CLOCK_KNOWN = 1_735_689_600.0


@dataclass(frozen=True)
class Decision:
    """What training does: `action`, the share `duty` of time in which it works, and why it is not all of it: `reason`
    for people, `cause`, one of CAUSES, for programs."""

    action: str = RUN
    duty: float = 1.0
    reason: str = ""
    cause: str = ""


class Governor:
    """Decides; call `decide` at least every second while training. What held it back must be clearly over before it
    goes on."""

    def __init__(self, govern: Govern, keep: Keep) -> None:
        self.govern, self.keep = govern, keep
        self.decision = Decision()
        self._held: set[str] = set()
        self._words: deque[int] = deque(maxlen=_CALM)

    def decide(self, reading: Reading, trainer_bytes: int = 0, now: float | None = None) -> Decision:
        """By the latest reading and the memory of the trainer; `now` is the time of day where it is not the clock's."""
        found = list(self._reasons(reading, trainer_bytes, time.time() if now is None else now))
        worst = max(found, key=lambda d: (d.action == STOP, d.action == PAUSE, -d.duty), default=Decision())
        self.decision = Decision(worst.action, min(worst.duty, self.govern.cpu), worst.reason, worst.cause)
        return self.decision

    def _reasons(self, reading: Reading, trainer_bytes: int, now: float) -> Iterator[Decision]:
        yield from self._memory(reading, trainer_bytes)
        yield from self._heat(reading)
        yield from self._power(reading, now)
        floor = size_of("floor", self.keep.floor)
        if reading.free is not None and self._low("disk", reading.free, floor):
            yield Decision(
                PAUSE, 0.0, f"only {reading.free >> 20:,} MB of disk are free, {floor >> 20:,} must be", "disk"
            )

    def _hold(self, name: str, begins: bool, ends: bool) -> bool:
        """Whether something holds training back: from when it begins until it ends."""
        if begins:
            self._held.add(name)
        elif ends:
            self._held.discard(name)
        return name in self._held

    def _low(self, name: str, value: int, floor: int) -> bool:
        return self._hold(name, value < floor, value >= floor * _EASE)

    def _memory(self, reading: Reading, trainer_bytes: int) -> Iterator[Decision]:
        most, least = size_of("memory", self.govern.memory), size_of("available", self.govern.available)
        if trainer_bytes > most:
            yield Decision(
                STOP, 0.0, f"the trainer holds {trainer_bytes >> 20:,} MB, it may hold {most >> 20:,}", "size"
            )
        if reading.available is not None and self._low("memory", reading.available, least):
            yield Decision(
                STOP, 0.0, f"only {reading.available >> 20:,} MB of memory are free, {least >> 20:,} must be", "memory"
            )
        if reading.pressure is not None:
            pressed = reading.pressure >= _PRESSED
            if self._hold("pressure", pressed, reading.pressure <= _EASED):
                yield Decision(STOP, 0.0, f"tasks wait for memory {reading.pressure:.0f} % of the time", "pressure")

    def _heat(self, reading: Reading) -> Iterator[Decision]:
        degrees, most = reading.temperature, self.govern.temperature
        easy = most - self.govern.hysteresis
        if degrees is not None and self._hold("heat", degrees >= most, degrees <= easy):
            yield Decision(PAUSE, 0.0, f"{degrees:.0f} degrees are too hot, it goes on at {easy:.0f}", "heat")
        elif degrees is not None and degrees > easy:
            yield Decision(RUN, _SLOW, f"{degrees:.0f} degrees are close to the limit of {most:.0f}", "heat")
        self._words.append(reading.throttled or 0)
        word = reduce(or_, self._words)
        if word & UNDER_VOLTAGE:
            yield Decision(PAUSE, 0.0, "the power supply is too weak (under-voltage)", "supply")
        if word & THROTTLED:
            yield Decision(PAUSE, 0.0, "the board is throttled", "throttled")
        if word & (CAPPED | SOFT_LIMIT):
            yield Decision(RUN, _SLOW, "the board limits its frequency", "throttled")

    def _power(self, reading: Reading, now: float) -> Iterator[Decision]:
        if reading.mains is False and not self.govern.battery:
            yield Decision(PAUSE, 0.0, "the board runs on its battery", "battery")
        if self.govern.windows and now >= _CLOCK_KNOWN and not any(_within(w, now) for w in self.govern.windows):
            yield Decision(
                PAUSE, 0.0, f"training waits for its time of day, {' or '.join(self.govern.windows)}", "time"
            )


def _within(window: str, now: float) -> bool:
    """Whether a local time of day lies in "HH:MM-HH:MM", which may go past midnight."""
    begin, end = window.split("-")
    clock = time.strftime("%H:%M", time.localtime(now))
    return begin <= clock < end if begin <= end else clock >= begin or clock < end

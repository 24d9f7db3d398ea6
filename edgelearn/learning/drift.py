# SPDX-License-Identifier: Apache-2.0
"""Whether a stream of numbers has changed: ADWIN and Page-Hinkley, as records of a few kilobytes that go into JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgelearn.errors import UsageError

_ROW = 5
"""Buckets of one size that ADWIN keeps before it merges two; the paper's M."""

_CLOCK = 32
"""Values between two looks at the window; every look is a pass over all buckets."""

_LEAST = 5
"""Values that either part of ADWIN's window must hold."""

_GRACE = 10
"""Values before ADWIN looks at its window for the first time."""


class Detector(Protocol):
    """Takes a stream value by value."""

    def update(self, value: float) -> bool:
        """Take a value; whether the stream has changed, to a higher mean if `increased`."""

    @property
    def increased(self) -> bool:
        """Direction of the last change."""

    def to_json(self) -> dict[str, Any]:
        """All it knows, as plain values."""

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Detector:
        """Go on where `to_json` left off."""


@dataclass
class Adwin:
    """ADWIN2 (Bifet and Gavalda 2007, Learning from time-changing data with adaptive windowing, figure 3): a window
    over the values since the last change, in buckets of 1, 2, 4, ... values; while two parts of it differ more than
    chance `delta` allows (theorem 3.2, normal approximation with variance), the oldest bucket goes.

    Raises:
        UsageError: delta is no chance.
    """

    delta: float = 0.002
    rows: list[list[list[float]]] = field(default_factory=lambda: [[]])
    ticks: int = 0
    increased: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1:
            raise UsageError(f"delta must be a chance between 0 and 1, not {self.delta}: try 0.002")

    @property
    def width(self) -> int:
        """Values in the window."""
        return sum(len(row) << i for i, row in enumerate(self.rows))

    @property
    def mean(self) -> float:
        """Mean of the window; 0 before the first value."""
        return sum(total for row in self.rows for total, _ in row) / max(self.width, 1)

    def update(self, value: float) -> bool:
        """Take a value; whether the mean has changed."""
        self.ticks += 1
        self.rows[0].append([float(value), 0.0])
        self._merge()
        if self.ticks % _CLOCK or self.width <= _GRACE:
            return False
        before, changed = self.mean, False
        while self._cut():
            self._drop()
            changed = True
        if changed:
            self.increased = self.mean > before
        return changed

    def to_json(self) -> dict[str, Any]:
        """Window and clock."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Adwin:
        """Go on where `to_json` left off."""
        return cls(**table)

    def _merge(self) -> None:
        """A row of too many buckets hands its two oldest, as one, to the next."""
        for i, row in enumerate(self.rows):
            if len(row) <= _ROW:
                return
            if i + 1 == len(self.rows):
                self.rows.append([])
            (total, spread), (other, more) = row[0], row[1]
            del row[:2]
            apart = (total - other) / (1 << i)
            self.rows[i + 1].append([total + other, spread + more + apart**2 * (1 << i) / 2])

    def _buckets(self) -> list[tuple[int, float, float]]:
        """Count, sum and summed squared deviation of each bucket, oldest first."""
        rows = reversed(list(enumerate(self.rows)))
        return [(1 << i, total, spread) for i, row in rows for total, spread in row]

    def _cut(self) -> bool:
        """Whether some split of the window has parts that differ too much."""
        buckets = self._buckets()
        n, total = self.width, sum(bucket[1] for bucket in buckets)
        mean = total / n
        spread = sum(s + c * (t / c - mean) ** 2 for c, t, s in buckets)
        chance = math.log(2 * math.log(n) / self.delta)
        older, older_total = 0, 0.0
        for count, bucket_total, _ in buckets[:-1]:
            older, older_total = older + count, older_total + bucket_total
            newer = n - older
            if older < _LEAST or newer < _LEAST:
                continue
            each = 1 / (older - _LEAST + 1) + 1 / (newer - _LEAST + 1)
            bound = math.sqrt(2 * each * spread / n * chance) + 2 / 3 * chance * each
            if abs(older_total / older - (total - older_total) / newer) > bound:
                return True
        return False

    def _drop(self) -> None:
        while len(self.rows) > 1 and not self.rows[-1]:
            self.rows.pop()
        self.rows[-1].pop(0)
        while len(self.rows) > 1 and not self.rows[-1]:
            self.rows.pop()


@dataclass
class PageHinkley:
    """Page-Hinkley (Page 1954, Continuous inspection schemes; the running mean after Mouss et al. 2004): alarm when
    the summed deviations from the mean, less `delta` each and forgotten at rate `alpha`, have moved `threshold` away
    from their extreme. It begins anew after an alarm.

    Raises:
        UsageError: a threshold or rate that cannot be meant.
    """

    delta: float = 0.005
    threshold: float = 50.0
    alpha: float = 0.9999
    least: int = 30
    count: int = 0
    mean: float = 0.0
    up: float = 0.0
    down: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf
    increased: bool = False

    def __post_init__(self) -> None:
        if not (self.threshold > 0 and 0 < self.alpha <= 1):
            raise UsageError("threshold must be above 0 and alpha a rate up to 1: try 50 and 0.9999")

    def update(self, value: float) -> bool:
        """Take a value; whether the mean has changed."""
        self.count += 1
        self.mean += (value - self.mean) / self.count
        self.up = self.alpha * self.up + value - self.mean - self.delta
        self.down = self.alpha * self.down + value - self.mean + self.delta
        self.lowest, self.highest = min(self.lowest, self.up), max(self.highest, self.down)
        risen, fallen = self.up - self.lowest > self.threshold, self.highest - self.down > self.threshold
        if self.count < self.least or not (risen or fallen):
            return False
        self.increased, self.count = risen, 0
        self.mean = self.up = self.down = 0.0
        self.lowest, self.highest = math.inf, -math.inf
        return True

    def to_json(self) -> dict[str, Any]:
        """Sums and settings; infinities as None."""
        table = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**table, **{k: None for k in ("lowest", "highest") if math.isinf(table[k])}}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> PageHinkley:
        """Go on where `to_json` left off."""
        return cls(**{name: value for name, value in table.items() if value is not None})

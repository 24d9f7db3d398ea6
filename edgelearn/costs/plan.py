# SPDX-License-Identifier: Apache-2.0
"""What a run will take, before it runs: bytes to the byte, multiply-accumulates, milliseconds.

Bytes are the engine's own dry walk over the records; this file adds them up, holds them against a Budget and
looks for the nearest plan that fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from edgelearn.costs.budget import Budget
from edgelearn.errors import BudgetError

Measure = Callable[[int, int], tuple[int, float | None]]
"""batch, micro-batch (0: the same) -> (arena bytes, predicted seconds per sample or None)"""


@dataclass(frozen=True)
class Plan:
    """Planned bytes of a run. peak = weights + rest + arena + feed: `rest_bytes` are weights of the whole net that lie
    beside those of a submodel while it learns, `feed_bytes` batches that are gathered and augmented or on their way to
    disk; `predicted_ms` is one step's share per sample. A sequential run takes what its largest stage
    takes, and on disk at most `cache_bytes` at once for the outputs of `samples` samples."""

    fits: bool
    peak_bytes: int
    weight_bytes: int
    arena_bytes: int
    macs: int
    predicted_ms: float | None
    widths: list[float]
    batch: int
    reason: str = ""
    feed_bytes: int = 0
    micro: int = 0
    cache_bytes: int = 0
    samples: int = 1
    rest_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """The fields as `edgelearn plan --json` prints them."""
        return asdict(self)

    def __str__(self) -> str:
        time = "not measured" if self.predicted_ms is None else f"{self.predicted_ms:.3g} ms per sample"
        rest = f" + the rest of the whole net {self.rest_bytes:,}" if self.rest_bytes else ""
        batches = f" + batches {self.feed_bytes:,}" if self.feed_bytes else ""
        many = f"{self.samples:,} samples" if self.samples > 1 else "each sample"
        return (
            f"{'fits' if self.fits else 'does not fit'}: peak {self.peak_bytes:,} bytes = weights "
            f"{self.weight_bytes:,}{rest} + arena {self.arena_bytes:,}{batches}; {self.macs:,} multiply-accumulates; "
            f"{time}; batch {self.batch}"
            + (f" in slices of {self.micro}" if 0 < self.micro < self.batch else "")
            + (f"; on disk {self.cache_bytes:,} bytes for {many}" if self.cache_bytes else "")
            + (f"; {self.reason}" if self.reason else "")
        )


@dataclass(frozen=True)
class Planner:
    """Plans of one net: its fixed figures, the width in use of each block, `measure`, which asks the engine about a
    batch size, `feed`, the bytes of a batch outside the engine, the micro-batch that is asked for (0: the whole batch),
    the bytes on disk for so many samples, how hot the board is now, and the bytes of weights that are not its own."""

    weight_bytes: int
    macs: int
    widths: tuple[float, ...]
    measure: Measure
    feed: Callable[[int], int] = lambda batch: 0
    micro: int = 0
    cache_bytes: int = 0
    samples: int = 1
    temperature: Callable[[], float | None] = lambda: None
    rest_bytes: int = 0

    def at(self, batch: int, budget: Budget | None = None, micro: int | None = None) -> Plan:
        """The plan of exactly this batch size, fitting or not, in slices of `micro` samples."""
        micro = self.micro if micro is None else micro
        arena, seconds = self.measure(batch, micro)
        feed = self.feed(batch)
        peak = self.weight_bytes + self.rest_bytes + arena + feed
        budget = budget or Budget()
        heat = self.temperature() if budget.temperature is not None else None
        over = budget.broken(peak, self.weight_bytes, seconds, self.macs, self.cache_bytes, heat)
        return Plan(
            fits=not over,
            peak_bytes=peak,
            weight_bytes=self.weight_bytes,
            arena_bytes=arena,
            macs=self.macs,
            predicted_ms=None if seconds is None else seconds * 1e3,
            widths=list(self.widths),
            batch=batch,
            reason=", ".join(over),
            feed_bytes=feed,
            micro=micro,
            cache_bytes=self.cache_bytes,
            samples=self.samples,
            rest_bytes=self.rest_bytes,
        )

    def largest(self, batch: int, budget: Budget, smallest: int = 1) -> Plan | None:
        """The plan with the largest batch from `smallest` to `batch` that fits, or None. Bytes grow with the batch."""
        return _largest(smallest, batch, lambda size: self.at(size, budget))

    def sliced(self, batch: int, budget: Budget, smallest: int = 1) -> Plan | None:
        """The plan of this batch in the largest slices that fit, or None."""
        return _largest(smallest, batch - 1, lambda micro: self.at(batch, budget, micro))

    def require(self, batch: int, budget: Budget | None, smallest: int = 1) -> Plan:
        """The plan of this batch size.

        Raises:
            BudgetError: it does not fit; the message names the largest batch that does, or what the smallest needs.
        """
        plan = self.at(batch, budget)
        if plan.fits or budget is None:
            return plan
        if budget.disk is not None and self.cache_bytes > float(budget.disk):
            raise BudgetError(
                f"the outputs of blocks do not fit on disk ({plan.reason}): set cache to uint8 or none, or raise disk"
            )
        nearest, sliced = self.largest(batch, budget, smallest), self.sliced(batch, budget, smallest)
        slices = f"micro {sliced.micro}, with {sliced.peak_bytes:,} bytes" if sliced and not self.micro else ""
        if nearest is not None:
            raise BudgetError(
                f"batch {batch} does not fit ({plan.reason}): the largest batch that fits is {nearest.batch}, "
                f"with {nearest.peak_bytes:,} bytes" + (f"; the same batch fits in slices: {slices}" if slices else "")
            )
        least = self.at(smallest)
        raise BudgetError(
            f"no batch fits ({self.at(smallest, budget).reason}): batch {smallest} needs {least.peak_bytes:,} bytes; "
            "raise the budget or make the layers narrower"
        )


def _largest(low: int, high: int, plan: Callable[[int], Plan]) -> Plan | None:
    """The plan of the largest number from `low` to `high` that fits; bytes grow with the number."""
    if low > high or not plan(low).fits:
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if plan(middle).fits else (low, middle - 1)
    return plan(low)

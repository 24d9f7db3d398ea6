# SPDX-License-Identifier: Apache-2.0
"""What a run will take, before it runs: bytes to the byte, multiply-accumulates, milliseconds.

Bytes are the engine's own dry walk over the records; this file adds them up, holds them against a Budget and
looks for the nearest plan that fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from edgelearn.budget import Budget
from edgelearn.errors import BudgetError

Measure = Callable[[int], tuple[int, float | None]]
"""batch -> (arena bytes, predicted seconds per sample or None)"""


@dataclass(frozen=True)
class Plan:
    """Planned bytes of a run. peak = weights + arena + feed, the last for batches that are gathered and augmented;
    `predicted_ms` is one step's share per sample."""

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

    def to_json(self) -> dict[str, Any]:
        """The fields as `edgelearn plan --json` prints them."""
        return asdict(self)

    def __str__(self) -> str:
        time = "not measured" if self.predicted_ms is None else f"{self.predicted_ms:.3g} ms per sample"
        batches = f" + batches {self.feed_bytes:,}" if self.feed_bytes else ""
        return (
            f"{'fits' if self.fits else 'does not fit'}: peak {self.peak_bytes:,} bytes = weights "
            f"{self.weight_bytes:,} + arena {self.arena_bytes:,}{batches}; {self.macs:,} multiply-accumulates; {time}; "
            f"batch {self.batch}" + (f"; {self.reason}" if self.reason else "")
        )


@dataclass(frozen=True)
class Planner:
    """Plans of one net: its fixed figures, `measure`, which asks the engine about a batch size, and `feed`, the bytes
    of a batch outside the engine."""

    weight_bytes: int
    macs: int
    blocks: int
    measure: Measure
    feed: Callable[[int], int] = lambda batch: 0

    def at(self, batch: int, budget: Budget | None = None) -> Plan:
        """The plan of exactly this batch size, fitting or not."""
        arena, seconds = self.measure(batch)
        feed = self.feed(batch)
        peak = self.weight_bytes + arena + feed
        over = (budget or Budget()).broken(peak, self.weight_bytes, seconds, self.macs)
        return Plan(
            fits=not over,
            peak_bytes=peak,
            weight_bytes=self.weight_bytes,
            arena_bytes=arena,
            macs=self.macs,
            predicted_ms=None if seconds is None else seconds * 1e3,
            widths=[1.0] * self.blocks,
            batch=batch,
            reason=", ".join(over),
            feed_bytes=feed,
        )

    def largest(self, batch: int, budget: Budget, smallest: int = 1) -> Plan | None:
        """The plan with the largest batch from `smallest` to `batch` that fits, or None. Bytes grow with the batch."""
        if not self.at(smallest, budget).fits:
            return None
        low, high = smallest, batch
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.at(middle, budget).fits else (low, middle - 1)
        return self.at(low, budget)

    def require(self, batch: int, budget: Budget | None, smallest: int = 1) -> Plan:
        """The plan of this batch size.

        Raises:
            BudgetError: it does not fit; the message names the largest batch that does, or what the smallest needs.
        """
        plan = self.at(batch, budget)
        if plan.fits or budget is None:
            return plan
        nearest = self.largest(batch, budget, smallest)
        if nearest is not None:
            raise BudgetError(
                f"batch {batch} does not fit ({plan.reason}): the largest batch that fits is {nearest.batch}, "
                f"with {nearest.peak_bytes:,} bytes"
            )
        least = self.at(smallest)
        raise BudgetError(
            f"no batch fits ({self.at(smallest, budget).reason}): batch {smallest} needs {least.peak_bytes:,} bytes; "
            "raise the budget or make the layers narrower"
        )

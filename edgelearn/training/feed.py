# SPDX-License-Identifier: Apache-2.0
"""How samples reach a session: the whole set, which the engine shuffles itself, or batches gathered for each step.

Both come in the engine's own order, so a run whose batches are gathered unchanged ends in the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgelearn.augment import Augmenter
from edgelearn.engines import ENTRY, Entry, Run, Session, Stats

Order = Callable[[int, int, int, int, int], NDArray[np.int64]]
"""`Engine.order`."""


class Feed(Protocol):
    """Samples of a run: x (n, features), which enter a net at `entry`."""

    @property
    def x(self) -> NDArray[Any]:
        """All samples, those that are not learned from included."""

    @property
    def entry(self) -> Entry:
        """Where they enter."""

    @property
    def answers(self) -> NDArray[Any]:
        """Labels (n,) or targets (n, targets) of the samples of an epoch."""

    def fit(self, session: Session, run: Run, stats: Stats) -> None:
        """`run.steps` updates from `run.first` on; errors as `Session.fit`."""

    def entering(self, x: NDArray[Any], entry: Entry) -> Feed:
        """The same samples as x (n, features) shows them, which enters at `entry`."""


@dataclass(frozen=True, eq=False)
class Whole:
    """All samples, unchanged: x (n, features) and their answers."""

    x: NDArray[Any]
    answers: NDArray[Any]
    entry: Entry = ENTRY

    def fit(self, session: Session, run: Run, stats: Stats) -> None:
        """See `Feed`."""
        session.fit(self.x, self.answers, run, stats, self.entry)

    def entering(self, x: NDArray[Any], entry: Entry) -> Whole:
        """See `Feed`."""
        return replace(self, x=x, entry=entry)


@dataclass(frozen=True, eq=False)
class Gathered:
    """The samples at `rows` (n,) of x and y, batch by batch and augmented: what it takes is one batch, however many
    samples there are. Batches of fewer than `smallest` are passed over, as engines do."""

    x: NDArray[Any]
    y: NDArray[Any]
    rows: NDArray[np.int64]
    order: Order
    augment: Augmenter | None = None
    smallest: int = 1
    entry: Entry = ENTRY

    @cached_property
    def answers(self) -> NDArray[Any]:
        """Labels or targets at `rows`."""
        return self.y[self.rows]

    def fit(self, session: Session, run: Run, stats: Stats) -> None:
        """See `Feed`."""
        for step in range(run.first, run.first + run.steps):
            rows = self._rows(run, step)
            if len(rows) >= self.smallest:
                # a set of one batch, so that the step's number tells the rate and every place is the batch's
                only = replace(run, first=step, steps=1, shuffle=False)
                session.fit(self._batch(rows, step), self.y[rows], only, stats, self.entry)

    def entering(self, x: NDArray[Any], entry: Entry) -> Gathered:
        """See `Feed`."""
        return replace(self, x=x, entry=entry)

    def _batch(self, rows: NDArray[np.int64], step: int) -> NDArray[Any]:
        x = self.x[rows]
        return x if self.augment is None else self.augment(x, step)

    def _rows(self, run: Run, step: int) -> NDArray[np.int64]:
        epoch, index = divmod(step, -(-len(self.rows) // run.batch))
        first = index * run.batch
        count = min(run.batch, len(self.rows) - first)
        if not run.shuffle:
            return self.rows[first : first + count]
        return self.rows[self.order(run.seed, epoch, len(self.rows), first, count)]


def parts(n: int, batch: int, smallest: int) -> list[slice]:
    """Consecutive batches of n samples; a last one that is too small takes from the one before it."""
    ends = [*range(batch, n, batch), n]
    if len(ends) > 1 and n - ends[-2] < smallest:
        ends[-2] = n - smallest
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

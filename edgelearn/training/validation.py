# SPDX-License-Identifier: Apache-2.0
"""Samples held out from the training data: how they are chosen, and what a session scores on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import ENTRY, Entry, Session
from edgelearn.errors import DataError
from edgelearn.metrics import accuracy, total_loss
from edgelearn.philox import STREAM_SPLIT, philox
from edgelearn.rules import Loss

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """Mean loss of the output on held-out samples, and the share of right answers; None in regression."""

    loss: float
    accuracy: float | None = None

    def beats(self, other: Score) -> bool:
        """Whether it is the better one: by its loss, since few samples tell accuracies apart (docs/decisions.md)."""
        return self.loss < other.loss


def split(y: NDArray[Any], share: float, seed: int, stratified: bool) -> tuple[Places, Places]:
    """Places in y (n, ...) of samples to learn from and of held-out ones, both ascending: a function of the seed.

    About `share` of the samples is held out, if `stratified` of each class of labels y (n,), and at least one.

    Raises:
        DataError: one sample alone, or alone in its class.
    """
    group = y if stratified else np.zeros(len(y), np.int64)
    counts = np.bincount(group)
    if counts.min(initial=2, where=counts > 0) < 2:
        where = f"class {int((counts == 1).argmax())} has" if stratified else "there is"
        raise DataError(f"{where} one sample only, too few for a validation split: add samples or set validation = 0")
    held = np.clip(np.rint(share * counts), 1, counts - 1).astype(np.int64)
    words = philox(seed, np.arange(-(-len(y) // 4), dtype=np.uint64), 0, 0, STREAM_SPLIT).reshape(-1)[: len(y)]
    by_group = np.lexsort((words, group))
    rank = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    out = rank < np.repeat(held, counts)
    return np.sort(by_group[~out]), np.sort(by_group[out])


@dataclass(frozen=True, eq=False)
class Validation:
    """Held-out samples: those at `rows` of x (n, features), which enters a net at `entry`, and their answers y, looked
    at `part` at a time."""

    x: NDArray[Any]
    y: NDArray[Any]
    rows: Places
    loss: Loss
    huber: float = 1.0
    part: int = 64
    entry: Entry = ENTRY

    def entering(self, x: NDArray[Any], entry: Entry) -> Validation:
        """The same samples as x (n, features) shows them, which enters at `entry`."""
        return replace(self, x=x, entry=entry)

    def measure(self, session: Session) -> Score:
        """The score of the weights as they are."""
        loss = right = 0.0
        for start in range(0, len(self.rows), self.part):
            rows = self.rows[start : start + self.part]
            outputs = session.outputs(self.x[rows], session.groups - 1, self.entry)  # samples are let go of at once
            answers = self.y[rows]
            loss += total_loss(outputs, answers, self.loss, self.huber)
            if self.loss is Loss.CROSS_ENTROPY:
                right += accuracy(outputs, answers) * len(rows)
        counted = self.loss is Loss.CROSS_ENTROPY
        return Score(loss / len(self.rows), right / len(self.rows) if counted else None)


class Best:
    """The best epoch of a stage: by its held-out samples where there is patience to wait, else simply the last.

    `is_now` says that the last epoch is the best; `is_over` that `patience` epochs have passed since it.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._score: Score | None = None
        self._waited = 0

    def after(self, score: Score) -> Score:
        """Take note of an epoch's score, and give it back."""
        if not self._patience or self._score is None or score.beats(self._score):
            self._score, self._waited = score, 0
        else:
            self._waited += 1
        return score

    @property
    def is_now(self) -> bool:
        """Whether no epoch was better than the last."""
        return self._waited == 0

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return 0 < self._patience <= self._waited

# SPDX-License-Identifier: Apache-2.0
"""Which samples of a stream are not worth learning: dead sensors, stuck ones, and labels that neighbours contradict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.learning.replay import mark

Rows = NDArray[Any]
Labels = NDArray[np.int32]

WINDOW = 256
"""Latest samples that new ones are compared with."""

ENOUGH = 128
"""Samples that must have been compared before labels are doubted."""

DOUBT = 0.55
"""Labels are doubted when neighbours share them less than this part of how often they share the net's answers, both
beyond chance (docs/decisions.md)."""

COMPARED = 128
"""Values of a sample by which neighbours are found, evenly spread; more of an image find no better ones
(docs/decisions.md)."""

REPEATS = 8
"""Times that one sample may come with different labels."""

_VALUES = 16
"""Samples of fewer values may well be all the same."""


class Screen:
    """Looks at a stream portion by portion."""

    def __init__(self) -> None:
        self._rows: NDArray[np.float32] | None = None
        self._labels, self._answers = np.zeros(0, np.int32), np.zeros(0, np.int64)
        self._marks, self._marked = np.zeros(0, np.uint32), np.zeros(0, np.int32)
        self._agreed: list[tuple[int, int, int]] = []

    def check(self, rows: Rows, labels: Labels, answers: NDArray[np.int64]) -> tuple[NDArray[np.bool_], list[str]]:
        """Which of rows (n, features) with labels and the serving net's answers (n,) may be learned, and why others
        may not."""
        fine, reasons = np.ones(len(rows), np.bool_), []
        for bad, words in (self._dead(rows), self._stuck(rows, labels)):
            if (bad & fine).any():
                reasons.append(words.format(int((bad & fine).sum())))
                fine &= ~bad
        self._compare(rows[fine], labels[fine], answers[fine])
        doubt = self._doubt()
        if doubt:
            reasons.append(doubt)
            fine[:] = False
        return fine, reasons

    def _dead(self, rows: Rows) -> tuple[NDArray[np.bool_], str]:
        """Samples of one value: nothing can be told by them (zeros among few features can)."""
        flat = np.ptp(rows, axis=1) == 0 if rows.shape[1] >= _VALUES else np.zeros(len(rows), np.bool_)
        return flat, "{} samples hold one value everywhere: look whether the sensor is covered or dead"

    def _stuck(self, rows: Rows, labels: Labels) -> tuple[NDArray[np.bool_], str]:
        """Samples that came again and again with different labels."""
        marks = mark(rows)
        self._marks = np.concatenate([self._marks, marks])[-WINDOW - len(rows) :]
        self._marked = np.concatenate([self._marked, labels])[-WINDOW - len(rows) :]
        bad = np.zeros(len(rows), np.bool_)
        names, counts = np.unique(self._marks, return_counts=True)
        for name in names[counts > REPEATS]:
            if len(set(self._marked[self._marks == name].tolist())) > 1:
                bad |= marks == name
        return bad, "{} samples are one and the same with different labels: look whether the sensor is stuck"

    def _compare(self, rows: Rows, labels: Labels, answers: NDArray[np.int64]) -> None:
        """Take note how often the nearest neighbour (Wilson 1972, edited nearest neighbours) has the same label, and
        the same answer."""
        some = rows[:, :: -(-rows.shape[1] // COMPARED)].astype(np.float32)
        pool = some if self._rows is None else np.concatenate([self._rows, some])
        pool_labels = np.concatenate([self._labels, labels])
        pool_answers = np.concatenate([self._answers, answers])
        if len(pool) > 1 and len(rows):
            nearest = _nearest(pool, len(pool) - len(rows))
            same = pool_labels[nearest] == labels, pool_answers[nearest] == answers
            self._agreed.append((len(rows), int(same[0].sum()), int(same[1].sum())))
        self._rows, self._labels, self._answers = pool[-WINDOW:], pool_labels[-WINDOW:], pool_answers[-WINDOW:]
        while len(self._agreed) > 1 and sum(n for n, *_ in self._agreed[1:]) >= WINDOW:
            self._agreed.pop(0)

    def _doubt(self) -> str | None:
        n = sum(count for count, *_ in self._agreed)
        if n < ENOUGH:
            return None
        labels, answers = (sum(entry[i] for entry in self._agreed) / n for i in (1, 2))
        least, most = _beyond(labels, self._labels), _beyond(answers, self._answers)
        if most <= 0 or least >= DOUBT * most:
            return None
        return (
            f"labels of neighbouring samples agree in {labels:.0%} of cases, the net's answers in {answers:.0%}: check "
            "the labels, or learn them with trust=True"
        )

    def contents(self) -> bytes:
        """The latest samples."""
        return b"" if self._rows is None else self._rows.tobytes()

    def to_json(self) -> dict[str, Any]:
        """All else."""
        arrays = {name: getattr(self, f"_{name}").tolist() for name in ("labels", "answers", "marks", "marked")}
        return {**arrays, "agreed": self._agreed}

    def restore(self, table: Mapping[str, Any], contents: bytes) -> None:
        """Go on from `to_json` and `contents`."""
        for name in ("labels", "answers", "marks", "marked"):
            setattr(self, f"_{name}", np.array(table[name], getattr(self, f"_{name}").dtype))
        self._agreed = [(n, same, answered) for n, same, answered in table["agreed"]]
        if contents:
            self._rows = np.frombuffer(contents, np.float32).reshape(len(self._labels), -1)


def _beyond(share: float, values: NDArray[Any]) -> float:
    """Agreement beyond chance, as Cohen's kappa has it; 0 where all are the same."""
    by_chance = _chance(values)
    return (share - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0


def _chance(values: NDArray[Any]) -> float:
    """How often two of these are the same by chance."""
    counts = np.unique(values, return_counts=True)[1]
    return float((counts / counts.sum()) @ (counts / counts.sum()))


def _nearest(pool: NDArray[np.float32], first: int) -> NDArray[np.int64]:
    """Place in the pool (m, values) of the nearest other sample, for each from `first` on. One thread: the pool of a
    linear algebra library costs more than so small a product."""
    squares = np.einsum("ij,ij->i", pool, pool)
    apart = squares[first:, None] + squares - 2 * np.einsum("ij,kj->ik", pool[first:], pool)
    apart[np.arange(len(pool) - first), np.arange(first, len(pool))] = np.inf
    nearest: NDArray[np.int64] = apart.argmin(axis=1)
    return nearest

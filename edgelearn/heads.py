# SPDX-License-Identifier: Apache-2.0
"""Linear heads on frozen features, without iterations: ridge regression to the classes, from sums that samples, and
whole classes, can join and leave.

The sums are A = sum of f f' and b_c = sum of f over class c (f with a one for the bias), so nothing but two matrices is
kept of the samples. Every prefix of the features has its head from the same sums and one factorisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import DataError, UsageError

FloatArray = NDArray[np.float32]
Float64 = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]


def simplex(classes: int) -> Float64:
    """Targets (classes, classes) of a simplex equiangular tight frame: rows of length 1, inner products
    -1 / (classes - 1) (Papyan, Han & Donoho 2020)."""
    if classes < 2:
        raise UsageError("one class needs no head: give two or more")
    centred = np.eye(classes) - 1 / classes
    out: Float64 = np.sqrt(classes / (classes - 1)) * centred
    return out


@dataclass
class RidgeHead:
    """Ridge regression of one-hot targets, class-incremental: (A + penalty n I) W = B, the bias not penalised.

    `penalty` is relative to the mean squared feature. `balanced` weighs classes alike, whatever their numbers.
    `etf` sets the targets of `total` classes, known and still to come, to a fixed simplex, so that a new class moves no
    old target.
    """

    features: int
    penalty: float = 0.1
    balanced: bool = True
    etf: bool = False
    total: int = 0
    classes: list[Any] = field(default_factory=list)
    _squares: list[Float64] = field(default_factory=list, repr=False)
    _sums: list[Float64] = field(default_factory=list, repr=False)
    _counts: list[int] = field(default_factory=list, repr=False)
    _together: Float64 = field(default_factory=lambda: np.zeros((0, 0)), repr=False)

    def __post_init__(self) -> None:
        if not (self.penalty > 0 and np.isfinite(self.penalty)) or self.features < 1:
            raise UsageError(f"a ridge head needs features and a positive penalty, not {self.penalty}: give e.g. 0.1")
        if self.etf and self.total < 2:
            raise UsageError("simplex targets need the number of all classes to come: give total")
        if not self.balanced:
            self._together = np.zeros((self.features + 1, self.features + 1))

    # Samples and classes

    def add_class(self, name: Any, samples: FloatArray | None = None) -> RidgeHead:
        """A new class, from features (n, features) if given; five samples do.

        Raises:
            DataError: a class of that name, more classes than the simplex holds, or features that do not fit.
        """
        if name in self.classes:
            raise DataError(f"there is a class '{name}': use partial_fit for more samples of it")
        if self.etf and len(self.classes) == self.total:
            raise DataError(f"the simplex holds {self.total} classes: make a head with a larger total")
        rows = None if samples is None else self._rows(samples)
        self.classes.append(name)
        self._sums.append(np.zeros(self.features + 1))
        self._counts.append(0)
        if self.balanced:
            self._squares.append(np.zeros((self.features + 1, self.features + 1)))
        if rows is not None:
            self._add(len(self.classes) - 1, rows, 1)
        return self

    def partial_fit(self, x: FloatArray, y: Labels | Sequence[Any]) -> RidgeHead:
        """Count samples in: features (n, features) and their classes by name; unseen ones are added.

        Raises:
            DataError: features of another width, not finite, or of another number than labels.
        """
        self._each(x, y, 1)
        return self

    def forget(self, x: FloatArray, y: Labels | Sequence[Any]) -> RidgeHead:
        """Count samples out again: what is left is what training without them gives (exact unlearning).

        Raises:
            DataError: more samples of a class than were counted in, or an unknown class.
        """
        names, counts = np.unique(np.asarray(y), return_counts=True)
        for name, count in zip(names.tolist(), counts.tolist(), strict=True):
            if name not in self.classes or self._counts[self.classes.index(name)] < count:
                raise DataError(f"fewer than {count} samples of class '{name}' were learned: forget no more")
        self._each(x, y, -1)
        return self

    def forget_class(self, name: Any) -> RidgeHead:
        """Take a class and all its samples out.

        Raises:
            DataError: no such class; a head that is not balanced keeps no sums per class.
            UsageError: simplex targets belong to their classes.
        """
        if name not in self.classes or not self.balanced:
            raise DataError(f"no class '{name}' can be taken out: a balanced head holds {self.classes}")
        if self.etf:
            raise UsageError("simplex targets belong to their classes: forget the samples instead")
        place = self.classes.index(name)
        for rows in (self.classes, self._sums, self._counts, self._squares):
            del rows[place]
        return self

    def _each(self, x: FloatArray, y: Labels | Sequence[Any], sign: int) -> None:
        rows, names = self._rows(x), np.asarray(y)
        if len(rows) != len(names):
            raise DataError(f"{len(rows)} samples and {len(names)} labels: give each sample one label")
        for name in dict.fromkeys(names.tolist()):
            if name not in self.classes:
                self.add_class(name)
            self._add(self.classes.index(name), rows[names == name], sign)

    def _rows(self, x: FloatArray) -> Float64:
        rows = np.asarray(x, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.features or not np.isfinite(rows).all():
            raise DataError(f"a head of {self.features} features cannot take {rows.shape}: pass finite (n, features)")
        return np.hstack([rows, np.ones((len(rows), 1))])

    def _add(self, place: int, rows: Float64, sign: int) -> None:
        squares = sign * (rows.T @ rows)
        if self.balanced:
            self._squares[place] = self._squares[place] + squares
        else:
            self._together = self._together + squares
        self._sums[place] = self._sums[place] + sign * rows.sum(axis=0)
        self._counts[place] += sign * len(rows)

    # Heads

    def _equations(self) -> tuple[Float64, Float64]:
        """A and B: sums over samples or, balanced, sums of the means of classes."""
        known = [i for i, count in enumerate(self._counts) if count]
        if len(known) < 2:
            raise DataError("a head needs samples of two classes: add another class")
        targets = simplex(self.total) if self.etf else np.eye(len(self.classes))
        share = {i: 1 / self._counts[i] if self.balanced else 1.0 for i in known}
        if self.balanced:
            a = sum((share[i] * self._squares[i] for i in known), np.zeros_like(self._squares[0]))
        else:
            a = self._together.copy()
        b = sum((share[i] * np.outer(self._sums[i], targets[i]) for i in known), np.zeros((len(a), len(targets))))
        weight = self.penalty * float(np.trace(a[:-1, :-1])) / self.features
        a[np.arange(self.features), np.arange(self.features)] += max(weight, 1e-12)
        return a, b

    def solve(self) -> tuple[FloatArray, FloatArray]:
        """Weight (features, classes) and bias (classes,).

        Raises:
            DataError: fewer than two classes with samples.
        """
        return self.prefixes([self.features])[0]

    def prefixes(self, widths: Iterable[int]) -> list[tuple[FloatArray, FloatArray]]:
        """Weight and bias of the head on the first m features, for each m: all from one Cholesky factor, since that of
        a leading block is the leading block of the factor. The bias comes first, so that it is in every block.

        Raises:
            DataError: fewer than two classes with samples.
            UsageError: a width that is not from 1 to the features.
        """
        wanted = list(widths)
        if not wanted or min(wanted) < 1 or max(wanted) > self.features:
            raise UsageError(f"widths {wanted} do not fit {self.features} features: give some of 1 to {self.features}")
        a, b = self._equations()
        order = np.roll(np.arange(self.features + 1), 1)
        factor: Float64 = np.linalg.cholesky(a[np.ix_(order, order)]).astype(np.float64)
        halfway = _forward(factor, b[order])
        return [self._head(_backward(factor[: m + 1, : m + 1], halfway[: m + 1])) for m in wanted]

    def _head(self, solution: Float64) -> tuple[FloatArray, FloatArray]:
        if self.etf:  # logits are inner products with each class's target
            solution = solution @ simplex(self.total)[:, : len(self.classes)]
        return solution[1:].astype(np.float32), solution[0].astype(np.float32)

    def predict(self, x: FloatArray) -> list[Any]:
        """Class names of features (n, features).

        Raises:
            DataError: features of another width, or fewer than two classes with samples.
        """
        weight, bias = self.solve()
        scores = self._rows(x) @ np.vstack([weight, bias])
        return [self.classes[i] for i in scores.argmax(axis=1)]


def _forward(lower: Float64, right: Float64) -> Float64:
    """lower y = right, row by row in blocks."""
    return _substituted(lower, right)


def _backward(lower: Float64, right: Float64) -> Float64:
    """lower' x = right."""
    return _substituted(lower.T[::-1, ::-1], right[::-1])[::-1]


_BLOCK = 64
"""Rows that are solved at once: numpy has no triangular solver, and a general one would cost the cube again."""


def _substituted(lower: Float64, right: Float64) -> Float64:
    out = right.copy()
    for start in range(0, len(lower), _BLOCK):
        rows = slice(start, start + _BLOCK)
        out[rows] = np.linalg.solve(lower[rows, rows], out[rows] - lower[rows, :start] @ out[:start])
    return out

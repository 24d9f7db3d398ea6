# SPDX-License-Identifier: Apache-2.0
"""A linear head that is exact after every sample: recursive least squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import DataError, UsageError

FloatArray = NDArray[np.float32]


class RecursiveHead:
    """Recursive least squares: a weight that is exact after every sample, by a rank-one update of the inverse
    (Woodbury); equal to unbalanced ridge on the same samples. Costs features squared per sample, nothing to solve.

    `penalty` is absolute here, since the scale of the features is not known before the first of them.
    """

    def __init__(self, features: int, classes: int, penalty: float = 1.0) -> None:
        if not (penalty > 0 and np.isfinite(penalty)) or features < 1 or classes < 1:
            raise UsageError(
                f"{features} features, {classes} classes, penalty {penalty}: recursive least squares needs all positive"
            )
        self._inverse = np.eye(features + 1) / penalty
        self._weight = np.zeros((features + 1, classes))

    def learn_one(self, x: FloatArray, label: int) -> None:
        """One sample: features (features,) and its class.

        Raises:
            DataError: features that do not fit or are not finite, or a label out of range.
        """
        row = np.append(np.asarray(x, np.float64), 1.0)
        if row.shape != (len(self._inverse),) or not np.isfinite(row).all():
            raise DataError(f"a sample of shape {np.shape(x)} does not fit {len(self._inverse) - 1} features: check it")
        if not 0 <= label < self._weight.shape[1]:
            raise DataError(f"label {label} is outside 0 .. {self._weight.shape[1] - 1}: add its class first")
        gain = self._inverse @ row
        gain /= 1 + row @ gain
        target = np.zeros(self._weight.shape[1])
        target[label] = 1
        self._weight += np.outer(gain, target - row @ self._weight)
        self._inverse -= np.outer(gain, row @ self._inverse)

    def add_class(self) -> int:
        """One more class; its number. Nothing of it was seen, so its target so far was zero everywhere."""
        self._weight = np.hstack([self._weight, np.zeros((len(self._weight), 1))])
        return self._weight.shape[1] - 1

    def predict(self, x: FloatArray) -> NDArray[np.int64]:
        """Class indices (n,) of features (n, features).

        Raises:
            DataError: features of another width.
        """
        rows = np.asarray(x, np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self._weight) - 1:
            raise DataError(f"a head of {len(self._weight) - 1} features cannot take {rows.shape}: pass (n, features)")
        out: NDArray[np.int64] = (rows @ self._weight[:-1] + self._weight[-1]).argmax(axis=1)
        return out

    def solve(self) -> tuple[FloatArray, FloatArray]:
        """Weight (features, classes) and bias (classes,)."""
        return self._weight[:-1].astype(np.float32), self._weight[-1].astype(np.float32)

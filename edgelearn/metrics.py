# SPDX-License-Identifier: Apache-2.0
"""How good outputs are, by scikit-learn's definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def accuracy(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of rows of outputs (n, classes) whose largest value is at the label (n,)."""
    return float((outputs.argmax(axis=1) == labels).mean())


def r_squared(outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """Coefficient of determination of outputs (n, k) against targets (n, k), mean over the k values."""
    rest = ((outputs - targets) ** 2).sum(axis=0, dtype=np.float64)
    spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0, dtype=np.float64)
    return float((1 - rest / np.where(spread > 0, spread, 1)).mean())

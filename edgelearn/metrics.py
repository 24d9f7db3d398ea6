# SPDX-License-Identifier: Apache-2.0
"""How good outputs are: scores by scikit-learn's definitions, losses by those of the engines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.rules import Loss


def accuracy(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of rows of outputs (n, classes) whose largest value is at the label (n,)."""
    return float((outputs.argmax(axis=1) == labels).mean())


def r_squared(outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """Coefficient of determination of outputs (n, k) against targets (n, k), mean over the k values."""
    rest = ((outputs - targets) ** 2).sum(axis=0, dtype=np.float64)
    spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0, dtype=np.float64)
    return float((1 - rest / np.where(spread > 0, spread, 1)).mean())


def total_loss(outputs: NDArray[Any], answers: NDArray[Any], loss: Loss, huber: float = 1.0) -> float:
    """Loss of the output layer as the engines count it, summed over samples: outputs (n, k) are probabilities for
    labels (n,), or values for targets (n, k), where Huber's turns linear at `huber`."""
    values = outputs.astype(np.float64)
    if loss is Loss.CROSS_ENTROPY:
        hit = values[np.arange(len(values)), answers]
        return float(-np.log(np.maximum(hit, np.finfo(np.float32).tiny)).sum())
    off = np.abs(values - answers)
    within = np.minimum(off, huber) if loss is Loss.HUBER else off
    return float((within * (off - within / 2)).sum())

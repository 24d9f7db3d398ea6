# SPDX-License-Identifier: Apache-2.0
"""The loops of losses: B samples, U units, K classes; `weights` (B) weigh samples.

They return the float64 sum over units and weighted samples; the error they leave is its gradient, times `share`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelearn.engines.numba.kernels import kernel
from edgelearn.rules import Loss, Objective

_ZERO, _HALF = np.float32(0), np.float32(0.5)


@kernel
def _l2(h: Any, bend: Any, weights: Any, share: Any, d: Any) -> float:
    total = 0.0
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            difference = h[i, j] - d[i, j]
            total += _HALF * difference * difference * weights[i]
            d[i, j] = difference * (weights[i] * share)
    return total


@kernel
def _l1(h: Any, bend: Any, weights: Any, share: Any, d: Any) -> float:
    total = 0.0
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            difference = h[i, j] - d[i, j]
            total += abs(difference) * weights[i]
            d[i, j] = np.sign(difference) * (weights[i] * share)
    return total


@kernel
def _huber(h: Any, bend: Any, weights: Any, share: Any, d: Any) -> float:
    total = 0.0
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            difference = h[i, j] - d[i, j]
            size = abs(difference)
            loss = bend * (size - _HALF * bend) if size > bend else _HALF * difference * difference
            total += loss * weights[i]
            slope = np.sign(difference) * bend if size > bend else difference
            d[i, j] = slope * (weights[i] * share)
    return total


@kernel
def _linear(h: Any, bend: Any, weights: Any, share: Any, d: Any) -> float:
    total = 0.0
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            total -= d[i, j] * h[i, j] * weights[i]
            d[i, j] *= -(weights[i] * share)
    return total


DISTANCES = {
    Objective.TP_L2: _l2,
    Objective.TP_L1: _l1,
    Objective.TP_HUBER: _huber,
    Objective.TP_LINEAR: _linear,
}
"""Objective -> f(h, bend, weights, share, d): d (B,U) holds the target t of h (B,U) and receives the error."""

LOSSES = {Loss.MSE: _l2, Loss.HUBER: _huber}
"""Regression loss -> the same kind of function."""


@kernel
def cross_entropy(labels: Any, weights: Any, share: Any, d: Any) -> float:
    """d (B,K) holds logits and receives (softmax - one-hot) * weight * share."""
    total = 0.0
    for i in range(d.shape[0]):
        row, label = d[i], labels[i]
        top = row.max()
        shifted = row[label] - top
        mass = _ZERO
        for j in range(row.size):
            row[j] = np.exp(row[j] - top)
            mass += row[j]
        total += (np.log(mass) - shifted) * weights[i]
        row *= weights[i] * share / mass
        row[label] -= weights[i] * share
    return total


@kernel
def count_correct(outputs: Any, labels: Any) -> int:
    """Rows whose first largest output is the label."""
    correct = 0
    for i in range(outputs.shape[0]):
        correct += outputs[i].argmax() == labels[i]
    return correct

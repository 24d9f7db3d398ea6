# SPDX-License-Identifier: Apache-2.0
"""Losses and optimizers of the Numba engine.

Losses return the float64 sum over units and samples; the error they leave is their gradient, times `share`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelearn.engines.numba.kernels import kernel
from edgelearn.rules import Loss, Objective

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)


@kernel
def _l2(h: Any, bend: Any, share: Any, d: Any) -> float:
    total = 0.0
    for i in range(h.size):
        difference = h[i] - d[i]
        total += _HALF * difference * difference
        d[i] = difference * share
    return total


@kernel
def _l1(h: Any, bend: Any, share: Any, d: Any) -> float:
    total = 0.0
    for i in range(h.size):
        difference = h[i] - d[i]
        total += abs(difference)
        d[i] = np.sign(difference) * share
    return total


@kernel
def _huber(h: Any, bend: Any, share: Any, d: Any) -> float:
    total = 0.0
    for i in range(h.size):
        difference = h[i] - d[i]
        size = abs(difference)
        total += bend * (size - _HALF * bend) if size > bend else _HALF * difference * difference
        d[i] = (np.sign(difference) * bend if size > bend else difference) * share
    return total


@kernel
def _linear(h: Any, bend: Any, share: Any, d: Any) -> float:
    total = 0.0
    for i in range(h.size):
        total -= d[i] * h[i]
        d[i] *= -share
    return total


DISTANCES = {
    Objective.TP_L2: _l2,
    Objective.TP_L1: _l1,
    Objective.TP_HUBER: _huber,
    Objective.TP_LINEAR: _linear,
}
"""Objective -> f(h, bend, share, d): d holds the target t and receives the error; both flat."""

LOSSES = {Loss.MSE: _l2, Loss.HUBER: _huber}
"""Regression loss -> the same kind of function."""


@kernel
def cross_entropy(labels: Any, share: Any, d: Any) -> float:
    """d (B,K) holds logits and receives (softmax - one-hot) * share."""
    total = 0.0
    for i in range(d.shape[0]):
        row, label = d[i], labels[i]
        top = row.max()
        shifted = row[label] - top
        mass = _ZERO
        for j in range(row.size):
            row[j] = np.exp(row[j] - top)
            mass += row[j]
        total += np.log(mass) - shifted
        row *= share / mass
        row[label] -= share
    return total


@kernel
def count_correct(outputs: Any, labels: Any) -> int:
    """Rows whose first largest output is the label."""
    correct = 0
    for i in range(outputs.shape[0]):
        correct += outputs[i].argmax() == labels[i]
    return correct


@kernel
def sgd(g: Any, lr: Any, w: Any) -> None:
    """w -= lr g; g (rows, columns), w (rows, stride)."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            w[i, j] -= lr * g[i, j]


@kernel
def momentum(g: Any, lr: Any, factor: Any, v: Any, w: Any) -> None:
    """v = factor v + g, w -= lr v."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            v[i, j] = factor * v[i, j] + g[i, j]
            w[i, j] -= lr * v[i, j]


@kernel
def adam(g: Any, lr: Any, beta1: Any, beta2: Any, epsilon: Any, fix1: Any, fix2: Any, m: Any, v: Any, w: Any) -> None:
    """Kingma & Ba 2015, algorithm 1; fix1 and fix2 are 1 / (1 - beta^t)."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            m[i, j] = beta1 * m[i, j] + (_ONE - beta1) * g[i, j]
            v[i, j] = beta2 * v[i, j] + (_ONE - beta2) * g[i, j] * g[i, j]
            w[i, j] -= lr * (m[i, j] * fix1) / (np.sqrt(v[i, j] * fix2) + epsilon)

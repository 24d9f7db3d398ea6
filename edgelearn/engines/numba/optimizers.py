# SPDX-License-Identifier: Apache-2.0
"""What one step does with the gradient of a group: its norm is limited, and weights move by it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelearn.engines.numba.kernels import FloatArray, kernel
from edgelearn.engines.numba.nodes import Segment
from edgelearn.optim import Optimizer, OptimizerKind

_ONE = np.float32(1)


@kernel
def _squares(g: Any) -> float:
    total = 0.0
    for i in range(g.size):
        total += np.float64(g[i]) * np.float64(g[i])
    return total


def limit(g: FloatArray, most: float) -> None:
    """Scale g (n) down until its L2 norm is at most `most`."""
    norm = float(np.sqrt(_squares(g)))
    if norm > most:
        g *= np.float32(most / norm)


@kernel
def _sgd(g: Any, lr: Any, w: Any) -> None:
    """w -= lr g; g (rows, columns), w (rows, stride)."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            w[i, j] -= lr * g[i, j]


@kernel
def _momentum(g: Any, lr: Any, factor: Any, v: Any, w: Any) -> None:
    """v = factor v + g, w -= lr v."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            v[i, j] = factor * v[i, j] + g[i, j]
            w[i, j] -= lr * v[i, j]


@kernel
def _adam(g: Any, lr: Any, beta1: Any, beta2: Any, epsilon: Any, fix1: Any, fix2: Any, m: Any, v: Any, w: Any) -> None:
    """Kingma & Ba 2015, algorithm 1; fix1 and fix2 are 1 / (1 - beta^t)."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            m[i, j] = beta1 * m[i, j] + (_ONE - beta1) * g[i, j]
            v[i, j] = beta2 * v[i, j] + (_ONE - beta2) * g[i, j] * g[i, j]
            w[i, j] -= lr * (m[i, j] * fix1) / (np.sqrt(v[i, j] * fix2) + epsilon)


def descend(
    o: Optimizer, g: FloatArray, rate: np.float32, count: int, segment: Segment, kept: FloatArray, w: FloatArray
) -> None:
    """Update number `count` (from 1) of the weights w (rows, stride) by their gradient g (rows, columns); the moments
    of the segment lie in `kept`."""
    if o.kind is OptimizerKind.SGD:
        _sgd(g, rate, w)
        return
    first = segment.moment(kept, 0)
    if o.kind is OptimizerKind.MOMENTUM:
        _momentum(g, rate, np.float32(o.momentum), first, w)
        return
    beta1, beta2 = np.float32(o.beta1), np.float32(o.beta2)
    second = segment.moment(kept, 1)
    fix1, fix2 = (np.float32(1 / (1 - float(beta) ** count)) for beta in (beta1, beta2))
    _adam(g, rate, beta1, beta2, np.float32(o.epsilon), fix1, fix2, first, second, w)

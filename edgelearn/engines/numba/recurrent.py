# SPDX-License-Identifier: Apache-2.0
"""The loops of one step of recurrent cells, forward and back: M samples, U units. Outputs come last.

`hidden` (M, gates U) is the product with the output before, bias included; gates lie in the order of Keras.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelearn.engines.numba.kernels import kernel

_ZERO, _ONE = np.float32(0), np.float32(1)


@kernel
def _sigmoid(x: Any) -> Any:
    return _ONE / (_ONE + np.exp(-x))


@kernel
def simple(relu: Any, hidden: Any, gates: Any, h: Any) -> None:
    """h (M,U) = tanh, or relu, of gates + hidden."""
    for b in range(h.shape[0]):
        for i in range(h.shape[1]):
            z = gates[b, i] + hidden[b, i]
            h[b, i] = (z if not z <= _ZERO else _ZERO) if relu else np.tanh(z)


@kernel
def simple_back(relu: Any, h: Any, d: Any, gates: Any) -> None:
    """gates (M,U) become their errors."""
    for b in range(h.shape[0]):
        for i in range(h.shape[1]):
            slope = (_ONE if h[b, i] > _ZERO else _ZERO) if relu else _ONE - h[b, i] * h[b, i]
            gates[b, i] = d[b, i] * slope


@kernel
def gru(before: Any, hidden: Any, gates: Any, inner: Any, h: Any) -> None:
    """gates (M,3U) become z, r and n; inner (M,U) what r multiplies; h (M,U) the output."""
    u = h.shape[1]
    for b in range(h.shape[0]):
        g, q = gates[b], hidden[b]
        for i in range(u):
            z, r = _sigmoid(g[i] + q[i]), _sigmoid(g[u + i] + q[u + i])
            n = np.tanh(g[2 * u + i] + r * q[2 * u + i])
            g[i], g[u + i], g[2 * u + i], inner[b, i] = z, r, n, q[2 * u + i]
            h[b, i] = n + z * (before[b, i] - n)


@kernel
def gru_back(before: Any, d: Any, gates: Any, inner: Any, within: Any, carry: Any) -> None:
    """gates (M,3U) become their errors and inner (M,U) that of what r multiplies; within (M,3U) is what goes back
    through V, carry (M,U) what reaches the output before past it."""
    u = d.shape[1]
    for b in range(d.shape[0]):
        g = gates[b]
        for i in range(u):
            z, r, n = g[i], g[u + i], g[2 * u + i]
            dn = d[b, i] * (_ONE - z) * (_ONE - n * n)
            g[i] = d[b, i] * (before[b, i] - n) * z * (_ONE - z)
            g[u + i] = dn * inner[b, i] * r * (_ONE - r)
            g[2 * u + i] = dn
            inner[b, i] = dn * r
            carry[b, i] = d[b, i] * z
            within[b, i], within[b, u + i], within[b, 2 * u + i] = g[i], g[u + i], inner[b, i]


@kernel
def lstm(before: Any, hidden: Any, gates: Any, state: Any, squashed: Any, h: Any) -> None:
    """gates (M,4U) become i, f, g and o; state (M,U) follows the one before, squashed (M,U) is its tanh."""
    u = h.shape[1]
    for b in range(h.shape[0]):
        g, q = gates[b], hidden[b]
        for k in range(u):
            i, f = _sigmoid(g[k] + q[k]), _sigmoid(g[u + k] + q[u + k])
            j, o = np.tanh(g[2 * u + k] + q[2 * u + k]), _sigmoid(g[3 * u + k] + q[3 * u + k])
            g[k], g[u + k], g[2 * u + k], g[3 * u + k] = i, f, j, o
            state[b, k] = f * before[b, k] + i * j
            squashed[b, k] = np.tanh(state[b, k])
            h[b, k] = o * squashed[b, k]


@kernel
def lstm_back(before: Any, d: Any, squashed: Any, gates: Any, carry: Any) -> None:
    """gates (M,4U) become their errors; carry (M,U), the error of the state, becomes that of the state before."""
    u = d.shape[1]
    for b in range(d.shape[0]):
        g = gates[b]
        for k in range(u):
            i, f, j, o, t = g[k], g[u + k], g[2 * u + k], g[3 * u + k], squashed[b, k]
            dc = d[b, k] * o * (_ONE - t * t) + carry[b, k]
            carry[b, k] = dc * f
            g[k], g[u + k] = dc * j * i * (_ONE - i), dc * before[b, k] * f * (_ONE - f)
            g[2 * u + k], g[3 * u + k] = dc * i * (_ONE - j * j), d[b, k] * t * o * (_ONE - o)

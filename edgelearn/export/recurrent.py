# SPDX-License-Identifier: Apache-2.0
"""Recurrent primitives in float32 numpy, and their weights as ONNX has them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgelearn.export.primitives import Recurrent
from edgelearn.graph import FloatArray
from edgelearn.records import Op

ONNX_NAMES = {Op.SIMPLE_RNN: "RNN", Op.GRU: "GRU", Op.LSTM: "LSTM"}

_ONNX_GATES = {Op.SIMPLE_RNN: (0,), Op.GRU: (0, 1, 2), Op.LSTM: (0, 3, 1, 2)}
"""Our gates (z, r, n; i, f, g, o) in the order of ONNX (z, r, h; i, o, f, c)."""


def onnx_weights(step: Recurrent) -> dict[str, NDArray[np.float32]]:
    """W (1, gates units, features), R (1, gates units, units) and, where there are biases, B (1, 2 gates units)."""
    order = _ONNX_GATES[step.op]

    def turned(weight: FloatArray) -> FloatArray:
        parts = np.split(weight, len(order), axis=-1)
        return np.ascontiguousarray(np.concatenate([parts[gate] for gate in order], axis=-1).T[None])

    arrays = {"weight": turned(step.weight), "recurrent": turned(step.recurrent)}
    if step.bias is not None:
        arrays["bias"] = np.concatenate([turned(step.bias), turned(_inner_bias(step))], axis=-1)
    return arrays


def _inner_bias(step: Recurrent) -> FloatArray:
    """Of all gates, (gates units,)."""
    given = np.zeros(0, np.float32) if step.inner_bias is None else step.inner_bias
    return np.pad(given, (step.recurrent.shape[1] - given.size, 0))


def evaluate(step: Recurrent, x: FloatArray) -> FloatArray:
    """Outputs of sequences x (n, 1, steps, features): of all steps (n, 1, steps, units) or of the last (n, units)."""
    own = x[:, 0] @ step.weight + (0 if step.bias is None else step.bias)
    h = state = np.zeros((len(x), step.units), np.float32)
    inner_bias, outputs = _inner_bias(step), []
    for t in range(x.shape[2]):
        inner = h @ step.recurrent + inner_bias
        h, state = _STEPS[step.op](step, own[:, t], inner, h, state)
        outputs.append(h)
    return np.stack(outputs, 1)[:, None] if step.every else outputs[-1]


_State = tuple[FloatArray, FloatArray]


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray((1 + np.tanh(x / 2)) / 2, np.float32)


def _simple(step: Recurrent, own: FloatArray, inner: FloatArray, h: FloatArray, state: FloatArray) -> _State:
    total = own + inner
    return (np.maximum(total, 0) if step.relu else np.tanh(total)), state


def _gru(step: Recurrent, own: FloatArray, inner: FloatArray, h: FloatArray, state: FloatArray) -> _State:
    (oz, on), (iz, i_n) = (np.split(part, (2 * step.units,), axis=1) for part in (own, inner))
    z, r = np.split(_sigmoid(oz + iz), 2, axis=1)
    n = np.tanh(on + r * i_n)
    return n + z * (h - n), state


def _lstm(step: Recurrent, own: FloatArray, inner: FloatArray, h: FloatArray, state: FloatArray) -> _State:
    i, f, g, o = np.split(own + inner, 4, axis=1)
    state = _sigmoid(f) * state + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(state), state


_STEPS: dict[Op, Callable[[Recurrent, FloatArray, FloatArray, FloatArray, FloatArray], _State]] = {
    Op.SIMPLE_RNN: _simple,
    Op.GRU: _gru,
    Op.LSTM: _lstm,
}

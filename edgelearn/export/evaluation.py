# SPDX-License-Identifier: Apache-2.0
"""Primitives in float32 numpy: what calibration and the report of errors see of a net, without any runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from edgelearn.errors import ModelError
from edgelearn.export import primitives, recurrent
from edgelearn.export.primitives import Primitive, Program
from edgelearn.geometry import Sides, Window
from edgelearn.graph import FloatArray


def evaluate(step: Primitive, x: FloatArray, kept: list[FloatArray] | None = None) -> FloatArray:
    """What a step makes of samples x (n, *shape); branches put what they keep into `kept`, and merges take it out.

    Raises:
        ModelError: a primitive that has no formula here.
    """
    inside = step.step if isinstance(step, primitives.ChannelsFirst) else step
    if kept is not None and isinstance(inside, primitives.Branch):
        kept.append(x)
        return x
    if kept is not None and isinstance(inside, primitives.Merge):
        return x + kept.pop()
    known = FORMULAS.get(type(step))
    if known is None:
        raise ModelError(f"{type(step).__name__} cannot be calibrated: export the net as float32")
    return known(step, x)


def values(program: Program, x: FloatArray) -> Iterator[FloatArray]:
    """The samples, then the output of every step, one after the other."""
    kept: list[FloatArray] = []
    yield x
    for step in program.steps:
        x = evaluate(step, x, kept)
        yield x


def _matmul(step: primitives.MatMul, x: FloatArray) -> FloatArray:
    y: FloatArray = x @ step.weight
    return y if step.bias is None else y + step.bias


def _conv(step: primitives.Conv, x: FloatArray) -> FloatArray:
    """Position by position of the kernel, so that no patches are laid out."""
    y = np.zeros((len(x), *step.window.over(Sides(*x.shape[1:3])), step.weight.shape[-1]), np.float32)
    for place, part in _parts(step.window, x, 0.0):
        y += _mixed(part, step.weight[place], step.groups)
    return y if step.bias is None else y + step.bias


def _mixed(x: FloatArray, weight: FloatArray, groups: int) -> FloatArray:
    """Channels through the weights (channels / groups, filters) of one position of the kernel."""
    depth, filters = weight.shape
    if depth == 1 and groups > 1:
        own: FloatArray = (x[..., None] * weight.reshape(groups, -1)).reshape(*x.shape[:-1], filters)
        return own
    split = zip(np.split(x, groups, axis=-1), np.split(weight, groups, axis=-1), strict=True)
    mixed: FloatArray = np.concatenate([part @ columns for part, columns in split], axis=-1)
    return mixed


def _maxpool(step: primitives.MaxPool, x: FloatArray) -> FloatArray:
    largest: FloatArray = np.maximum.reduce([part for _, part in _parts(step.window, x, -np.inf)])
    return largest


def _avgpool(step: primitives.AvgPool, x: FloatArray) -> FloatArray:
    total = np.add.reduce([part for _, part in _parts(step.window, x, 0.0)])
    count = np.add.reduce([part for _, part in _parts(step.window, np.ones((1, *x.shape[1:3], 1), np.float32), 0.0)])
    mean: FloatArray = total / count
    return mean


def _parts(window: Window, x: FloatArray, fill: float) -> Iterator[tuple[tuple[int, ...], FloatArray]]:
    """For each position of the kernel, the values of maps (n, height, width, channels) that lie under it."""
    sides = Sides(*x.shape[1:3])
    padded = np.pad(x, ((0, 0), *window.padding(sides), (0, 0)), constant_values=fill)
    after, strides = window.over(sides), window.strides
    for place in product(*map(range, window.kernel)):
        rows, columns = (slice(p, p + (n - 1) * s + 1, s) for p, n, s in zip(place, after, strides, strict=True))
        yield place, padded[:, rows, columns]


def _layernorm(step: primitives.LayerNorm, x: FloatArray) -> FloatArray:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(step.epsilon))
    normalised: FloatArray = centred / spread
    return normalised if step.gamma is None or step.beta is None else step.gamma * normalised + step.beta


def _softmax(step: primitives.Softmax, x: FloatArray) -> FloatArray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: FloatArray = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _gelu(step: primitives.Gelu, x: FloatArray) -> FloatArray:
    slope, cubic = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
    return np.asarray(x / 2 * (1 + np.tanh(slope * (x + cubic * x**3))), np.float32)


def _sigmoid(step: primitives.Sigmoid, x: FloatArray) -> FloatArray:
    return np.asarray((1 + np.tanh(x / 2)) / 2, np.float32)


def _channels_first(step: primitives.ChannelsFirst, x: FloatArray) -> FloatArray:
    return np.moveaxis(evaluate(step.step, np.moveaxis(x, 1, -1)), -1, 1)


def _transpose(step: primitives.Transpose, x: FloatArray) -> FloatArray:
    return x.transpose(0, *(axis + 1 for axis in step.order))


def _attention(step: primitives.Attention, x: FloatArray) -> FloatArray:
    steps, units = x.shape[2], x.shape[-1] // (3 * step.heads)
    q, k, v = x.reshape(len(x), steps, step.heads, 3, units).transpose(3, 0, 2, 1, 4)
    scale = np.float32(1 if step.is_scaled else 1 / math.sqrt(units))
    shares = _softmax(primitives.Softmax(), q @ k.swapaxes(2, 3) * scale)
    mixed: FloatArray = (shares @ v).transpose(0, 2, 1, 3).reshape(*x.shape[:3], -1)
    return mixed


FORMULAS: dict[type, Callable[[Any, FloatArray], FloatArray]] = {
    primitives.Reshape: lambda step, x: x.reshape(len(x), *step.shape),
    primitives.Transpose: _transpose,
    primitives.Mul: lambda step, x: x * step.factor.reshape(-1),
    primitives.Add: lambda step, x: x + step.term.reshape(-1),
    primitives.MatMul: _matmul,
    primitives.Conv: _conv,
    primitives.MaxPool: _maxpool,
    primitives.AvgPool: _avgpool,
    primitives.GlobalAvgPool: lambda step, x: x.mean(axis=(1, 2), keepdims=True),
    primitives.LayerNorm: _layernorm,
    primitives.Relu: lambda step, x: np.maximum(x, 0),
    primitives.LeakyRelu: lambda step, x: np.where(x > 0, x, np.float32(step.slope) * x),
    primitives.Tanh: lambda step, x: np.tanh(x),
    primitives.Sigmoid: _sigmoid,
    primitives.Gelu: _gelu,
    primitives.Softmax: _softmax,
    primitives.Embedding: lambda step, x: step.table[x[..., 0].astype(np.int64)],
    primitives.Positions: lambda step, x: x + step.table,
    primitives.Attention: _attention,
    primitives.Recurrent: recurrent.evaluate,
    primitives.ChannelsFirst: _channels_first,
}
"""What each primitive computes, from its step and samples (n, *shape). BatchNorm is folded before, and
`evaluate` itself keeps what branches need."""

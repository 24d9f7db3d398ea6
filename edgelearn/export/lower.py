# SPDX-License-Identifier: Apache-2.0
"""A net and its flat parameters as a Program: the only module of the exports that reads records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np

from edgelearn.errors import ModelError
from edgelearn.export.primitives import (
    Add,
    BatchNorm,
    LeakyRelu,
    MatMul,
    Mul,
    Primitive,
    Program,
    Relu,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
    shape_after,
)
from edgelearn.graph import FLAG_BIAS, FloatArray, Graph, Op


def lower(graph: Graph, flat: FloatArray, channels_first: bool = False) -> Program:
    """The net as primitives over raw samples (batch, *input_shape); weights are cut to the active prefixes.
    `channels_first` samples (batch, channels, ...) are turned round inside.

    Raises:
        ModelError: an operation that has no export, or records that are not a chain.
    """
    _check_chain(graph)
    shape = shape_of = graph.input_shape
    steps: list[Primitive] = []
    if channels_first and len(shape) > 1:
        steps.append(Transpose((*range(1, len(shape)), 0)))
    for record in graph.records:
        for step in LOWERINGS[Op(record["op"])](record, flat, shape):
            steps.append(step)
            shape = shape_after(step, shape)
    turned = (shape_of[-1], *shape_of[:-1]) if steps and isinstance(steps[0], Transpose) else shape_of
    return Program(turned, tuple(steps))


def _check_chain(graph: Graph) -> None:
    for index, record in enumerate(graph.records):
        if record["op"] not in LOWERINGS:
            raise ModelError(f"operation {record['op']} has no export: export a net of dense layers")
        if tuple(record["input"]) != (index - 1, -1):
            raise ModelError(f"record {index} does not read the one before it: export a chain of layers")
    for before, record in pairwise(graph.records):
        if record["fan_in_active"] != before["active"]:
            raise ModelError("the widths of two layers do not join: cut the net with submodel() again")


def _arrays(record: np.void, flat: FloatArray, count: int) -> list[FloatArray]:
    """The record's parameters as `count` arrays of equal length, cut to the features in use."""
    first, size = int(record["offset"]), int(record["params"])
    return [part[: record["active"]] for part in flat[first : first + size].reshape(count, -1)]


def _rescale(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    """Pair j % pairs belongs to feature j, which is broadcasting once the last axis is `pairs` long."""
    scale, shift = _arrays(record, flat, 2)
    pairs, features = scale.size, math.prod(shape)
    if pairs not in (1, shape[-1]):
        yield Reshape((pairs,) if pairs == features else (features // pairs, pairs))
    yield Mul(scale)
    yield Add(shift)


def _dense(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    if len(shape) > 1:
        yield Reshape((math.prod(shape),))
    fan_in, stride, first = int(record["fan_in"]), int(record["stride"]), int(record["offset"])
    end = first + fan_in * stride
    stored = flat[first:end].reshape(fan_in, stride)
    weight = np.ascontiguousarray(stored[: record["fan_in_active"], : record["active"]])
    bias = flat[end : end + int(record["active"])] if record["flags"] & FLAG_BIAS else None
    yield MatMul(weight, bias)


def _batchnorm(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    gamma, beta, mean, variance = _arrays(record, flat, 4)
    return (BatchNorm(gamma, beta, mean, variance, float(record["arg"][0])),)


Lowering = Callable[[np.void, FloatArray, tuple[int, ...]], Iterable[Primitive]]

LOWERINGS: dict[Op, Lowering] = {
    Op.RESCALE: _rescale,
    Op.DENSE: _dense,
    Op.BATCHNORM: _batchnorm,
    Op.RELU: lambda record, flat, shape: (Relu(),),
    Op.LEAKY_RELU: lambda record, flat, shape: (LeakyRelu(float(record["arg"][0])),),
    Op.TANH: lambda record, flat, shape: (Tanh(),),
    Op.SIGMOID: lambda record, flat, shape: (Sigmoid(),),
    Op.DROPOUT: lambda record, flat, shape: (),
    Op.SOFTMAX: lambda record, flat, shape: (Softmax(),),
}
"""What each operation is made of: record, flat parameters, shape of a sample before it. Dropout is nothing
outside training."""

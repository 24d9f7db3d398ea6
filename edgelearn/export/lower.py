# SPDX-License-Identifier: Apache-2.0
"""A net and its flat parameters as a Program: the only module of the exports that reads records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from edgelearn.errors import ModelError
from edgelearn.export.primitives import (
    TO_LAST,
    Add,
    Attention,
    AvgPool,
    BatchNorm,
    Branch,
    Conv,
    Embedding,
    Gelu,
    GlobalAvgPool,
    LayerNorm,
    LeakyRelu,
    MatMul,
    MaxPool,
    Merge,
    Mul,
    Positions,
    Primitive,
    Program,
    Recurrent,
    Relu,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
    shape_after,
)
from edgelearn.geometry import sides_of
from edgelearn.graph import FloatArray, Graph
from edgelearn.records import (
    FLAG_BIAS,
    FLAG_PADDED,
    FLAG_SEQUENCES,
    RECURRENT,
    Op,
    groups_of_record,
    sides_after,
    window_of_record,
)

NAMED = (MatMul, Conv, Recurrent)
"""Primitives that know the name of their layer."""


def lower(graph: Graph, flat: FloatArray, channels_first: bool = False) -> Program:
    """The net as primitives over raw samples (batch, *input_shape); weights are cut to the active prefixes.
    `channels_first` samples (batch, channels, ...) are turned round inside. Outputs are flat.

    Raises:
        ModelError: an operation that has no export, or records that are not a chain.
    """
    _check_chain(graph)
    shape = graph.input_shape
    raw = (shape[-1], *shape[:-1]) if channels_first else shape
    steps = list(_entry(graph, channels_first and len(shape) > 1))
    shape = Program(raw, tuple(steps)).shapes[-1]
    for index, record in enumerate(graph.records):
        for step in (*_branch(graph, index, shape), *_steps(record, flat, shape)):
            steps.append(replace(step, name=_name(graph, record)) if isinstance(step, NAMED) else step)
            shape = shape_after(step, shape)
    if len(shape) > 1:
        steps.append(Reshape((math.prod(shape),)))
    return Program(raw, tuple(steps))


def _check_chain(graph: Graph) -> None:
    for index, record in enumerate(graph.records):
        if record["op"] not in LOWERINGS:
            what = f"{_layer(graph, record)} (operation {record['op']})"
            raise ModelError(f"{what} has no export: leave it out, or run the model with edgelearn itself")
        if record["input"][0] != index - 1 or (record["op"] != Op.ADD and record["input"][1] != -1):
            raise ModelError(f"{_layer(graph, record)} does not read the one before it: export a chain of layers")
    for before, record in pairwise(graph.records):
        if math.prod(_shape_read(record)) != before["active"] * sides_after(before).positions:
            raise ModelError("the widths of two layers do not join: cut the net with submodel() again")


def _name(graph: Graph, record: np.void) -> str:
    """Of the layer that a record with parameters belongs to; else nothing."""
    names = [p.name.rpartition(".")[0] for p in graph.parameters if p.offset == record["offset"]]
    return names[0] if names and record["params"] else ""


def _layer(graph: Graph, record: np.void) -> str:
    """The layer that a record belongs to, in words."""
    name = _name(graph, record)
    return f"layer '{name}'" if name else f"a layer of block {record['block']}"


def _shape_read(record: np.void) -> tuple[int, ...]:
    """Shape of the samples that a record reads."""
    features, size = int(record["fan_in_active"]), int(record["size"])
    return (*sides_of(size), features) if size else (features,)


def _entry(graph: Graph, turn: bool) -> Iterator[Primitive]:
    """From raw samples to those that the net reads; a map gets all its axes at once."""
    shape = graph.input_shape
    read = next(_shape_read(record) for record in graph.records if record["op"] != Op.RESCALE)
    if turn and len(read) == 3 and read[2] == shape[-1]:
        yield Reshape((read[2], *read[:2]))
        yield Transpose(TO_LAST)
    elif turn:
        yield Transpose((*range(1, len(shape)), 0))
    if len(read) == 3:
        yield Reshape(read)


def _branch(graph: Graph, index: int, shape: tuple[int, ...]) -> list[Primitive]:
    """What keeps samples of this shape in front of a record for an addition that needs them again."""
    again = [r for r in graph.records[index:] if r["op"] == Op.ADD and r["input"][1] == index - 1]
    if not again:
        return []
    read = _shape_read(again[0])
    return [Branch()] if read == shape else [Reshape(read), Branch()]


def _steps(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterator[Primitive]:
    """What a record does to samples of this shape. Scaling takes them in any shape."""
    read = shape if record["op"] == Op.RESCALE else _shape_read(record)
    if read != shape:
        yield Reshape(read)
    yield from LOWERINGS[Op(record["op"])](record, flat, read)


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
    if (scale != 1).any():
        yield Mul(scale)
    if shift.any():
        yield Add(shift)


def _weight(record: np.void, flat: FloatArray, *kernel: int) -> tuple[FloatArray, FloatArray | None]:
    """Weight (*kernel, units) and bias of a product, cut to the units in use."""
    stride, first, units = int(record["stride"]), int(record["offset"]), int(record["active"])
    end = first + math.prod(kernel) * stride
    bias = flat[end : end + units] if record["flags"] & FLAG_BIAS else None
    return flat[first:end].reshape(*kernel, stride)[..., :units], bias


def _dense(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    weight, bias = _weight(record, flat, int(record["fan_in"]))
    return (MatMul(np.ascontiguousarray(weight[: record["fan_in_active"]]), bias),)


def _conv(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    window, groups = window_of_record(record), groups_of_record(record)
    if (record["active"], record["fan_in_active"]) != (record["units"], record["fan_in"]):
        raise ModelError("a convolution with channels cut off has no export: cut dense layers only")
    weight, bias = _weight(record, flat, *window.kernel, int(record["fan_in"]) // groups)
    return (Conv(np.ascontiguousarray(weight), bias, window, groups),)


def _batchnorm(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    rows = 2 + 2 * int(record["window"])  # a nested net has statistics for each width that is read, the widest first
    arrays = _arrays(record, flat, int(record["params"]) // int(record["units"]))
    gamma, beta, mean, variance = (*arrays[:2], *arrays[rows : rows + 2])
    return (BatchNorm(gamma, beta, mean, variance, float(record["arg"][0])),)


def _layernorm(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    gamma, beta = _arrays(record, flat, 2)
    return (LayerNorm(gamma, beta, float(record["arg"][0])),)


def _embedding(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    first, size = int(record["offset"]), int(record["params"])
    return (Embedding(flat[first : first + size].reshape(-1, int(record["stride"]))[:, : record["active"]]),)


def _positions(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    first, size = int(record["offset"]), int(record["params"])
    return (Positions(flat[first : first + size].reshape(shape)),)


def _attention(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    """Heads in use: a prefix of those stored."""
    return (Attention(groups_of_record(record) * int(record["active"]) // int(record["units"])),)


def _recurrent(record: np.void, flat: FloatArray, shape: tuple[int, ...]) -> Iterable[Primitive]:
    op, first, units, inputs = Op(int(record["op"])), *(int(record[k]) for k in ("offset", "units", "fan_in"))
    rows = flat[first : first + int(record["params"])].reshape(-1, RECURRENT[op] * units)
    weight, recurrent, biases = np.split(rows, [inputs, inputs + units])
    bias, inner = [*biases, None, None][:2]
    if record["flags"] & FLAG_PADDED:
        raise ModelError(
            "a net with Masking leaves as .safetensors or .h only: for sequences of one length, copy its weights to a "
            "net of the same layers without Masking, and export that"
        )
    relu, every = bool(record["arg"][0]), bool(record["flags"] & FLAG_SEQUENCES)
    return (Recurrent(op, weight, recurrent, bias, inner, relu, every),)


Lowering = Callable[[np.void, FloatArray, tuple[int, ...]], Iterable[Primitive]]

LOWERINGS: dict[Op, Lowering] = {
    Op.RESCALE: _rescale,
    Op.DENSE: _dense,
    Op.CONV: _conv,
    Op.MAXPOOL: lambda record, flat, shape: (MaxPool(window_of_record(record)),),
    Op.AVGPOOL: lambda record, flat, shape: (AvgPool(window_of_record(record)),),
    Op.GLOBAL_AVGPOOL: lambda record, flat, shape: (GlobalAvgPool(),),
    Op.BATCHNORM: _batchnorm,
    Op.LAYERNORM: _layernorm,
    Op.RELU: lambda record, flat, shape: (Relu(),),
    Op.LEAKY_RELU: lambda record, flat, shape: (LeakyRelu(float(record["arg"][0])),),
    Op.TANH: lambda record, flat, shape: (Tanh(),),
    Op.SIGMOID: lambda record, flat, shape: (Sigmoid(),),
    Op.GELU: lambda record, flat, shape: (Gelu(),),
    Op.DROPOUT: lambda record, flat, shape: (),
    Op.SOFTMAX: lambda record, flat, shape: (Softmax(),),
    Op.EMBEDDING: _embedding,
    Op.POSITIONS: _positions,
    Op.ATTENTION: _attention,
    **dict.fromkeys(RECURRENT, _recurrent),
    Op.ADD: lambda record, flat, shape: (Merge(),),
}
"""What each operation is made of: record, flat parameters, shape of a sample before it. Dropout is nothing
outside training."""

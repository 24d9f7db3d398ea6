# SPDX-License-Identifier: Apache-2.0
"""Recurrent primitives as a loop of TFLite, which has no GRU: one step is written once, however many there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgelearn.export.operators import (
    ADD,
    CONCATENATION,
    FULLY_CONNECTED,
    FUSED,
    FUSED_NONE,
    GATHER,
    LOGISTIC,
    MUL,
    PAD,
    RELU,
    RESHAPE,
    STRIDED_SLICE,
    SUB,
    TANH,
    WHILE,
    Loop,
    Operator,
    Operators,
    Shape,
)
from edgelearn.export.primitives import Recurrent
from edgelearn.graph import FloatArray
from edgelearn.records import Op

_COUNTER, _INPUTS, _STATE, _CELL = 0, 1, 2, 3
"""Values of a loop: the step, all inputs, what the last step gave, and of an LSTM its cell. Then come, where they are
wanted, the outputs: each step takes the first away and appends its own, so that all lie in order in the end."""


class _Body:
    """The operators of one step while they are written; values are known by their number in the loop."""

    def __init__(self, step: Recurrent, shapes: tuple[Shape, ...]) -> None:
        self.step, count = step, step.recurrent.shape[1] // step.units
        self.weight, self.recurrent = (np.split(w, count, axis=-1) for w in (step.weight, step.recurrent))
        none = np.zeros(step.units, np.float32)
        self.bias = [none] * count if step.bias is None else np.split(step.bias, count)
        second = none if step.inner_bias is None else step.inner_bias
        self.inner = np.split(second, second.size // step.units)
        self.shapes: list[Shape] = [(), *shapes]
        self.operators: list[Operator] = []

    def add(self, operator: Operator, *reads: int, shape: Shape | None = None) -> int:
        """Append an operator whose output has the shape of the first value that it reads, or another."""
        shape = self.shapes[reads[0]] if shape is None else shape
        self.operators.append(replace(operator, reads=reads, shape=shape))
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def sum(self, left: int, right: int) -> int:
        """left + right"""
        return self.add(Operator(ADD, (), "AddOptions", {FUSED: FUSED_NONE}), left, right)

    def difference(self, left: int, right: int) -> int:
        """left - right"""
        return self.add(Operator(SUB, (), "SubOptions", {FUSED: FUSED_NONE}), left, right)

    def times(self, left: int, right: int) -> int:
        """left right"""
        return self.add(Operator(MUL, (), "MulOptions", {FUSED: FUSED_NONE}), left, right)

    def tanh(self, value: int) -> int:
        """tanh(value)"""
        return self.add(Operator(TANH), value)

    def sigmoid(self, value: int) -> int:
        """1 / (1 + exp(-value))"""
        return self.add(Operator(LOGISTIC), value)

    def product(self, value: int, weight: FloatArray, bias: FloatArray) -> int:
        """value W + bias"""
        constants = weight.T.copy(), bias
        whole = Operator(FULLY_CONNECTED, constants, "FullyConnectedOptions", {FUSED: FUSED_NONE})
        return self.add(whole, value, shape=bias.shape)

    def total(self, both: int, gate: int) -> int:
        """What a gate makes of inputs and state beside each other."""
        return self.product(both, np.concatenate([self.weight[gate], self.recurrent[gate]]), self.bias[gate])

    def second(self, value: int, gate: int) -> int:
        """value + the second bias of a gate, where gates have one."""
        if len(self.inner) == 1:
            return value
        return self.add(Operator(ADD, (self.inner[gate],), "AddOptions", {FUSED: FUSED_NONE}), value)

    def inputs(self) -> int:
        """Those of this step."""
        (_, features), gather = self.shapes[_INPUTS], Operator(GATHER, (), "GatherOptions", {"axis": 1})
        return self.add(gather, _INPUTS, _COUNTER, shape=(features,))

    def beside(self, left: int, right: int, axis: int = 1, shape: Shape | None = None) -> int:
        """Two values one behind the other."""
        joined = Operator(CONCATENATION, (), "ConcatenationOptions", {"axis": axis, FUSED: FUSED_NONE})
        shape = shape or (self.shapes[left][0] + self.shapes[right][0],)
        return self.add(joined, left, right, shape=shape)

    def appended(self, outputs: int, h: int) -> int:
        """Outputs (1, steps, units) with one more in place of the first."""
        _, steps, units = self.shapes[outputs]
        last = self.add(Operator(RESHAPE, (np.array([-1, 1, 1, units], np.int32),)), h, shape=(1, 1, units))
        if steps == 1:
            return last
        rest = self.add(sliced((0, 0, 1, 0), (0, 0, 0, 0), 0b1011, 0b1111), outputs, shape=(1, steps - 1, units))
        return self.beside(rest, last, 2, (1, steps, units))


def sliced(
    begin: tuple[int, ...], end: tuple[int, ...], first: int, last: int | None = None, drop: int = 0
) -> Operator:
    """A part of a value: ends along every axis; where a bit of `first` and `last` is set, as far as it goes. Axes in
    `drop` go."""
    masks: dict[str, float] = {
        "begin_mask": first,
        "end_mask": first if last is None else last,
        "shrink_axis_mask": drop,
    }
    ends = (np.array(begin, np.int32), np.array(end, np.int32), np.ones(len(begin), np.int32))
    return Operator(STRIDED_SLICE, ends, "StridedSliceOptions", masks)


def _simple(b: _Body) -> tuple[int, ...]:
    total = b.total(b.beside(b.inputs(), _STATE), 0)
    return (b.add(Operator(RELU), total) if b.step.relu else b.tanh(total),)


def _gru(b: _Body) -> tuple[int, ...]:
    """Gates read inputs and state at once; the candidate reads them apart, since a gate comes between."""
    x = b.inputs()
    both = b.beside(x, _STATE)
    z, r = (b.sigmoid(b.second(b.total(both, gate), gate)) for gate in (0, 1))
    recurrent = b.product(_STATE, b.recurrent[2], b.inner[-1])
    n = b.tanh(b.sum(b.product(x, b.weight[2], b.bias[2]), b.times(r, recurrent)))
    return (b.sum(n, b.times(z, b.difference(_STATE, n))),)


def _lstm(b: _Body) -> tuple[int, ...]:
    both = b.beside(b.inputs(), _STATE)
    i, f, g, o = (b.total(both, gate) for gate in range(4))
    cell = b.sum(b.times(b.sigmoid(f), _CELL), b.times(b.sigmoid(i), b.tanh(g)))
    return b.times(b.sigmoid(o), b.tanh(cell)), cell


_CELLS: dict[Op, Callable[[_Body], tuple[int, ...]]] = {Op.SIMPLE_RNN: _simple, Op.GRU: _gru, Op.LSTM: _lstm}


def recurrent(step: Recurrent, shape: Shape) -> Operators:
    """A loop over sequences (1, steps, features), from a state of zeros; those are made of the samples, so that there
    are as many."""
    _, steps, features = shape
    outputs, is_lstm = (1, steps, step.units), step.op is Op.LSTM
    shapes = ((steps, features), *[(step.units,)] * (1 + is_lstm), *[outputs] * step.every)
    flat = Operator(RESHAPE, (np.array([-1, steps, features], np.int32),), reads=(0,), shape=(steps, features))
    first = sliced((0, 0, 0, 0), (0, 1, 1, 1), 0b0001, 0b0001, 0b0110)
    column = sliced((0, 0, 0, 0), (0, 0, 0, 1), 0b1111, 0b0111)
    start = (flat, *_zeros(first, 1, (step.units,)), *(_zeros(column, 4, outputs) if step.every else ()))
    reads = (1, *[4] * (1 + is_lstm), *[7] * step.every)
    none = np.zeros((), np.int32)
    return *start, Operator(WHILE, (none,), "WhileOptions", reads=reads, picks=True, loop=_loop(step, steps, shapes))


def _zeros(column: Operator, before: int, shape: Shape) -> Operators:
    """Zeros in that shape, for as many samples as there are, made of one column of them; `before` operators come
    first."""
    narrow = (*shape[:-1], 1)
    around = np.zeros((len(shape) + 1, 2), np.int32)
    around[-1, 1] = shape[-1] - 1
    return (
        replace(column, reads=(0,), shape=narrow),
        Operator(SUB, (), "SubOptions", {FUSED: FUSED_NONE}, reads=(before + 1, before + 1), shape=narrow),
        Operator(PAD, (around,), reads=(before + 2,), shape=shape),
    )


def _loop(step: Recurrent, steps: int, shapes: tuple[Shape, ...]) -> Loop:
    body = _Body(step, shapes)
    one = np.array(1, np.int32)
    counter = body.add(Operator(ADD, (one,), "AddOptions", {FUSED: FUSED_NONE}, kind="int32"), _COUNTER)
    states = _CELLS[step.op](body)
    outputs = (body.appended(len(shapes), states[0]),) if step.every else ()
    gives = (counter, _INPUTS, *states, *outputs)
    return Loop(steps, shapes, tuple(body.operators), gives, len(shapes) if step.every else _STATE)

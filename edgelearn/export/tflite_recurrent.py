# SPDX-License-Identifier: Apache-2.0
"""Recurrent primitives as operators of TFLite, one step behind the other, since TFLite has no GRU.

The products of all steps' inputs are one operator. Weights are written once, however many steps read them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.export.operators import (
    ADD,
    CONCATENATION,
    FULLY_CONNECTED,
    FUSED,
    FUSED_NONE,
    FUSED_RELU,
    KEEPING_AXES,
    LOGISTIC,
    MUL,
    RESHAPE,
    STRIDED_SLICE,
    SUB,
    TANH,
    Operator,
    Operators,
    Shape,
)
from edgelearn.export.primitives import Recurrent
from edgelearn.graph import FloatArray, Op


class _Steps:
    """Operators while they are written; what each gives is known by its number, 0 is what the first one reads."""

    def __init__(self, step: Recurrent, shape: Shape) -> None:
        self.step, self.units, self.count = step, step.units, shape[1]
        self.operators: list[Operator] = []
        bias = np.zeros(step.weight.shape[1], np.float32) if step.bias is None else step.bias
        inner = np.zeros_like(bias) if step.inner_bias is None else step.inner_bias
        self.recurrent = [
            (w.T.copy(), b) for w, b in zip(*(self._parted(a) for a in (step.recurrent, inner)), strict=True)
        ]
        fields: dict[str, float] = {FUSED: FUSED_NONE, "keep_num_dims": 1}
        self.own = []
        for weight, part in zip(self._parted(step.weight), self._parted(bias), strict=True):
            constants, after = (weight.T.copy(), part), (*shape[:2], len(part))
            whole = Operator(FULLY_CONNECTED, constants, "FullyConnectedOptions", fields, KEEPING_AXES, (0,), after)
            self.own.append(self._add(whole))

    def _parted(self, array: FloatArray) -> list[FloatArray]:
        """The candidate of a GRU apart from its gates, since the reset gate comes between its products."""
        return np.split(array, [2 * self.units], axis=-1) if self.step.op is Op.GRU else [array]

    def _add(self, operator: Operator) -> int:
        self.operators.append(operator)
        return len(self.operators)

    def _binary(self, code: int, options: str, left: int, right: int, fused: int = FUSED_NONE) -> int:
        shape = self.operators[left - 1].shape
        return self._add(Operator(code, (), options, {FUSED: fused}, reads=(left, right), shape=shape))

    def add(self, left: int, right: int, fused: int = FUSED_NONE) -> int:
        """left + right, with a relu behind it where it is fused."""
        return self._binary(ADD, "AddOptions", left, right, fused)

    def sub(self, left: int, right: int) -> int:
        """left - right"""
        return self._binary(SUB, "SubOptions", left, right)

    def mul(self, left: int, right: int) -> int:
        """left right"""
        return self._binary(MUL, "MulOptions", left, right)

    def apply(self, code: int, value: int) -> int:
        """A function of one value."""
        return self._add(Operator(code, reads=(value,), shape=self.operators[value - 1].shape))

    def part(self, value: int, index: int, count: int = 1) -> int:
        """`count` times as many columns as there are units, from the `index`-th on."""
        ends = np.array([[0, index * self.units], [0, (index + count) * self.units]], np.int32)
        return self._slice(value, ends, 0b01, 0, (count * self.units,))

    def at(self, value: int, t: int) -> int:
        """One step of (1, steps, columns)."""
        ends = np.array([[0, 0, t, 0], [0, 1, t + 1, 0]], np.int32)
        return self._slice(value, ends, 0b1001, 0b0110, (self.operators[value - 1].constants[1].size,))

    def _slice(self, value: int, ends: NDArray[np.int32], whole: int, dropped: int, shape: Shape) -> int:
        constants = (ends[0], ends[1], np.ones(ends.shape[1], np.int32))
        masks: dict[str, float] = {"begin_mask": whole, "end_mask": whole, "shrink_axis_mask": dropped}
        return self._add(Operator(STRIDED_SLICE, constants, "StridedSliceOptions", masks, reads=(value,), shape=shape))

    def product(self, h: int, part: int) -> int:
        """h V + its bias"""
        fields: dict[str, float] = {FUSED: FUSED_NONE, "keep_num_dims": 0}
        constants = self.recurrent[part]
        shape = (len(constants[1]),)
        return self._add(Operator(FULLY_CONNECTED, constants, "FullyConnectedOptions", fields, reads=(h,), shape=shape))

    def zeros(self) -> int:
        """What the first step finds, for any batch."""
        first = self.part(self.at(self.own[0], 0), 0)
        nothing = np.zeros(1, np.float32)
        return self._add(
            Operator(MUL, (nothing,), "MulOptions", {FUSED: FUSED_NONE}, reads=(first,), shape=(self.units,))
        )

    def finish(self, outputs: list[int], shape: Shape) -> Operators:
        """All steps beside each other, or the last one alone, as the last operator."""
        if self.step.every:
            beside = (shape[1] * self.units,)
            fields: dict[str, float] = {"axis": 1, FUSED: FUSED_NONE}
            self._add(Operator(CONCATENATION, (), "ConcatenationOptions", fields, reads=tuple(outputs), shape=beside))
            target = np.array([-1, *shape[:2], self.units], np.int32)
            self._add(Operator(RESHAPE, (target,)))
        return tuple(self.operators)


def _simple(s: _Steps, t: int, h: int, state: int) -> tuple[int, int]:
    own, inner = s.at(s.own[0], t), s.product(h, 0)
    return (s.add(own, inner, FUSED_RELU) if s.step.relu else s.apply(TANH, s.add(own, inner))), state


def _gru(s: _Steps, t: int, h: int, state: int) -> tuple[int, int]:
    gates = s.apply(LOGISTIC, s.add(s.at(s.own[0], t), s.product(h, 0)))
    z, r = s.part(gates, 0), s.part(gates, 1)
    n = s.apply(TANH, s.add(s.at(s.own[1], t), s.mul(r, s.product(h, 1))))
    return s.add(n, s.mul(z, s.sub(h, n))), state


def _lstm(s: _Steps, t: int, h: int, state: int) -> tuple[int, int]:
    total = s.add(s.at(s.own[0], t), s.product(h, 0))
    i, f, o = (s.apply(LOGISTIC, s.part(total, gate)) for gate in (0, 1, 3))
    g = s.apply(TANH, s.part(total, 2))
    state = s.add(s.mul(f, state), s.mul(i, g))
    return s.mul(o, s.apply(TANH, state)), state


_CELLS: dict[Op, Any] = {Op.SIMPLE_RNN: _simple, Op.GRU: _gru, Op.LSTM: _lstm}


def recurrent(step: Recurrent, shape: Shape) -> Operators:
    """All steps of sequences (1, steps, features)."""
    s = _Steps(step, shape)
    h = state = s.zeros()
    outputs = []
    for t in range(s.count):
        h, state = _CELLS[step.op](s, t, h, state)
        outputs.append(h)
    return s.finish(outputs, shape)

# SPDX-License-Identifier: Apache-2.0
"""The operators of a whole net in order: what each reads, where a relu is a field of the one before it, where float32
becomes int8 and int8 float32."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgelearn.export import primitives
from edgelearn.export.int8 import Affine
from edgelearn.export.operators import (
    DEQUANTIZE,
    FUSED,
    FUSED_RELU,
    GATHER,
    INT8,
    PAD,
    QUANTIZE,
    RELU,
    Operator,
    Shape,
)
from edgelearn.export.primitives import Program
from edgelearn.export.quantize import FLOAT, Quantized, Weight, unquantized, with_product
from edgelearn.export.tflite_ops import OPERATORS


@dataclass(frozen=True)
class Placed:
    """An operator in a net: the values it reads, 0 the net's input and i + 1 the output of operator i, the shape of
    its output, None if that is one number, and what it is in int8; None: it is float32."""

    operator: Operator
    reads: tuple[int, ...]
    shape: Shape | None
    affine: Affine | None = None


def place(net: Program | Quantized) -> list[Placed]:
    """All operators in order; a relu becomes a field of the one before it where it can."""
    whole = net if isinstance(net, Quantized) else unquantized(net)
    chain = _Chain(whole)
    for index in range(len(whole.program.steps)):
        chain.step(index)
    if whole.io == "float32":
        chain.as_float()
    return chain.placed


class _Chain:
    """Operators while they are placed; `held` is what the latest value is in int8."""

    def __init__(self, net: Quantized) -> None:
        self.net = net
        self.shapes = net.program.shapes
        self.placed: list[Placed] = []
        self.branches: list[int] = []
        self.held = net.values[0] if net.io == "int8" else None
        if net.io == "float32":
            self._as_int8(net.values[0], self.shapes[0])

    def step(self, index: int) -> None:
        """Place the operators of a step, and what it takes to get from float32 to int8 and back."""
        step = self.net.program.steps[index]
        if isinstance(step, primitives.Branch):
            self.branches.append(len(self.placed))
        elif self.held is None or isinstance(step, FLOAT):
            self.as_float()
            self._float_step(index)
        else:
            self._int8_step(index, self.held)

    def _float_step(self, index: int) -> None:
        """A step that reads float32; rows of a table in int8 are int8 all the same."""
        weight, after, start = self.net.weights[index], self.net.values[index + 1], len(self.placed)
        for operator, shape in self._operators(index, isinstance(self.net.program.steps[index], primitives.Embedding)):
            if operator.code == GATHER and weight is not None:
                rows = replace(operator, version=INT8[GATHER], scales=(weight.scale,))
                self._add(rows, start, shape, after)
                self.held = after
            else:
                self._add(operator, start, shape, None)
        if self.held is None:
            self._as_int8(after, self.shapes[index + 1])

    def _int8_step(self, index: int, before: Affine) -> None:
        """A step that reads what `before` says and gives int8; a sum whose relu follows has the scale of that."""
        weight, start = self.net.weights[index], len(self.placed)
        given = self.net.values[index + 1] or self.net.values[index + 2]
        for operator, shape in self._operators(index, True):
            own = before if operator.code == PAD else given  # padding keeps what it pads
            self._add(_in_int8(operator, before, weight), start, shape, own)
        self.held = given

    def _operators(self, index: int, is_int8: bool) -> list[tuple[Operator, Shape]]:
        """A step's operators, each with the shape of what it gives; where asked, with its numbers in int8."""
        step, weight, start = self.net.program.steps[index], self.net.weights[index], len(self.placed)
        if is_int8 and weight is not None:
            step = with_product(step, weight.values, weight.bias)
        made = OPERATORS[type(step)](step, self.shapes[index])
        if isinstance(step, primitives.Merge):
            branch = self.branches.pop() - start
            made = tuple(replace(operator, reads=(0, branch)) for operator in made)
        return [(operator, operator.shape or self.shapes[index + 1]) for operator in made]

    def _add(self, operator: Operator, start: int, shape: Shape, affine: Affine | None) -> None:
        is_kept = len(self.placed) in self.branches
        if operator.code == RELU and self.placed and FUSED in self.placed[-1].operator.fields and not is_kept:
            self.placed[-1] = replace(_with_relu(self.placed[-1]), affine=affine)
        else:
            reads = tuple(start + i for i in operator.reads) or (len(self.placed),)
            self.placed.append(Placed(operator, reads, shape, affine))

    def as_float(self) -> None:
        """The latest value as float32."""
        if self.held is not None:
            shape = (self.placed[-1].shape if self.placed else None) or self.shapes[0]
            self._add(Operator(DEQUANTIZE, version=2), len(self.placed), shape, None)
            self.held = None

    def _as_int8(self, affine: Affine | None, shape: Shape) -> None:
        if affine is not None:
            self._add(Operator(QUANTIZE), len(self.placed), shape, affine)
            self.held = affine


def _in_int8(operator: Operator, before: Affine, weight: Weight | None) -> Operator:
    """The operator in the version that takes int8, the scales of a product with it."""
    version = max(operator.version, INT8[operator.code])
    if weight is None or operator.code == PAD:
        return replace(operator, version=version)
    scales = (weight.scale, np.float32(before.scale) * weight.scale)
    return replace(operator, version=version, scales=scales)


def _with_relu(placed: Placed) -> Placed:
    fields = {**placed.operator.fields, FUSED: FUSED_RELU}
    return replace(placed, operator=replace(placed.operator, fields=fields))

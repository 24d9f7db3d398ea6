# SPDX-License-Identifier: Apache-2.0
"""Primitives as operators of TFLite: one table entry per primitive.

Every float operator is written as its version 1, which all runtimes know, but for a convolution in groups: older
runtimes would take its weights for others, and refuse it by its version. In int8 each has the first version that has
int8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.export import primitives
from edgelearn.export.int8 import Affine
from edgelearn.export.operators import (
    ADD,
    AVERAGE_POOL_2D,
    BATCH_MATMUL,
    CAST,
    CONV_2D,
    DEPTHWISE_CONV_2D,
    DEQUANTIZE,
    FULLY_CONNECTED,
    FUSED,
    FUSED_NONE,
    FUSED_RELU,
    GATHER,
    GELU,
    GROUPED,
    INT8,
    LEAKY_RELU,
    LOGISTIC,
    MAX_POOL_2D,
    MEAN,
    MUL,
    PAD,
    QUANTIZE,
    RELU,
    RESHAPE,
    RSQRT,
    SAME,
    SOFTMAX,
    SQUARED_DIFFERENCE,
    SUB,
    TANH,
    TRANSPOSE,
    VALID,
    Operator,
    Operators,
    Shape,
)
from edgelearn.export.primitives import Program
from edgelearn.export.quantize import FLOAT, Quantized, Weight, unquantized, with_product
from edgelearn.export.tflite_recurrent import recurrent
from edgelearn.export.tflite_schema import TENSOR_TYPES
from edgelearn.geometry import Sides, Window


def _reshape(step: primitives.Reshape, shape: Shape) -> Operators:
    return (Operator(RESHAPE, (np.array([-1, *step.shape], np.int32),)),)


def _transpose(step: primitives.Transpose, shape: Shape) -> Operators:
    return (Operator(TRANSPOSE, (np.array([0, *(a + 1 for a in step.order)], np.int32),)),)


def _mul(*factors: NDArray[np.float32], reads: tuple[int, ...] = ()) -> Operator:
    return Operator(MUL, factors, "MulOptions", {FUSED: FUSED_NONE}, reads=reads)


def _add(term: NDArray[np.float32], shape: Shape | None = None) -> Operator:
    return Operator(ADD, (term,), "AddOptions", {FUSED: FUSED_NONE}, shape=shape)


def _bias(step: primitives.MatMul | primitives.Conv) -> NDArray[np.float32]:
    """Version 1 knows no product without one."""
    return np.zeros(step.weight.shape[-1], np.float32) if step.bias is None else step.bias


def _matmul(step: primitives.MatMul, shape: Shape) -> Operators:
    constants = (step.weight.T, _bias(step))
    return (Operator(FULLY_CONNECTED, constants, "FullyConnectedOptions", {FUSED: FUSED_NONE}),)


def _conv(step: primitives.Conv, shape: Shape) -> Operators:
    """tflite-runtime goes wrong where `same` leaves an axis that needs no padding and steps past its kernel: there
    the padding is an operator of its own, or none."""
    kernel, strides = step.window.kernel, step.window.strides
    around = np.array([(0, 0), *step.window.padding(Sides(*shape[:2])), (0, 0)], np.int32)
    if not around.any():
        return (_convolution(step, VALID),)
    if all(k >= s for k, s in zip(kernel, strides, strict=True)):
        return (_convolution(step, SAME),)
    height, width = np.add(shape[:2], around[1:3].sum(axis=1)).tolist()
    return Operator(PAD, (around,), shape=(height, width, shape[2])), _convolution(step, VALID)


def _convolution(step: primitives.Conv, padding: int) -> Operator:
    *kernel, depth, filters = step.weight.shape
    fields = _window(step.window, padding)
    if depth == 1 and step.groups > 1:
        constants = step.weight.reshape(1, *kernel, filters), _bias(step)
        fields["depth_multiplier"] = filters // step.groups
        return Operator(DEPTHWISE_CONV_2D, constants, "DepthwiseConv2DOptions", fields)
    constants = step.weight.transpose(3, 0, 1, 2), _bias(step)
    return Operator(CONV_2D, constants, "Conv2DOptions", fields, version=GROUPED if step.groups > 1 else 1)


def _pool(code: int, window: Window) -> Operators:
    height, width = window.kernel
    fields = {**_window(window, SAME if window.same else VALID), "filter_height": height, "filter_width": width}
    return (Operator(code, (), "Pool2DOptions", fields),)


def _window(window: Window, padding: int) -> dict[str, float]:
    height, width = window.strides
    return {"padding": padding, "stride_h": height, "stride_w": width, FUSED: FUSED_NONE}


def _mean(*axes: int, shape: Shape | None = None) -> Operator:
    return Operator(MEAN, (np.array(axes, np.int32),), "ReducerOptions", {"keep_dims": 1}, shape=shape)


def _layernorm(step: primitives.LayerNorm, shape: Shape) -> Operators:
    one = (*shape[:-1], 1)
    return (
        _mean(-1, shape=one),
        Operator(SQUARED_DIFFERENCE, reads=(0, 1)),
        _mean(-1, shape=one),
        _add(np.array([step.epsilon], np.float32), one),
        Operator(RSQRT, shape=one),
        Operator(SUB, (), "SubOptions", {FUSED: FUSED_NONE}, reads=(0, 1)),
        _mul(reads=(6, 5)),
        *(() if step.gamma is None or step.beta is None else (_mul(step.gamma), _add(step.beta))),
    )


def _embedding(step: primitives.Embedding, shape: Shape) -> Operators:
    """Steps first, since a row comes in place of each number."""
    reshape = Operator(RESHAPE, (np.array([-1, *shape[:-1]], np.int32),), shape=shape[:-1])
    types: dict[str, float] = {"from_type": TENSOR_TYPES["float32"], "to_type": TENSOR_TYPES["int32"]}
    return (
        reshape,
        Operator(CAST, (), "CastOptions", types, shape=shape[:-1], kind="int32"),
        Operator(GATHER, (step.table,), "GatherOptions", {"axis": 0}, picks=True),
    )


def _attention(step: primitives.Attention, shape: Shape) -> Operators:
    """Queries, keys and values of all heads are every third of what lies beside each other."""
    steps, units, parts = shape[0] * shape[1], shape[2] // (3 * step.heads), 3 * step.heads
    of_head, scores = (step.heads, steps, units), (step.heads, steps, steps)
    turn = np.array([0, 2, 1, 3], np.int32)
    heads = [np.arange(part, parts, 3, dtype=np.int32) for part in range(3)]
    scaled = () if step.is_scaled else (replace(_mul(np.array([units**-0.5], np.float32)), shape=scores),)
    return (
        Operator(RESHAPE, (np.array([-1, steps, parts, units], np.int32),), shape=(steps, parts, units)),
        Operator(TRANSPOSE, (turn,), shape=(parts, steps, units)),
        *(Operator(GATHER, (own,), "GatherOptions", {"axis": 1}, reads=(2,), shape=of_head) for own in heads),
        Operator(BATCH_MATMUL, (), "BatchMatMulOptions", {"adj_y": 1}, reads=(3, 4), shape=scores),
        *scaled,
        Operator(SOFTMAX, (), "SoftmaxOptions", {"beta": 1.0}, shape=scores),
        Operator(BATCH_MATMUL, (), "BatchMatMulOptions", reads=(7 + len(scaled), 5), shape=of_head),
        Operator(TRANSPOSE, (turn,), shape=(steps, step.heads, units)),
        Operator(RESHAPE, (np.array([-1, *shape[:2], step.heads * units], np.int32),)),
    )


OPERATORS: dict[type, Callable[[Any, Shape], Operators]] = {
    primitives.Reshape: _reshape,
    primitives.Transpose: _transpose,
    primitives.Mul: lambda step, shape: (_mul(step.factor),),
    primitives.Add: lambda step, shape: (_add(step.term),),
    primitives.MatMul: _matmul,
    primitives.Conv: _conv,
    primitives.MaxPool: lambda step, shape: _pool(MAX_POOL_2D, step.window),
    primitives.AvgPool: lambda step, shape: _pool(AVERAGE_POOL_2D, step.window),
    primitives.GlobalAvgPool: lambda step, shape: (_mean(1, 2),),
    primitives.LayerNorm: _layernorm,
    primitives.Relu: lambda step, shape: (Operator(RELU),),
    primitives.LeakyRelu: lambda step, shape: (Operator(LEAKY_RELU, (), "LeakyReluOptions", {"alpha": step.slope}),),
    primitives.Tanh: lambda step, shape: (Operator(TANH),),
    primitives.Sigmoid: lambda step, shape: (Operator(LOGISTIC),),
    primitives.Gelu: lambda step, shape: (Operator(GELU, (), "GeluOptions", {"approximate": 1}),),
    primitives.Softmax: lambda step, shape: (Operator(SOFTMAX, (), "SoftmaxOptions", {"beta": 1.0}),),
    primitives.Embedding: _embedding,
    primitives.Positions: lambda step, shape: (_add(step.table[None]),),
    primitives.Attention: _attention,
    primitives.Recurrent: recurrent,
    primitives.Branch: lambda step, shape: (),
    primitives.Merge: lambda step, shape: (Operator(ADD, (), "AddOptions", {FUSED: FUSED_NONE}),),
}
"""What each primitive is made of, from its step and the shape of a sample before it."""


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
        step, after = self.net.program.steps[index], self.net.values[index + 1]
        if isinstance(step, primitives.Branch):
            self.branches.append(len(self.placed))
            return
        weight, before = self.net.weights[index], self.held
        is_int8 = before is not None and not isinstance(step, FLOAT)
        if before is not None and not is_int8:
            self.as_float()
        if is_int8 and weight is not None:
            step = with_product(step, weight.values, weight.bias)
        if isinstance(step, primitives.Embedding) and weight is not None:
            step = with_product(step, weight.values, weight.bias)
        start = len(self.placed)
        for operator in OPERATORS[type(step)](step, self.shapes[index]):
            shape = operator.shape or self.shapes[index + 1]
            if isinstance(step, primitives.Merge):
                operator = replace(operator, reads=(0, self.branches.pop() - start))
            if is_int8 and before is not None:
                # Padding before a convolution keeps what it pads; a sum whose relu follows has its scale.
                own = before if operator.code == PAD else after or self.net.values[index + 2]
                self._add(_in_int8(operator, before, weight), start, shape, own)
            elif operator.code == GATHER and weight is not None:
                rows = replace(operator, version=INT8[GATHER], scales=(weight.scale,))
                self._add(rows, start, shape, after)
                self.held = after
            else:
                self._add(operator, start, shape, None)
        if is_int8:
            self.held = after or self.net.values[index + 2]
        elif self.held is None:
            self._as_int8(after, self.shapes[index + 1])

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

# SPDX-License-Identifier: Apache-2.0
"""Primitives as operators of TFLite: one table entry per primitive.

Every float operator is written as its version 1, which all runtimes know, but for a convolution in groups: older
runtimes would take its weights for others, and refuse it by its version. In int8 each has the first version that has
int8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.export import primitives
from edgelearn.export.operators import (
    ADD,
    AVERAGE_POOL_2D,
    BATCH_MATMUL,
    CAST,
    CONV_2D,
    DEPTHWISE_CONV_2D,
    FULLY_CONNECTED,
    FUSED,
    FUSED_NONE,
    GATHER,
    GELU,
    GROUPED,
    LEAKY_RELU,
    LOGISTIC,
    MAX_POOL_2D,
    MEAN,
    MUL,
    PAD,
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

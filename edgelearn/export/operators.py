# SPDX-License-Identifier: Apache-2.0
"""What an operator of TFLite is: codes, versions, options, and the data that it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]

ADD, AVERAGE_POOL_2D, CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, LOGISTIC = 0, 1, 3, 4, 9, 14
MAX_POOL_2D, MUL, RELU, RESHAPE, SOFTMAX, TANH, TRANSPOSE, MEAN = 17, 18, 19, 22, 25, 28, 39, 40
PAD, SUB, RSQRT, LEAKY_RELU, SQUARED_DIFFERENCE, GELU = 34, 41, 76, 98, 99, 150
GATHER, CAST, BATCH_MATMUL = 36, 53, 126
DEQUANTIZE, QUANTIZE = 6, 114
CONCATENATION, STRIDED_SLICE = 2, 45
LESS, WHILE = 58, 119
"""Operator codes: BuiltinOperator of the schema."""

INT8 = {
    **dict.fromkeys((MAX_POOL_2D, AVERAGE_POOL_2D, MEAN, SOFTMAX, LOGISTIC, TANH, LEAKY_RELU, RELU), 2),
    **dict.fromkeys((TRANSPOSE, PAD, GELU, ADD, GATHER), 2),
    **dict.fromkeys((CONV_2D, DEPTHWISE_CONV_2D), 3),
    RESHAPE: 1,
    FULLY_CONNECTED: 4,
}
"""The first version of an operator that takes int8. A product by version 1 would take its scales for one."""

CHANNEL_AXIS = {FULLY_CONNECTED: 0, CONV_2D: 0, DEPTHWISE_CONV_2D: 3}
"""Axis of the units in the weights of a product."""

GROUPED = 6
"""The version of CONV_2D that has groups."""

FUSED = "fused_activation"
FUSED_NONE, FUSED_RELU = 0, 1
SAME, VALID = 0, 1


@dataclass(frozen=True)
class Operator:
    """A TFLite operator: code, constants that follow the data among its inputs, options table and fields, version.

    `scales` are those of int8 weights and their bias, one per unit.
    `reads` names the data by position among what the step has so far: 0 is what the step reads, i what its operator
    i gives; nothing means the latest. `shape` is that of a sample of its output, left out where it is the step's, and
    `kind` the type of a float32 net's. Constants come before the data where it `picks` from them.
    """

    code: int
    constants: tuple[NDArray[Any], ...] = ()
    options: str = ""
    fields: dict[str, float] = field(default_factory=dict)
    version: int = 1
    reads: tuple[int, ...] = ()
    shape: Shape | None = None
    scales: tuple[NDArray[np.float32], ...] = ()
    kind: str = "float32"
    picks: bool = False
    loop: Loop | None = None


Operators = tuple[Operator, ...]


@dataclass(frozen=True)
class Loop:
    """What an operator runs `count` times: a body over values that it hands on to itself.

    Value 0 is how often it ran, a whole number; `shapes` are those of a sample of the values behind it. Operators of
    the body read values by position, those that it gives counted on, and `gives` says what becomes of each of the
    first. The operator's own output is value `result` in the end.
    """

    count: int
    shapes: tuple[Shape, ...]
    body: Operators
    gives: tuple[int, ...]
    result: int

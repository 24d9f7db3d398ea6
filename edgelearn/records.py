# SPDX-License-Identifier: Apache-2.0
"""The 64-byte record of one operation, as the C core runs it and a model file stores it, and how it is read."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edgelearn.geometry import Sides, Window, sides_of, window_of


class Op(IntEnum):
    """Operations; numbers as in edgelearn.h and in every model file."""

    RESCALE = 1
    DENSE = 2
    BATCHNORM = 3
    RELU = 4
    LEAKY_RELU = 5
    TANH = 6
    SIGMOID = 7
    DROPOUT = 8
    SOFTMAX = 9
    CONV = 10
    MAXPOOL = 11
    AVGPOOL = 12
    GLOBAL_AVGPOOL = 13
    LAYERNORM = 14
    GELU = 15
    SIMPLE_RNN = 16
    GRU = 17
    LSTM = 18
    EMBEDDING = 20
    POSITIONS = 21
    ATTENTION = 22
    ADD = 23


RECURRENT = {Op.SIMPLE_RNN: 1, Op.GRU: 3, Op.LSTM: 4}
"""Recurrent operations, and how many products lie side by side in the weights of each."""

FLAG_BIAS = 1
FLAG_SAME = 2
FLAG_NESTED = 4
FLAG_SEQUENCES = 8
"""A recurrent layer hands on its output of every step."""
FLAG_PADDED = 16
"""A recurrent layer passes over padding, of which all values are the record's second argument."""
GROUPS_SHIFT = 16
"""The groups of a convolution, or heads of an attention, stand in the upper half of its flags."""

RECORD = np.dtype(
    [
        ("op", "<u4"),
        ("block", "<u4"),
        ("input", "<i4", (2,)),
        ("units", "<u4"),
        ("active", "<u4"),
        ("fan_in", "<u4"),
        ("fan_in_active", "<u4"),
        ("stride", "<u4"),
        ("offset", "<u4"),
        ("params", "<u4"),
        ("flags", "<u4"),
        ("arg", "<f4", (2,)),
        ("size", "<u4"),
        ("window", "<u4"),
    ]
)
"""One operation; field by field `el_record` of edgelearn.h."""


def window_of_record(record: np.void) -> Window:
    """Kernel, strides and padding of a convolution or pooling."""
    return window_of(int(record["window"]), bool(record["flags"] & FLAG_SAME))


def sides_after(record: np.void) -> Sides:
    """Sides of the map behind a record."""
    if record["op"] in (Op.CONV, Op.MAXPOOL, Op.AVGPOOL):
        return window_of_record(record).over(sides_of(int(record["size"])))
    is_last = record["op"] in RECURRENT and not record["flags"] & FLAG_SEQUENCES
    return Sides(1, 1) if is_last or record["op"] == Op.GLOBAL_AVGPOOL else sides_of(int(record["size"]))


def handed_on(records: NDArray[np.void], block: int) -> tuple[int, int]:
    """Positions, and channels of each, of what a block hands to the next."""
    last = records[records["block"] == block][-1]
    return sides_after(last).positions, int(last["active"])


def groups_of_record(record: np.void) -> int:
    """Groups of a convolution, heads of an attention."""
    return max(int(record["flags"]) >> GROUPS_SHIFT, 1)


def macs_of_record(record: np.void) -> int:
    """Multiply-adds of one sample, of an operation that has any."""
    inputs, units = int(record["fan_in_active"]), int(record["active"])
    if record["op"] == Op.DENSE:
        return inputs * units
    if record["op"] == Op.ATTENTION:
        return 2 * sides_after(record).positions ** 2 * units
    if record["op"] in RECURRENT:
        steps = sides_of(int(record["size"])).positions
        return steps * RECURRENT[Op(int(record["op"]))] * units * (inputs + units)
    kernel, groups = window_of_record(record).kernel, groups_of_record(record)
    each = int(record["fan_in"]) // groups if groups > 1 else inputs
    return each * units * kernel[0] * kernel[1] * sides_after(record).positions

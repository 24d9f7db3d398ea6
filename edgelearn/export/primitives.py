# SPDX-License-Identifier: Apache-2.0
"""The primitive operations that a file format has to know, and nets made of them.

A sample is a vector (features,), or a map (height, width, channels); a sequence is a map of height 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelearn.geometry import Sides, Window
from edgelearn.graph import FloatArray
from edgelearn.records import Op

TO_FIRST, TO_LAST = (2, 0, 1), (1, 2, 0)
"""Orders that bring the channels of a map from the end to the front and back."""


@dataclass(frozen=True)
class Reshape:
    """Gives each sample this shape; the batch stays as it is."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Transpose:
    """Puts the axes of each sample in this order, counted without the batch."""

    order: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Mul:
    """x * factor, broadcast from the last axis on: factor (features,) or (1,)."""

    factor: FloatArray


@dataclass(frozen=True, eq=False)
class Add:
    """x + term, broadcast from the last axis on: term (features,) or (1,)."""

    term: FloatArray


@dataclass(frozen=True, eq=False)
class MatMul:
    """x W + bias along the last axis: weight (inputs, units), bias (units,) or None; `name` is that of its layer."""

    weight: FloatArray
    bias: FloatArray | None
    name: str = ""


@dataclass(frozen=True, eq=False)
class Conv:
    """x * weight + bias over a map: weight (kernel height, kernel width, channels / groups, filters), bias
    (filters,) or None; filters and channels are split alike into `groups`; `name` is that of its layer."""

    weight: FloatArray
    bias: FloatArray | None
    window: Window
    groups: int
    name: str = ""


@dataclass(frozen=True)
class MaxPool:
    """The largest value of each window, per channel."""

    window: Window


@dataclass(frozen=True)
class AvgPool:
    """The mean of each window, per channel; padding is not counted."""

    window: Window


@dataclass(frozen=True)
class GlobalAvgPool:
    """The mean of each channel over all positions: a map of one position."""


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta along the last axis, each array (features,)."""

    gamma: FloatArray
    beta: FloatArray
    mean: FloatArray
    variance: FloatArray
    epsilon: float

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same as x * scale + shift: two float64 arrays (features,)."""
        scale = self.gamma / np.sqrt(self.variance.astype(np.float64) + self.epsilon)
        return scale, self.beta - self.mean * scale


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, mean and variance those of x along its last axis; gamma
    and beta (features,), or None both: one and zero."""

    gamma: FloatArray | None
    beta: FloatArray | None
    epsilon: float


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True)
class LeakyRelu:
    """x where positive, slope * x elsewhere."""

    slope: float


@dataclass(frozen=True)
class Tanh:
    """tanh(x)."""


@dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True)
class Gelu:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""


@dataclass(frozen=True)
class Softmax:
    """exp(x) / sum(exp(x)) along the last axis."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """The row of table (tokens, features) for each whole number of (1, steps, 1): (1, steps, features)."""

    table: FloatArray


@dataclass(frozen=True, eq=False)
class Positions:
    """x + table, which has the shape of a sample."""

    table: FloatArray


@dataclass(frozen=True)
class Attention:
    """softmax(q k^T / sqrt(units)) v of each head over (1, steps, 3 features), for each head its queries, keys and
    values beside each other: (1, steps, features). Queries that come divided by sqrt(units) are `is_scaled`."""

    heads: int
    is_scaled: bool = False


@dataclass(frozen=True, eq=False)
class Recurrent:
    """A SimpleRNN, GRU or LSTM over (1, steps, features), gates in the order of the records: weight (features, gates
    units), recurrent (units, gates units), bias (gates units,) or None and, of a GRU, that of the recurrent product:
    of all gates, or (units,) of the candidate alone.
    Gives `every` step, (1, steps, units), or the last, (units,); `name` is that of its layer."""

    op: Op
    weight: FloatArray
    recurrent: FloatArray
    bias: FloatArray | None
    inner_bias: FloatArray | None
    relu: bool
    every: bool
    name: str = ""

    @property
    def units(self) -> int:
        """Values of an output."""
        return len(self.recurrent)


@dataclass(frozen=True)
class Branch:
    """Keeps what flows for the next Merge; branches lie one behind the other, never inside."""


@dataclass(frozen=True)
class Merge:
    """x + what the last Branch kept."""


Pool = MaxPool | AvgPool | GlobalAvgPool
Activation = Relu | LeakyRelu | Tanh | Sigmoid | Gelu
Spatial = Conv | Pool | Mul | Add | BatchNorm | Activation | Branch | Merge
"""What there is for channels that come first, too."""


@dataclass(frozen=True)
class ChannelsFirst:
    """A step over maps (channels, height, width) that does what `step` does over (height, width, channels); Mul and
    Add have their array (channels, 1, 1)."""

    step: Spatial


Units = Embedding | Positions | Attention | Recurrent
Primitive = Reshape | Transpose | MatMul | Spatial | LayerNorm | Softmax | Units | ChannelsFirst


@dataclass(frozen=True)
class Program:
    """A net as primitives in order; shapes are those of one sample."""

    input_shape: tuple[int, ...]
    steps: tuple[Primitive, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the input and of every step's output: one more than there are steps."""
        shapes = [self.input_shape]
        for step in self.steps:
            shapes.append(shape_after(step, shapes[-1]))
        return tuple(shapes)

    @property
    def labelled(self) -> bool:
        """Whether the outputs are class probabilities."""
        return isinstance(self.steps[-1], Softmax)


def shape_after(step: Primitive, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one sample behind a step, from its shape before."""
    match step:
        case Reshape():
            return step.shape
        case Transpose():
            return tuple(shape[axis] for axis in step.order)
        case ChannelsFirst():
            *sides, channels = shape_after(step.step, (*shape[1:], shape[0]))
            return (channels, *sides)
        case MatMul():
            return (*shape[:-1], step.weight.shape[-1])
        case Conv():
            return (*step.window.over(Sides(*shape[:2])), step.weight.shape[-1])
        case MaxPool() | AvgPool():
            return (*step.window.over(Sides(*shape[:2])), shape[2])
        case GlobalAvgPool():
            return (1, 1, shape[2])
        case Embedding():
            return (*shape[:-1], step.table.shape[1])
        case Recurrent():
            return (*shape[:-1], step.units) if step.every else (step.units,)
        case Attention():
            return (*shape[:-1], shape[-1] // 3)
    return shape

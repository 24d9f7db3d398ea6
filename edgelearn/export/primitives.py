# SPDX-License-Identifier: Apache-2.0
"""The primitive operations that a file format has to know, nets made of them, and passes over such nets.

A pass is a pure function from Program to Program; a format applies those it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelearn.graph import FloatArray


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
    """x * factor, broadcast along the last axis: factor (features,) or (1,)."""

    factor: FloatArray


@dataclass(frozen=True, eq=False)
class Add:
    """x + term, broadcast along the last axis: term (features,) or (1,)."""

    term: FloatArray


@dataclass(frozen=True, eq=False)
class MatMul:
    """x W + bias of flat samples: weight (inputs, units), bias (units,) or None."""

    weight: FloatArray
    bias: FloatArray | None


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, each array (features,)."""

    gamma: FloatArray
    beta: FloatArray
    mean: FloatArray
    variance: FloatArray
    epsilon: float

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same as x * scale + shift: two float64 arrays (features,)."""
        scale = self.gamma / np.sqrt(self.variance.astype(np.float64) + self.epsilon)
        return scale, self.beta - self.mean * scale


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
class Softmax:
    """exp(x) / sum(exp(x)) along the last axis."""


Primitive = Reshape | Transpose | Mul | Add | MatMul | BatchNorm | Relu | LeakyRelu | Tanh | Sigmoid | Softmax


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
    if isinstance(step, Reshape):
        return step.shape
    if isinstance(step, Transpose):
        return tuple(shape[axis] for axis in step.order)
    return (step.weight.shape[1],) if isinstance(step, MatMul) else shape


def fold_batchnorm(program: Program) -> Program:
    """Without BatchNorm: folded into the matrix product right before it, elsewhere a Mul and an Add."""
    steps: list[Primitive] = []
    for step in program.steps:
        if not isinstance(step, BatchNorm):
            steps.append(step)
        elif steps and isinstance(steps[-1], MatMul):
            steps[-1] = _folded(steps[-1], step)
        else:
            scale, shift = step.affine()
            steps += [Mul(scale.astype(np.float32)), Add(shift.astype(np.float32))]
    return Program(program.input_shape, tuple(steps))


def _folded(product: MatMul, norm: BatchNorm) -> MatMul:
    scale, shift = norm.affine()
    bias = shift if product.bias is None else product.bias * scale + shift
    return MatMul((product.weight * scale).astype(np.float32), bias.astype(np.float32))

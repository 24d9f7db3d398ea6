# SPDX-License-Identifier: Apache-2.0
"""Passes: pure functions from Program to Program. A format applies those it needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeGuard

import numpy as np

from edgelearn.export.primitives import (
    TO_FIRST,
    TO_LAST,
    Add,
    Attention,
    BatchNorm,
    Branch,
    ChannelsFirst,
    Conv,
    Gelu,
    LayerNorm,
    LeakyRelu,
    MatMul,
    Merge,
    Mul,
    Pool,
    Positions,
    Primitive,
    Program,
    Recurrent,
    Relu,
    Reshape,
    Sigmoid,
    Spatial,
    Tanh,
    Transpose,
    shape_after,
)

LAST = (LayerNorm, Attention, Positions, Recurrent)
"""Steps over maps that know their channels as the last axis only."""

ANYWHERE = (Relu, LeakyRelu, Tanh, Sigmoid, Gelu, Mul, Add, Branch)
"""Steps that take maps as they come."""


def fold_batchnorm(program: Program) -> Program:
    """Without BatchNorm: folded into the product or convolution right before it, elsewhere a Mul and an Add."""
    steps: list[Primitive] = []
    for step in program.steps:
        if not isinstance(step, BatchNorm):
            steps.append(step)
        elif steps and isinstance(steps[-1], MatMul | Conv):
            steps[-1] = _folded(steps[-1], step)
        else:
            scale, shift = step.affine()
            steps += [Mul(scale.astype(np.float32)), Add(shift.astype(np.float32))]
    return Program(program.input_shape, tuple(steps))


def _folded(product: MatMul | Conv, norm: BatchNorm) -> MatMul | Conv:
    scale, shift = norm.affine()
    bias = shift if product.bias is None else product.bias * scale + shift
    return replace(product, weight=(product.weight * scale).astype(np.float32), bias=bias.astype(np.float32))


def channels_first(program: Program) -> Program:
    """Maps (channels, height, width) inside, if there are windows over them; `simplify` takes out the transpositions
    that cancel. Runtimes have LAST along the last axis only; there products over one position are along it, too."""
    if not any(isinstance(step, Conv | Pool) for step in program.steps):
        return program
    steps: list[Primitive] = []
    layout = _Layout(program)
    for step, shape in zip(program.steps, program.shapes, strict=False):
        if layout.turns(step, shape):
            steps += [Transpose(TO_FIRST), ChannelsFirst(_in_front(step)), Transpose(TO_LAST)]
        elif isinstance(step, Conv):
            steps.append(MatMul(step.weight[0, 0], step.bias, step.name))
        else:
            steps.append(step)
    return Program(program.input_shape, tuple(steps))


class _Layout:
    """Which steps take channels first: those that must, and others behind them."""

    def __init__(self, program: Program) -> None:
        self.all = not any(isinstance(step, LAST) for step in program.steps)
        self.is_first = False
        self.branches: list[bool] = []

    def turns(self, step: Primitive, shape: tuple[int, ...]) -> TypeGuard[Spatial]:
        """Whether a step over samples of this shape does; steps come in order."""
        if isinstance(step, Branch):
            self.branches.append(self.is_first)
        if len(shape) != 3 or not isinstance(step, Spatial):
            self.is_first = step == Transpose(TO_LAST)
            return False
        if isinstance(step, Merge):
            self.is_first = self.branches.pop()
        elif not isinstance(step, ANYWHERE) and not (isinstance(step, Conv) and _is_product(step)):
            self.is_first = True
        return self.is_first or self.all


def _is_product(step: Conv) -> bool:
    """Whether each position is multiplied by the same weights."""
    return step.window.kernel == step.window.strides == (1, 1) and step.groups == 1


def _in_front(step: Spatial) -> Spatial:
    """Factors and terms of channels that are two axes before the last."""
    match step:
        case Mul(factor):
            return Mul(factor.reshape(-1, 1, 1))
        case Add(term):
            return Add(term.reshape(-1, 1, 1))
    return step


def simplify(program: Program) -> Program:
    """Without transpositions and reshapes that cancel, that are one, or that a product can take into its weights."""
    chain = _Chain(program.input_shape)
    for step in program.steps:
        chain.add(step)
    return Program(program.input_shape, tuple(chain.steps))


class _Chain:
    """Steps, and the shape of a sample before the first and behind each."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.steps: list[Primitive] = []
        self.shapes = [shape]

    def add(self, step: Primitive) -> None:
        """Append a step, merged with those at the end where it can be."""
        match self.steps[-2:], step:
            case [*_, Transpose(first)], Transpose(second):
                self._drop(1)
                self.add(Transpose(tuple(first[axis] for axis in second)))
            case _, Transpose(order) if _moves_nothing(order, self.shapes[-1]):
                self.add(Reshape(shape_after(step, self.shapes[-1])))
            case [*_, Reshape()], Reshape():
                self._drop(1)
                self.add(step)
            case _, Reshape(shape) if shape == self.shapes[-1]:
                pass
            case [Transpose(order), Reshape(flat)], MatMul() if len(flat) == 1:
                product = _of_untransposed(step, order, self.shapes[-2])
                self._drop(2)
                self.add(Reshape(flat))
                self.add(product)
            case _:
                self.steps.append(step)
                self.shapes.append(shape_after(step, self.shapes[-1]))

    def _drop(self, count: int) -> None:
        del self.steps[-count:], self.shapes[-count:]


def _moves_nothing(order: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether the values stay where they are in memory: sides of 1 may move."""
    moved = [axis for axis in order if shape[axis] != 1]
    return moved == sorted(moved)


def _of_untransposed(product: MatMul, order: tuple[int, ...], shape: tuple[int, ...]) -> MatMul:
    """The product of a flattened map of this shape, for the same map as it was before it was transposed to it."""
    rows = product.weight.reshape(*shape, -1)
    weight = rows.transpose(*np.argsort(order), len(shape)).reshape(product.weight.shape)
    return replace(product, weight=weight)

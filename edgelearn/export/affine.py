# SPDX-License-Identifier: Apache-2.0
"""Scales and shifts as products: int8 has no fast form of x * scale + shift, and a product after it needs none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgelearn.export.primitives import (
    Add,
    Attention,
    Conv,
    GlobalAvgPool,
    LayerNorm,
    MatMul,
    Mul,
    Primitive,
    Program,
    Reshape,
)
from edgelearn.geometry import Sides, Window
from edgelearn.graph import FloatArray

_POINT = Window((1, 1), (1, 1), False)


def absorb_scaling(program: Program) -> Program:
    """Without Mul and Add: taken into the weights of the product that follows, where that is exact, and else a
    convolution of each channel by itself, over one position. Scales inside other steps go into products, too."""
    steps: list[Primitive] = []
    pending = list(program.steps)
    shape = program.input_shape
    while pending:
        scale, shift, count = _scaling(pending, shape[-1])
        if not count and isinstance(pending[0], LayerNorm):
            steps.append(pending[0])
            pending = _normalised(steps, pending[1:])
        elif not count:
            steps.append(_queries(steps, pending.pop(0)))
        else:
            del pending[:count]
            pending = _into_next(pending, scale, shift) or [*_pointwise(scale, shift, shape), *pending]
        shape = Program(program.input_shape, tuple(steps)).shapes[-1]
    return Program(program.input_shape, tuple(steps))


def _normalised(steps: list[Primitive], following: list[Primitive]) -> list[Primitive]:
    """What follows a normalisation, with its scale and shift where a product can take them."""
    norm = steps[-1]
    assert isinstance(norm, LayerNorm)
    if norm.gamma is None or norm.beta is None:
        return following
    merged = _into_next(following, norm.gamma.astype(np.float64), norm.beta.astype(np.float64))
    if merged is None:
        return following
    steps[-1] = replace(norm, gamma=None, beta=None)
    return merged


def _queries(steps: list[Primitive], step: Primitive) -> Primitive:
    """Attention whose queries come scaled from the product before it; any other step as it is."""
    if not isinstance(step, Attention) or not steps or not isinstance(steps[-1], MatMul | Conv):
        return step
    columns = steps[-1].weight.shape[-1]
    units = columns // (3 * step.heads)
    factor = np.where(np.arange(columns) // units % 3 == 0, units**-0.5, 1.0)
    bias = None if steps[-1].bias is None else (steps[-1].bias * factor).astype(np.float32)
    steps[-1] = replace(steps[-1], weight=(steps[-1].weight * factor).astype(np.float32), bias=bias)
    return replace(step, is_scaled=True)


def _scaling(steps: list[Primitive], channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Scale and shift (channels,) of the Mul and Add at the front, and how many steps these are."""
    scale, shift, count = np.ones(channels), np.zeros(channels), 0
    for step in steps:
        if isinstance(step, Mul):
            scale, shift = scale * step.factor, shift * step.factor
        elif isinstance(step, Add):
            shift = shift + step.term
        else:
            break
        count += 1
    return scale, shift, count


def _into_next(
    steps: list[Primitive], scale: NDArray[np.float64], shift: NDArray[np.float64]
) -> list[Primitive] | None:
    """The steps with the scaling in the first product, reshapes and means over a map before it allowed; None where
    that is not exact."""
    place = next((i for i, step in enumerate(steps) if not isinstance(step, Reshape | GlobalAvgPool)), len(steps))
    if place == len(steps):
        return None
    merged: Primitive | None = None
    match steps[place]:
        case MatMul() as step:
            merged = _into_matmul(step, scale, shift)
        case Conv() as step:
            merged = _into_conv(step, scale, shift)
    return None if merged is None else [*steps[:place], merged, *steps[place + 1 :]]


def _into_matmul(step: MatMul, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Primitive:
    """Value i of a sample has channel i mod channels."""
    rows = len(step.weight)
    moved = np.resize(shift, rows) @ step.weight
    return _scaled(step, step.weight * np.resize(scale, rows)[:, None], moved)


def _into_conv(step: Conv, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Primitive | None:
    """Padding is zero before the shift, so that a shift with padding is not exact."""
    depth, filters = step.weight.shape[2:]
    channels = depth * step.groups
    if np.ptp(scale) == np.ptp(shift) == 0:
        scale, shift = np.resize(scale, channels), np.resize(shift, channels)
    if len(scale) != channels or (step.window.same and shift.any()):
        return None
    group = np.arange(filters) // (filters // step.groups)
    factor, term = (v.reshape(step.groups, depth)[group].T for v in (scale, shift))  # (depth, filters)
    return _scaled(step, step.weight * factor, (step.weight * term).sum(axis=(0, 1, 2)))


def _scaled(step: MatMul | Conv, weight: NDArray[np.float64], moved: NDArray[np.float64]) -> Primitive:
    bias = moved if step.bias is None else step.bias + moved
    return replace(step, weight=weight.astype(np.float32), bias=bias.astype(np.float32))


def _pointwise(scale: NDArray[np.float64], shift: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[Primitive, ...]:
    """Reshape to a map, each channel by itself, reshape back; those that change nothing are taken out later."""
    channels = len(scale)
    sides = Sides(*(1, 1, *shape[:-1])[-2:]) if len(shape) < 4 else Sides(1, math.prod(shape[:-1]))
    weight: FloatArray = scale.astype(np.float32).reshape(1, 1, 1, channels)
    conv = Conv(weight, shift.astype(np.float32), _POINT, channels, "scaling")
    return Reshape((*sides, channels)), conv, Reshape(shape)

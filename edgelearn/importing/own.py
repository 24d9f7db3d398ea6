# SPDX-License-Identifier: Apache-2.0
"""Weights out of files that edgelearn wrote: exactly, or as exactly as folded normalisation can be taken out again.

The net is lowered with the place of each weight in its stead, and written down to constants as an export would. Each
constant of the file then says at its own position which weight it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.export.lower import lower
from edgelearn.export.primitives import Add, BatchNorm, Conv, MatMul, Mul, Primitive, Program, Recurrent
from edgelearn.graph import FloatArray
from edgelearn.inputs.frontend import Input
from edgelearn.net.architecture import Architecture, norms_of

Constants = Mapping[str, NDArray[Any]]

_NOWHERE = -1.0
"""The place of a number that follows from others."""


def places(architecture: Architecture, source: Input) -> Program:
    """The program of a net whose weights are their own places, float64, as far as a file holds them: an input scaling
    that does nothing is left out."""
    graph, (scale, shift) = architecture.graph, scaling(source)
    numbered: Any = np.arange(graph.size, dtype=np.float64)
    program = lower(graph, numbered, source.layout == "channels_first")
    steps = list(program.steps)
    for kind, is_idle in ((Mul, (scale == 1).all()), (Add, not shift.any())):
        if is_idle:
            steps.remove(next(step for step in steps if isinstance(step, kind)))
    return replace(program, steps=tuple(_with_inner(step) for step in steps))


def _with_inner(step: Primitive) -> Primitive:
    """A recurrent step with the second bias that files have of it, where the net has none."""
    if not isinstance(step, Recurrent) or step.bias is None or step.inner_bias is not None:
        return step
    return replace(step, inner_bias=np.full(step.bias.shape, _NOWHERE))


def scaling(source: Input) -> tuple[FloatArray, FloatArray]:
    """Scale and shift of the samples."""
    return source.pairs() or (np.ones(1, np.float32), np.zeros(1, np.float32))


def weights(architecture: Architecture, source: Input, wanted: Constants, held: Constants) -> FloatArray:
    """The flat vector, from the constants of a file, and the same constants with places in them.

    Raises:
        ModelError: a constant that the file lacks, or of another size.
    """
    flat = np.zeros(architecture.graph.size, np.float32)
    known = np.concatenate(scaling(source))
    flat[: known.size] = known
    for name, spots in wanted.items():
        if spots.dtype != np.float64:
            continue  # no weight
        if name not in held or held[name].size != spots.size:
            raise ModelError(f"the file lacks the weights '{name}' of its net: export it again")
        is_weight = spots != _NOWHERE
        flat[spots[is_weight].astype(np.int64)] = held[name].reshape(spots.shape)[is_weight]
    return flat


def without_norms(program: Program) -> Program:
    """Places as they are once normalisation is folded."""
    steps: list[Primitive] = []
    for step in program.steps:
        if not isinstance(step, BatchNorm):
            steps.append(step)
            continue
        nowhere = np.full(step.gamma.shape, _NOWHERE)
        match steps[-1]:
            case MatMul() | Conv() as product:
                steps[-1] = product if product.bias is not None else replace(product, bias=nowhere)
            case _:
                steps += [Mul(nowhere), Add(nowhere)]
    return Program(program.input_shape, tuple(steps))


def unfold(architecture: Architecture, program: Program, flat: FloatArray) -> None:
    """Put the norms into the flat vector, and take them out of the products that they were folded into."""
    parts, start = norms_of(architecture.graph, flat), 0
    for part in parts:
        part[...] = architecture.norms[start : start + part.size]
        start += part.size
    for product, scale, shift in _folded(program, flat):
        factor = np.where(scale == 0, 0.0, 1 / np.where(scale == 0, 1.0, scale))
        spots = product.weight.astype(np.int64)
        flat[spots] = flat[spots] * factor
        if product.bias is not None:
            spots = product.bias.astype(np.int64)
            flat[spots] = (flat[spots] - shift) * factor


def _folded(
    program: Program, flat: FloatArray
) -> Iterator[tuple[MatMul | Conv, NDArray[np.float64], NDArray[np.float64]]]:
    """Each product that norms follow, with their scale and shift."""
    for index, step in enumerate(program.steps):
        norms = list(takewhile(lambda s: isinstance(s, BatchNorm), program.steps[index + 1 :]))
        if not isinstance(step, MatMul | Conv) or not norms:
            continue
        scale, shift = np.ones(step.weight.shape[-1]), np.zeros(step.weight.shape[-1])
        for norm in norms:
            own_scale, own_shift = _filled(norm, flat).affine()
            scale, shift = scale * own_scale, shift * own_scale + own_shift
        yield step, scale, shift


def _filled(norm: Primitive, flat: FloatArray) -> BatchNorm:
    """A norm with the numbers at its places."""
    assert isinstance(norm, BatchNorm)
    names = ("gamma", "beta", "mean", "variance")
    return replace(norm, **{name: flat[getattr(norm, name).astype(np.int64)] for name in names})

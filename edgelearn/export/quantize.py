# SPDX-License-Identifier: Apache-2.0
"""A program as int8: per-channel symmetric weights, calibrated values, int32 biases (Jacob et al. 2018, section 2).

Steps that have no int8 form stay float32 between two int8 values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgelearn.export import primitives
from edgelearn.export.calibration import Calibration, Statistics
from edgelearn.export.evaluation import evaluate
from edgelearn.export.int8 import HIGHEST, Affine
from edgelearn.export.primitives import ChannelsFirst, Conv, MatMul, Primitive, Program, Spatial
from edgelearn.graph import FloatArray

_MOST_BIAS = 2.0**30
"""Half of what int32 holds, so that the sum of products has room."""


FIXED = {
    primitives.Softmax: Affine(1 / 256, -128),
    primitives.Sigmoid: Affine(1 / 256, -128),
    primitives.Tanh: Affine(1 / 128, 0),
}
"""Outputs whose range is known; the kernels of TFLite take no other."""

KEEPING = (
    *(primitives.Reshape, primitives.Transpose, primitives.MaxPool, primitives.AvgPool, primitives.Relu),
    primitives.Branch,
)
"""Steps whose output means the same numbers as their input."""

FLOAT = (primitives.LayerNorm, primitives.Attention, primitives.Recurrent)
"""Steps without an int8 form."""


TABLES = (primitives.Embedding, primitives.Positions)
"""Steps whose numbers are a table with one scale."""

TAKING = (primitives.Gelu, *FLOAT)
"""Steps that are float32 in ONNX, though they stand between int8 values."""


@dataclass(frozen=True, eq=False)
class Weight:
    """Of a product: int8 in the shape of the float weight, scale (units,) float32, bias (units,) int32 at scale
    input scale * scale; of a table one scale (1,) and no bias."""

    values: NDArray[np.int8]
    scale: FloatArray
    bias: NDArray[np.int32]

    def real(self) -> FloatArray:
        """What the int8 numbers stand for."""
        return self.values * self.scale


@dataclass(frozen=True, eq=False)
class Quantized:
    """A program with what its values (the input, then each step's output) and its products are in int8.

    A value that is None stays float32: behind a product whose relu follows, and inside a row of float steps. `io`
    tells whether the file takes and gives int8 ("int8") or float32.
    """

    program: Program
    values: tuple[Affine | None, ...]
    weights: tuple[Weight | None, ...]
    io: str = "int8"


def unquantized(program: Program) -> Quantized:
    """A float32 program in the same form."""
    return Quantized(program, (None,) * len(program.shapes), (None,) * len(program.steps), "float32")


def bare(step: Primitive) -> Primitive:
    """A step without its layout."""
    return step.step if isinstance(step, ChannelsFirst) else step


def quantize(program: Program, calibration: Calibration, io: str = "int8") -> Quantized:
    """The program as int8, its biases corrected by the mean error of the weights (Nagel et al. 2019, section 4.2).

    Raises:
        DataError: samples that do not fit.
        ModelError: a step that cannot be calibrated.
    """
    program = replace(program, steps=tuple(_one_bias(step) for step in program.steps))
    seen = calibration.observe(program)
    ranges = [calibration.range_of(statistics) for statistics in seen]
    tokens = next((i for i, step in enumerate(program.steps) if isinstance(step, primitives.Embedding)), -1)
    affines: list[Affine | None] = [Affine.over(*ranges[0]) if tokens < 0 else None]
    weights: list[Weight | None] = []
    least = 0.0
    for index, step in enumerate(program.steps):
        before = affines[-1]
        weights.append(_weight(step, before, seen[index]))
        least = max(least, _finest(weights[-1], before))
        if index <= tokens:  # tokens stay whole numbers; what comes of them are rows of the table as it is
            affines.append(_of_table(weights[-1]))
            continue
        affines.append(_behind(program, index, before, Affine.over(*ranges[index + 1], least)))
        least = 0.0 if affines[-1] else least
    return Quantized(program, tuple(affines), tuple(weights), io)


def _one_bias(step: Primitive) -> Primitive:
    """A GRU without the second bias of its gates: the sum of both is all that counts. The candidate's stays."""
    if not isinstance(step, primitives.Recurrent) or step.bias is None or step.inner_bias is None:
        return step
    gates, candidate = np.split(step.inner_bias, [2 * step.units])
    return replace(step, bias=step.bias + np.pad(gates, (0, step.units)), inner_bias=candidate)


def rounded(weight: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """A weight (..., units) as int8 and a scale for each unit."""
    largest = np.abs(weight).max(axis=tuple(range(weight.ndim - 1)))
    scale = np.where(largest > 0, largest / HIGHEST, 1.0).astype(np.float32)
    return np.clip(np.rint(weight / scale), -HIGHEST, HIGHEST).astype(np.int8), scale


def _of_table(table: Weight | None) -> Affine | None:
    return None if table is None else Affine(float(table.scale[0]), 0)


def _finest(weight: Weight | None, before: Affine | None) -> float:
    """The finest scale that runtimes take behind a product: XNNPACK refuses steps of the sum of 256 or more."""
    return 0.0 if weight is None or before is None else float(weight.scale.max()) * before.scale / 128


def _behind(program: Program, index: int, before: Affine | None, calibrated: Affine) -> Affine | None:
    """What a step's output is in int8."""
    steps = program.steps
    step, following = bare(steps[index]), [bare(s) for s in steps[index + 1 : index + 2]]
    if isinstance(step, MatMul | Conv) and isinstance((following or [step])[0], primitives.Relu):
        return None  # the relu takes the sums before they are rounded
    if isinstance(step, MatMul) and len(program.shapes[index]) > 1 and isinstance((following or [step])[0], TAKING):
        return None  # the int8 product of ONNX gives float32 sums
    if type(step) in FIXED:
        return FIXED[type(step)]
    if isinstance(step, KEEPING) and before is not None:
        return before
    if isinstance(step, FLOAT) and isinstance((following or [step])[0], FLOAT):
        return None
    return calibrated


def _weight(step: Primitive, before: Affine | None, seen: Statistics) -> Weight | None:
    """A product in int8, from what it reads, or a table."""
    inside = bare(step)
    if isinstance(inside, TABLES):
        values, scale = rounded(inside.table[..., None])
        return Weight(values[..., 0], scale, np.zeros(0, np.int32))
    if not isinstance(inside, MatMul | Conv) or before is None:
        return None
    weight = inside.weight
    bias = np.zeros(weight.shape[-1]) if inside.bias is None else inside.bias.astype(np.float64)
    largest = np.abs(weight).max(axis=tuple(range(weight.ndim - 1)))
    # Tiny weights beside a large bias: a coarser scale keeps the bias within int32.
    scale = np.maximum(largest / HIGHEST, np.abs(bias) / (_MOST_BIAS * before.scale))
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    values = np.clip(np.rint(weight / scale), -HIGHEST, HIGHEST).astype(np.int8)
    corrected = bias - _mean_error(step, values * scale - weight, seen)
    return Weight(values, scale, np.rint(corrected / (before.scale * scale.astype(np.float64))).astype(np.int32))


def _mean_error(step: Primitive, error: FloatArray, seen: Statistics) -> FloatArray:
    """What wrong weights add to each unit: products are linear, so that the mean sample tells the mean error."""
    mean = seen.mean[None].astype(np.float32)
    if isinstance(step, ChannelsFirst):
        mean = np.moveaxis(mean, 1, -1)
    added = evaluate(with_product(bare(step), error, None), mean)
    return np.asarray(added.reshape(-1, added.shape[-1]).mean(axis=0))


def with_product(step: Primitive, weight: NDArray[Any], bias: NDArray[Any] | None) -> Primitive:
    """A product or a table with other numbers, in its own layout."""
    if isinstance(step, TABLES):
        return replace(step, table=weight)
    if isinstance(step, ChannelsFirst):
        return ChannelsFirst(cast("Spatial", with_product(step.step, weight, bias)))
    return replace(cast("MatMul | Conv", step), weight=weight, bias=bias)


def simulate(net: Quantized, index: int, x: FloatArray, kept: list[FloatArray]) -> FloatArray:
    """What step `index` gives in int8 for real numbers x that its input can hold: real numbers that its output can.
    `kept` are those of branches, as `evaluate` has them."""
    step, weight, before, after = net.program.steps[index], net.weights[index], net.values[index], net.values[index + 1]
    if weight is not None and before is not None:
        step = with_product(step, weight.real(), weight.bias * (np.float32(before.scale) * weight.scale))
    if isinstance(step, primitives.Recurrent):  # computes in float32, with weights that the file holds as int8
        (own, scale), (inner, inner_scale) = rounded(step.weight), rounded(step.recurrent)
        step = replace(step, weight=own * scale, recurrent=inner * inner_scale)
    y = evaluate(step, x, kept)
    return y if after is None else after.real(after.quantized(y))

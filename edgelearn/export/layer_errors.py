# SPDX-License-Identifier: Apache-2.0
"""What int8 costs, layer by layer: which one to keep wider, or to train again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.export.calibration import CHUNK, Calibration
from edgelearn.export.evaluation import evaluate
from edgelearn.export.primitives import Conv, MatMul, Recurrent
from edgelearn.export.quantize import Quantized, bare, simulate
from edgelearn.graph import FloatArray


@dataclass(frozen=True)
class LayerError:
    """Error of a layer's output, root mean square over that of the float output: `own` with float input, `total`
    behind all layers before it in int8, too."""

    layer: str
    own: float
    total: float


def worst(errors: Sequence[LayerError]) -> LayerError | None:
    """The layer that adds most."""
    return max(errors, key=lambda error: error.own, default=None)


def layer_errors(net: Quantized, calibration: Calibration) -> list[LayerError]:
    """Every product or recurrent layer with what follows it up to the next, on the first samples of the calibration."""
    exact = next(iter(calibration.chunks(net.program.input_shape)))[:CHUNK]
    first = net.values[0]
    alone = whole = exact if first is None else first.real(first.quantized(exact))
    layer, errors = "input", []
    branches: tuple[list[FloatArray], ...] = [], [], []
    for index, step in enumerate(net.program.steps):
        inside = bare(step)
        if isinstance(inside, MatMul | Conv | Recurrent):
            errors.append(LayerError(layer, _relative(alone, exact), _relative(whole, exact)))
            layer, alone = inside.name, exact
            branches[1][:] = branches[0]
        exact, alone, whole = (
            evaluate(step, exact, branches[0]),
            simulate(net, index, alone, branches[1]),
            simulate(net, index, whole, branches[2]),
        )
    return [*errors, LayerError(layer, _relative(alone, exact), _relative(whole, exact))]


def _relative(found: FloatArray, exact: FloatArray) -> float:
    size = float(np.square(exact, dtype=np.float64).mean())
    return float(np.sqrt(np.square(found - exact, dtype=np.float64).mean() / (size or 1.0)))

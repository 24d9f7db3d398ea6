# SPDX-License-Identifier: Apache-2.0
"""What recurrent layers keep: states of samples, a window of steps, traces; and where the steps of samples come from.

A window of steps x M samples of a slice are kept, one step behind the other. D inputs, U units. Nothing here grows with
the number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.engines.numba import kernels
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.nodes import Group, Node
from edgelearn.records import RECURRENT, Op

Place = tuple[int, int]
"""A group, and the place of a node in it."""

Shapes = dict[Any, tuple[int, ...]]


@dataclass(frozen=True)
class Stretch:
    """Steps `first` .. `first` + `steps` - 1 of the samples at `rows` of the batch; sequences have `total` steps. With
    padding, those of the batch (B) begin at `begins`."""

    first: int
    steps: int
    total: int
    rows: slice
    begins: NDArray[np.int64] | None = None

    def late(self, t: int) -> NDArray[np.bool_] | None:
        """(M) samples whose sequences have not begun with step t of these; None where all begin with the first."""
        return None if self.begins is None else self.begins[self.rows] > self.first + t

    @property
    def size(self) -> int:
        """M."""
        return int(self.rows.stop - self.rows.start)

    @property
    def ends(self) -> bool:
        """Whether the last step is among them."""
        return self.first + self.steps == self.total


@dataclass(frozen=True)
class Feed:
    """Sequences x (n, T D) of which a batch has those at `order` (B), and pairs of scale and shift for their values,
    pair i mod pairs for value i of a sample. Of `padding` in front of and behind them (B), that behind comes first."""

    x: NDArray[Any]
    order: NDArray[np.int64]
    scales: tuple[tuple[FloatArray, FloatArray], ...] = ()
    padding: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def begins(self) -> NDArray[np.int64] | None:
        """(B) step that each sequence begins with, so that all end with the last."""
        return None if self.padding is None else self.padding[0] + self.padding[1]

    def load(self, at: Stretch, out: FloatArray) -> None:
        """out (steps,M,D) = the steps of a stretch."""
        features = out.shape[2]
        for t, values in enumerate(out, at.first):
            if self.padding is None:
                values[...] = self.x[self.order[at.rows], t * features : (t + 1) * features]
                self._rescale(t * features, values)
            else:
                self._load_apart(t, at, values)

    def _load_apart(self, t: int, at: Stretch, out: FloatArray) -> None:
        """Step t of samples that each have it at a place of their own."""
        features, behind = out.shape[1], self.padding[1][at.rows] if self.padding else ()
        for row, (sample, skipped) in enumerate(zip(self.order[at.rows], behind, strict=True)):
            first = max(t - int(skipped), 0) * features
            out[row] = self.x[sample, first : first + features]
            self._rescale(first, out[row : row + 1])

    def _rescale(self, first: int, values: FloatArray) -> None:
        for scale, shift in self.scales:
            kernels.rescale(values, scale, shift, first, values)


def shapes_of(groups: tuple[Group, ...], config: Config, size: int) -> Shapes:
    """Shapes of all that is kept for slices of so many samples: `Steps.at` names what."""
    section = [(g, place, g.nodes[place]) for g in groups for place in g.steps_at]
    if not section:
        return {}
    window = config.window if config.train else 1
    widest = max(max(node.features, node.inputs) for _, _, node in section)
    cells = [node for _, _, node in section if node.op in RECURRENT]
    gates, errors = max(node.columns for node in cells), window * size * config.train
    most = max(node.units for node in cells)
    shapes: Shapes = {"x": (window, size, widest), "d": (errors, widest), "other": (errors, widest)}
    shapes |= {"hidden": (size, gates), "carry": (3, size, most * config.train)}
    for group, place, node in section:
        at = (group.index, place)
        shapes[at] = (window, size, node.features)
        if node.op in RECURRENT:
            shapes |= _of_cell(at, node, window, size, group.learns and bool(config.rule.traces))
    return shapes


def _of_cell(at: Place, node: Node, window: int, size: int, traced: bool) -> Shapes:
    units, has_state = node.units, node.op is Op.LSTM
    shapes: Shapes = {
        (*at, "h"): (size, units),
        (*at, "c"): (size, units * has_state),
        (*at, "gates"): (window, size, node.columns),
        (*at, "inner"): (window, size, units * (node.op is not Op.SIMPLE_RNN)),
        (*at, "squashed"): (window, size, units * has_state),
    }
    if traced and node.op is not Op.SIMPLE_RNN:
        rows = node.params // node.columns
        shapes |= {(*at, "trace"): (rows, size, 3, units), (*at, "reads"): (size, rows)}
    return shapes


class Steps:
    """The arrays of `shapes_of` in one flat vector, and views of them for slices and stretches of any size."""

    def __init__(self, shapes: Shapes, floats: FloatArray) -> None:
        ends = np.cumsum([prod(shape) for shape in shapes.values()], dtype=np.int64)
        parts = np.split(floats, ends[:-1]) if shapes else []
        self._arrays: dict[Any, FloatArray] = dict(zip(shapes, parts, strict=True))

    def at(self, name: Any, *shape: int) -> FloatArray:
        """The first floats of an array, in that shape."""
        floats: FloatArray = self._arrays[name]
        return floats[: prod(shape)].reshape(shape)

    def has(self, name: Any) -> bool:
        """Whether there is such an array."""
        return name in self._arrays

    def output(self, at: Place, node: Node, over: Stretch) -> FloatArray:
        """(steps,M,U) that a node leaves."""
        return self.at(at, over.steps, over.size, node.features)


def floats_of(shapes: Shapes) -> int:
    """Floats of all of them."""
    return sum(prod(shape) for shape in shapes.values())

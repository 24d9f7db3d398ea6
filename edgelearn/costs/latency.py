# SPDX-License-Identifier: Apache-2.0
"""How long a net takes for one sample: by the roofline of a board's profile, or by a table measured on the board.

The roofline (Williams, Waterman & Patterson 2009) bounds every operation by arithmetic and by memory, and is an
estimate for boards that are not at hand. The table holds seconds of operations of several sizes, between which it is
interpolated in logarithms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgelearn.costs.boards import Board
from edgelearn.graph import Graph
from edgelearn.prefixes import views
from edgelearn.records import RECURRENT, Op, groups_of_record, sides_after, window_of_record

REACHED = 0.35
"""Share of the peak of one core that products of one sample reach, as measured with bench calibrate (decisions.md)."""

STEP = 3.0
"""Times the arithmetic of a forward pass that a local step takes: forward, error, gradient of the weights."""

POOLING = (Op.MAXPOOL, Op.AVGPOOL, Op.GLOBAL_AVGPOOL)
PLAIN = (Op.ADD, Op.EMBEDDING, Op.POSITIONS)
"""Operations that touch each value once, as relu does."""

FREE = (Op.RESCALE, Op.DROPOUT)
"""Operations that inference does not run on their own."""


class Latency(Protocol):
    """Something that knows how long a net takes."""

    def seconds(self, graph: Graph) -> float:
        """Of one sample alone, on one core."""


@dataclass(frozen=True)
class Work:
    """One operation on one sample: `kind` of the table, its `size` along the table's axes, how many such there are, and
    what the roofline counts: multiply-adds and bytes."""

    kind: str
    size: tuple[int, ...]
    count: int = 1
    macs: int = 0
    moved: int = 0


def works(graph: Graph) -> list[Work]:
    """The operations of one sample's way through a net."""
    return [_work(record) for record in graph.records if record["op"] not in FREE]


def _work(record: np.void) -> Work:
    op, inputs, units = Op(record["op"]), int(record["fan_in_active"]), int(record["active"])
    places = sides_after(record).positions
    if op is Op.DENSE:
        return Work("dense", (inputs, units), 1, inputs * units, 4 * inputs * units)
    if op is Op.CONV:
        return _convolution(record, inputs, units, places)
    if op in POOLING:
        taps = math.prod(window_of_record(record).kernel) if op is not Op.GLOBAL_AVGPOOL else 1
        before = places * taps if op is not Op.GLOBAL_AVGPOOL else _positions_before(record)
        return Work("pool", (before, units), 1, 0, 4 * before * units)
    if op in RECURRENT:
        steps, gates = _positions_before(record), RECURRENT[op]
        macs = steps * gates * units * (inputs + units)
        return Work(op.name.lower(), (inputs, units), steps, macs, 4 * gates * units * (inputs + units))
    if op is Op.ATTENTION:  # scores and their values: two products of places x units with places
        return Work("attention", (places, units), 1, 2 * places * places * units, 16 * places * units)
    size = (places, units) if op in (Op.BATCHNORM, Op.LAYERNORM) else (places * units,)
    return Work("relu" if op in PLAIN else op.name.lower(), size, 1, 0, 8 * places * units)


def _positions_before(record: np.void) -> int:
    size = int(record["size"])
    return (size >> 16) * (size & 0xFFFF) if size else 1


def _convolution(record: np.void, inputs: int, units: int, places: int) -> Work:
    groups, taps = groups_of_record(record), math.prod(window_of_record(record).kernel)
    moved = 4 * (_positions_before(record) * inputs + places * units)
    if groups > 1 and int(record["fan_in"]) == groups and int(record["units"]) == groups:
        return Work("depthwise", (places * taps, units), 1, places * taps * units, moved)
    each = int(record["fan_in"]) // groups
    active = inputs // each if groups > 1 else 1
    rows, columns = taps * (each if groups > 1 else inputs), units // active
    kind = "pointwise" if int(record["window"]) == 0x01010101 and groups == 1 else "conv"
    return Work(kind, (places, rows, columns), active, places * rows * units, moved + 4 * rows * units)


@dataclass(frozen=True)
class Roofline:
    """A board's profile as a bound: arithmetic at `REACHED` of one core's peak, or memory's bandwidth. Weights that fit
    into the last cache stay there."""

    board: Board

    def seconds(self, graph: Graph) -> float:
        """Of one sample alone, on one core."""
        nowhere = np.broadcast_to(np.float32(0), graph.size)
        weights = 4 * sum(view.size for view in views(graph, nowhere).values())  # in use, as a plain net has them
        share = 1.0 if weights > self.board.last_cache else 0.25  # caches are about four times as fast as memory
        return sum(self._work(work, share) for work in works(graph))

    def _work(self, work: Work, share: float) -> float:
        arithmetic = 2 * work.macs / (REACHED * self.board.peak_flops)
        return max(arithmetic, share * work.moved / self.board.bandwidth)


@dataclass(frozen=True)
class Axes:
    """Seconds of a kind of operation at the points of a grid."""

    axes: tuple[tuple[int, ...], ...]
    seconds: tuple[float, ...]

    def at(self, size: Sequence[int]) -> float:
        """Seconds between the points, or beyond them, multilinear in logarithms."""
        places = [_between(axis, value) for axis, value in zip(self.axes, size, strict=True)]
        shape = tuple(map(len, self.axes))
        values, total = np.log(np.array(self.seconds)).reshape(shape), 0.0
        for corner in itertools.product((0, 1), repeat=len(places)):
            share = math.prod(part if high else 1 - part for high, (_, part) in zip(corner, places, strict=True))
            if share:
                at = tuple(low + high for high, (low, _) in zip(corner, places, strict=True))
                total += share * float(values[at])
        return math.exp(total)


def _between(axis: tuple[int, ...], value: int) -> tuple[int, float]:
    """The point below a value, and how far the value is on the way to the next, in logarithms."""
    if len(axis) == 1:
        return 0, 0.0
    low = min(max(int(np.searchsorted(axis, value, "right")) - 1, 0), len(axis) - 2)
    return low, math.log(max(value, 1) / axis[low]) / math.log(axis[low + 1] / axis[low])


@dataclass(frozen=True)
class Table:
    """Operations as measured on a board: `kinds` by name, and the seconds of one call and of one input value."""

    board: str
    isa: str
    call: float
    value: float
    kinds: Mapping[str, Axes]

    def seconds(self, graph: Graph) -> float:
        """Of one sample alone, on one core."""
        total = self.call + self.value * graph.features
        for work in works(graph):
            total += work.count * self.kinds[work.kind].at(work.size)
        return total

    def to_json(self) -> dict[str, Any]:
        """As the file of `bench calibrate` holds it."""
        kinds = {name: {"axes": axes.axes, "seconds": axes.seconds} for name, axes in self.kinds.items()}
        return {"board": self.board, "isa": self.isa, "call": self.call, "value": self.value, "kinds": kinds}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Table:
        """What to_json gave."""
        kinds = {
            name: Axes(tuple(tuple(axis) for axis in found["axes"]), tuple(found["seconds"]))
            for name, found in table["kinds"].items()
        }
        return cls(table["board"], table["isa"], table["call"], table["value"], kinds)

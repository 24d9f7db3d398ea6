# SPDX-License-Identifier: Apache-2.0
"""Nested nets: a grid of widths, how training draws from it, and submodels as records over the same weights.

A narrower net is a prefix of the units of every block and reads a prefix of its inputs; nothing is copied. Widths are
drawn per step as in MatFormer (Kudugunta et al. 2023, section 3.2), or per block as in Once-for-All (Cai et al. 2020),
or all learn from every batch as in slimmable networks (Yu et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError, UsageError
from edgelearn.graph import Graph, Op, groups_of_record, sides_after

WIDTHS = (0.125, 0.25, 0.5, 1.0)

_LARGEST, _SMALLEST, _NEXT = 0.41, 0.17, 0.22
"""Chances of the largest width, the smallest and the one below the largest: MatFormer, table 6. Drawn alike, four
widths cost the full one two to three times as much."""

SAMPLINGS = ("same", "independent", "every")
"""same: one width is drawn for all blocks in a step; independent: one for each block; every: all widths learn from
every batch, the narrowest first, which costs as much as nets of these widths would alone."""

OPENING = (Op.DENSE, Op.CONV)

_WHOLE = (Op.EMBEDDING, Op.POSITIONS, Op.ATTENTION, Op.ADD)


@dataclass(frozen=True)
class Levels:
    """What an engine is told: units in use of each block at each level, (levels, blocks) ascending to the net as it
    is, the chance of each, the place of the sampling in SAMPLINGS, and which statistics of a batch normalisation the
    last one has."""

    units: tuple[tuple[int, ...], ...]
    chances: tuple[float, ...]
    sampling: int = 0
    statistics: int = 0


@dataclass(frozen=True)
class Nested:
    """The widths of a nested net, ascending to 1, and which of them learn from a batch: left out, every one, or, where
    they have chances, one that is drawn.

    Raises:
        UsageError: widths that are no such grid, chances that do not fit them or are not drawn by, or an unknown
            sampling.
    """

    widths: tuple[float, ...] = WIDTHS
    chances: tuple[float, ...] | str | None = None
    sampling: str | None = None

    def __post_init__(self) -> None:
        sampling = self.sampling or ("every" if self.chances is None else "same")
        if sampling not in SAMPLINGS:
            raise UsageError(f"unknown sampling '{sampling}': choose one of {', '.join(SAMPLINGS)}")
        if sampling == "every" and self.chances is not None:
            raise UsageError("where every width learns none has a chance: leave out chances, or draw by sampling same")
        object.__setattr__(self, "widths", _grid(self.widths))
        object.__setattr__(self, "sampling", sampling)
        if sampling != "every":
            object.__setattr__(self, "chances", _chances(self.chances or "weighted", len(self.widths)))

    def level(self, width: float) -> int:
        """The place of a width in the grid.

        Raises:
            UsageError: it is not in it.
        """
        near = [i for i, known in enumerate(self.widths) if math.isclose(known, width, rel_tol=1e-6)]
        if not near:
            known = ", ".join(f"{w:g}" for w in self.widths)
            raise UsageError(f"width {width:g} is not in the grid of this net: choose one of {known}")
        return near[0]

    def to_table(self) -> dict[str, Any]:
        """As a model file holds it."""
        drawn = {} if self.chances is None else {"chances": list(self.chances)}
        return {"widths": list(self.widths), **drawn, "sampling": self.sampling}


Grid = Nested | Iterable[float] | Mapping[str, Any] | bool | None
"""What `nested` of a net may be."""


def parse(value: Grid) -> Nested | None:
    """What `nested` of a net means: True, a grid of widths, a table of Nested's arguments, or one; False for none.

    Raises:
        UsageError: anything else.
    """
    if value is None or isinstance(value, Nested):
        return value
    if isinstance(value, bool):
        return Nested() if value else None
    if isinstance(value, Mapping):
        known = ("widths", "chances", "sampling")
        for key in value:
            if key not in known:
                raise UsageError(f"nested has no '{key}': it takes {', '.join(known)}")
        return Nested(**value)
    return Nested(tuple(value) if isinstance(value, Iterable) else value)


def _grid(widths: Any) -> tuple[float, ...]:
    given = tuple(widths) if isinstance(widths, Iterable) and not isinstance(widths, str) else ()
    if not given or not all(isinstance(w, Real) and not isinstance(w, bool) for w in given):
        raise UsageError(f"widths must be shares of the units, as 0.25, 0.5, 1, not {widths!r}: list them")
    if not all(0 < a < b for a, b in pairwise((*given, 2))) or float(given[-1]) != 1:
        raise UsageError(f"widths {given} must ascend from above 0 to 1: sort them and end with 1")
    return tuple(float(w) for w in given)


def _chances(chances: Any, count: int) -> tuple[float, ...]:
    if isinstance(chances, str):
        if chances not in ("weighted", "uniform"):
            raise UsageError(f"chances must be weighted, uniform or one number per width, not '{chances}'")
        return _weighted(count) if chances == "weighted" else (1 / count,) * count
    given = tuple(float(c) for c in chances)
    if len(given) != count or not all(0 <= c < math.inf for c in given) or not sum(given):
        raise UsageError(f"{count} widths need {count} chances of 0 or more, not {given}: give one for each")
    return tuple(c / sum(given) for c in given)


def _weighted(count: int) -> tuple[float, ...]:
    """The largest width has 0.41; the others share the rest, rising as MatFormer's three do."""
    if count == 1:
        return (1.0,)
    rest = np.linspace(_SMALLEST, _NEXT, count - 1)
    return (*(rest / rest.sum() * (1 - _LARGEST)).tolist(), _LARGEST)


def blocks_of(graph: Graph) -> list[np.void]:
    """The record that opens each block.

    Raises:
        ModelError: blocks that are more than one product and what follows it.
    """
    kinds = tuple(map(int, OPENING))
    opening = [record for record, op in zip(graph.records, graph.records["op"].tolist(), strict=True) if op in kinds]
    if len(opening) != graph.blocks or np.isin(graph.records["op"], _WHOLE).any():
        raise ModelError(
            "residual, attention and feed-forward units and embeddings have one width: nest nets of dense layers and "
            "convolutions"
        )
    return opening


def units_at(graph: Graph, widths: Sequence[float]) -> tuple[int, ...]:
    """Units in use of each block, at a width per block. The output keeps all of its own, and a convolution in groups
    has as many as its inputs allow.

    Raises:
        ModelError: a width that ends inside a group of channels.
    """
    units: list[int] = []
    opening = blocks_of(graph)
    for block, record in enumerate(opening):
        full, groups = int(record["units"]), groups_of_record(record) if record["op"] == Op.CONV else 1
        if groups > 1:
            units.append(_grouped(graph, record, groups, units[-1] if units else int(record["fan_in"])))
        elif block + 1 == len(opening):
            units.append(full)
        else:
            units.append(max(1, int(full * widths[block] + 0.5)))
    return tuple(units)


def _grouped(graph: Graph, record: np.void, groups: int, inputs: int) -> int:
    each = int(record["fan_in"]) // groups
    if inputs % each:
        name = next(p.name.rpartition(".")[0] for p in graph.parameters if p.offset == record["offset"])
        raise ModelError(
            f"layer '{name}': {inputs} channels end inside a group of {each}: use groups=1 or other widths"
        )
    return inputs // each * (int(record["units"]) // groups)


def levels(graph: Graph, nested: Nested, most: int | None = None) -> Levels:
    """What an engine draws from: the widths of the grid, up to level `most`."""
    last = len(nested.widths) - 1
    count = last + 1 if most is None else most + 1
    table = tuple(units_at(graph, [width] * graph.blocks) for width in nested.widths[:count])
    given = nested.chances if nested.chances and count == last + 1 else _weighted(count)
    return Levels(table, tuple(map(float, given)), SAMPLINGS.index(str(nested.sampling)), last + 1 - count)


def cut(graph: Graph, units: Sequence[int], below: Sequence[int]) -> Graph:
    """The graph of a submodel over the same parameters: `units` in use of each block, and how many levels `below` the
    widest each block is, which names its statistics."""
    records = graph.records.copy()
    before: Any = None
    # A board cuts while it serves: plain numbers are compared several times as fast as members of an enumeration.
    opening, rescale, batchnorm = tuple(map(int, OPENING)), int(Op.RESCALE), int(Op.BATCHNORM)
    for record, op, block in zip(records, records["op"].tolist(), records["block"].tolist(), strict=True):
        if op in opening:
            _cut_product(record, before, units[block])
        elif op != rescale:
            record["active"] = record["fan_in_active"] = before["active"]
        if op == batchnorm and record["params"] > 4 * record["units"]:
            record["window"] = below[block - 1] if block else 0
        before = record
    return replace(graph, records=records)


def _cut_product(record: Any, before: Any, units: int) -> None:
    if before is not None and before["op"] != Op.RESCALE:
        places = sides_after(before).positions if record["op"] == Op.DENSE else 1
        record["fan_in_active"] = places * int(before["active"])
        if record["op"] == Op.DENSE and places > 1 and record["fan_in_active"] < record["fan_in"]:
            record["window"] = places
    record["active"] = units


def views(graph: Graph, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The trained weights in use by name, as views of the flat vector. A Dense behind a map whose channels are cut has
    (positions, channels, units)."""
    found: dict[str, NDArray[Any]] = {}
    for record in graph.records:
        own = [p for p in graph.parameters if p.trainable and record["offset"] <= p.offset]
        own = [p for p in own if p.offset < record["offset"] + record["params"]]
        for parameter in own:
            found[parameter.name] = _view(record, parameter.view(flat))
    return found


def _view(record: np.void, whole: NDArray[Any]) -> NDArray[Any]:
    units, inputs = int(record["active"]), int(record["fan_in_active"])
    if whole.ndim == 1:
        return whole[:units]
    if record["op"] == Op.DENSE and record["window"]:
        places = int(record["window"])
        return whole.reshape(places, -1, whole.shape[-1])[:, : inputs // places, :units]
    if record["op"] in _WHOLE or (record["op"] == Op.CONV and groups_of_record(record) > 1):
        return whole[..., :units]
    return whole[..., :inputs, :units]

# SPDX-License-Identifier: Apache-2.0
"""What of a net may be in use: which products have prefixes, and submodels as records over the same weights.

A narrower net is a prefix of the units of every block and reads a prefix of its inputs; nothing is copied. Recurrent
layers have a prefix of every gate. In residual, feed-forward and attention units it is what lies inside that nests,
hidden units and heads (Kudugunta et al. 2023, equation 1 and appendix F.2), while what they add to stays whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.graph import Graph
from edgelearn.records import RECURRENT, Op, groups_of_record, sides_after

NESTING = (Op.DENSE, Op.CONV, *RECURRENT)
"""Operations that are a prefix of their units and read a prefix of their inputs."""

PRODUCTS = (*NESTING, Op.EMBEDDING)
"""Operations that say how wide what follows is."""

# A board cuts while it serves: plain numbers are compared several times as fast as members of an enumeration.
_PRODUCTS = tuple(map(int, PRODUCTS))
_EMBEDDING, _POSITIONS, _ATTENTION, _ADD, _BATCHNORM, _CONV = map(
    int, (Op.EMBEDDING, Op.POSITIONS, Op.ATTENTION, Op.ADD, Op.BATCHNORM, Op.CONV)
)


class Freedom(Enum):
    """How the width of a product is chosen."""

    WHOLE = "whole"
    """It has one."""
    OWN = "own"
    """By the width of its block."""
    FOLLOWS = "follows"
    """Groups of channels are as many as their inputs allow."""


@dataclass(frozen=True)
class Prefix:
    """What may be in use of a product: record, its block, and units that stay together, as those of a head do."""

    record: int
    block: int
    units: int
    together: int
    freedom: Freedom

    def at(self, width: float) -> int:
        """Units in use at a width."""
        if self.freedom is Freedom.WHOLE:
            return self.units
        return self.together * max(1, int(self.units / self.together * width + 0.5))


def prefixes(graph: Graph) -> list[Prefix]:
    """The products of a net, in order. What units read and give, what has positions and what leaves the net is whole;
    what lies inside a unit has the width of its block."""
    ops, blocks = graph.records["op"].tolist(), graph.records["block"].tolist()
    places = [i for i, op in enumerate(ops) if op in _PRODUCTS]
    units = _units(ops, blocks, places)
    found: list[Prefix] = []
    for i in reversed(places):
        is_whole = not found or ops[i] == _EMBEDDING or _POSITIONS in ops[i : found[-1].record]
        if not is_whole:
            behind = found[-1]
            is_joint = behind.block != blocks[i] and not units.isdisjoint((blocks[i], behind.block))
            keeps = behind.freedom is Freedom.WHOLE and _is_grouped(graph.records[behind.record])
            is_whole = is_joint or keeps
        found.append(_prefix(graph, i, is_whole))
    return found[::-1]


def _units(ops: Sequence[int], blocks: Sequence[int], places: Sequence[int]) -> set[int]:
    """Blocks that add, or have several products."""
    own = [blocks[i] for i in places]
    adding = {block for op, block in zip(ops, blocks, strict=True) if op == _ADD}
    return adding | {block for block in own if own.count(block) > 1}


def _prefix(graph: Graph, i: int, is_whole: bool) -> Prefix:
    record = graph.records[i]
    behind = graph.records[i + 1 : i + 2]
    units = int(record["units"])
    is_heads = len(behind) and behind[0]["op"] == _ATTENTION
    together = units // groups_of_record(behind[0]) if is_heads else 1
    free = Freedom.FOLLOWS if _is_grouped(record) else Freedom.OWN
    return Prefix(i, int(record["block"]), units, together, Freedom.WHOLE if is_whole else free)


def _is_grouped(record: np.void) -> bool:
    return bool(record["op"] == _CONV and groups_of_record(record) > 1)


def freedoms(graph: Graph) -> list[Freedom]:
    """How the width of each block is chosen."""
    found = prefixes(graph)
    blocks = [[p.freedom for p in found if p.block == block] for block in range(graph.blocks)]
    return [Freedom.OWN if Freedom.OWN in own else own[0] if len(own) == 1 else Freedom.WHOLE for own in blocks]


def units_at(graph: Graph, widths: Sequence[float]) -> tuple[int, ...]:
    """Units in use of each record that is a product, at a width per block; of the others those that they have.

    Raises:
        ModelError: a width that ends inside a group of channels.
    """
    return _units_at(graph, widths, prefixes(graph))


def _units_at(graph: Graph, widths: Sequence[float], found: Sequence[Prefix]) -> tuple[int, ...]:
    units, inputs = graph.records["units"].tolist(), 0
    for at, prefix in enumerate(found):
        if prefix.freedom is Freedom.FOLLOWS:
            record = graph.records[prefix.record]
            units[prefix.record] = _grouped(graph, record, inputs if at else int(record["fan_in"]))
        else:
            units[prefix.record] = prefix.at(widths[prefix.block])
        inputs = units[prefix.record]
    return tuple(units)


def _grouped(graph: Graph, record: np.void, inputs: int) -> int:
    groups = groups_of_record(record)
    each = int(record["fan_in"]) // groups
    if inputs % each:
        name = next(p.name.rpartition(".")[0] for p in graph.parameters if p.offset == record["offset"])
        raise ModelError(
            f"layer '{name}': {inputs} channels end inside a group of {each}: use groups=1 or other widths"
        )
    return inputs // each * (int(record["units"]) // groups)


def cut(graph: Graph, widths: Sequence[float], below: Sequence[int], least: float) -> Graph:
    """The graph of a submodel over the same parameters: the width of each block, and how many levels `below` the widest
    that is, which names the statistics of what has another width at the `least` of the grid.

    Raises:
        ModelError: a width that ends inside a group of channels.
    """
    found = prefixes(graph)
    units = dict(zip((p.record for p in found), _chosen(graph, widths, found), strict=True))
    smallest = dict(zip(units, _chosen(graph, [least] * graph.blocks, found), strict=True))
    records = graph.records.copy()
    read = given = 0
    for i, (record, op) in enumerate(zip(records, records["op"].tolist(), strict=True)):
        if i in units:
            read, given = given, below[record["block"]] if smallest[i] != record["units"] else 0
            _cut_product(record, records[i - 1] if i > found[0].record else None, units[i])
        elif i > found[0].record:
            width = int(records[i - 1]["active"])
            record["fan_in_active"], record["active"] = width, width // 3 if op == _ATTENTION else width
        if op == _BATCHNORM and record["params"] > 4 * record["units"]:
            record["window"] = read
    return replace(graph, records=records)


def _chosen(graph: Graph, widths: Sequence[float], found: Sequence[Prefix]) -> list[int]:
    units = _units_at(graph, widths, found)
    return [units[p.record] for p in found]


def _cut_product(record: Any, before: Any, units: int) -> None:
    """A product reads what the record before it gives; the first one reads the sample."""
    if before is not None:
        places = sides_after(before).positions if record["op"] == Op.DENSE else 1
        record["fan_in_active"] = places * int(before["active"])
        if record["op"] == Op.DENSE and places > 1 and record["fan_in_active"] < record["fan_in"]:
            record["window"] = places
    record["active"] = units


def views(graph: Graph, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The trained weights in use by name, as views of the flat vector. A Dense behind a map whose channels are cut has
    (positions, channels, units), a recurrent layer that is cut (rows, gates, units)."""
    found: dict[str, NDArray[Any]] = {}
    for record in graph.records:
        own = [p for p in graph.parameters if p.trainable and record["offset"] <= p.offset]
        own = [p for p in own if p.offset < record["offset"] + record["params"]]
        for parameter in own:
            whole = parameter.view(flat)
            is_recurrent = record["op"] in RECURRENT
            found[parameter.name] = _gates(record, parameter.name, whole) if is_recurrent else _view(record, whole)
    return found


def _gates(record: np.void, name: str, whole: NDArray[Any]) -> NDArray[Any]:
    """Leading units of every gate: what reads the inputs, the output before, or, a bias, nothing."""
    units, inputs = int(record["active"]), int(record["fan_in_active"])
    if (units, inputs) == (int(record["units"]), int(record["fan_in"])):
        return whole
    gates = whole.reshape(*whole.shape[:-1], -1, int(record["units"]))
    rows = units if name.endswith("recurrent.weight") else inputs
    return gates[..., :units] if whole.ndim == 1 else gates[:rows, :, :units]


def _view(record: np.void, whole: NDArray[Any]) -> NDArray[Any]:
    units, inputs = int(record["active"]), int(record["fan_in_active"])
    if whole.ndim == 1:
        return whole[:units]
    if record["op"] == Op.DENSE and record["window"]:
        places = int(record["window"])
        return whole.reshape(places, -1, whole.shape[-1])[:, : inputs // places, :units]
    if record["op"] not in NESTING or _is_grouped(record):
        return whole[..., :units]
    return whole[..., :inputs, :units]

# SPDX-License-Identifier: Apache-2.0
"""The groups of a table of records under a config, with every weight and every output in its place."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.engines.numba.nodes import COUNT_BYTES, READING, Group, Node, Segment
from edgelearn.engines.numba.records import features_after, features_before
from edgelearn.geometry import Sides, sides_of
from edgelearn.records import FLAG_BIAS, FLAG_NESTED, RECURRENT, Op, groups_of_record, sides_after, window_of_record
from edgelearn.rules import Objective
from edgelearn.sequences import section_of


def _is_biased(record: Any) -> bool:
    return bool(record["flags"] & FLAG_BIAS)


def _leaves_map(record: Any) -> bool:
    return bool(record["size"]) and record["op"] != Op.GLOBAL_AVGPOOL


def _slots(features: list[int], kept: bool) -> list[int]:
    """Floats before each output: one behind the other, or by turns at two places where only the next node reads it."""
    if kept:
        return list(accumulate(features, initial=0))[:-1]
    return [max(features[::2]) * (place % 2) for place in range(len(features))]


def _node(record: Any, slot: int, column: int, first: int, stepped: bool, trained: tuple[Segment, ...]) -> Node:
    sides, after = (Sides(1, 1),) * 2 if stepped else (sides_of(int(record["size"])), sides_after(record))
    return Node(
        op=Op(int(record["op"])),
        block=int(record["block"]),
        units=int(record["units"]),
        active=int(record["active"]),
        fan_in=int(record["fan_in_active"]),
        stride=int(record["stride"]),
        offset=int(record["offset"]),
        params=int(record["params"]),
        biased=_is_biased(record),
        arg=(float(record["arg"][0]), float(record["arg"][1])),
        sides=sides,
        after=after,
        window=window_of_record(record),
        groups=groups_of_record(record),
        on_map=bool(record["size"]),
        slot=slot,
        column=column,
        source=max(int(record["input"][1]) - first, -1),
        trained=trained,
        gain=math.sqrt(int(record["fan_in"]) / int(record["fan_in_active"])) if record["flags"] & FLAG_NESTED else 1.0,
        pair=int(record["window"]) if record["op"] == Op.BATCHNORM else 0,
    )


class _Planner:
    """Places segments one behind the other: moments over the whole state, gradients within a group."""

    def __init__(self, records: NDArray[np.void], config: Config) -> None:
        self.records, self.config, self.state, self.gradients = records, config, 0, 0
        self.section, self.turn = section_of(records), 0
        self.size = config.group if config.train or not self.section else 1  # one block may hold what needs all steps
        self.last_group = int(records["block"][-1]) // self.size

    def segment(self, offset: int, rows: int, columns: int, stride: int) -> Segment:
        placed = Segment(offset, rows, columns, stride, self.gradients, self.state, (rows, columns))
        self.gradients += placed.size
        self.state += placed.size * self.config.optimizer.moments
        return placed

    def trained(self, record: Any) -> tuple[Segment, ...]:
        offset, active = int(record["offset"]), int(record["active"])
        if record["op"] in (Op.BATCHNORM, Op.LAYERNORM):
            beta = offset + int(record["units"])
            return self.segment(offset, 1, active, active), self.segment(beta, 1, active, active)
        stride = int(record["stride"])
        if record["op"] == Op.POSITIONS:
            return (self.segment(offset, 1, int(record["params"]), int(record["params"])),)
        if record["op"] == Op.EMBEDDING:
            return (self.segment(offset, int(record["params"]) // stride, active, stride),)
        if record["op"] in RECURRENT:
            columns = RECURRENT[Op(int(record["op"]))] * active
            return (self.segment(offset, int(record["params"]) // columns, columns, columns),)
        if record["op"] not in (Op.DENSE, Op.CONV):
            return ()
        bias = int(record["params"]) - stride if _is_biased(record) else int(record["params"])
        rows = int(record["fan_in_active"]) if record["op"] == Op.DENSE else bias // stride
        weight = self.segment(offset, rows, active, stride)
        return (weight, self.segment(offset + bias, 1, active, active)) if _is_biased(record) else (weight,)

    def heads(self, values: int) -> tuple[Segment, ...]:
        """The read-out (values, targets), if the rule has one, before its moments."""
        if self.config.rule.objective not in READING:
            return ()
        at, targets = self.state, self.config.targets
        self.state += values * targets
        return (self.segment(at, values, targets, targets),)

    def group(self, index: int) -> Group:
        places = np.flatnonzero(self.records["block"] // self.size == index)
        records, stepped = self.records[places], self.stepped(places)
        tail = [record["op"] in (Op.DROPOUT, Op.SOFTMAX) for record in records[::-1]]
        seen, output = len(records) - tail.index(False), index == self.last_group
        start = self.gradients = self.gradients if stepped and places[0] > self.section[0] else 0
        learns = self.learns(index, records[seen - 1], 0 < seen <= stepped)
        nodes = self.nodes(records, stepped, learns)
        cells = nodes[seen - 1].after if output else self.cells(nodes[seen - 1].after)
        nested = bool((records["flags"][records["op"] == Op.DENSE] & FLAG_NESTED).any())
        heads = self.heads(cells.positions * nodes[seen - 1].active) if learns and not output else ()
        group = Group(
            index=index,
            nodes=tuple(nodes),
            seen=seen,
            cells=cells,
            output=output,
            learns=learns,
            inputs=features_before(records[0], "fan_in_active"),
            outputs=features_after(records[-1]),
            stepped=stepped,
            turn=self.turn,
            start=start,
            gradients=self.gradients - start,
            heads=heads,
            coded=cells.positions * int(records[seen - 1]["units" if nested else "active"]),
        )
        self.turn ^= int(not stepped or places[-1] >= self.section[-1])
        return group

    def stepped(self, places: NDArray[np.intp]) -> int:
        """How many of a group's records are in the section that runs step by step, or in front of it in their group."""
        if not self.section or places[-1] < self.section[0] or places[0] > self.section[-1]:
            return 0
        return int((places <= self.section[-1]).sum())

    def learns(self, index: int, last: Any, is_step: bool) -> bool:
        config, rule = self.config, self.config.rule
        if not config.train or not config.first_group <= index <= config.last_group:
            return False
        is_still = rule.objective == Objective.UNTRAINED or (rule.frozen and not is_step and _leaves_map(last))
        return index == self.last_group or not is_still

    def cells(self, after: Sides) -> Sides:
        grid = self.config.rule.grid
        return Sides(*(min(grid, side) if grid else side for side in after))

    def nodes(self, records: NDArray[np.void], stepped: int, learns: bool) -> list[Node]:
        nodes: list[Node] = []
        column = 0
        first = int(records[0]["input"][0]) + 1
        branches = any(record["op"] == Op.ADD and record["input"][1] >= first for record in records)
        rest = [features_after(record) for record in records[stepped:]]
        slots = [0] * stepped + _slots(rest, learns or branches)
        for place, (record, slot) in enumerate(zip(records, slots, strict=True)):
            is_step = place < stepped and record["op"] != Op.RESCALE
            node = _node(record, slot, column, first, is_step, self.trained(record) if learns else ())
            column += node.statistics
            nodes.append(node)
        return nodes


def groups_of(records: NDArray[np.void], config: Config) -> tuple[tuple[Group, ...], int]:
    """The groups of a checked table, and the bytes of state they keep."""
    planner = _Planner(records, config)
    groups = tuple(planner.group(i) for i in range(planner.last_group + 1))
    counts = COUNT_BYTES * len(groups) if config.train else 0
    return groups, counts + 4 * planner.state

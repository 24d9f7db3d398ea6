# SPDX-License-Identifier: Apache-2.0
"""The groups of a table of records under a config, with every weight and every output in its place."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.engines.numba.nodes import COUNT_BYTES, READING, Group, Node, Segment
from edgelearn.engines.numba.records import features_after
from edgelearn.geometry import Sides, sides_of
from edgelearn.graph import FLAG_BIAS, Op, groups_of_record, sides_after, window_of_record
from edgelearn.rules import Objective


def _is_biased(record: Any) -> bool:
    return bool(record["flags"] & FLAG_BIAS)


def _leaves_map(record: Any) -> bool:
    return bool(record["size"]) and record["op"] != Op.GLOBAL_AVGPOOL


def _slots(features: list[int], kept: bool) -> list[int]:
    """Floats before each output: one behind the other, or by turns at two places where only the next node reads it."""
    if kept:
        return list(accumulate(features[:-1], initial=0))
    return [max(features[::2]) * (place % 2) for place in range(len(features))]


def _node(record: Any, slot: int, column: int, first: int, trained: tuple[Segment, ...]) -> Node:
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
        sides=sides_of(int(record["size"])),
        after=sides_after(record),
        window=window_of_record(record),
        groups=groups_of_record(record),
        leaves_map=_leaves_map(record),
        slot=slot,
        column=column,
        source=max(int(record["input"][1]) - first, -1),
        trained=trained,
    )


class _Planner:
    """Places segments one behind the other: moments over the whole state, gradients within a group."""

    def __init__(self, records: NDArray[np.void], config: Config) -> None:
        self.records, self.config, self.state, self.gradients = records, config, 0, 0
        self.last_group = int(records["block"][-1]) // config.group

    def segment(self, offset: int, rows: int, columns: int, stride: int) -> Segment:
        placed = Segment(offset, rows, columns, stride, self.gradients, self.state)
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
        self.gradients = 0
        records = self.records[self.records["block"] // self.config.group == index]
        tail = [record["op"] in (Op.DROPOUT, Op.SOFTMAX) for record in records[::-1]]
        seen, output = len(records) - tail.index(False), index == self.last_group
        learns = self.learns(index, records[seen - 1])
        nodes = self.nodes(records, learns)
        cells = nodes[seen - 1].after if output else self.cells(nodes[seen - 1].after)
        heads = self.heads(cells.positions * nodes[seen - 1].active) if learns and not output else ()
        return Group(index, tuple(nodes), seen, cells, output, learns, self.gradients, heads)

    def learns(self, index: int, last: Any) -> bool:
        config, rule = self.config, self.config.rule
        if not config.train or not config.first_group <= index <= config.last_group:
            return False
        is_still = rule.objective == Objective.UNTRAINED or (rule.frozen and _leaves_map(last))
        return index == self.last_group or not is_still

    def cells(self, after: Sides) -> Sides:
        grid = self.config.rule.grid
        return Sides(*(min(grid, side) if grid else side for side in after))

    def nodes(self, records: NDArray[np.void], learns: bool) -> list[Node]:
        nodes: list[Node] = []
        column = 0
        first = int(records[0]["input"][0]) + 1
        branches = any(record["op"] == Op.ADD and record["input"][1] >= first for record in records)
        slots = _slots([features_after(record) for record in records], learns or branches)
        for record, slot in zip(records, slots, strict=True):
            node = _node(record, slot, column, first, self.trained(record) if learns else ())
            column += node.statistics
            nodes.append(node)
        return nodes


def groups_of(records: NDArray[np.void], config: Config) -> tuple[tuple[Group, ...], int]:
    """The groups of a checked table, and the bytes of state they keep."""
    planner = _Planner(records, config)
    groups = tuple(planner.group(i) for i in range(planner.last_group + 1))
    counts = COUNT_BYTES * len(groups) if config.train else 0
    return groups, counts + 4 * planner.state

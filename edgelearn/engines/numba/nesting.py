# SPDX-License-Identifier: Apache-2.0
"""Nested nets of dense layers: which widths learn from a batch, and the plan of a net at some widths, in the memory of
the whole one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.engines.numba.nodes import Group, Node, Segment
from edgelearn.engines.numba.plan import groups_of
from edgelearn.engines.numba.random import draw
from edgelearn.errors import UsageError
from edgelearn.nested import SAMPLINGS, Levels
from edgelearn.records import Op

Mix = tuple[int, ...]
"""The level of each block."""


@dataclass(frozen=True)
class Nest:
    """The widths of a session; `whole` are the groups of the net as placed."""

    records: NDArray[np.void]
    config: Config
    whole: tuple[Group, ...]
    levels: Levels

    @property
    def top(self) -> int:
        """The level of the net as placed."""
        return len(self.levels.units) - 1

    @cached_property
    def blocks(self) -> int:
        """Blocks of the net, the output's included."""
        return int(self.records["block"].max()) + 1

    def mix(self, levels: Sequence[int]) -> Mix:
        """The levels of the blocks, checked.

        Raises:
            UsageError: another number of them than blocks, or one that is not there.
        """
        if len(levels) != self.blocks or not all(0 <= level <= self.top for level in levels):
            raise UsageError(
                f"{len(levels)} levels for {self.blocks} nested blocks: give one from 0 to {self.top} for each"
            )
        return tuple(levels)

    def learning(self, seed: int, step: int) -> list[Mix]:
        """What learns from the batch of a step, one after the other."""
        sampling = SAMPLINGS[self.levels.sampling]
        if sampling == "every":
            return [(level,) * self.blocks for level in range(self.top + 1)]
        own = range(self.blocks) if sampling == "independent" else [0] * self.blocks
        return [tuple(self._drawn(draw(seed, block, step)) for block in own)]

    def _drawn(self, left: np.float32) -> int:
        """The level whose share of [0, 1) a draw falls into."""
        level = 0
        while level < self.top and left >= np.float32(self.levels.chances[level]):
            left, level = left - np.float32(self.levels.chances[level]), level + 1
        return level

    def groups(self, mix: Mix) -> tuple[Group, ...]:
        """The groups of the net at these levels; gradients are packed anew, moments and read-outs stay in place."""
        cut = groups_of(self._cut(mix), self.config)[0]
        return tuple(self._placed(*both, mix) for both in zip(cut, self.whole, strict=True))

    def _cut(self, mix: Mix) -> NDArray[np.void]:
        records = self.records.copy()
        read = given = 0
        for i, record in enumerate(records):
            before = records[i - 1] if i and records[i - 1]["op"] != Op.RESCALE else None
            if before is not None:
                record["fan_in_active"] = before["active"]
            if record["op"] == Op.DENSE:
                read, given = given, self._statistics(i, mix[record["block"]])
                record["active"] = self.levels.units[mix[record["block"]]][i]
            elif before is not None:
                record["active"] = before["active"]
            if record["op"] == Op.BATCHNORM and record["params"] > 4 * record["units"]:
                record["window"] = read
        return records

    def _statistics(self, product: int, level: int) -> int:
        """Which go with what a product gives: one pair for each of its widths."""
        varies = self.levels.units[0][product] != self.records[product]["units"]
        return self.levels.statistics + self.top - level if varies else 0

    def _placed(self, cut: Group, whole: Group, mix: Mix) -> Group:
        nodes = tuple(_kept_node(*both) for both in zip(cut.nodes, whole.nodes, strict=True))
        heads = tuple(
            replace(_kept(head, own), offset=own.offset) for head, own in zip(cut.heads, whole.heads, strict=True)
        )
        return replace(cut, nodes=nodes, heads=heads, coded=whole.coded, ends=self._ends(cut, mix))

    def _ends(self, group: Group, mix: Mix) -> tuple[int, ...]:
        """Prefixes of a group's output that have losses of their own beside that of all of it."""
        own = self.records["block"] // self.config.group == group.index
        last = int(np.flatnonzero((self.records["op"] == Op.DENSE) & own)[-1])
        units = [units[last] for units in self.levels.units]
        varies = units[0] != self.records[last]["units"]
        return tuple(units[: mix[self.records[last]["block"]]]) if varies and not group.output else ()


def _kept_node(cut: Node, whole: Node) -> Node:
    return replace(cut, trained=tuple(_kept(*both) for both in zip(cut.trained, whole.trained, strict=True)))


def _kept(cut: Segment, whole: Segment) -> Segment:
    """A part of a segment, its moments where they are in the whole one."""
    return replace(cut, moments=whole.moments, stored=whole.stored)

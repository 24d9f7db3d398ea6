# SPDX-License-Identifier: Apache-2.0
"""Nested nets as the engines must train them, in float64: which widths a step draws, and what records they make."""

from __future__ import annotations

from formulas import philox, single
from oracle import ALL, Oracle

from edgelearn.graph import Op, groups_of_record, sides_after
from edgelearn.nested import SAMPLINGS

STREAM_WIDTHS = 4
OPENING = (Op.DENSE, Op.CONV)


def drawn(nest, seed, step):
    """The level of each block in a step, before convolutions in groups follow the block in front of them."""
    found = []
    for block in range(len(nest.units[0])):
        own = block if SAMPLINGS[nest.sampling] == "independent" else 0
        left, level = (philox(seed, own, step & 0xFFFFFFFF, step >> 32, STREAM_WIDTHS)[0] >> 8) / 2**24, 0
        while level + 1 < len(nest.chances) and left >= single(nest.chances[level]):
            left, level = left - single(nest.chances[level]), level + 1
        found.append(level)
    return found


def learning(nest, seed, step):
    """The levels of the blocks, for every update of a step."""
    top, own = len(nest.units) - 1, drawn(nest, seed, step)
    if SAMPLINGS[nest.sampling] == "every":
        return [[level] * len(own) for level in range(top + 1)]
    return [own]


def followed(records, levels, top):
    """The levels where convolutions in groups have that of the block in front of them."""
    levels = list(levels)
    for record in records[records["op"] == Op.CONV]:
        block = int(record["block"])
        if groups_of_record(record) > 1:
            levels[block] = levels[block - 1] if block else top
    return levels


def resized(records, nest, levels):
    """The records of a net with that level in each block."""
    cut, top = records.copy(), len(nest.units) - 1
    for i, record in enumerate(cut):
        block, before = int(record["block"]), cut[i - 1]
        is_grouped = record["op"] == Op.CONV and groups_of_record(record) > 1
        if record["op"] == Op.RESCALE:
            continue
        if i and before["op"] != Op.RESCALE:
            places = sides_after(before).positions if record["op"] == Op.DENSE else 1
            record["fan_in_active"] = places * before["active"]
            if record["op"] == Op.DENSE and places > 1:
                record["window"] = places if record["fan_in_active"] < record["fan_in"] else 0
        record["active"] = nest.units[levels[block]][block] if record["op"] in OPENING else record["fan_in_active"]
        if is_grouped:
            each = int(record["fan_in"]) // groups_of_record(record)
            ratio = int(record["units"]) // groups_of_record(record)
            record["active"] = int(record["fan_in_active"]) // each * ratio
        if record["op"] == Op.BATCHNORM and record["params"] > 4 * record["units"]:
            record["window"] = nest.statistics + top - levels[block - 1] if block else 0
    return cut


class NestedOracle(Oracle):
    """Trains at the widths that each step draws from config.nest, from the seed of the rule or of a run."""

    def __init__(self, records, params, config):
        super().__init__(records, params, config)
        self.placed, self.steps = records, 0

    def use(self, levels):
        """Answer as the submodel of those levels; None: as placed."""
        nest, top = self.config.nest, len(self.config.nest.units) - 1
        self.levels = followed(self.placed, levels, top) if levels else [top] * len(nest.units[0])
        self.records = resized(self.placed, nest, self.levels) if levels else self.placed

    def ends(self, g, cells):
        """Each width up to the one in use has a loss of its own."""
        block = int(self.last(g)["block"])
        return [cells * units[block] for units in self.config.nest.units[: self.levels[block] + 1]]

    def step(self, x, y, lr, first=0, last=ALL, entry=0, seed=None):
        """One step at the widths that learn in it: single ones are counted by updates, those of a run by steps."""
        at = self.updates[first] if seed is None else self.steps
        for levels in learning(self.config.nest, self.config.seed if seed is None else seed, at):
            self.use(levels)
            found = super().step(x, y, lr, first, last, entry)
        self.steps += 1
        self.use(None)
        return found

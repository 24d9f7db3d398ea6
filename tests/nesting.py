# SPDX-License-Identifier: Apache-2.0
"""Nested nets as the engines must train them, in float64: which widths a step draws, and what records they make."""

from __future__ import annotations

from formulas import philox, single
from oracle import ALL, Oracle

from edgelearn.nested import SAMPLINGS
from edgelearn.records import RECURRENT, Op, groups_of_record, sides_after

STREAM_WIDTHS = 4
PRODUCTS = (Op.DENSE, Op.CONV, Op.EMBEDDING, *RECURRENT)


def drawn(nest, blocks, seed, step):
    """The level of each block in a step, before convolutions in groups follow the block in front of them."""
    found = []
    for block in range(blocks):
        own = block if SAMPLINGS[nest.sampling] == "independent" else 0
        left, level = (philox(seed, own, step & 0xFFFFFFFF, step >> 32, STREAM_WIDTHS)[0] >> 8) / 2**24, 0
        while level + 1 < len(nest.chances) and left >= single(nest.chances[level]):
            left, level = left - single(nest.chances[level]), level + 1
        found.append(level)
    return found


def learning(nest, blocks, seed, step):
    """The levels of the blocks, for every update of a step."""
    top, own = len(nest.units) - 1, drawn(nest, blocks, seed, step)
    if SAMPLINGS[nest.sampling] == "every":
        return [[level] * len(own) for level in range(top + 1)]
    return [own]


def followed(records, nest, levels):
    """The levels where convolutions in groups that open a block have that of the block in front of them."""
    levels = list(levels)
    for i, record in enumerate(records):
        block = int(record["block"])
        opens = i == 0 or records[i - 1]["block"] != block or records[i - 1]["op"] == Op.RESCALE
        if not opens or record["op"] != Op.CONV or groups_of_record(record) == 1:
            continue
        if block == 0 or nest.units[0][i] < record["units"]:
            levels[block] = levels[block - 1] if block else len(nest.units) - 1
    return levels


def resized(records, nest, levels):
    """The records of a net with that level in each block."""
    cut, read, given = records.copy(), 0, 0
    first = next(i for i, record in enumerate(records) if record["op"] in PRODUCTS)
    for i, record in enumerate(cut):
        before = cut[i - 1]
        if i < first:
            continue
        if record["op"] in PRODUCTS:
            read, given = given, _statistics(nest, levels, i, record)
            _resize_product(record, before if i > first else None, nest.units[levels[record["block"]]][i])
        else:
            record["fan_in_active"] = before["active"]
            record["active"] = before["active"] // (3 if record["op"] == Op.ATTENTION else 1)
        if record["op"] == Op.BATCHNORM and record["params"] > 4 * record["units"]:
            record["window"] = read
    return cut


def _statistics(nest, levels, i, record):
    """Which go with what a product gives: one pair for each of its widths."""
    varies = nest.units[0][i] < record["units"]
    return nest.statistics + len(nest.units) - 1 - levels[int(record["block"])] if varies else 0


def _resize_product(record, before, units):
    if before is not None:
        places = sides_after(before).positions if record["op"] == Op.DENSE else 1
        record["fan_in_active"] = places * before["active"]
        if record["op"] == Op.DENSE and places > 1:
            record["window"] = places if record["fan_in_active"] < record["fan_in"] else 0
    record["active"] = units
    if record["op"] == Op.CONV and groups_of_record(record) > 1:
        groups = groups_of_record(record)
        record["active"] = record["fan_in_active"] // (record["fan_in"] // groups) * (record["units"] // groups)


class NestedOracle(Oracle):
    """Trains at the widths that each step draws from config.nest, from the seed of the rule or of a run."""

    def __init__(self, records, params, config):
        super().__init__(records, params, config)
        self.placed, self.steps = records, 0

    def use(self, levels):
        """Answer as the submodel of those levels; None: as placed."""
        nest, blocks = self.config.nest, int(self.placed["block"].max()) + 1
        self.levels = followed(self.placed, nest, levels) if levels else [len(nest.units) - 1] * blocks
        self.records = resized(self.placed, nest, self.levels) if levels else self.placed

    def ends(self, g, cells):
        """Each width up to the one in use has a loss of its own, where the group ends in several."""
        last = max(i for i in self.seen(g) if self.placed[i]["op"] in PRODUCTS)
        units, block = [units[last] for units in self.config.nest.units], int(self.placed[last]["block"])
        return [cells * n for n in units[: self.levels[block] + 1]] if units[0] < self.placed[last]["units"] else None

    def step(self, x, y, lr, first=0, last=ALL, entry=0, seed=None):
        """One step at the widths that learn in it: single ones are counted by updates, those of a run by steps."""
        at, blocks = self.updates[first] if seed is None else self.steps, int(self.placed["block"].max()) + 1
        for levels in learning(self.config.nest, blocks, self.config.seed if seed is None else seed, at):
            self.use(levels)
            found = super().step(x, y, lr, first, last, entry)
        self.steps += 1
        self.use(None)
        return found

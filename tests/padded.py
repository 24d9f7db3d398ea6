# SPDX-License-Identifier: Apache-2.0
"""The oracle of sequences of several lengths: each sample alone, at its own length, through a net of so many steps."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
from oracle import Oracle

from edgelearn.records import FLAG_PADDED, RECURRENT, sides_after
from edgelearn.sequences import steps_of


class PaddedOracle(Oracle):
    """An oracle that is told how many steps each sample of a batch has, `lengths` (n); the others are padding."""

    def __init__(self, records, params, config, lengths):
        plain = records.copy()
        cells = np.isin(plain["op"], list(RECURRENT))
        plain["flags"][cells] &= ~np.uint32(FLAG_PADDED)
        super().__init__(plain, params, config)
        self.whole, self.lengths, self.total = plain, lengths, steps_of(plain)

    @contextmanager
    def of(self, length):
        """The net as it is for sequences of one length."""
        self.records = self.whole.copy()
        inside = self.records["size"] > 0
        self.records["size"][inside] = 1 << 16 | length
        yield
        self.records = self.whole

    def reads_steps(self, g):
        return any(index in self.section for index in self.groups[g])

    def cut(self, g, x, length):
        """A sample (1, T D) without the padding in front of it."""
        return x.reshape(1, self.total, -1)[:, self.total - length :].reshape(1, -1) if self.reads_steps(g) else x

    def padded(self, g, h, length):
        """What a group hands on, with nothing in front where that is a sequence."""
        last = self.whole[self.groups[g][-1]]
        units = int(last["active"])
        if sides_after(last).positions == 1:
            return h
        return np.concatenate([np.zeros((1, (self.total - length) * units)), h], axis=1)

    def alone(self, g, x, first, apply):
        """`apply` to each sample (1, ...) by itself, and its place in the batch."""
        found = []
        for row in range(len(x)):
            length = int(self.lengths[first + row])
            with self.of(length):
                found.append((length, apply(self.cut(g, x[row : row + 1], length), row)))
        return found

    def learned(self, g, x, y, first=0):
        plain = super().learned
        found = self.alone(g, x, first, lambda own, row: plain(g, own, y[row : row + 1], first + row))
        losses, gradients, correct = zip(*(one for _, one in found), strict=True)
        sums = [(same[0][0], sum(gradient for _, gradient in same)) for same in zip(*gradients, strict=True)]
        return sum(losses), sums, sum(correct)

    def through(self, g, x, first=0):
        plain = super().through
        found = self.alone(g, x, first, lambda own, row: plain(g, own, first + row)[0])
        return np.concatenate([self.padded(g, h, length) for length, h in found]), []

    def outputs(self, x, last, entry=0):
        plain, x = super().outputs, np.asarray(x, np.float64)
        for g in range(entry, last + 1):
            found = self.alone(g, x, 0, lambda own, row, g=g: plain(own, g, g))
            x = np.concatenate([self.padded(g, h, length) for length, h in found])
        return x

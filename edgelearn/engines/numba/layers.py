# SPDX-License-Identifier: Apache-2.0
"""The records of one group run forward, and backward from its objective; nothing but its output leaves it.

B is the slice of a batch at hand, I a group's inputs, U units.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.engines.numba import normalisation
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.memory import MOVING, Memory, slice_size, takes_turns
from edgelearn.engines.numba.nodes import COUNT_BYTES, Group, Node
from edgelearn.engines.numba.operations import BACK, FORWARD, GRADIENTS
from edgelearn.engines.numba.passes import Pass, view
from edgelearn.engines.numba.records import OPENING
from edgelearn.engines.numba.sequence import Sequence
from edgelearn.engines.numba.steps import Feed
from edgelearn.records import Op


@dataclass(frozen=True)
class Layers:
    """The memory of a session and the walk over the records in it."""

    config: Config
    params: FloatArray
    memory: Memory
    groups: tuple[Group, ...]

    @property
    def counts(self) -> NDArray[np.uint64]:
        """(groups) batches that each group has run in training: names the dropout mask, and Adam's t."""
        return self.memory.state[: COUNT_BYTES * len(self.groups)].view(np.uint64)

    def slices(self, batch: int) -> list[slice]:
        """A batch in the pieces that go through a group at once; the last may be smaller."""
        size = slice_size(self.config)
        return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]

    def entry(self, index: int, batch: int) -> FloatArray:
        """(batch, I) input of a group."""
        group = self.groups[index]
        is_odd = takes_turns(self.groups, self.config) and group.turn
        return view(self.memory.exit if is_odd else self.memory.entry, batch, group.inputs)

    def output(self, node: Node, size: int) -> FloatArray:
        """(B,U) of a node of the group that ran last."""
        return view(self.memory.pool[node.slot * slice_size(self.config) :], size, node.features)

    def infer(self, first: int, last: int, batch: int, out: FloatArray | None = None, feed: Feed | None = None) -> None:
        """Run groups first .. last on the entry of the first, or on the sequences of a feed, in inference; what the
        last one leaves goes to `out` (batch, U), or becomes the entry of the next."""
        index = first
        while index <= last:
            group = self.groups[index]
            end = min(self.sequence.groups[-1].index, last) if group.stepped else index
            into = out if end == last and out is not None else self.entry(end + 1, batch)
            for rows in self.slices(batch):
                if group.stepped:
                    self._infer_steps(index, end, batch, rows, into, feed)
                else:
                    into[rows] = self.forward(group, self.entry(index, batch)[rows], rows, training=False)
            index = end + 1

    def _infer_steps(self, first: int, last: int, batch: int, rows: slice, into: FloatArray, feed: Feed | None) -> None:
        """Groups that run step by step, on a slice; what waits for the last step follows."""
        x = self.sequence.infer(first, last, feed or self.feed(first, batch), rows, into)
        group = self.groups[last]
        if group.stepped < len(group.nodes):
            into[rows] = self.forward(group, x, rows, training=False)

    def feed(self, index: int, batch: int) -> Feed:
        """The sequences that lie in the entry of a group."""
        return Feed(self.entry(index, batch), np.arange(batch))

    def check_steps(self, index: int, feed: Feed) -> None:
        """Raise DataError that names the first sample with a step that is not finite, as the group reads it."""
        for rows in self.slices(len(feed.order)):
            self.sequence.check(self.groups[index], feed, rows)

    def forward(self, group: Group, x: FloatArray, rows: slice, training: bool) -> FloatArray:
        """Run a group, or what of it waits for the last step, on a slice x: (B,U) of its last node. Training leaves the
        softmax to the loss."""
        here, given = self._pass(group, training, rows.start), x
        for node in group.nodes[group.stepped :]:
            if node.op is Op.SOFTMAX and training:
                break
            y = self.output(node, len(x))
            FORWARD[node.op](here, node, x, y)
            if node.op is Op.ADD:
                y += self._left(group, node.source, given)
            x = y
        return x

    def _left(self, group: Group, place: int, given: FloatArray) -> FloatArray:
        """(B,I) what the node after `place` of a group reads of a slice: what the group was given, in front of the
        first that `forward` runs."""
        return given if place < group.stepped or place < 0 else self.output(group.nodes[place], len(given))

    def hand_over(self, group: Group, batch: int, rows: slice, x: FloatArray) -> None:
        """Make a group's output (B,U) a slice of the entry of the next."""
        if not group.output:
            self.entry(group.index + 1, batch)[rows] = x

    def backward(self, group: Group, given: FloatArray, rows: slice, d: FloatArray) -> FloatArray:
        """Add to the gradients of a group's weights, from the error d (B,U) of its objective, which is used up. Of what
        waits for the last step, the error of what it was given comes back."""
        here, spare, used = self._pass(group, True, rows.start), self.memory.spare, self.memory.errors
        for place in range(group.seen - 1, group.stepped - 1, -1):
            node, before = group.nodes[place], group.nodes[place - 1] if place else None
            x = self._left(group, place - 1, given)
            if node.op is Op.ADD and node.source >= 0:
                view(self.memory.round, len(d), node.features)[...] = d
            if node.op in GRADIENTS:
                GRADIENTS[node.op](here, node, x, d)
            if node.op in OPENING and (before is None or before.op is Op.RESCALE):
                return d
            into = view(spare, len(d), node.inputs) if node.op in MOVING else d
            BACK[node.op](here, node, x, self.output(node, len(d)), d, into)
            if node.op in MOVING:
                d, spare, used = into, used, spare
            if place and group.addition(place):
                d += view(self.memory.round, len(d), node.inputs)
        return d

    def begin(self, group: Group) -> None:
        """Set the gradients of a group to zero, and its running statistics to come to what they are."""
        self.memory.gradients[group.own] = 0
        for node, come in zip(group.normalising, self.to_come(group), strict=True):
            come[...] = self._pass(group, True).running(node)

    def follow(self, group: Group) -> None:
        """Move the running statistics to come towards those of the slice that went through."""
        for node, come in zip(group.normalising, self.to_come(group), strict=True):
            of_slice = self._pass(group, True).statistics(node)[:2]
            normalisation.follow(of_slice.reshape(-1), np.float32(node.arg[1]), come.reshape(-1))

    def finish(self, group: Group) -> None:
        """Make the running statistics to come those that the net uses."""
        for node, come in zip(group.normalising, self.to_come(group), strict=True):
            self._pass(group, True).running(node)[...] = come

    def to_come(self, group: Group) -> list[FloatArray]:
        """(2,U) running mean and variance of each batch normalisation behind the step at hand."""
        here = self._pass(group, True)
        return [here.statistics(node)[2:4] for node in group.normalising]

    def _pass(self, group: Group, training: bool, start: int = 0) -> Pass:
        update = int(self.counts[group.index]) if training else 0
        return Pass(self.config, self.params, self.memory, training, update, start)

    @cached_property
    def sequence(self) -> Sequence:
        """The groups that run step by step."""
        return Sequence(self.groups, self.config, self.memory, self._pass)

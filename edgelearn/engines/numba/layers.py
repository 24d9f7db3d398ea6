# SPDX-License-Identifier: Apache-2.0
"""The records of one group run forward, and backward from its objective; nothing but its output leaves it.

B is the slice of a batch at hand, I a group's inputs, U units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.engines.numba import features, maps, normalisation, units
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.memory import MOVING, Memory, slice_size
from edgelearn.engines.numba.nodes import COUNT_BYTES, Group, Node
from edgelearn.engines.numba.passes import Pass, view
from edgelearn.engines.numba.records import OPENING
from edgelearn.graph import Op

_Forward = Callable[[Pass, Node, FloatArray, FloatArray], None]
_Gradients = Callable[[Pass, Node, FloatArray, FloatArray], None]
_Back = Callable[[Pass, Node, FloatArray, FloatArray, FloatArray, FloatArray], None]

_ACTIVATIONS = (Op.RELU, Op.LEAKY_RELU, Op.TANH, Op.SIGMOID, Op.GELU)

_FORWARD: dict[Op, _Forward] = {
    Op.RESCALE: features.rescale,
    Op.DENSE: features.dense,
    Op.CONV: maps.conv,
    Op.BATCHNORM: features.batchnorm,
    Op.LAYERNORM: features.layernorm,
    Op.DROPOUT: features.drop,
    Op.SOFTMAX: features.softmax,
    Op.MAXPOOL: maps.max_pool,
    Op.AVGPOOL: maps.average_pool,
    Op.GLOBAL_AVGPOOL: maps.global_average,
    Op.EMBEDDING: units.embed,
    Op.POSITIONS: units.add_positions,
    Op.ATTENTION: units.attend,
    Op.ADD: units.pass_on,
    **dict.fromkeys(_ACTIVATIONS, features.activate),
}

_GRADIENTS: dict[Op, _Gradients] = {
    Op.DENSE: features.dense_gradients,
    Op.CONV: maps.conv_gradients,
    Op.BATCHNORM: features.batchnorm_gradients,
    Op.LAYERNORM: features.layernorm_gradients,
    Op.EMBEDDING: units.embed_gradients,
    Op.POSITIONS: units.position_gradients,
}

_BACK: dict[Op, _Back] = {
    Op.DENSE: features.dense_back,
    Op.CONV: maps.conv_back,
    Op.BATCHNORM: features.batchnorm_back,
    Op.LAYERNORM: features.layernorm_back,
    Op.DROPOUT: features.drop_back,
    Op.MAXPOOL: maps.max_pool_back,
    Op.AVGPOOL: maps.average_pool_back,
    Op.GLOBAL_AVGPOOL: maps.global_average_back,
    Op.POSITIONS: units.pass_back,
    Op.ATTENTION: units.attend_back,
    Op.ADD: units.pass_back,
    **dict.fromkeys(_ACTIVATIONS, features.activate_back),
}


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
        is_odd = slice_size(self.config) < self.config.batch and index % 2
        return view(self.memory.exit if is_odd else self.memory.entry, batch, self.groups[index].nodes[0].inputs)

    def output(self, node: Node, size: int) -> FloatArray:
        """(B,U) of a node of the group that ran last."""
        return view(self.memory.pool[node.slot * slice_size(self.config) :], size, node.features)

    def infer(self, first: int, last: int, batch: int, out: FloatArray | None = None) -> None:
        """Run groups first .. last on the entry of the first, in inference; what the last one leaves goes to `out`
        (batch, U), or becomes the entry of the next."""
        for group in self.groups[first : last + 1]:
            into = out if group.index == last and out is not None else self.entry(group.index + 1, batch)
            for rows in self.slices(batch):
                into[rows] = self.forward(group, batch, rows, training=False)

    def forward(self, group: Group, batch: int, rows: slice, training: bool) -> FloatArray:
        """Run a group on a slice of its entry: (B,U) of its last node. Training leaves the softmax to the loss."""
        x, here = self.entry(group.index, batch)[rows], self._pass(group, training, rows.start)
        for node in group.nodes:
            if node.op is Op.SOFTMAX and training:
                break
            y = self.output(node, len(x))
            _FORWARD[node.op](here, node, x, y)
            if node.op is Op.ADD:
                y += self._left(group, node.source, batch, rows)
            x = y
        return x

    def _left(self, group: Group, place: int, batch: int, rows: slice) -> FloatArray:
        """(B,I) what the node after `place` of a group reads of a slice: its entry, in front of the first."""
        if place < 0:
            return self.entry(group.index, batch)[rows]
        return self.output(group.nodes[place], rows.stop - rows.start)

    def hand_over(self, group: Group, batch: int, rows: slice, x: FloatArray) -> None:
        """Make a group's output (B,U) a slice of the entry of the next."""
        if not group.output:
            self.entry(group.index + 1, batch)[rows] = x

    def backward(self, group: Group, batch: int, rows: slice, d: FloatArray) -> None:
        """Add to the gradients of a group's weights, from the error d (B,U) of its objective; d is used up."""
        here, spare, used = self._pass(group, True, rows.start), self.memory.spare, self.memory.errors
        for place in range(group.seen - 1, -1, -1):
            node, before = group.nodes[place], group.nodes[place - 1] if place else None
            x = self._left(group, place - 1, batch, rows)
            if node.op is Op.ADD and node.source >= 0:
                view(self.memory.round, len(d), node.features)[...] = d
            if node.op in _GRADIENTS:
                _GRADIENTS[node.op](here, node, x, d)
            if node.op in OPENING and (before is None or before.op is Op.RESCALE):
                return
            into = view(spare, len(d), node.inputs) if node.op in MOVING else d
            _BACK[node.op](here, node, x, self.output(node, len(d)), d, into)
            if node.op in MOVING:
                d, spare, used = into, used, spare
            if place and group.addition(place):
                d += view(self.memory.round, len(d), node.inputs)

    def begin(self, group: Group) -> None:
        """Set the gradients of a group to zero, and its running statistics to come to what they are."""
        self.memory.gradients[: group.gradients] = 0
        for node, come in zip(group.normalising, self.to_come(group), strict=True):
            come[...] = self._pass(group, True).per_unit(node)[2:]

    def follow(self, group: Group) -> None:
        """Move the running statistics to come towards those of the slice that went through."""
        for node, come in zip(group.normalising, self.to_come(group), strict=True):
            of_slice = self._pass(group, True).statistics(node)[:2]
            normalisation.follow(of_slice.reshape(-1), np.float32(node.arg[1]), come.reshape(-1))

    def finish(self, group: Group) -> None:
        """Make the running statistics to come those that the net uses."""
        for node, come in zip(group.normalising, self.to_come(group), strict=True):
            self._pass(group, True).per_unit(node)[2:] = come

    def to_come(self, group: Group) -> list[FloatArray]:
        """(2,U) running mean and variance of each batch normalisation behind the step at hand."""
        here = self._pass(group, True)
        return [here.statistics(node)[2:4] for node in group.normalising]

    def _pass(self, group: Group, training: bool, start: int = 0) -> Pass:
        update = int(self.counts[group.index]) if training else 0
        return Pass(self.config, self.params, self.memory, training, update, start)

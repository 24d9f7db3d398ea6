# SPDX-License-Identifier: Apache-2.0
"""The groups of a net that run step by step, a stretch of steps at a time. S steps of M samples, D inputs, U units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from edgelearn.engines import Config
from edgelearn.engines.numba.cells import Cell
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.memory import Memory, slice_size
from edgelearn.engines.numba.nodes import Group, Node
from edgelearn.engines.numba.operations import BACK, FORWARD, GRADIENTS
from edgelearn.engines.numba.passes import Pass
from edgelearn.engines.numba.random import drop_steps
from edgelearn.engines.numba.samples import check_values
from edgelearn.engines.numba.steps import Feed, Steps, Stretch, shapes_of
from edgelearn.records import RECURRENT, Op

_Passes = Callable[[Group, bool], Pass]


class Sequence:
    """Groups with recurrent layers, and the room for the steps at hand; `passes` makes the way of a group."""

    def __init__(self, groups: tuple[Group, ...], config: Config, memory: Memory, passes: _Passes) -> None:
        self.groups = tuple(group for group in groups if group.stepped)
        self._passes = passes
        self._steps = Steps(shapes_of(groups, config, slice_size(config)), memory.steps)

    @property
    def span(self) -> slice:
        """Their indices."""
        return slice(self.groups[0].index, self.groups[-1].index + 1) if self.groups else slice(0)

    def stretches(self, total: int, window: int, rows: slice, feed: Feed) -> Iterator[Stretch]:
        """All steps of a slice; the first stretch is the shorter one, so that the last step has a window behind it."""
        first, steps = 0, total % window or window
        while first < total:
            yield Stretch(first, steps, total, rows, feed.begins)
            first, steps = first + steps, window

    def total(self, group: Group) -> int:
        """Steps of the sequences that a group reads."""
        return group.inputs // group.nodes[group.steps_at[0]].fan_in

    def infer(self, first: int, last: int, feed: Feed, rows: slice, into: FloatArray) -> FloatArray:
        """Run groups first .. last on a slice, a step at a time. What they leave goes to `into` (batch, U) as far as it
        does not wait for the last step, of which the output (M,U) is returned."""
        groups = tuple(group for group in self.groups if first <= group.index <= last)
        for over in self.stretches(self.total(groups[0]), 1, rows, feed):
            if not over.first:
                self.forget(groups, over)
            x = self.load(groups[0], feed, over)
            for group in groups:
                x = self.forward(group, x, over, training=False)
            if groups[-1].stepped == len(groups[-1].nodes):
                self.store(groups[-1], over, x, into)
            self.advance(groups, over)
        end: FloatArray = x[-1]
        return end

    def load(self, group: Group, feed: Feed, over: Stretch) -> FloatArray:
        """(S,M,D) the steps of a stretch, as a group reads them."""
        at = group.steps_at[0]
        x = self._steps.at("x", over.steps, over.size, group.nodes[at].fan_in)
        scaled = self._passes(group, False).scales(group.nodes[0]) if at else ()
        replace(feed, scales=(*feed.scales, *scaled)).load(over, x)
        return x

    def check(self, group: Group, feed: Feed, rows: slice) -> None:
        """Raise DataError that names the first sample of a slice with a step that is not finite."""
        for over in self.stretches(self.total(group), 1, rows, feed):
            check_values(_flat(self.load(group, feed, over)), feed.order[rows])

    def store(self, group: Group, over: Stretch, y: FloatArray, into: FloatArray) -> None:
        """into (batch, T U) or, of the last step, (batch, U) = what a group hands on."""
        if group.outputs == y.shape[2]:
            into[over.rows] = y[-1]
            return
        at = slice(over.first, over.first + over.steps)
        into[over.rows].reshape(over.size, over.total, -1)[:, at] = y.swapaxes(0, 1)

    def forget(self, groups: tuple[Group, ...], over: Stretch) -> None:
        """Nothing came before."""
        for cell in self._cells(groups, over):
            cell.forget()

    def advance(self, groups: tuple[Group, ...], over: Stretch) -> None:
        """The last of the steps at hand becomes what the next ones find."""
        for cell in self._cells(groups, over):
            cell.advance()

    def _cells(self, groups: tuple[Group, ...], over: Stretch) -> Iterator[Cell]:
        for group in groups:
            for place in group.steps_at:
                if group.nodes[place].op in RECURRENT:
                    yield self._cell(group, place, over)

    def _cell(self, group: Group, place: int, over: Stretch, training: bool = False) -> Cell:
        return Cell(self._steps, (group.index, place), group.nodes[place], over, self._passes(group, training))

    def output(self, group: Group, place: int, over: Stretch) -> FloatArray:
        """(S,M,U) that a node left."""
        return self._steps.output((group.index, place), group.nodes[place], over)

    def forward(self, group: Group, x: FloatArray, over: Stretch, training: bool) -> FloatArray:
        """(S,M,U) of the last of a group's nodes that run step by step, on x (S,M,D)."""
        p = self._passes(group, training)
        for place in group.steps_at:
            node, y = group.nodes[place], self.output(group, place, over)
            if node.op in RECURRENT:
                self._cell(group, place, over).forward(x)
            elif node.op is Op.DROPOUT and training:
                self._drop(p, node, over, x, y)
            else:
                FORWARD[node.op](p, node, _flat(x), _flat(y))
            x = y
        return x

    def _drop(self, p: Pass, node: Node, over: Stretch, x: FloatArray, y: FloatArray) -> None:
        """Every value's place in the batch of sequences is that of its mask, however many steps are at hand."""
        total, first = (over.total, over.first) if node.on_map else (1, 0)
        drop_steps(x, node.arg[0], p.config.seed, p.update, node.block, (over.rows.start, first, total), y)

    def errors(self, group: Group, over: Stretch) -> FloatArray:
        """(S,M,U) where the errors of a group's steps go."""
        return self._steps.at("d", over.steps, over.size, group.nodes[group.stepped - 1].features)

    def backward(self, group: Group, x: FloatArray, over: Stretch) -> None:
        """Add to the gradients of a group's weights what the errors of its steps say, on x (S,M,D)."""
        p, d, spare = self._passes(group, True), self.errors(group, over), "other"
        for place in reversed(group.steps_at[: group.seen - group.steps_at[0]]):
            node, is_first = group.nodes[place], place == group.steps_at[0]
            read = x if is_first else self.output(group, place - 1, over)
            if node.op in RECURRENT:
                cell = self._cell(group, place, over, training=True)
                if cell.is_traced:
                    return cell.trace(read, d)
                dx = None if is_first else self._steps.at(spare, *read.shape)
                cell.back(read, d, dx)
                d, spare = d if dx is None else dx, "d" if spare == "other" else "other"
            elif node.op is Op.DROPOUT:
                self._drop(p, node, over, d, d)
            else:
                if node.op in GRADIENTS:
                    GRADIENTS[node.op](p, node, _flat(read), _flat(d))
                BACK[node.op](p, node, _flat(read), _flat(self.output(group, place, over)), _flat(d), _flat(d))
        return None


def _flat(steps: FloatArray) -> FloatArray:
    """(S M, U) of (S,M,U)."""
    return steps.reshape(-1, steps.shape[-1])

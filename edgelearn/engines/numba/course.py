# SPDX-License-Identifier: Apache-2.0
"""One step of the groups that run step by step: all of them over each stretch of steps, and one update at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Stats
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.learning import Learning
from edgelearn.engines.numba.nodes import Group
from edgelearn.engines.numba.sequence import Sequence
from edgelearn.engines.numba.steps import Feed, Stretch
from edgelearn.rules import Timing


@dataclass(frozen=True)
class Course:
    """Trains groups `first` .. `last` on sequences that enter in front of the groups before them."""

    learning: Learning
    before: tuple[Group, ...]
    groups: tuple[Group, ...]
    batch: int

    @property
    def _sequence(self) -> Sequence:
        return self.learning.layers.sequence

    def run(self, feed: Feed, lr: float, stats: Stats) -> None:
        """All slices over all of their steps, then the updates.

        Raises:
            LearningError: a loss or gradient is not finite; that group and those behind it are as they were.
        """
        done = {group.index: Stats() for group in self.groups}
        for group in self.groups:
            self.learning.layers.begin(group)
        everyone, window = (*self.before, *self.groups), self.learning.layers.config.window
        for rows in self.learning.layers.slices(self.batch):
            for over in self._sequence.stretches(self._sequence.total(everyone[0]), window, rows, feed):
                if not over.first:
                    self._sequence.forget(everyone, over)
                self._stretch(feed, over, done)
                self._sequence.advance(everyone, over)
        for group in self.groups:
            self.learning.finish(group, lr, done[group.index], stats)

    def _stretch(self, feed: Feed, over: Stretch, done: dict[int, Stats]) -> None:
        """One stretch through all groups."""
        x = self._sequence.load((*self.before, *self.groups)[0], feed, over)
        for group in self.before:
            x = self._sequence.forward(group, x, over, training=False)
        for group in self.groups:
            y = self._sequence.forward(group, x, over, training=True)
            if group.learns:
                self._learn(group, x, y, over, done[group.index])
            elif group.waits and over.ends:
                self._tail(group, y, over, done[group.index])
            x = y
        last = self.groups[-1]
        if last is self._sequence.groups[-1] and last.stepped == len(last.nodes) and not last.output:
            self._sequence.store(last, over, x, self.learning.layers.entry(last.index + 1, self.batch))

    def _learn(self, group: Group, x: FloatArray, y: FloatArray, over: Stretch, done: Stats) -> None:
        """The errors of a stretch, and what they say about the weights."""
        errors = self._sequence.errors(group, over)
        if group.waits:
            errors[...] = 0
            before = self._tail(group, y, over, done) if over.ends else None
            if before is not None:
                errors[-1] = before
        else:
            self._objectives(group, over, errors, done)
        if self.learning.layers.config.rule.traces or errors.any():
            self._sequence.backward(group, x, over)

    def _tail(self, group: Group, y: FloatArray, over: Stretch, done: Stats) -> FloatArray | None:
        """What waits for the last step: the error (M,U) of its input."""
        if group.learns:
            self.learning.objectives.begin(group)
        return self.learning.learn_slice(group, y[-1], self.batch, over.rows, done)

    def _objectives(self, group: Group, over: Stretch, errors: FloatArray, done: Stats) -> None:
        """errors (S,M,U) = those of every step's output."""
        h, objectives = self._sequence.output(group, group.seen - 1, over), self.learning.objectives
        weights = self.learning.layers.memory.weights[over.rows]
        for t in range(over.steps):
            begins = np.zeros(1, np.int64) if over.begins is None else over.begins[over.rows]
            own = self._weights(group, over.first + t, over.total, begins)
            if not own.any():
                errors[t] = 0
                continue
            objectives.begin(group)
            # What all samples share is in the share, which rules that compare samples read too.
            most, kept = own.max(), weights.copy()
            weights *= own / most
            done.loss += most * objectives.loss(group, h[t], over.rows, np.float32(most / self.batch), errors[t])
            weights[...] = kept
            done.correct += objectives.correct(group, h[t], over.rows)

    def _weights(self, group: Group, step: int, total: int, begins: NDArray[np.int64]) -> FloatArray:
        """Of a step in the objectives of sequences that begin at `begins`; each one's add up to 1. What has a true loss
        has it of the last step."""
        timing, steps = self.learning.layers.config.rule.timing, total - begins
        own = np.maximum(step + 1 - begins, 0)
        if group.output or timing is Timing.LAST:
            weights = np.full(len(own), step + 1 == total)
        elif timing is Timing.LATE:
            weights = 6 * own**2 / (steps * (steps + 1) * (2 * steps + 1))
        else:
            weights = 2 * own / (steps * (steps + 1)) if timing is Timing.RAMP else (own > 0) / steps
        return weights.astype(np.float32)

# SPDX-License-Identifier: Apache-2.0
"""The step of a group: slices of a batch forward and backward, then one update by the sum of their gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgelearn.engines import Stats
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.layers import Layers
from edgelearn.engines.numba.nodes import Group
from edgelearn.engines.numba.objectives import Objectives
from edgelearn.engines.numba.optimizers import descend, limit
from edgelearn.engines.numba.passes import view
from edgelearn.engines.numba.samples import first_not_finite
from edgelearn.errors import LearningError


@dataclass(frozen=True)
class Learning:
    """Trains the groups of a session one by one, on the labels or targets in its memory."""

    layers: Layers
    objectives: Objectives

    def learn(self, group: Group, batch: int, lr: float, stats: Stats) -> None:
        """One training pass of a group over its entry; its output from before the update is handed on.

        Raises:
            LearningError: the loss or a gradient is not finite; the group is as it was.
        """
        done = Stats()
        self.layers.begin(group)
        if group.learns:
            self.objectives.begin(group)
        for rows in self.layers.slices(batch):
            self.learn_slice(group, self.layers.entry(group.index, batch)[rows], batch, rows, done)
        self.finish(group, lr, done, stats)

    def learn_slice(self, group: Group, x: FloatArray, batch: int, rows: slice, done: Stats) -> FloatArray | None:
        """Add a slice x (B,I) of what a group is given to its loss and to the gradients of the mean over the batch; the
        error of x comes back where the group has one for what came before it."""
        forwarded, d = self.layers.forward(group, x, rows, training=True), None
        if group.learns:
            h = self.layers.output(group.last, len(x))
            errors = view(self.layers.memory.errors, len(x), group.last.features)
            done.loss += self.objectives.loss(group, h, rows, np.float32(1 / batch), errors)
            d = self.layers.backward(group, x, rows, errors)
            done.correct += self.objectives.correct(group, h, rows)
        self.layers.follow(group)
        self.layers.hand_over(group, batch, rows, forwarded)
        return d

    def finish(self, group: Group, lr: float, done: Stats, stats: Stats) -> None:
        """Update a group by the gradients of all slices.

        Raises:
            LearningError: the loss or a gradient is not finite; the group is as it was.
        """
        self._refuse_divergence(group, done.loss)
        if group.learns:
            self._update(group, lr)
            stats.loss, stats.correct = done.loss, done.correct
        self.layers.finish(group)
        self.layers.counts[group.index] += np.uint64(1)

    def _update(self, group: Group, lr: float) -> None:
        config, gradients = self.layers.config, self.layers.memory.gradients
        if config.clip:
            limit(gradients[group.start :][: sum(segment.size for segment in group.segments)], config.clip)
        rate, count = self._rate(group, lr), int(self.layers.counts[group.index]) + 1
        kept = self.objectives.kept
        for segments, flat in ((group.segments, self.layers.params), (group.heads, kept)):
            for segment in segments:
                g = segment.packed(gradients, segment.gradient)
                descend(config.optimizer, g, rate, count, segment, kept, segment.weights(flat))

    def _rate(self, group: Group, lr: float) -> np.float32:
        rates = self.layers.config.rates
        return np.float32(lr) * np.float32(rates[group.last.block] if rates else 1)

    def _refuse_divergence(self, group: Group, loss: float) -> None:
        found = self.layers.memory.gradients[group.own], *self.layers.to_come(group)
        if not math.isfinite(loss) or any(first_not_finite(values.reshape(1, -1)) >= 0 for values in found):
            raise LearningError(
                f"training diverged: the loss, a gradient or a statistic of block {group.last.block} is not finite: "
                "lower the learning rate or scale the samples to about 1"
            )

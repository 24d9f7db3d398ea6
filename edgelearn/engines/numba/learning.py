# SPDX-License-Identifier: Apache-2.0
"""The step of a group: slices of a batch forward and backward, then one update by the sum of their gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgelearn.engines import Stats
from edgelearn.engines.numba.layers import Layers
from edgelearn.engines.numba.nodes import Group
from edgelearn.engines.numba.objectives import Objectives
from edgelearn.engines.numba.optimizers import descend, limit
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
            forwarded = self.layers.forward(group, batch, rows, training=True)
            if group.learns:
                self._accumulate(group, batch, rows, done)
            self.layers.follow(group)
            self.layers.hand_over(group, batch, rows, forwarded)
        self._refuse_divergence(group, done.loss)
        if group.learns:
            self._update(group, lr)
            stats.loss, stats.correct = done.loss, done.correct
        self.layers.finish(group)
        self.layers.counts[group.index] += np.uint64(1)

    def _accumulate(self, group: Group, batch: int, rows: slice, done: Stats) -> None:
        """Add a slice to the loss and to the gradients of the mean over the batch."""
        loss, d = self.objectives.loss(group, rows, np.float32(1 / batch))
        self.layers.backward(group, batch, rows, d)
        done.loss += loss
        done.correct += self.objectives.correct(group, rows)

    def _update(self, group: Group, lr: float) -> None:
        config, gradients = self.layers.config, self.layers.memory.gradients[: group.gradients]
        if config.clip:
            limit(gradients[: sum(segment.size for segment in group.segments)], config.clip)
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
        found = self.layers.memory.gradients[: group.gradients], *self.layers.to_come(group)
        if not math.isfinite(loss) or any(first_not_finite(values.reshape(1, -1)) >= 0 for values in found):
            raise LearningError(
                f"training diverged: the loss, a gradient or a statistic of block {group.last.block} is not finite: "
                "lower the learning rate or scale the samples to about 1"
            )

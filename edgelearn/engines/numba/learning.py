# SPDX-License-Identifier: Apache-2.0
"""What a group learns from: its objective on its own output, and the optimizer's step.

B is the batch at hand, U units, K classes or targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgelearn.engines import Stats
from edgelearn.engines.numba import kernels, objectives
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.layers import Layers, view
from edgelearn.engines.numba.plan import COUNT_BYTES, Group, Segment
from edgelearn.engines.numba.random import codes_into
from edgelearn.errors import LearningError
from edgelearn.optim import OptimizerKind
from edgelearn.rules import Loss, Objective


@dataclass(frozen=True)
class Learning:
    """Trains the groups of a session one by one, on the labels or targets in its memory."""

    layers: Layers

    @property
    def kept(self) -> FloatArray:
        """Read-outs and moments: the floats of the state."""
        return self.layers.memory.state[COUNT_BYTES * len(self.layers.groups) :].view(np.float32)

    def learn(self, group: Group, batch: int, lr: float, stats: Stats) -> None:
        """One training pass of a group over its entry; its output from before the update is handed on.

        Raises:
            LearningError: the loss or a gradient is not finite; the group is as it was.
        """
        forwarded = self.layers.forward(group, batch, training=True)
        if group.learns:
            self._update(group, batch, lr, stats)
        self.layers.hand_over(group, forwarded)
        self.layers.counts[group.index] += np.uint64(1)

    def _update(self, group: Group, batch: int, lr: float, stats: Stats) -> None:
        h = self.layers.output(group.last, batch)
        d = view(self.layers.memory.errors, batch, group.last.active)
        loss = self._output_loss(h, d) if group.output else self._objective(group, h, d)
        self.layers.backward(group, d)
        self._refuse_divergence(group, loss)
        stats.loss = loss
        if group.output and self.layers.config.loss is Loss.CROSS_ENTROPY:
            stats.correct = int(objectives.count_correct(h, self.layers.memory.labels))
        for segment in group.segments:
            weights = self.kept if segment is group.readout else self.layers.params
            self._descend(segment, segment.weights(weights), int(self.layers.counts[group.index]) + 1, lr)
        self.layers.follow(group)

    def _refuse_divergence(self, group: Group, loss: float) -> None:
        gradients = self.layers.memory.gradients[: group.gradients].view(np.uint32)
        if not math.isfinite(loss) or kernels.first_not_finite(gradients.reshape(1, -1)) >= 0:
            raise LearningError(
                f"training diverged: the loss or gradient of block {group.last.block} is not finite: "
                "lower the learning rate or scale the samples to about 1"
            )

    def _output_loss(self, h: FloatArray, d: FloatArray) -> float:
        """The net's own loss of h (B,K); d receives its error."""
        config, memory, share = self.layers.config, self.layers.memory, np.float32(1 / len(h))
        if config.loss is Loss.CROSS_ENTROPY:
            d[...] = h
            return float(objectives.cross_entropy(memory.labels, share, d))
        d[...] = view(memory.targets, *h.shape)
        measure = objectives.LOSSES[config.loss]
        return float(measure(h.reshape(-1), np.float32(config.rule.huber), share, d.reshape(-1)))

    def _objective(self, group: Group, h: FloatArray, d: FloatArray) -> float:
        """The rule's objective of a hidden group's output h (B,U); d receives its error."""
        if group.readout is not None:
            return self._readout(group.readout, h, d)
        codes = self._codes(group)
        if self.layers.config.rule.objective is Objective.TP_CE:
            return self._code_cross_entropy(codes, h, d)
        self._targets(codes, d)
        rule, share = self.layers.config.rule, np.float32(1 / len(h))
        measure = objectives.DISTANCES[rule.objective]
        return float(measure(h.reshape(-1), np.float32(rule.huber), share, d.reshape(-1)))

    def _codes(self, group: Group) -> FloatArray:
        """P (K,U), regenerated from the seed."""
        config = self.layers.config
        codes = view(self.layers.memory.codes, config.targets, group.last.active)
        codes_into(config.rule.codes, config.rule.scale, config.seed, group.last.block, codes)
        return codes

    def _targets(self, codes: FloatArray, t: FloatArray) -> None:
        """t (B,U): the code of each label, or targets P."""
        memory, config = self.layers.memory, self.layers.config
        if config.loss is Loss.CROSS_ENTROPY:
            kernels.gather(codes, memory.labels[: len(t)], t)
        else:
            kernels.matmul(view(memory.targets, len(t), config.targets), codes, t)

    def _scale(self, h: FloatArray) -> np.float32:
        """What h P^T and h M are multiplied by, 1 / (temperature sqrt(U)): keeps them at one unit's size."""
        return np.float32(1 / (self.layers.config.rule.temperature * math.sqrt(h.shape[1])))

    def _code_cross_entropy(self, codes: FloatArray, h: FloatArray, d: FloatArray) -> float:
        """Cross-entropy of softmax(h P^T s): d = (p - one-hot) P s / B."""
        memory, s = self.layers.memory, self._scale(h)
        logits = view(memory.logits, len(h), len(codes))
        kernels.matmul_nt(h, codes, logits)
        logits *= s
        loss = float(objectives.cross_entropy(memory.labels, np.float32(1 / len(h)), logits))
        logits *= s
        kernels.matmul(logits, codes, d)
        return loss

    def _readout(self, readout: Segment, h: FloatArray, d: FloatArray) -> float:
        """The net's loss of h M s: M (U,K) gets its gradient, h its error through M before the update."""
        memory, s, weights = self.layers.memory, self._scale(h), readout.weights(self.kept)
        guess = view(memory.logits, len(h), readout.columns)
        error = view(memory.errors, len(h), readout.columns)
        kernels.matmul(h, weights, guess)
        guess *= s
        loss = self._output_loss(guess, error)
        np.multiply(error, s, out=guess)
        kernels.matmul_tn(h, guess, readout.packed(memory.gradients, readout.gradient))
        kernels.matmul_nt(guess, weights, d)
        return loss

    def _descend(self, segment: Segment, w: FloatArray, count: int, lr: float) -> None:
        """The optimizer's update number `count` (from 1) of one weight matrix."""
        o, rate, kept = self.layers.config.optimizer, np.float32(lr), self.kept
        g = segment.packed(self.layers.memory.gradients, segment.gradient)
        if o.kind is OptimizerKind.SGD:
            objectives.sgd(g, rate, w)
            return
        first = segment.packed(kept, segment.moments)
        if o.kind is OptimizerKind.MOMENTUM:
            objectives.momentum(g, rate, np.float32(o.momentum), first, w)
            return
        beta1, beta2 = np.float32(o.beta1), np.float32(o.beta2)
        second = segment.packed(kept, segment.moments + segment.size)
        fix1, fix2 = (np.float32(1 / (1 - float(beta) ** count)) for beta in (beta1, beta2))
        objectives.adam(g, rate, beta1, beta2, np.float32(o.epsilon), fix1, fix2, first, second, w)

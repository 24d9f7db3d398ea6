# SPDX-License-Identifier: Apache-2.0
"""What a group minimises over its own output, on the labels or targets in the session's memory.

B samples of a slice, U units, V values that the objective sees of them, K classes or targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgelearn.engines.numba import kernels, losses, pooling, similarity
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.layers import Layers
from edgelearn.engines.numba.nodes import CODING, COMPARING, COUNT_BYTES, Group
from edgelearn.engines.numba.passes import as_map, view
from edgelearn.engines.numba.random import codes_into
from edgelearn.rules import Loss


@dataclass(frozen=True)
class Objectives:
    """The objectives of a session's groups."""

    layers: Layers

    @property
    def kept(self) -> FloatArray:
        """Read-outs and moments: the floats of the state."""
        return self.layers.memory.state[COUNT_BYTES * len(self.layers.groups) :].view(np.float32)

    def begin(self, group: Group) -> None:
        """Regenerate the codes of a group from the seed, for all slices of a step."""
        rule, seed = self.layers.config.rule, self.layers.config.seed
        if not group.output and rule.objective in CODING:
            codes_into(rule.codes, rule.scale, seed, group.last.block, self._codes(group), of=group.coded)

    def loss(self, group: Group, h: FloatArray, rows: slice, share: np.float32, d: FloatArray) -> float:
        """Loss of a group's output h (B,U), summed over a slice of the batch; d (B,U) becomes its error, times
        `share`."""
        if group.output:
            return self._output(h, rows, share, d)
        if not group.pools:
            return self._hidden(group, h, rows, share, d)
        q, dq = (view(half, len(h), group.values) for half in self.layers.memory.pooled.reshape(2, -1))
        pooling.adaptive_average(as_map(h, group.last.after), as_map(q, group.cells))
        loss = self._hidden(group, q, rows, share, dq)
        pooling.adaptive_average_backward(as_map(dq, group.cells), as_map(d, group.last.after))
        return loss

    def correct(self, group: Group, h: FloatArray, rows: slice) -> int:
        """Samples of a slice whose largest output is their label, behind the output layer."""
        if not group.output or self.layers.config.loss is not Loss.CROSS_ENTROPY:
            return 0
        return int(losses.count_correct(h, self.layers.memory.labels[rows]))

    def _output(self, h: FloatArray, rows: slice, share: np.float32, d: FloatArray) -> float:
        """The net's own loss of h (B,K); d receives its error."""
        config, memory = self.layers.config, self.layers.memory
        if config.loss is Loss.CROSS_ENTROPY:
            d[...] = h
            return float(losses.cross_entropy(memory.labels[rows], memory.weights[rows], share, d))
        d[...] = self._answers(rows)
        measure = losses.LOSSES[config.loss]
        return float(measure(h, np.float32(config.rule.huber), memory.weights[rows], share, d))

    def _hidden(self, group: Group, q: FloatArray, rows: slice, share: np.float32, d: FloatArray) -> float:
        """The rule's objective of what it sees of a hidden group, q (B,V); d receives its error."""
        rule, weights = self.layers.config.rule, self.layers.memory.weights[rows]
        if rule.objective in losses.DISTANCES:
            self._targets(self._codes(group), rows, d)
            return float(losses.DISTANCES[rule.objective](q, np.float32(rule.huber), weights, share, d))
        if rule.objective not in COMPARING:
            return self._scored(group, q, rows, share, d)
        rest = 1 - np.float32(rule.similarity)
        loss = float(rest) * self._scored(group, q, rows, rest * share, d)
        return loss + self._similarity(group, q, rows, share, d)

    def _scored(self, group: Group, q: FloatArray, rows: slice, share: np.float32, d: FloatArray) -> float:
        """The loss of the scores of all of q and, in a nested net, of prefixes of it."""
        scored = self._readout if group.heads else self._code_cross_entropy
        loss = scored(group, q, rows, share, d)
        return loss + sum(self._prefix(group, q[:, :end], rows, share, d[:, :end]) for end in group.ends)

    def _prefix(self, group: Group, q: FloatArray, rows: slice, share: np.float32, d: FloatArray) -> float:
        """The loss of the scores of a prefix q of what is seen; d and the gradient of a read-out are added to."""
        memory, s, targets = self.layers.memory, self._scale(q), self.layers.config.targets
        guess, error = view(memory.logits, len(q), targets), view(memory.prefixes, len(q), targets)
        scores = group.heads[0].weights(self.kept)[: q.shape[1]] if group.heads else self._codes(group).T[: q.shape[1]]
        kernels.matmul(q, scores, guess)
        guess *= s
        loss = self._output(guess, rows, share, error)
        error *= s
        if group.heads:
            gradient = group.heads[0].packed(memory.gradients, group.heads[0].gradient)
            kernels.matmul_tn(q, error, gradient[: q.shape[1]])
        kernels.matmul_tn(error.T, scores.T, d)
        return loss

    def _codes(self, group: Group) -> FloatArray:
        """P (K,V)."""
        return view(self.layers.memory.codes, self.layers.config.targets, group.values)

    def _answers(self, rows: slice) -> FloatArray:
        """(B,K) targets of a slice."""
        targets = self.layers.config.targets
        return self.layers.memory.targets.reshape(-1, targets)[rows]

    def _targets(self, codes: FloatArray, rows: slice, t: FloatArray) -> None:
        """t (B,V): the code of each label, or targets P."""
        if self.layers.config.loss is Loss.CROSS_ENTROPY:
            kernels.gather(codes, self.layers.memory.labels[rows], t)
        else:
            kernels.matmul(self._answers(rows), codes, t)

    def _scale(self, q: FloatArray) -> np.float32:
        """What q P^T and q M are multiplied by, 1 / (temperature sqrt(V)): keeps them at one value's size."""
        return np.float32(1 / (self.layers.config.rule.temperature * math.sqrt(q.shape[1])))

    def _code_cross_entropy(self, group: Group, q: FloatArray, rows: slice, share: np.float32, d: FloatArray) -> float:
        """Cross-entropy of softmax(q P^T s): d = (p - one-hot) P s."""
        memory, codes, s = self.layers.memory, self._codes(group), self._scale(q)
        logits = view(memory.logits, len(q), len(codes))
        kernels.matmul_nt(q, codes, logits)
        logits *= s
        loss = float(losses.cross_entropy(memory.labels[rows], memory.weights[rows], share, logits))
        logits *= s
        kernels.matmul(logits, codes, d)
        return loss

    def _readout(self, group: Group, q: FloatArray, rows: slice, share: np.float32, d: FloatArray) -> float:
        """The net's loss of q M s: M (V,K) gets its gradient, q its error through M before the update."""
        readout, memory, s = group.heads[0], self.layers.memory, self._scale(q)
        weights = readout.weights(self.kept)
        guess = view(memory.logits, len(q), readout.columns)
        error = view(memory.errors, len(q), readout.columns)  # d comes later, if it is there too
        kernels.matmul(q, weights, guess)
        guess *= s
        loss = self._output(guess, rows, share, error)
        np.multiply(error, s, out=guess)
        kernels.matmul_tn(q, guess, readout.packed(memory.gradients, readout.gradient))
        kernels.matmul_nt(guess, weights, d)
        return loss

    def _similarity(self, group: Group, q: FloatArray, rows: slice, share: np.float32, d: FloatArray) -> float:
        """Its own share of the distance of the slice's similarities from those of the labels; d is added to."""
        memory, config = self.layers.memory, self.layers.config
        v, dv = (view(half, len(q), group.values) for half in memory.compared.reshape(2, -1))
        v[...] = q
        alike, lengths = view(memory.alike, len(q), len(q)), memory.alike[len(q) ** 2 :][: len(q)]
        own = np.float32(config.rule.similarity)
        loss = similarity.distance(v, memory.labels[rows], config.targets, lengths, alike)
        similarity.backward(alike, v, lengths, own * share, dv)
        d += dv
        return float(own) * loss

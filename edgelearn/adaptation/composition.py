# SPDX-License-Identifier: Apache-2.0
"""Adaptations as task vectors: what they change in the weights of one net, added, taken away, or mixed block by block
with coefficients that are learned from forward passes alone (aTLAS, Zhang et al. 2024, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.adaptation.adapted import Adapted
from edgelearn.adaptation.merging import merge
from edgelearn.errors import DataError, UsageError
from edgelearn.net import Net

FloatArray = NDArray[np.float32]
Float64 = NDArray[np.float64]

STEP = 0.05
"""Of the central differences: large enough to be seen in float32 losses, small beside a coefficient of 1."""

_BETA1, _BETA2 = 0.9, 0.999


def task_vector(net: Net, adapted: Adapted) -> FloatArray:
    """What an adaptation changes in the flat weights of its net; the net stays as it was.

    Raises:
        ModelError: an adaptation that cannot merge into this net.
    """
    before = net.flat.copy()
    merged = merge(net, adapted)
    changed = net.flat - before
    merged.detach()
    return changed


class Composition:
    """A net whose weights are its own plus, block by block, coefficients times task vectors.

    `coefficients` (vectors, blocks) begin at zero, where the net is what it was; 1 in a row is that adaptation, -1 its
    negation. `apply` writes the weights, `detach` brings back the first ones to the bit.

    Raises:
        UsageError: no vectors, or vectors of another net.
    """

    def __init__(self, net: Net, vectors: Sequence[FloatArray]) -> None:
        if not vectors or any(vector.shape != net.flat.shape for vector in vectors):
            raise UsageError(f"a composition needs vectors of {net.flat.size} values: make them with task_vector")
        self.net, self.vectors = net, [vector.astype(np.float32) for vector in vectors]
        self._kept = net.flat.copy()
        self._block = _blocks(net)
        self.coefficients = np.zeros((len(vectors), net.graph.blocks))

    def apply(self) -> Net:
        """Write the composed weights; variances of normalisations stay above zero."""
        flat = self._kept.copy()
        for row, vector in zip(self.coefficients, self.vectors, strict=True):
            flat += row.astype(np.float32)[self._block] * vector
        self.net.flat[...] = flat
        for name, values in self.net.buffers.items():
            if name.endswith(".variance"):
                np.maximum(values, 1e-6, out=values)
        return self.net

    def detach(self) -> Net:
        """The weights from before, to the bit."""
        self.net.flat[...] = self._kept
        return self.net

    def learn(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        steps: int = 20,
        lr: float = 0.1,
        forget: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> list[float]:
        """Fit the coefficients to labelled samples by central differences of the loss and Adam; with `forget`, samples
        whose loss is to grow. Two passes per coefficient and step. Returns the loss of each step, the last first
        applied.

        Raises:
            UsageError: steps or a rate that cannot be meant.
            DataError: as many labels as samples are needed.
        """
        if steps < 1 or not 0 < lr < np.inf:
            raise UsageError(f"{steps} steps at rate {lr} learn nothing: give positive numbers")
        sets = [(np.asarray(x), np.asarray(y), 1.0)]
        sets += [(np.asarray(forget[0]), np.asarray(forget[1]), -1.0)] if forget else []
        if any(len(a) != len(b) or not len(a) for a, b, _ in sets):
            raise DataError("each sample needs its label: give as many labels as samples, one at least")
        classes = self.net.graph.outputs
        if any(b.dtype.kind not in "iu" or b.min() < 0 or b.max() >= classes for _, b, _ in sets):
            raise DataError(f"labels are class indices of 0 to {classes - 1} here: number them as the net does")
        first, second, losses = np.zeros_like(self.coefficients), np.zeros_like(self.coefficients), []
        for step in range(1, steps + 1):
            gradient = self._gradient(sets)
            first = _BETA1 * first + (1 - _BETA1) * gradient
            second = _BETA2 * second + (1 - _BETA2) * gradient**2
            rate = lr * 0.5 * (1 + np.cos(np.pi * (step - 1) / steps))
            root = np.sqrt(second / (1 - _BETA2**step)) + 1e-8
            self.coefficients -= rate * first / (1 - _BETA1**step) / root
            losses.append(self._loss(sets))
        self.apply()
        return losses

    def _gradient(self, sets: list[tuple[NDArray[np.generic], NDArray[np.generic], float]]) -> Float64:
        out = np.zeros_like(self.coefficients)
        for place in np.ndindex(out.shape):
            value = self.coefficients[place]
            ends = []
            for end in (value + STEP, value - STEP):
                self.coefficients[place] = end
                ends.append(self._loss(sets))
            self.coefficients[place] = value
            out[place] = (ends[0] - ends[1]) / (2 * STEP)
        return out

    def _loss(self, sets: list[tuple[NDArray[np.generic], NDArray[np.generic], float]]) -> float:
        """Mean cross-entropy, that of samples to forget with a minus and no more than a guess would give."""
        net, total = self.apply(), 0.0
        for x, y, sign in sets:
            right = net.forward(x)[np.arange(len(y)), y]
            loss = float(-np.log(np.maximum(right, 1e-7)).mean())
            total += loss if sign > 0 else -min(loss, float(np.log(net.graph.outputs)))
        return total


def _blocks(net: Net) -> NDArray[np.int64]:
    """The block of each weight."""
    out = np.zeros(net.flat.size, np.int64)
    for record in net.graph.records:
        first = int(record["offset"])
        out[first : first + int(record["params"])] = int(record["block"])
    return out

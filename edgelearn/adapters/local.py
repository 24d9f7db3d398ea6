# SPDX-License-Identifier: Apache-2.0
"""Local training of one adapter: it sees its own input and its own objective, and no other layer.

Objectives look at averages of a map. Averages of a linear adapter's output are the adapter of the averages, so linear
adapters learn from those alone and no map is kept; others go over the map in slices of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgelearn.adapters import Adapter, lowrank
from edgelearn.adapters.lora import Lora, rank_prefixes
from edgelearn.errors import LearningError, UsageError

FloatArray = NDArray[np.float32]
Labels = NDArray[np.int32]

GRID = 3
"""Averages per side of a map: with 3 read-outs of MNIST features were 2 points better than with 2."""

SLICE_BYTES = 1 << 16
"""Of features that an adapter works on at once: what it needs beside them is a few times as much."""


def slice_of(row_bytes: int) -> int:
    """Samples that an adapter works on at once, from the bytes of one sample's features."""
    return max(1, SLICE_BYTES // row_bytes)


def cells(sides: tuple[int, int], grid: int = GRID) -> FloatArray:
    """(cells, positions): weights of adaptive averages over a map, at most `grid` per side."""
    rows, columns = (_intervals(side, min(side, grid)) for side in sides)
    matrix = np.zeros((len(rows), len(columns), *sides), np.float32)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            matrix[i, j, top:bottom, left:right] = 1 / ((bottom - top) * (right - left))
    return matrix.reshape(len(rows) * len(columns), -1)


def _intervals(side: int, count: int) -> list[tuple[int, int]]:
    return [(i * side // count, -(-(i + 1) * side // count)) for i in range(count)]


def pooled(h: FloatArray, sides: tuple[int, int], grid: int = GRID) -> FloatArray:
    """Averages (n, cells, channels) of features (n, positions, channels)."""
    return np.ascontiguousarray(cells(sides, grid) @ h)


def softmax(logits: FloatArray) -> FloatArray:
    """Along the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    out: FloatArray = raised / raised.sum(axis=-1, keepdims=True)
    return out


def cross_entropy(logits: FloatArray, y: Labels) -> float:
    """Mean over samples, in nats."""
    raised = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(raised).sum(axis=1)) - raised[np.arange(len(y)), y]).mean())


class Objective(Protocol):
    """What an adapter minimises."""

    def gradient(self, averages: FloatArray, y: Labels) -> FloatArray:
        """Of the sum over samples, at averages (n, cells, channels)."""


@dataclass(frozen=True, eq=False)
class Readout:
    """Cross-entropy of a frozen linear read-out: weight (cells x channels, classes), bias (classes,)."""

    weight: FloatArray
    bias: FloatArray

    def logits(self, averages: FloatArray) -> FloatArray:
        """(n, classes)."""
        out: FloatArray = averages.reshape(len(averages), -1) @ self.weight + self.bias
        return out

    def gradient(self, averages: FloatArray, y: Labels) -> FloatArray:
        """softmax minus the label, back through the read-out."""
        error = softmax(self.logits(averages))
        error[np.arange(len(y)), y] -= 1
        out: FloatArray = (error @ self.weight.T).reshape(averages.shape)
        return out


@dataclass(frozen=True, eq=False)
class CodeDistance:
    """Half the squared distance of the mean over cells to the label's code: tp-l2; codes (classes, channels)."""

    codes: FloatArray

    def gradient(self, averages: FloatArray, y: Labels) -> FloatArray:
        """Mean minus code, shared among the cells."""
        error = averages.mean(axis=1) - self.codes[y]
        return np.repeat(error[:, None] / np.float32(averages.shape[1]), averages.shape[1], axis=1)


def of_codes(codes: FloatArray, cell_count: int, temperature: float) -> Readout:
    """tp-ce: a read-out whose weights are the codes (classes, channels), the logits divided by temperature times the
    root of the channels."""
    weight = codes.T / (temperature * math.sqrt(codes.shape[1]) * cell_count)
    return Readout(np.tile(weight, (cell_count, 1)).astype(np.float32), np.zeros(len(codes), np.float32))


@dataclass(frozen=True)
class Training:
    """How an adapter learns: updates by an optimizer of lowrank.py, cosine from `lr` to nothing. With `nested` a step
    trains all ranks of a LoRA or, every other time, only the first, as many as one of `rank_prefixes`."""

    lr: float = 1e-2
    steps: int = 100
    batch: int = 64
    optimizer: str = "adam"
    state_rank: int = 4
    seed: int = 0
    nested: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf or self.steps < 1 or self.batch < 1:
            raise UsageError(f"lr {self.lr}, steps {self.steps}, batch {self.batch}: all must be positive")
        lowrank.optimizer(self.optimizer)

    def rate(self, step: int) -> float:
        """Of a step counted from 0."""
        return self.lr * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def fit(
    adapter: Adapter, h: FloatArray, y: Labels, objective: Objective, how: Training, spread: FloatArray | None = None
) -> None:
    """Train an adapter in place: a linear one on averages (n, cells, channels) at its tap, any on features
    (n, positions, channels) with `spread`, the (cells, positions) matrix that averages them.

    Raises:
        LearningError: the weights left the finite numbers; they are those from before.
        UsageError: ranks that cannot nest.
    """
    if how.nested and adapter.kind != Lora.kind:
        raise UsageError(f"ranks of an adapter of kind {adapter.kind} do not nest: use lora")
    rng = np.random.default_rng(how.seed)
    kept = {name: array.copy() for name, array in adapter.weights.items()}
    optimizer = lowrank.optimizer(how.optimizer)
    states = {name: optimizer.state(array.shape, how.state_rank, how.seed) for name, array in kept.items()}
    for step, part in zip(range(how.steps), batches(len(y), how.batch, how.seed), strict=False):
        trained = _some_ranks(adapter, rng) if how.nested else adapter
        for name, found in _gradients(trained, h[part], y[part], objective, spread).items():
            gradient = np.zeros_like(adapter.weights[name])
            gradient[tuple(slice(side) for side in found.shape)] = found
            states[name].step(adapter.weights[name], gradient, how.rate(step))
        adapter.after_step()
    if not all(np.isfinite(array).all() for array in adapter.weights.values()):
        for name, array in kept.items():
            adapter.weights[name][...] = array
        raise LearningError("an adapter diverged and was set back: lower the learning rate")


def _some_ranks(adapter: Adapter, rng: np.random.Generator) -> Adapter:
    """All ranks of a LoRA, or the first of them."""
    assert isinstance(adapter, Lora)
    fewer = rank_prefixes(adapter.rank)[:-1]
    part: Adapter = adapter.prefix(int(rng.choice(fewer))) if fewer and rng.random() < 0.5 else adapter
    return part


def batches(n: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Places of shuffled batches, epoch after epoch without an end."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(n)
        for start in range(0, n, size):
            yield order[start : start + size]


def _gradients(
    adapter: Adapter, h: FloatArray, y: Labels, objective: Objective, spread: FloatArray | None
) -> dict[str, FloatArray]:
    """Mean over samples, summed slice by slice: what is worked on stays small."""
    total: dict[str, FloatArray] = {}
    size = slice_of(h[:1].nbytes)
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        seen = adapter.apply(h[part])
        error = objective.gradient(seen if spread is None else spread @ seen, y[part]) / np.float32(len(y))
        for name, gradient in adapter.gradients(h[part], error if spread is None else spread.T @ error).items():
            total[name] = total[name] + gradient if name in total else gradient
    return total

# SPDX-License-Identifier: Apache-2.0
"""Optimizers whose state is small: Adam in a subspace, Adam on bytes, Adam that only scales the gradient.

Each holds the state of one array and updates it in place, so that a gradient lives as long as one call. Vectors, and
matrices whose smaller side is not above the rank, are left to plain Adam.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import UsageError

FloatArray = NDArray[np.float32]

BETA1, BETA2, EPSILON = np.float32(0.9), np.float32(0.999), np.float32(1e-8)

BLOCK = 256
"""Values that share a scale in 8-bit state (Dettmers et al. 2022 take 2048; a small one costs 1.6 % and blocks of a
small layer are not cut short)."""

GROWTH = 1.01
"""Most that the norm of an update may grow from one step to the next (Fira, Chen et al. 2024, section 4.3)."""


class State(Protocol):
    """The state of one array."""

    @property
    def nbytes(self) -> int:
        """Bytes that live from step to step."""

    def step(self, weight: FloatArray, gradient: FloatArray, lr: float) -> None:
        """Update the array in place."""


class _Moments:
    """Adam's two moments of an array (Kingma & Ba 2015, algorithm 1), kept as float32."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.first, self.second = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.count = 0

    @property
    def nbytes(self) -> int:
        return self.first.nbytes + self.second.nbytes

    def direction(self, gradient: FloatArray) -> FloatArray:
        """What Adam would subtract at rate 1."""
        self.count += 1
        self.first += (1 - BETA1) * (gradient - self.first)
        self.second += (1 - BETA2) * (gradient * gradient - self.second)
        return _direction(self.first, self.second, self.count)


def _direction(first: FloatArray, second: FloatArray, count: int) -> FloatArray:
    root = np.sqrt(second / np.float32(1 - float(BETA2) ** count)) + EPSILON
    out: FloatArray = first / np.float32(1 - float(BETA1) ** count) / root
    return out


class _Bytes:
    """The same moments in one byte each, a scale per BLOCK (block-wise as Dettmers et al. 2022, section 2.1): the first
    linear from -127 to 127, the second as its square root from 0 to 255, which is what Adam divides by."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, size = shape, math.prod(shape)
        blocks = -(-size // BLOCK)
        self.first, self.second = np.zeros((blocks, BLOCK), np.int8), np.zeros((blocks, BLOCK), np.uint8)
        self.scales = np.zeros((2, blocks, 1), np.float32)
        self.size, self.count = size, 0

    @property
    def nbytes(self) -> int:
        return self.first.nbytes + self.second.nbytes + self.scales.nbytes

    def direction(self, gradient: FloatArray) -> FloatArray:
        """What Adam would subtract at rate 1."""
        self.count += 1
        padded = np.zeros((len(self.first), BLOCK), np.float32)
        padded.reshape(-1)[: self.size] = gradient.reshape(-1)
        first, root = self.first * self.scales[0], self.second * self.scales[1]
        first += (1 - BETA1) * (padded - first)
        second = root * root
        second += (1 - BETA2) * (padded * padded - second)
        self._keep(first, np.sqrt(second))
        # A root that rounds to nothing would make its step endless: half a level is the least.
        floor = 0.5 * self.scales[1]
        out = _direction(first, np.maximum(second, floor * floor), self.count)
        return out.reshape(-1)[: self.size].reshape(self.shape)

    def _keep(self, first: FloatArray, root: FloatArray) -> None:
        for place, (values, most, kept) in enumerate(((first, 127, self.first), (root, 255, self.second))):
            scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(most)
            self.scales[place] = scale
            kept[...] = np.rint(values / np.maximum(scale, np.float32(1e-30)))


class Adam:
    """Plain Adam, in float32 or bytes."""

    def __init__(self, shape: tuple[int, ...], bits: int = 32) -> None:
        self._moments = _Moments(shape) if bits == 32 else _Bytes(shape)

    @property
    def nbytes(self) -> int:
        """Two moments."""
        return self._moments.nbytes

    def step(self, weight: FloatArray, gradient: FloatArray, lr: float) -> None:
        """weight -= lr direction."""
        weight -= np.float32(lr) * self._moments.direction(gradient)


class Galore:
    """GaLore (Zhao et al. 2024, algorithm 2): Adam on the gradient in the subspace of its leading singular vectors,
    found anew every `refresh` steps; the moments are not projected again. `scale` is the paper's alpha."""

    def __init__(
        self, shape: tuple[int, int], rank: int, seed: int, bits: int = 32, refresh: int = 200, scale: float = 4.0
    ) -> None:
        self.is_wide = shape[0] <= shape[1]
        self.rank, self.refresh, self.scale, self.count = rank, refresh, np.float32(scale), 0
        self._rng = np.random.default_rng(seed)
        self.basis = np.zeros((min(shape), rank), np.float32)
        self._moments = _Moments((rank, max(shape))) if bits == 32 else _Bytes((rank, max(shape)))

    @property
    def nbytes(self) -> int:
        """The basis and two moments in the subspace."""
        return self.basis.nbytes + self._moments.nbytes

    def step(self, weight: FloatArray, gradient: FloatArray, lr: float) -> None:
        """weight -= lr scale P direction(P' G)."""
        wide = gradient if self.is_wide else gradient.T
        if self.count % self.refresh == 0:
            self.basis = range_of(wide, self.rank, self._rng)
        self.count += 1
        update = self.basis @ self._moments.direction(self.basis.T @ wide)
        update *= np.float32(lr) * self.scale
        weight -= update if self.is_wide else update.T


def range_of(matrix: FloatArray, rank: int, rng: np.random.Generator, exact: bool = False) -> FloatArray:
    """(rows, rank) orthonormal: about the leading left singular vectors, by a randomised range finder with two power
    iterations (Halko, Martinsson & Tropp 2011, algorithm 4.4), or by SVD."""
    if exact:
        return np.ascontiguousarray(np.linalg.svd(matrix, full_matrices=False)[0][:, :rank])
    found = matrix @ rng.normal(size=(matrix.shape[1], rank)).astype(np.float32)
    for _ in range(2):
        found = matrix @ (matrix.T @ np.linalg.qr(found)[0])
    return np.ascontiguousarray(np.linalg.qr(found)[0])


class Apollo:
    """APOLLO (Zhu et al. 2025, algorithm 1): Adam runs on a random projection of the gradient only to learn how much to
    scale each channel of the gradient itself; with `per_channel` False (Mini) all of it by one number. The projection
    comes from a seed, so only the moments are stored."""

    def __init__(
        self, shape: tuple[int, int], rank: int, seed: int, per_channel: bool = True, scale: float = 1.0
    ) -> None:
        self.is_wide = shape[0] <= shape[1]
        self.rank, self.seed, self.per_channel = rank, seed, per_channel
        self.scale, self.last = np.float32(math.sqrt(scale)), 0.0
        self._moments = _Moments((rank, max(shape)))

    @property
    def nbytes(self) -> int:
        """Two moments of the projected gradient, and the norm of the last update."""
        return self._moments.nbytes + 4

    def step(self, weight: FloatArray, gradient: FloatArray, lr: float) -> None:
        """weight -= lr sqrt(scale) G s, with s the ratio of the norms of Adam's direction and of what it was given."""
        wide = gradient if self.is_wide else gradient.T
        draw = np.random.default_rng(self.seed).normal(size=(self.rank, len(wide))) / math.sqrt(self.rank)
        inner = draw.astype(np.float32) @ wide
        found = self._moments.direction(inner)
        axis = 0 if self.per_channel else None
        ratio = np.linalg.norm(found, axis=axis) / (np.linalg.norm(inner, axis=axis) + EPSILON)
        update = wide * (ratio * self.scale).astype(np.float32)
        norm = float(np.linalg.norm(update))
        if 0 < self.last * GROWTH < norm:
            update *= np.float32(self.last * GROWTH / norm)
            norm = self.last * GROWTH
        self.last = norm
        update *= np.float32(lr)
        weight -= update if self.is_wide else update.T


MINI_SCALE = 128.0
"""APOLLO-Mini's scale: one number for all of a matrix underrates it by the root of the channels (Zhu et al. 2025)."""


@dataclass(frozen=True)
class LowRank:
    """An optimizer by name: its state for one array, and the bytes of it without making one."""

    name: str
    summary: str

    def state(self, shape: tuple[int, ...], rank: int, seed: int = 0) -> State:
        """The state of a new array.

        Raises:
            UsageError: a rank below 1.
        """
        if rank < 1:
            raise UsageError(f"a rank of {rank} leaves nothing to learn in: give 1 or more")
        bits = 8 if self.name.endswith("-8bit") else 32
        if len(shape) != 2 or (rank >= min(shape) and self.name != "apollo-mini"):
            return Adam(shape, bits)
        pair = (shape[0], shape[1])
        if self.name.startswith("galore"):
            return Galore(pair, rank, seed, bits)
        if self.name == "apollo":
            return Apollo(pair, rank, seed)
        if self.name == "apollo-mini":
            return Apollo(pair, 1, seed, per_channel=False, scale=MINI_SCALE)
        return Adam(shape, bits)

    def bytes_of(self, shapes: Iterable[tuple[int, ...]], rank: int) -> int:
        """Bytes of state for arrays of these shapes; nothing but shapes decides them."""
        return sum(self.state(shape, rank).nbytes for shape in shapes)


OPTIMIZERS = {
    optimizer.name: optimizer
    for optimizer in (
        LowRank("adam", "two float32 moments of every weight"),
        LowRank("adam-8bit", "the same in one byte each, a scale for every 256"),
        LowRank("galore", "Adam in the leading singular directions of the gradient"),
        LowRank("galore-8bit", "the same, its moments in bytes"),
        LowRank("apollo", "the gradient, its channels scaled by Adam on a random projection"),
        LowRank("apollo-mini", "the gradient, scaled by one number from a projection of rank 1"),
    )
}
"""Every optimizer with small state, by name."""


def optimizer(name: str) -> LowRank:
    """The optimizer of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer '{name}': choose one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]

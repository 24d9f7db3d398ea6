# SPDX-License-Identifier: Apache-2.0
"""Optimizers whose state is small: Adam in a subspace, Adam on bytes, second moments that only scale the gradient.

Each holds the state of one array and updates it in place, so that a gradient lives as long as one call. Vectors, and
matrices whose smaller side is not above the rank, are left to plain Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgelearn.adapters.moments import EPSILON, Adam, ByteMoments, Limiter, Moments, SecondMoment
from edgelearn.errors import UsageError

FloatArray = NDArray[np.float32]

REFRESH = 200
"""Steps between new projections: GaLore's and APOLLO's own."""


class State(Protocol):
    """The state of one array."""

    @property
    def nbytes(self) -> int:
        """Bytes that live from step to step."""

    def step(self, weight: FloatArray, gradient: FloatArray, lr: float) -> None:
        """Update the array in place."""


class Galore:
    """GaLore (Zhao et al. 2024, algorithm 2): Adam on the gradient in the subspace of its leading singular vectors,
    found anew every `refresh` steps; the moments are not projected again. `scale` is the paper's alpha.

    With `residual` the rest of the gradient is followed as well, each channel scaled as Adam scaled it inside the
    subspace (Fira, Chen et al. 2024, algorithm 1), which takes one more number of state.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        rank: int,
        seed: int,
        bits: int = 32,
        refresh: int = REFRESH,
        scale: float = 4.0,
        residual: bool = False,
    ) -> None:
        self.is_wide = shape[0] <= shape[1]
        self.rank, self.refresh, self.scale, self.count = rank, refresh, np.float32(scale), 0
        self._rng = np.random.default_rng(seed)
        self.basis = np.zeros((min(shape), rank), np.float32)
        self._moments = Moments((rank, max(shape))) if bits == 32 else ByteMoments((rank, max(shape)))
        self._limiter = Limiter() if residual else None

    @property
    def nbytes(self) -> int:
        """The basis and two moments in the subspace; with `residual` a norm."""
        return self.basis.nbytes + self._moments.nbytes + (4 if self._limiter else 0)

    def step(self, weight: FloatArray, gradient: FloatArray, lr: float) -> None:
        """weight -= lr scale (P direction(P' G) + residual)."""
        wide = gradient if self.is_wide else gradient.T
        if self.count % self.refresh == 0:
            self.basis = range_of(wide, self.rank, self._rng)
        self.count += 1
        inner = self.basis.T @ wide
        found = self._moments.direction(inner)
        update = self.basis @ found
        if self._limiter:
            rest = wide - self.basis @ inner
            rest *= _ratio(found, inner)
            self._limiter.hold(rest)
            update += rest
        update *= np.float32(lr) * self.scale
        weight -= update if self.is_wide else update.T


def _ratio(found: FloatArray, given: FloatArray, axis: int | None = 0) -> FloatArray:
    """By how much channels were scaled, or all of them: norms of directions over those of what they were made of."""
    over = np.linalg.norm(found, axis=axis) / (np.linalg.norm(given, axis=axis) + EPSILON)
    return np.asarray(over, np.float32)


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
    """APOLLO (Zhu et al. 2025, algorithm 1) without Adam's first moment: the second moment of a random projection of
    the gradient says how much to scale each channel of the gradient itself; with `per_channel` False (Mini) all of it
    by one number. The projection comes from a seed, a new one every `refresh` steps, so only the moment is stored.

    As published, the scale is that of Adam's direction, whose first moment evens out noise that the gradient, which is
    what moves the weights, still has; without it half of the state reaches more (docs/decisions.md, 35). Scaled by
    sqrt(rows / rank), so that rates are about those of Adam.
    """

    def __init__(
        self, shape: tuple[int, int], rank: int, seed: int, per_channel: bool = True, refresh: int = REFRESH
    ) -> None:
        self.is_wide = shape[0] <= shape[1]
        self.rank, self.seed, self.refresh, self.count = rank, seed, refresh, 0
        self.axis, self.scale = 0 if per_channel else None, np.float32(math.sqrt(min(shape) / rank))
        self._moment, self._limiter = SecondMoment((rank, max(shape))), Limiter()

    @property
    def nbytes(self) -> int:
        """A moment of the projected gradient, and the norm of the last update."""
        return self._moment.nbytes + 4

    def step(self, weight: FloatArray, gradient: FloatArray, lr: float) -> None:
        """weight -= lr sqrt(rows / rank) G s, with s the ratio of the norms of what the moment made of the projection
        and of the projection."""
        wide = gradient if self.is_wide else gradient.T
        rng = np.random.default_rng([self.seed, self.count // self.refresh])
        self.count += 1
        inner = (rng.normal(size=(self.rank, len(wide))) / math.sqrt(self.rank)).astype(np.float32) @ wide
        update = wide * (_ratio(self._moment.direction(inner), inner, self.axis) * self.scale)
        self._limiter.hold(update)
        update *= np.float32(lr)
        weight -= update if self.is_wide else update.T


def _mini(shape: tuple[int, int], rank: int, seed: int) -> State:
    return Apollo(shape, 1, seed, per_channel=False)


class ChannelWise:
    """RMSProp with one second moment for each channel, of the longer side: row-wise as embedding tables of
    recommenders have it (DLRM, Naumov et al. 2019). What APOLLO estimates by projections is exact here."""

    def __init__(self, shape: tuple[int, int], rank: int, seed: int) -> None:
        self.axis = 0 if shape[0] <= shape[1] else 1
        self._moment, self._limiter = SecondMoment((max(shape),)), Limiter()

    @property
    def nbytes(self) -> int:
        """A moment of each channel, and the norm of the last update."""
        return self._moment.nbytes + 4

    def step(self, weight: FloatArray, gradient: FloatArray, lr: float) -> None:
        """weight -= lr G / root of the second moment of each channel's root mean square."""
        norms = np.sqrt(np.square(gradient).mean(axis=self.axis))
        scales = self._moment.direction(norms) / (norms + EPSILON)
        update = gradient * np.expand_dims(scales, self.axis)
        self._limiter.hold(update)
        weight -= np.float32(lr) * update


@dataclass(frozen=True)
class LowRank:
    """An optimizer by name: its state for one array, and the bytes of it without making one."""

    name: str
    summary: str
    make: Callable[[tuple[int, int], int, int], State] | None = None
    """Of a matrix's shape, a rank and a seed; None: plain Adam."""
    bits: int = 32
    """Of plain Adam's moments, where an array is left to it."""
    is_ranked: bool = True
    """Whether a matrix no larger than the rank is left to plain Adam."""

    def state(self, shape: tuple[int, ...], rank: int, seed: int = 0) -> State:
        """The state of a new array.

        Raises:
            UsageError: a rank below 1.
        """
        if rank < 1:
            raise UsageError(f"a rank of {rank} leaves nothing to learn in: give 1 or more")
        if self.make is None or len(shape) != 2 or (self.is_ranked and rank >= min(shape)):
            return Adam(shape, self.bits)
        return self.make((shape[0], shape[1]), rank, seed)

    def bytes_of(self, shapes: Iterable[tuple[int, ...]], rank: int) -> int:
        """Bytes of state for arrays of these shapes; nothing but shapes decides them."""
        return sum(self.state(shape, rank).nbytes for shape in shapes)


OPTIMIZERS = {
    optimizer.name: optimizer
    for optimizer in (
        LowRank("adam", "two float32 moments of every weight"),
        LowRank("adam-8bit", "the same in one byte each, a scale for every 256", bits=8),
        LowRank(
            "galore",
            "Adam in the leading singular directions of the gradient, the rest scaled alike",
            partial(Galore, residual=True),
        ),
        LowRank("galore-8bit", "the same, its moments in bytes", partial(Galore, bits=8, residual=True), bits=8),
        LowRank("galore-plain", "Adam in the leading singular directions alone, as published", Galore),
        LowRank("apollo", "the gradient, its channels scaled by the second moment of a random projection", Apollo),
        LowRank("apollo-mini", "the gradient, all of it scaled by a projection of rank 1", _mini, is_ranked=False),
        LowRank("rms-channels", "the gradient, each channel over its own second moment", ChannelWise, is_ranked=False),
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

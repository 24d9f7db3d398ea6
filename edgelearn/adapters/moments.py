# SPDX-License-Identifier: Apache-2.0
"""What Adam keeps of an array from step to step, in floats or bytes, and plain Adam."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

BETA1, BETA2, EPSILON = np.float32(0.9), np.float32(0.999), np.float32(1e-8)

BLOCK = 256
"""Values that share a scale in 8-bit state (Dettmers et al. 2022 take 2048; a small one costs 1.6 % and blocks of a
small layer are not cut short)."""

GROWTH = 1.01
"""Most that the norm of an update may grow from one step to the next (Fira, Chen et al. 2024, section 4.3)."""


class Moments:
    """Adam's two moments of an array (Kingma & Ba 2015, algorithm 1), kept as float32."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.first, self.second = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.count = 0

    @property
    def nbytes(self) -> int:
        """Two moments of 4 bytes a weight."""
        return self.first.nbytes + self.second.nbytes

    def direction(self, gradient: FloatArray) -> FloatArray:
        """What Adam would subtract at rate 1."""
        self.count += 1
        self.first += (1 - BETA1) * (gradient - self.first)
        self.second += (1 - BETA2) * (gradient * gradient - self.second)
        return _direction(self.first, self.second, self.count)


def _direction(first: FloatArray, second: FloatArray, count: int, decay: float = float(BETA1)) -> FloatArray:
    root = np.sqrt(second / np.float32(1 - float(BETA2) ** count)) + EPSILON
    out: FloatArray = first / np.float32(1 - decay**count) / root
    return out


class SecondMoment:
    """Adam's second moment alone, as RMSProp keeps it, corrected for its start."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.second = np.zeros(shape, np.float32)
        self.count = 0

    @property
    def nbytes(self) -> int:
        """4 bytes a weight."""
        return self.second.nbytes

    def direction(self, gradient: FloatArray) -> FloatArray:
        """The gradient over the root of its second moment."""
        self.count += 1
        self.second += (1 - BETA2) * (gradient * gradient - self.second)
        return _direction(gradient, self.second, self.count, decay=0.0)


class ByteMoments:
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
        """Two moments of a byte a weight, and their scales."""
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
        self._moments = Moments(shape) if bits == 32 else ByteMoments(shape)

    @property
    def nbytes(self) -> int:
        """Two moments."""
        return self._moments.nbytes

    def step(self, weight: FloatArray, gradient: FloatArray, lr: float) -> None:
        """weight -= lr direction."""
        weight -= np.float32(lr) * self._moments.direction(gradient)


class Limiter:
    """Holds back an update whose norm grows by more than GROWTH from one step to the next."""

    def __init__(self) -> None:
        self.last = 0.0

    def hold(self, update: FloatArray) -> None:
        """Shrink it in place where it grew too fast."""
        norm = float(np.linalg.norm(update))
        if 0 < self.last * GROWTH < norm:
            update *= np.float32(self.last * GROWTH / norm)
            norm = self.last * GROWTH
        self.last = norm

# SPDX-License-Identifier: Apache-2.0
"""Ranges of what flows through a net, from real samples: what int8 has to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import DataError, UsageError
from edgelearn.export.evaluation import values
from edgelearn.export.primitives import Program
from edgelearn.graph import FloatArray

CHUNK = 16
"""Samples that go through the net at once: bounds the memory that maps take."""

BINS = 2048
"""Of a histogram of magnitudes."""

LEVELS = 128
"""Magnitudes that int8 can tell apart."""

Range = tuple[float, float]


@dataclass
class Statistics:
    """Of one value over all samples: extremes, the mean sample, and a histogram of magnitudes up to the largest."""

    low: float = np.inf
    high: float = -np.inf
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    count: int = 0
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @property
    def mean(self) -> NDArray[np.float64]:
        """In the shape of one sample."""
        return self.total / max(self.count, 1)

    @property
    def largest(self) -> float:
        """Magnitude."""
        return max(abs(self.low), abs(self.high))

    def see(self, x: FloatArray) -> None:
        """Extremes and sum of some samples (n, *shape)."""
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.total = self.total + x.sum(axis=0, dtype=np.float64)
        self.count += len(x)

    def sort(self, x: FloatArray) -> None:
        """Into the histogram; extremes must be known. Zeros are left out: int8 holds them exactly, and behind a relu
        there are so many that nothing else would count."""
        sizes = np.abs(x)
        self.histogram += np.histogram(sizes[sizes > 0], BINS, (0.0, self.largest or 1.0))[0]

    def within(self, limit: float) -> Range:
        """The extremes, cut to a magnitude."""
        return max(self.low, -limit), min(self.high, limit)


def _minmax(seen: Statistics) -> Range:
    return seen.low, seen.high


def _percentile(seen: Statistics, share: float = 0.9999) -> Range:
    """What all but one in ten thousand stay within."""
    reached = np.cumsum(seen.histogram) >= share * seen.histogram.sum()
    return seen.within((int(reached.argmax()) + 1) / BINS * seen.largest)


def _entropy(seen: Statistics) -> Range:
    """The cut whose 128 levels lose the least information (Migacz 2017, 8-bit inference with TensorRT)."""
    cuts = range(LEVELS, BINS + 1, 16)
    losses = [_divergence(seen.histogram[:cut], int(seen.histogram[cut:].sum())) for cut in cuts]
    return seen.within(cuts[int(np.argmin(losses))] / BINS * seen.largest)


def _divergence(kept: NDArray[np.int64], beyond: int) -> float:
    """Kullback-Leibler divergence of the kept bins, what lies beyond in the last, from their coarse version."""
    reference = kept.astype(np.float64)
    reference[-1] += beyond
    level = np.arange(len(kept)) * LEVELS // len(kept)
    sums, filled = (np.bincount(level, v, LEVELS) for v in (kept.astype(np.float64), (kept > 0).astype(np.float64)))
    coarse = np.where(kept > 0, (sums / np.maximum(filled, 1))[level], 0.0)
    p, q = reference / max(reference.sum(), 1), coarse / max(coarse.sum(), 1)
    used = p > 0
    return float((p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))).sum())


METHODS: dict[str, Callable[[Statistics], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
}
"""How a range follows from what was seen."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Samples (n, *shape) as the data holds them, and the method, one of METHODS.

    Raises:
        UsageError: an unknown method.
        DataError: no samples, NaN or infinity among them, or all values alike.
    """

    samples: NDArray[Any]
    method: str = "minmax"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown calibration method '{self.method}': choose one of {', '.join(METHODS)}")
        if not self.samples.size:
            raise DataError("int8 needs samples to calibrate on and there are none: pass some of the training samples")
        if not np.isfinite(self.samples).all():
            raise DataError("calibration samples hold NaN or infinity: pass samples as those that the net learned from")
        if np.ptp(self.samples) == 0:
            raise DataError(
                f"all calibration values are {self.samples.flat[0]:g}, so that no range follows: pass real samples"
            )

    def chunks(self, shape: tuple[int, ...]) -> Iterator[FloatArray]:
        """The samples as a program of that input shape takes them.

        Raises:
            DataError: samples of another size.
        """
        if self.samples[0].size != np.prod(shape):
            raise DataError(
                f"calibration samples of shape {self.samples.shape[1:]} do not fit the net's input {shape}: "
                "pass samples as those that it learned from"
            )
        for start in range(0, len(self.samples), CHUNK):
            yield np.asarray(self.samples[start : start + CHUNK], np.float32).reshape(-1, *shape)

    def observe(self, program: Program) -> list[Statistics]:
        """Statistics of the input and of every step's output."""
        seen = [Statistics() for _ in program.shapes]
        for chunk in self.chunks(program.input_shape):
            for statistics, value in zip(seen, values(program, chunk), strict=True):
                statistics.see(value)
        if METHODS[self.method] is not _minmax:
            for chunk in self.chunks(program.input_shape):
                for statistics, value in zip(seen, values(program, chunk), strict=True):
                    statistics.sort(value)
        return seen

    def range_of(self, seen: Statistics) -> Range:
        """By the method."""
        return METHODS[self.method](seen)

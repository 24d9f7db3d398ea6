# SPDX-License-Identifier: Apache-2.0
"""Runs an exported file on real samples beside the core, and refuses it when the answers differ."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import runtimes
from edgelearn.errors import DataError, VerificationError

TOLERANCE = 1e-4
"""Largest difference of an output: absolute up to 1, relative to the core's value above."""

Forward = Callable[[NDArray[np.float32]], NDArray[Any]]


@dataclass(frozen=True)
class Report:
    """How an exported file did beside the core. `max_abs_diff` is over all outputs; `label_agreement` is the
    share of samples with the core's label, None for regression; `seconds` is what the runtime took for all
    samples, loading excluded."""

    runtime: str
    samples: int
    max_abs_diff: float
    label_agreement: float | None
    seconds: float

    def __str__(self) -> str:
        labels = "" if self.label_agreement is None else f", {self.label_agreement:.2%} of labels agree"
        place = f"{self.runtime} on {self.samples:,} samples"
        return f"compared in {place}: largest difference {self.max_abs_diff:.1e}{labels}"


def compare(path: Path, forward: Forward, samples: NDArray[Any], labelled: bool) -> Report:
    """Run the file and `forward` ((n, features) float32 -> (n, outputs)) on samples (n, *shape) as the data
    holds them. With `labelled` outputs the largest one of each sample must be the same too, ties excepted: a
    sample is a tie when the core's own values of the two labels lie within TOLERANCE.

    Raises:
        VerificationError: an output further away than TOLERANCE, a NaN, another shape, or another label.
        DataError: no samples.
        ModelError: the file's runtime is missing or does not accept it.
    """
    if not len(samples):
        raise DataError("an export is checked on real samples and there are none: pass at least one")
    x = np.ascontiguousarray(samples, np.float32).reshape(len(samples), -1)
    expected = np.asarray(forward(x), np.float64)
    runtime = runtimes.load(path)
    start = time.perf_counter()
    actual = runtime.run(x)
    seconds = time.perf_counter() - start
    diff = _difference(runtime.name, expected, actual)
    agreement = _agreement(runtime.name, expected, actual) if labelled else None
    return Report(runtime.name, len(x), diff, agreement, seconds)


def _difference(name: str, expected: NDArray[np.float64], actual: NDArray[Any]) -> float:
    """Largest absolute difference, once it is known to be allowed."""
    if actual.shape != expected.shape:
        raise _refusal(f"{name} gives outputs of shape {actual.shape} where the core gives {expected.shape}")
    diff = np.abs(actual - expected)
    if not (diff <= TOLERANCE * np.maximum(1, np.abs(expected))).all():  # a NaN is never within
        raise _refusal(f"{name} answers up to {diff.max():.3g} away from the core ({TOLERANCE:g} is allowed)")
    return float(diff.max())


def _agreement(name: str, expected: NDArray[np.float64], actual: NDArray[Any]) -> float:
    """Share of samples with the same label, once it is known that only ties differ."""
    mine, theirs = expected.argmax(axis=1), actual.argmax(axis=1)
    rows = np.arange(len(expected))
    differing = int((expected[rows, mine] - expected[rows, theirs] > TOLERANCE).sum())
    if differing:
        raise _refusal(f"{name} gives {differing} of {len(rows)} samples another label than the core")
    return float((mine == theirs).mean())


def _refusal(what: str) -> VerificationError:
    return VerificationError(f"{what}: the file was not kept, export unverified to look at it")

# SPDX-License-Identifier: Apache-2.0
"""Runs an exported file on real samples beside the core, and refuses it when the answers differ."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import DataError, VerificationError
from edgelearn.export import runtimes
from edgelearn.export.layer_errors import LayerError, worst
from edgelearn.metrics import accuracy

Forward = Callable[[NDArray[np.float32]], NDArray[Any]]

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Tolerance:
    """How far a file's answers may be from the core's.

    `difference` is the most that an output may differ: absolute up to 1, relative to the core's value above; None:
    any. `spread` is the root mean square difference over the standard deviation of the core's outputs, for nets
    without labels. `disagreement` is the share of samples that may get another label, ties aside: the core's own
    values of the two labels lie within `tie`.
    """

    difference: float | None = 1e-4
    spread: float = math.inf
    disagreement: float = 0.0
    tie: float = 1e-4


TOLERANCES = {
    "float32": Tolerance(),
    "float16": Tolerance(difference=2e-2, disagreement=0.01, tie=1e-3),
    "int8": Tolerance(difference=None, spread=0.1, disagreement=0.05, tie=0.0),
}
"""By the type of the weights. Rounding to 8 bits moves a few samples that lie between two classes, both ways."""


@dataclass(frozen=True)
class Row:
    """How a file did in one runtime: largest difference over all outputs, share of samples with the core's label
    (None for regression), accuracy where the labels are known, and seconds for all samples, loading excluded."""

    runtime: str
    max_abs_diff: float
    label_agreement: float | None
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Report:
    """How an exported file did beside the core: a row per runtime, the core's accuracy on the same samples where the
    labels are known, and for int8 the error of each layer."""

    dtype: str
    samples: int
    rows: tuple[Row, ...]
    accuracy: float | None = None
    layers: tuple[LayerError, ...] = ()

    @property
    def runtime(self) -> str:
        """Names of the runtimes."""
        return ", ".join(row.runtime for row in self.rows)

    @property
    def max_abs_diff(self) -> float:
        """The largest of all."""
        return max(row.max_abs_diff for row in self.rows)

    @property
    def label_agreement(self) -> float | None:
        """The smallest of all."""
        return min((row.label_agreement for row in self.rows if row.label_agreement is not None), default=None)

    @property
    def worst_layer(self) -> LayerError | None:
        """The layer that int8 costs most, None without int8."""
        return worst(self.layers)

    def summary(self) -> dict[str, Any]:
        """For programs: the totals, then all there is."""
        found = self.worst_layer
        return {
            "runtime": self.runtime,
            "samples": self.samples,
            "max_abs_diff": self.max_abs_diff,
            "label_agreement": self.label_agreement,
            "seconds": sum(row.seconds for row in self.rows),
            "accuracy_core": self.accuracy,
            "accuracy": self.rows[0].accuracy,
            "worst_layer": found and found.layer,
            "runtimes": [vars(row) for row in self.rows],
            "layers": [vars(layer) for layer in self.layers],
        }

    def __str__(self) -> str:
        head = f"{'on ' + format(self.samples, ',') + ' samples':<22} accuracy   labels agree   largest difference"
        lines = [head, f"{'core, float32':<22} {_share(self.accuracy):>8}"]
        for row in self.rows:
            name, agreement = f"{row.runtime}, {self.dtype}", _share(row.label_agreement)
            lines.append(f"{name:<22} {_share(row.accuracy):>8} {agreement:>14} {row.max_abs_diff:>20.1e}")
        found = self.worst_layer
        if found is not None:
            lines.append(
                f"worst layer: {found.layer}, error {found.own:.2%} by itself, {found.total:.2%} with the others"
            )
        return "\n".join(lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def compare(
    path: Path,
    forward: Forward,
    samples: NDArray[Any],
    labelled: bool,
    *,
    dtype: str = "float32",
    labels: NDArray[Any] | None = None,
    disagreement: float | None = None,
    layers: Iterable[LayerError] = (),
) -> Report:
    """Run the file and `forward` ((n, features) float32 -> (n, outputs)) on samples (n, *shape) as the data
    holds them, in every runtime for it. With `labelled` outputs the largest one of each sample must be the same, but
    for a share `disagreement` that the type of the weights tells if it is left out, rounded up to whole samples.

    Raises:
        VerificationError: an output further away than allowed, a NaN, another shape, or too many other labels.
        DataError: no samples.
        ModelError: the file's runtime is missing or does not accept it.
    """
    if not len(samples):
        raise DataError("an export is checked on real samples and there are none: pass at least one")
    allowed = TOLERANCES[dtype]
    if disagreement is not None:
        allowed = replace(allowed, disagreement=disagreement)
    x = np.ascontiguousarray(samples, np.float32).reshape(len(samples), -1)
    expected = np.asarray(forward(x), np.float64)
    found = [_row(each, x, expected, allowed, labelled, labels) for each in runtimes.load_all(path)]
    own = accuracy(expected, labels) if labelled and labels is not None else None
    return Report(dtype, len(x), tuple(found), own, tuple(layers))


def _row(
    runtime: runtimes.Runtime,
    x: NDArray[np.float32],
    expected: Float64,
    allowed: Tolerance,
    labelled: bool,
    labels: NDArray[Any] | None,
) -> Row:
    start = time.perf_counter()
    actual = np.asarray(runtime.run(x), np.float64)
    seconds = time.perf_counter() - start
    diff = _difference(runtime.name, expected, actual, allowed)
    if not labelled:
        _check_spread(runtime.name, expected, actual, allowed)
        return Row(runtime.name, diff, None, None, seconds)
    agreement = _agreement(runtime.name, expected, actual, allowed)
    return Row(runtime.name, diff, agreement, None if labels is None else accuracy(actual, labels), seconds)


def _difference(name: str, expected: Float64, actual: Float64, allowed: Tolerance) -> float:
    """Largest absolute difference, once it is known to be allowed."""
    if actual.shape != expected.shape:
        raise _refusal(f"{name} gives outputs of shape {actual.shape} where the core gives {expected.shape}")
    diff = np.abs(actual - expected)
    most = math.inf if allowed.difference is None else allowed.difference
    if not (diff <= most * np.maximum(1, np.abs(expected))).all():  # a NaN is never within
        raise _refusal(f"{name} answers up to {diff.max():.3g} away from the core ({most:g} is allowed)")
    return float(diff.max())


def _check_spread(name: str, expected: Float64, actual: Float64, allowed: Tolerance) -> None:
    """Of outputs that are no labels."""
    share = float(np.sqrt(np.square(actual - expected).mean()) / (expected.std() or 1.0))
    if not share <= allowed.spread:
        most = f"{allowed.spread:.0%} is allowed"
        raise _refusal(f"{name} differs from the core by {share:.1%} of the spread of its outputs ({most})")


def _agreement(name: str, expected: Float64, actual: Float64, allowed: Tolerance) -> float:
    """Share of samples with the same label, once it is known that no more differ than are allowed."""
    mine, theirs = expected.argmax(axis=1), actual.argmax(axis=1)
    rows = np.arange(len(expected))
    differing = int((expected[rows, mine] - expected[rows, theirs] > allowed.tie).sum())
    most = math.ceil(allowed.disagreement * len(rows))
    if differing > most:
        raise _refusal(f"{name} gives {differing} of {len(rows)} samples another label than the core ({most} allowed)")
    return float((mine == theirs).mean())


def _refusal(what: str) -> VerificationError:
    return VerificationError(f"{what}: the file was not kept, export unverified to look at it")

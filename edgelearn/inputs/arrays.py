# SPDX-License-Identifier: Apache-2.0
"""Arrays from a caller's hands as a checked Dataset: what the SDK's `fit` and `score` take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.errors import DataError
from edgelearn.inputs.data import Dataset
from edgelearn.inputs.labels import check_finite, one_array

Array = NDArray[Any]


def regression(x: ArrayLike, y: ArrayLike) -> Dataset:
    """Samples (n, *shape) and targets (n,) or (n, k) as float32.

    Raises:
        DataError: wrong shapes, NaN or infinity.
    """
    samples, targets = _pair(x, y)
    if targets.dtype.kind not in "iuf":
        raise DataError(f"targets must be numbers, not {targets.dtype}: use labels with loss='cross_entropy'")
    rows = np.ascontiguousarray(targets.reshape(len(targets), -1), np.float32)
    check_finite("the targets", rows)
    return Dataset(samples, rows, samples[:0], rows[:0], task="regression")


def classification(
    x: ArrayLike, y: ArrayLike, classes: list[str] | None, outputs: int | None, several: bool
) -> Dataset:
    """Samples (n, *shape) and labels (n,): integers are indices below `outputs`, text is looked up in `classes`,
    or names them where there are none yet. `several` demands at least two different labels.

    Raises:
        DataError: wrong shapes, NaN or infinity, labels out of range or unknown, one class only.
    """
    samples, answers = _pair(x, y)
    if answers.dtype == object and all(isinstance(label, str) for label in answers.flat):
        answers = answers.astype(str)
    if answers.ndim != 1 or answers.dtype.kind not in "iubU":
        raise DataError(f"labels must be one integer or text each, not {answers.dtype} of shape {answers.shape}")
    indices, names = _named(answers, classes) if answers.dtype.kind == "U" else (_ranged(answers, outputs), classes)
    if several and (indices == indices[0]).all():
        raise DataError(f"all labels are {answers[0]}: give samples of at least two classes")
    return Dataset(samples, indices, samples[:0], indices[:0], classes=names)


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    samples, answers = one_array(x), np.asarray(y)
    if samples.ndim < 2 or len(samples) == 0:
        raise DataError(f"samples of shape {samples.shape} given: pass at least one, as (n, values)")
    if answers.ndim == 0 or len(samples) != len(answers):
        raise DataError(f"{len(samples)} samples and {answers.size} labels: give one label for each sample")
    check_finite("the samples", samples)
    return samples, answers


def _named(y: Array, classes: list[str] | None) -> tuple[NDArray[np.int32], list[str]]:
    names = classes or sorted(set(y.tolist()))
    unknown = sorted(set(y.tolist()) - set(names))
    if unknown:
        raise DataError(f"label '{unknown[0]}' is not a class of the net: it knows {', '.join(names)}")
    position = {name: i for i, name in enumerate(names)}
    return np.array([position[label] for label in y.tolist()], np.int32), names


def _ranged(y: Array, outputs: int | None) -> NDArray[np.int32]:
    limit = outputs if outputs is not None else int(y.max()) + 1
    if y.min() < 0 or y.max() >= limit:
        bad = int(np.flatnonzero((y < 0) | (y >= limit))[0])
        raise DataError(
            f"label {y[bad]} of sample {bad} is outside 0 .. {limit - 1}: correct it or give the last layer more units"
        )
    return y.astype(np.int32)

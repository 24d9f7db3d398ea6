# SPDX-License-Identifier: Apache-2.0
"""Sequences of several lengths as one array, with padding behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.errors import DataError
from edgelearn.inputs.labels import one_array


def padded(x: ArrayLike, value: float, shape: tuple[int, ...] | None) -> ArrayLike:
    """Samples (n, *shape) of sequences that are as long or shorter, each (steps, ...); without a shape the longest says
    how many steps there are. What is one array of that shape, or of flat samples, stays what it is.

    Raises:
        DataError: a sequence without steps, longer than the shape, or of other values per step than the rest.
    """
    if isinstance(x, np.ndarray) and x.dtype != object and (shape is None or not _is_short(x, shape)):
        return x
    samples = [one_array(sample) for sample in np.asarray(x, object)] if isinstance(x, np.ndarray) else _arrays(x)
    if not samples or any(sample.ndim < 2 for sample in samples):
        return x
    steps = max(len(sample) for sample in samples) if shape is None else shape[0]
    rest = samples[0].shape[1:] if shape is None else shape[1:]
    for index, sample in enumerate(samples):
        if not 1 <= len(sample) <= steps or sample.shape[1:] != rest:
            raise DataError(
                f"sequence {index} has shape {sample.shape}: give 1 to {steps} steps of {rest} values, or leave it out"
            )
    whole = np.full((len(samples), steps, *rest), value, _kind(samples, value))
    for row, sample in zip(whole, samples, strict=True):
        row[: len(sample)] = sample
    return whole


def _is_short(x: NDArray[Any], shape: tuple[int, ...]) -> bool:
    return x.ndim == 1 + len(shape) and 1 <= x.shape[1] < shape[0] and x.shape[2:] == shape[1:]


def _arrays(x: ArrayLike) -> list[NDArray[Any]]:
    return [one_array(sample) for sample in x] if isinstance(x, list | tuple) else []


def _kind(samples: list[NDArray[Any]], value: float) -> np.dtype[Any]:
    """Of all samples together, or float32 where that cannot hold the padding."""
    kind = np.result_type(*samples)
    return kind if kind.kind == "f" or np.array(value).astype(kind) == value else np.dtype(np.float32)

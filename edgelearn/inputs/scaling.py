# SPDX-License-Identifier: Apache-2.0
"""The numbers that scale samples: what may be one, and mean and spread of a training set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import DataError

Numbers = tuple[float, ...]


def are_numbers(values: Any) -> bool:
    """Whether values is a tuple of one or more finite real numbers."""
    kinds = isinstance(values, tuple) and {type(v) for v in values} <= {int, float}
    return bool(kinds and values) and all(math.isfinite(v) for v in values)


def are_positive(values: Any) -> bool:
    """Whether values is a tuple of one or more positive numbers."""
    return are_numbers(values) and min(values) > 0


def factors(
    scale: float | str | Numbers | None,
    dtype: np.dtype[Any],
    arrays: Mapping[str, NDArray[Any]],
    channels: int,
    features: int,
) -> float | Numbers:
    """The [input] scale as numbers: what it names among `arrays`, or where it is unset what samples of a type need.

    Raises:
        DataError: an array that is missing, or numbers that are not one, one per channel or one per value.
    """
    if scale is None:
        return 255.0 if dtype == np.uint8 else 1.0
    if isinstance(scale, str):
        scale = _named(scale, arrays)
    if isinstance(scale, tuple) and len(scale) not in (1, channels, features):
        raise DataError(
            f"[input] scale has {len(scale)} numbers: give 1, {channels} (one per channel) "
            f"or {features} (one per value)"
        )
    return scale


def _named(name: str, arrays: Mapping[str, NDArray[Any]]) -> Numbers:
    if name not in arrays:
        known = ", ".join(arrays) or "none"
        raise DataError(f"[input] scale names the array '{name}', which the data lacks: it has {known}")
    scale: Numbers = tuple(arrays[name].ravel().tolist())
    if not are_positive(scale):
        raise DataError(f"[input] scale names the array '{name}', which must hold positive numbers: correct it")
    return scale


def statistics(chunks: Iterable[NDArray[np.float64]]) -> tuple[Numbers, Numbers]:
    """Mean and std per column of values that come in chunks (n, channels), the first not empty. A constant column
    has std 1.

    Shifted by the first values, so that nothing cancels and constants give exactly 0 (Chan, Golub & LeVeque 1983,
    shifted data).
    """
    shift, sums, squares, count = np.zeros(1), np.zeros(1), np.zeros(1), 0
    for values in chunks:
        shift = values[0] if count == 0 else shift
        moved = values - shift
        sums = sums + moved.sum(axis=0)
        squares = squares + (moved * moved).sum(axis=0)
        count += len(values)
    mean, variance = sums / count, squares / count - (sums / count) ** 2
    std = np.sqrt(np.where(variance > 0, variance, 1.0))
    return tuple((mean + shift).tolist()), tuple(std.tolist())


def pairs(
    scale: NDArray[np.float64], mean: Numbers | None, std: Numbers | None, features: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """(weight, bias) that make (x / scale - mean) / std of x, both (k,) with k 1, channels or features; None where
    nothing changes.

    Raises:
        DataError: factors beyond float32.
    """
    means, stds = np.asarray(mean or (0.0,)), np.asarray(std or (1.0,))
    if scale.size == features:
        means, stds = (np.resize(v, scale.size) for v in (means, stds))
    weight, bias = np.broadcast_arrays(1 / scale / stds, -means / stds)
    if mean is None and np.all(weight == 1):
        return None
    with np.errstate(over="ignore", under="ignore"):
        result = weight.astype(np.float32), bias.astype(np.float32)
    if not (np.isfinite(result).all() and result[0].all()):
        raise DataError("scale or spread of the input is beyond float32: give the samples in other units")
    return result

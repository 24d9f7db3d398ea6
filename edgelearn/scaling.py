# SPDX-License-Identifier: Apache-2.0
"""The numbers that scale samples: what may be one, and mean and spread of a training set."""

from __future__ import annotations

import math
from collections.abc import Iterable
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


def from_array(name: str, values: NDArray[Any]) -> Numbers:
    """The numbers of an array that [input] scale names.

    Raises:
        DataError: not positive numbers.
    """
    scale: Numbers = tuple(values.ravel().tolist())
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

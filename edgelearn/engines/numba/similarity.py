# SPDX-License-Identifier: Apache-2.0
"""Similarity matching (Nokland & Eidnes 2019, section 2.2): samples of one class are made alike, others unlike.

B samples of a slice, seen as values v (B,V); two samples of one class are to have similarity 1, others that of
their centred one-hot codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines.numba.kernels import FloatArray, dot, kernel, matmul, matmul_nt

_ZERO, _ONE = np.float32(0), np.float32(1)
_LEAST = np.float32(1e-6)
"""A row shorter than this has no direction: it becomes 0 and takes no gradient."""
_ENDLESS = np.float32(np.inf)


@kernel
def _centre(row: Any) -> None:
    total = _ZERO
    for j in range(row.size):
        total += row[j]
    row -= total / np.float32(row.size)


@kernel
def _make_unit(v: Any, lengths: Any) -> None:
    """Rows centred and of unit length."""
    for i in range(v.shape[0]):
        _centre(v[i])
        length = np.sqrt(dot(v[i], v[i]))
        lengths[i] = _ENDLESS if length < _LEAST else length
        v[i] *= _ONE / lengths[i]


@kernel
def _compare(labels: Any, apart: Any, alike: Any) -> float:
    """alike (B,B) less what it should be; returns the sum of squares."""
    total = 0.0
    for i in range(labels.size):
        for j in range(labels.size):
            alike[i, j] -= _ONE if labels[i] == labels[j] else apart
            total += np.float64(alike[i, j]) * np.float64(alike[i, j])
    return total


@kernel
def _unit_backward(v: Any, lengths: Any, dv: Any) -> None:
    """dv = the error of the values before they were centred and scaled."""
    for i in range(v.shape[0]):
        along = dot(v[i], dv[i])
        for j in range(v.shape[1]):
            dv[i, j] = (dv[i, j] - along * v[i, j]) / lengths[i]
        _centre(dv[i])


def distance(v: FloatArray, labels: NDArray[np.int32], classes: int, lengths: FloatArray, alike: FloatArray) -> float:
    """Mean square of `alike`, which becomes the difference of similarities (B,B), times B. Rows of v become unit
    vectors, and `lengths` (B) what they were."""
    _make_unit(v, lengths)
    matmul_nt(v, v, alike)
    apart = np.float32(-1 / max(classes - 1, 1))
    return float(_compare(labels, apart, alike)) / len(v)


def backward(alike: FloatArray, v: FloatArray, lengths: FloatArray, share: np.float32, dv: FloatArray) -> None:
    """dv (B,V) = the error of the values that `distance` was given, times `share`."""
    matmul(alike, v, dv)
    dv *= np.float32(4) * share / np.float32(len(v))
    _unit_backward(v, lengths, dv)

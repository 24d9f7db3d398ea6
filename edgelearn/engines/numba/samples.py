# SPDX-License-Identifier: Apache-2.0
"""What samples and answers a session takes, and how some of them are gathered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config, Entry
from edgelearn.engines.numba import kernels
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.errors import DataError
from edgelearn.rules import Loss

_TYPES = (np.float32, np.float16, np.uint8)

_BITS = {2: (np.uint16, np.uint16(0x7C00)), 4: (np.uint32, np.uint32(0x7F800000))}
"""Bytes of a float -> its bits, and those of the exponent."""


def check_shape(x: NDArray[Any], features: int) -> None:
    """Raise DataError for samples of another shape or type."""
    if x.ndim != 2 or x.shape[1] != features:
        raise DataError(f"samples of shape {x.shape[1:]} given: the net takes ({features},)")
    if x.dtype not in _TYPES or not x.flags.c_contiguous:
        raise DataError(f"samples are {x.dtype}: pass contiguous float32, float16 or uint8")


def check_answers_shape(y: NDArray[Any], n: int, config: Config) -> None:
    """Raise DataError for labels or targets of another shape or type."""
    if not n:
        raise DataError("there are no samples to learn from: pass at least 1")
    labelled = config.loss is Loss.CROSS_ENTROPY
    expected = (n,) if labelled else (n, config.targets)
    if y.shape != expected or y.dtype.kind not in ("iu" if labelled else "f"):
        kind = "whole numbers" if labelled else "float32"
        raise DataError(f"answers are {y.dtype} of shape {y.shape}: pass {kind} of shape {expected}")


def check_values(values: NDArray[Any], rows: NDArray[np.int64] | None = None) -> None:
    """Raise DataError that names the first sample with NaN or infinity; `rows` are the places of these samples."""
    if values.dtype == np.uint8:
        return
    bad = first_not_finite(values)
    if bad >= 0:
        raise DataError(f"sample {bad if rows is None else rows[bad]} holds NaN or infinity: remove or repair it")


def check_answers(y: NDArray[Any], config: Config, rows: NDArray[np.int64] | None = None) -> None:
    """Raise DataError that names the first label outside the classes, or target that is not finite."""
    if config.loss is not Loss.CROSS_ENTROPY:
        check_values(y, rows)
        return
    bad = np.flatnonzero((y < 0) | (y >= config.targets))
    if bad.size:
        place = bad[0] if rows is None else rows[bad[0]]
        raise DataError(
            f"label {y[bad[0]]} of sample {place} is outside 0 .. {config.targets - 1}: "
            "correct it or give the last layer more units"
        )


def first_not_finite(values: NDArray[Any]) -> int:
    """First row of (n, width) with NaN or infinity, or -1."""
    floats = values if values.itemsize in _BITS else values.astype(np.float32)
    bits, exponent = _BITS[floats.itemsize]
    return int(kernels.first_with_bits(np.ascontiguousarray(floats).view(bits), exponent))


def gather(x: NDArray[Any], rows: NDArray[np.int64], entry: Entry, out: FloatArray) -> None:
    """out (len(rows), features) = x[rows] * scale + shift. Half precision is not a type of Numba's."""
    if x.dtype == np.float16:
        for place, row in enumerate(rows):
            out[place] = x[row]
    else:
        kernels.gather(x, rows, out)
    if entry.scale is not None and entry.shift is not None:
        scale, shift = (np.ascontiguousarray(pair, np.float32).reshape(-1) for pair in (entry.scale, entry.shift))
        kernels.rescale(out, scale, shift, 0, out)

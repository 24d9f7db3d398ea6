# SPDX-License-Identifier: Apache-2.0
"""Padding: which steps of samples are none of their sequences, and which sample is padding alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import DataError
from edgelearn.sequences import padding_of, steps_of

_CHUNK = 4096
"""Samples looked at at once."""


def padded_steps(
    records: NDArray[np.void], x: NDArray[Any], places: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Steps of padding in front of and behind each sequence of x (n, steps x features); none where the net has no
    padding. `places` are those of the samples in the data.

    Raises:
        DataError: a sample that is padding alone.
    """
    value, steps = padding_of(records), steps_of(records)
    front, behind = np.zeros(len(x), np.int64), np.zeros(len(x), np.int64)
    for start in range(0, len(x) if value is not None else 0, _CHUNK):
        part = x[start : start + _CHUNK]
        own = (part.reshape(len(part), steps, -1) != np.float32(value or 0)).any(axis=2)
        if not own.any(axis=1).all():
            sample = start + int(np.flatnonzero(~own.any(axis=1))[0])
            place = sample if places is None else int(places[sample])
            raise DataError(f"sample {place} is padding alone: remove it, or give it a step of its own")
        front[start : start + len(part)] = own.argmax(axis=1)
        behind[start : start + len(part)] = own[:, ::-1].argmax(axis=1)
    return front, behind

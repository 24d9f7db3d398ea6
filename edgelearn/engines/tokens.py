# SPDX-License-Identifier: Apache-2.0
"""Tokens: which whole numbers a net that begins with an embedding takes, and which sample holds another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import DataError
from edgelearn.records import Op

_CHUNK = 4096
"""Samples looked at at once."""


def vocabulary(records: NDArray[np.void]) -> int:
    """Tokens that the net's first layer knows; 0 where it reads none."""
    first = next(record for record in records if record["op"] != Op.RESCALE)
    return int(first["params"]) // int(first["stride"]) if first["op"] == Op.EMBEDDING else 0


def check_tokens(
    records: NDArray[np.void],
    params: NDArray[np.float32],
    x: NDArray[Any],
    places: NDArray[np.int64] | None = None,
) -> None:
    """Raise DataError that names the first token of samples x (n, steps) that the net's first layer does not know;
    `places` are those of the samples in the data. Anything goes where it reads no tokens."""
    known = vocabulary(records)
    for start in range(0, len(x) if known else 0, _CHUNK):
        part = _scaled(records[0], params, x[start : start + _CHUNK])
        bad = np.argwhere(~((part >= 0) & (part < known) & (part == np.floor(part))))
        if len(bad):
            row, step = bad[0]
            sample = start + row if places is None else places[start + row]
            raise DataError(
                f"token {part[row, step]:g} at step {step} of sample {sample} is not one of 0 .. {known - 1}: "
                "correct it or give the Embedding a larger input_dim"
            )


def _scaled(first: np.void, params: NDArray[np.float32], x: NDArray[Any]) -> NDArray[np.float32]:
    """Samples as they come out of the net's own scaling."""
    if first["op"] != Op.RESCALE:
        return x.astype(np.float32)
    start, count = int(first["offset"]), int(first["params"])
    scale, shift = params[start : start + count].reshape(2, -1)
    return (x.reshape(-1, scale.size) * scale + shift).reshape(x.shape).astype(np.float32)

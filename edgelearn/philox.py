# SPDX-License-Identifier: Apache-2.0
"""Philox4x32-10 (Salmon et al. 2011): random numbers as a pure function of (seed, counter).

The C core and the Numba engine hold the same function; this one serves weight initialisation, so that a seed
gives the same weights on every machine and under every version of numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STREAM_INIT, STREAM_AUGMENT, STREAM_SPLIT, STREAM_REPLAY = 3, 16, 17, 18
"""Last counter words of weight initialisation, augmentation, validation splits and replay; others below 16 are the
engines' own, 0 to 2 codes, dropout and shuffling."""

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(seed: int, c0: NDArray[np.uint64], c1: int, c2: int, c3: int) -> NDArray[np.uint32]:
    """The four output words of counters (c0[i], c1, c2, c3) under a 64-bit seed: shape (len(c0), 4)."""
    x0 = c0.astype(np.uint64) & _LOW
    x1, x2, x3 = (np.full_like(x0, c & 0xFFFFFFFF) for c in (c1, c2, c3))
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = x0 * _M0, x2 * _M1
        x0, x2 = (p1 >> _HALF) ^ x1 ^ np.uint64(k0), (p0 >> _HALF) ^ x3 ^ np.uint64(k1)
        x1, x3 = p1 & _LOW, p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=1).astype(np.uint32)


_CHUNK = 4096
"""Counters worked on at once: temporaries of 64 bits stay far below the weights they make."""


def uniform(seed: int, stream_id: int, count: int) -> NDArray[np.float32]:
    """`count` numbers in (-1, 1), each a function of (seed, stream_id, index)."""
    out = np.empty(count, np.float32)
    for first in range(0, count, 4 * _CHUNK):
        part = out[first : first + 4 * _CHUNK]
        blocks = np.arange(first // 4, first // 4 + (len(part) + 3) // 4, dtype=np.uint64)
        words = philox(seed, blocks, stream_id, 0, STREAM_INIT).reshape(-1)[: len(part)]
        part[...] = (2 * (words >> 8).astype(np.int64) + 1 - (1 << 24)) / float(1 << 24)
    return out

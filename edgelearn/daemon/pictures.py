# SPDX-License-Identifier: Apache-2.0
"""A sample as a PNG, for the page: 8 bits, grey or RGB, by zlib alone."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOR = {1: 0, 3: 2}
"""Channels, and what PNG calls them."""

_MOST_SIDE = 1024


def png(values: NDArray[Any]) -> bytes:
    """A picture of values of any shape: (h, w, 1 or 3) and (h, w) as they are, channels first turned, other maps by
    the mean of their channels, sequences with time from left to right."""
    pixels = _stretched(_map(values))[:_MOST_SIDE, :_MOST_SIDE]
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR[channels], 0, 0, 0)
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _map(values: NDArray[Any]) -> NDArray[Any]:
    """(h, w, 1 or 3)."""
    if values.ndim == 3 and values.shape[2] in _COLOR:
        return values
    if values.ndim == 3:
        axis = 0 if values.shape[0] in _COLOR else 2
        return np.moveaxis(values, 0, 2) if axis == 0 else values.mean(axis=2, keepdims=True)
    if values.ndim == 2:
        return values[..., None] if min(values.shape) > 1 else values.reshape(1, -1, 1)
    flat = values.reshape(-1)
    side = int(np.sqrt(flat.size))
    return flat.reshape(side, side, 1) if side * side == flat.size else flat.reshape(1, -1, 1)


def _stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Bytes; other numbers from their least to their greatest."""
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    span = high - low or 1.0
    return ((values.astype(np.float64) - low) / span * 255).astype(np.uint8)

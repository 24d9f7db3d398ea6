# SPDX-License-Identifier: Apache-2.0
"""What augmentations do to a batch: functions of samples, an amount and a few random words per sample.

Samples are as the data holds them, before the scaling that the core does: images (n, height, width, channels) or
sequences (n, steps, features), uint8 or float32. No function loops over samples one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Batch = NDArray[Any]
Words = NDArray[np.uint32]

CHUNK = 1 << 13
"""Values worked on in one go where wider numbers are needed, so that temporaries stay below half a megabyte."""

SHARES = 256
"""Steps of the share in which samples are mixed, so that bytes are mixed with one rounding."""

_FAINT = 0.3
"""Noise of a smaller deviation, in steps of a byte, would be rounded away."""


@dataclass(frozen=True, eq=False)
class Space:
    """The samples that are changed: shape and type, and what their values mean.

    `pairs` are weight and bias of the scaling in front of the net, (k,) each; value i of a sample uses pair i mod k.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pairs: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    classifies: bool = True
    fill: str = "zero"

    @cached_property
    def unit(self) -> NDArray[np.float32]:
        """Step of each raw value that the net sees as 1; of the sample's shape."""
        return np.float32(1) / self._spread(0, 1.0)

    @cached_property
    def blank(self) -> Batch:
        """Raw values that the net sees as 0, or the nearest there are; of the sample's shape."""
        values = -self._spread(1, 0.0) * self.unit
        return np.clip(np.rint(values), 0, 255).astype(np.uint8) if self.dtype == np.uint8 else values

    def _spread(self, which: int, absent: float) -> NDArray[np.float32]:
        values = self.pairs[which] if self.pairs else np.full(1, absent, np.float32)
        return np.resize(values, math.prod(self.shape)).reshape(self.shape)


def _below(words: Words, bound: Any) -> NDArray[np.intp]:
    """Whole numbers in 0 .. bound - 1, one per word."""
    return (words.astype(np.uint64) * np.asarray(bound, np.uint64) >> np.uint64(32)).astype(np.intp)


def _parts(x: Batch) -> Iterator[slice]:
    """Samples of about CHUNK values."""
    step = max(1, CHUNK * len(x) // max(x.size, 1))
    return (slice(start, start + step) for start in range(0, len(x), step))


def _padded(x: Batch, rows: int, columns: int, fill: str, blank: Batch) -> Batch:
    widths = ((rows, rows), (columns, columns), (0, 0))
    if fill != "zero":
        return np.pad(x, ((0, 0), *widths), fill)  # type: ignore[call-overload, no-any-return]
    frame = np.pad(blank, widths, "edge")
    out = np.broadcast_to(frame, (len(x), *frame.shape)).copy()
    out[:, rows : rows + x.shape[1], columns : columns + x.shape[2]] = x
    return out


def _cut(x: Batch, top: NDArray[np.intp], left: NDArray[np.intp], shape: tuple[int, ...]) -> Batch:
    """Out of each of x (n, H, W, C) the window of `shape` at its own row and column; pixels of a row lie together, so
    a window is copied row by row."""
    n, height, width, channels = x.shape
    by_sample, by_row, by_pixel, by_value = x.strides
    windows = as_strided(
        x,
        (n, height - shape[0] + 1, width - shape[1] + 1, shape[0], shape[1] * channels),
        (by_sample, by_row, by_pixel, by_row, by_value),
        writeable=False,
    )
    return windows[np.arange(n), top, left].reshape(n, *shape)


def _moved(x: Batch, rows: int, columns: int, words: Words, fill: str, blank: Batch) -> Batch:
    """Each of x (n, H, W, C) moved by up to that many rows and columns each way."""
    outside = _padded(x, rows, columns, fill, blank)
    return _cut(outside, _below(words[:, 0], 2 * rows + 1), _below(words[:, 1], 2 * columns + 1), x.shape[1:])


def shift(x: Batch, amount: int, words: Words, space: Space) -> Batch:
    """Images moved by up to `amount` pixels each way."""
    return _moved(x, amount, amount, words, space.fill, space.blank)


def crop(x: Batch, amount: int, words: Words, space: Space) -> Batch:
    """A window of the image with its mirrored border around it."""
    return _moved(x, amount, amount, words, "reflect", space.blank)


def flip(x: Batch, amount: bool, words: Words, space: Space) -> Batch:
    """One gather over flat samples is three times as fast as a view with a negative stride."""
    mirror = np.arange(math.prod(space.shape)).reshape(space.shape)[:, ::-1].reshape(-1)
    chosen = np.flatnonzero(words[:, 0] & 1)
    flat = x.reshape(len(x), -1)
    flat[chosen] = flat[chosen].take(mirror, axis=1)
    return x


def time_shift(x: Batch, amount: int, words: Words, space: Space) -> Batch:
    """Sequences moved by up to `amount` steps either way."""
    return _moved(x[:, :, None], amount, 0, words, space.fill, space.blank[:, None]).reshape(x.shape)


def mix(x: Batch, amount: float, words: Words, space: Space) -> Batch:
    """x + share (other - x), share in 0 .. amount; amount is at most a half, so x keeps its label."""
    n = len(x)
    if n == 1:
        return x
    share = _below(words[:, 0], int(amount * SHARES) + 1).reshape(n, *(1 for _ in space.shape))
    other = x[(np.arange(n) + 1 + _below(words[:, 1], n - 1)) % n]
    for part in _parts(x):
        if x.dtype == np.uint8:
            own = x[part] * (SHARES - share[part]).astype(np.uint16)
            own += other[part] * share[part].astype(np.uint16)
            x[part] = (own + SHARES // 2) // SHARES
        else:
            x[part] += (other[part] - x[part]) * (share[part] / SHARES).astype(np.float32)
    return x


def _normal(keys: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """Noise (n, count) of unit variance. A value is the sum of the eight bytes of one output of SplitMix64 (Steele,
    Lea & Flood 2014), begun at the sample's key: integers up to one rounding, so it is alike on every machine."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + keys[:, None]
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    odd = (z >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    z &= np.uint64(0x00FF00FF00FF00FF)
    z += odd
    z *= np.uint64(0x0001000100010001)  # the four 16-bit sums meet in the uppermost
    z >>= np.uint64(48)
    return (z.astype(np.float32) - np.float32(8 * 127.5)) / np.float32(math.sqrt(8 * (256**2 - 1) / 12))


def noise(x: Batch, amount: float, words: Words, space: Space) -> Batch:
    """Normal noise; bytes are rounded and stay within 0 .. 255."""
    keys = words[:, 0].astype(np.uint64) << np.uint64(32) | words[:, 1]
    factor = np.float32(amount) * space.unit
    for part in _parts(x):
        noisy = _normal(keys[part], factor.size).reshape(-1, *space.shape)
        noisy *= factor
        noisy += x[part]
        x[part] = np.clip(np.rint(noisy), 0, 255) if x.dtype == np.uint8 else noisy
    return x


def _masked(x: Batch, axis: int, amount: int, words: Words, blank: Batch) -> Batch:
    """0 to `amount` neighbours along an axis of x (n, steps, features) blanked out in each sample."""
    side = x.shape[axis]
    width = _below(words[:, 0], amount + 1)
    start = _below(words[:, 1], side - width + 1)[:, None]
    place = np.arange(side)
    inside = (place >= start) & (place < start + width[:, None])
    np.copyto(x, blank, where=inside[:, :, None] if axis == 1 else inside[:, None, :])
    return x


def time_mask(x: Batch, amount: int, words: Words, space: Space) -> Batch:
    """Up to `amount` steps in a row blanked."""
    return _masked(x, 1, amount, words, space.blank)


def band_mask(x: Batch, amount: int, words: Words, space: Space) -> Batch:
    """Up to `amount` features blanked."""
    return _masked(x, 2, amount, words, space.blank)


def needs_labels(amount: Any, space: Space) -> str | None:
    """Why samples cannot be mixed, if they cannot."""
    if space.classifies:
        return None
    return "mix keeps one sample's label, which says nothing about the targets of a regression: take it out of augment"


def needs_steps(amount: Any, space: Space) -> str | None:
    """Why noise cannot be added, if it cannot."""
    least = _FAINT / float(space.unit.min())
    if space.dtype != np.uint8 or amount >= least:
        return None
    return f"noise = {amount} would be rounded away in samples of bytes: choose {least:.2g} or more"

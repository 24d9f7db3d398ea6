# SPDX-License-Identifier: Apache-2.0
"""Log-mel features of a waveform: Hann windows, power, triangles on the mel scale, decibels in 256 steps.

One byte per value: a step of 0.35 dB is finer than what two recordings of one word differ by, sets of samples take a
quarter of the memory, and the last bit of a Fourier transform, which differs between machines, does not matter.
Mel scale: 2595 log10(1 + f / 700), O'Shaughnessy, Speech Communication (1987). Triangles are linear in mel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.inputs.wav import Waveform

Array = NDArray[np.float64]

QUIETEST, LOUDEST = -96.0, -6.0
"""Decibels that become 0 and 255; 0 dB is a sine at full scale. 16-bit sound has nothing below the first."""


def features(waveform: Waveform, window: int, hop: int, bands: Array) -> NDArray[np.uint8]:
    """(frames, bands) uint8 of a waveform (samples,), full scale 1, at least one window long.

    A frame is `window` samples, the next begins `hop` later; what is left over at the end is not used. `bands` is
    what `triangles` gives.
    """
    shape, size = hann(window), 2 * (len(bands) - 1)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, window)[::hop]
    spectrum = np.fft.rfft(frames * shape, size)
    power = spectrum.real**2 + spectrum.imag**2
    # A sine at full scale reaches half the sum of the window; zeros behind the window repeat every value.
    energy = power @ bands * ((2 / shape.sum()) ** 2 * window / size)
    decibels = 10 * np.log10(np.maximum(energy, 10 ** (QUIETEST / 10)))
    steps = (decibels - QUIETEST) * (255 / (LOUDEST - QUIETEST))
    result: NDArray[np.uint8] = np.rint(np.clip(steps, 0, 255)).astype(np.uint8)
    return result


def frames(samples: int, window: int, hop: int) -> int:
    """Number of frames in a waveform."""
    return 1 + (samples - window) // hop if samples >= window else 0


@lru_cache(maxsize=8)
def hann(window: int) -> Array:
    """The periodic Hann window (window,)."""
    shape: Array = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    shape.flags.writeable = False
    return shape


@lru_cache(maxsize=8)
def triangles(rate: int, window: int, count: int, low: float, high: float) -> Array:
    """(bins, count): the weight of each bin of the Fourier transform in each band from `low` to `high` Hz.

    The transform is as long as the next power of two above the window. A column is 0 throughout where the bins are
    too wide for the band.
    """
    size = 1 << (window - 1).bit_length()
    bins = _mel(np.arange(size // 2 + 1) * (rate / size))[:, None]
    first, last = _mel(np.array([low, high]))
    edges = np.linspace(float(first), float(last), count + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    weights: Array = np.maximum(np.minimum(rising, falling), 0)
    weights.flags.writeable = False
    return weights


def _mel(hertz: NDArray[Any]) -> Array:
    mel: Array = 2595 * np.log10(1 + hertz / 700)
    return mel

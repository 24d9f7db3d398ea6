# SPDX-License-Identifier: Apache-2.0
"""Brings a waveform to another rate: a polyphase FIR filter, the sinc function under a Kaiser window.

Crochiere & Rabiner, Multirate Digital Signal Processing (1983), chapter 3; length and shape of the window by Kaiser's
formulas (1974). Below 95 % of the lower of the two Nyquist frequencies everything passes, above it nothing does.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgelearn.inputs.wav import Waveform

REJECTION = 80.0
"""Attenuation in dB of what lies above the Nyquist frequency: below the noise of common microphones."""

PASSED = 0.95
"""Share of the lower Nyquist frequency that passes unchanged."""

LONGEST = 4096
"""Largest factor of a ratio. Common rates need 2560 at most; others are off by less than a millionth of it."""


def ratio(of: int, to: int) -> tuple[int, int]:
    """(up, down): `to` / `of` as a fraction in lowest terms, neither above LONGEST."""
    from fractions import Fraction  # it brings decimal: half a megabyte that only resampling needs

    slower = Fraction(min(of, to), max(of, to)).limit_denominator(LONGEST)
    small, large = slower.numerator, slower.denominator
    return (small, large) if to <= of else (large, small)


def span(of: int, to: int, start: int, count: int) -> tuple[int, int]:
    """First sample and end of what outputs start .. start + count - 1 depend on, as indices at rate `of`."""
    if of == to:
        return start, start + count
    up, down = ratio(of, to)
    side = int(_bank(up, down).shape[1]) // 2
    return start * down // up - side, (start + count - 1) * down // up + side + 1


def resample(waveform: Waveform, of: int, to: int, start: int, count: int, first: int = 0) -> Waveform:
    """Samples start .. start + count - 1 (count,) at rate `to` of a recording at rate `of`, both in Hz.

    The waveform (samples,) is the part of the recording from its sample `first` on. Outside of it there is silence,
    and `start` may lie there too.
    """
    begin, end = span(of, to, start, count)
    padded = _placed(waveform, first - begin, end - begin)
    if of == to:
        return padded
    up, down = ratio(of, to)
    bank = _bank(up, down)
    windows = np.lib.stride_tricks.sliding_window_view(padded, bank.shape[1])
    result = np.empty(count)
    for place in range(min(up, count)):
        # Output m lies m * down / up samples into the recording; every up-th output has the same fraction.
        whole, phase = divmod((start + place) * down, up)
        part = result[place::up]
        rows = windows[whole - start * down // up :: down][: len(part)]
        # einsum walks the overlapping windows in place, where matmul copies them first.
        np.einsum("ij,j->i", rows, bank[phase], out=part)
    return result


@lru_cache(maxsize=8)
def _bank(up: int, down: int) -> NDArray[np.float64]:
    """(up, taps): row p holds the filter's values for an output p / up samples behind a sample of the waveform."""
    slow = max(up, down)  # samples of the filter per sample at the lower rate
    width = np.pi * (1 - PASSED) / slow
    half = int(np.ceil((REJECTION - 7.95) / (2.285 * width) / 2))
    side = half // up + 1
    offsets = np.arange(up)[:, None] + up * np.arange(side, -side - 1, -1)
    cutoff = (1 + PASSED) / 2 / slow  # the middle of the slope, in units of the filter's own Nyquist frequency
    beta = 0.1102 * (REJECTION - 8.7)
    window = np.i0(beta * np.sqrt(np.maximum(1 - (offsets / half) ** 2, 0))) / np.i0(beta)
    bank: NDArray[np.float64] = np.where(abs(offsets) <= half, up * cutoff * np.sinc(cutoff * offsets) * window, 0.0)
    bank.flags.writeable = False  # it is shared by all callers
    return bank


def _placed(waveform: Waveform, at: int, length: int) -> Waveform:
    """`length` samples of silence with the waveform in them from `at` on, which may lie before them."""
    result = np.zeros(length)
    heard = waveform[max(-at, 0) : max(length - at, 0)]
    result[max(at, 0) : max(at, 0) + len(heard)] = heard
    return result

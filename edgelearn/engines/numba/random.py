# SPDX-License-Identifier: Apache-2.0
"""Codes, dropout and shuffling of the Numba engine: pure functions of (seed, counter), the same bits as in C.

Last counter words: 0 codes, 1 dropout, 2 shuffling, 4 widths. Integers are kept in uint64, since Numba turns a mix of
signed and unsigned ones into floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines.numba.kernels import FloatArray, exact
from edgelearn.rules import Codes

_U = np.uint64
_LOW, _HALF = _U(0xFFFFFFFF), _U(32)
_ONE, _EIGHT, _SIXTEEN, _THIRTEEN = _U(1), _U(8), _U(16), _U(13)
_BYTE = _U(0xFF)
_UNIT = np.float32(2.0**-24)
_IRWIN_HALL = np.float32(0.0047842372)
_GAUSSIAN, _SIGN, _PAIRED = int(Codes.GAUSSIAN), int(Codes.SIGN), int(Codes.PAIRED)


@exact
def philox(seed: Any, c0: Any, c1: Any, c2: Any, c3: Any) -> Any:
    """Philox4x32-10 (Salmon et al. 2011): four 32-bit words of one counter, as uint64."""
    k0, k1 = seed & _LOW, seed >> _HALF
    for _ in range(10):
        p0, p1 = c0 * _U(0xD2511F53), c2 * _U(0xCD9E8D57)
        c0, c2 = (p1 >> _HALF) ^ c1 ^ k0, (p0 >> _HALF) ^ c3 ^ k1
        c1, c3 = p1 & _LOW, p0 & _LOW
        k0, k1 = (k0 + _U(0x9E3779B9)) & _LOW, (k1 + _U(0xBB67AE85)) & _LOW
    return c0, c1, c2, c3


@exact
def _gaussian(w0: Any, w1: Any) -> Any:
    """Irwin-Hall sum of eight bytes, centred and scaled to unit variance."""
    total = 0
    for shift in range(0, 32, 8):
        total += int((w0 >> _U(shift)) & _BYTE) + int((w1 >> _U(shift)) & _BYTE)
    return np.float32(total - 1020) * _IRWIN_HALL


@exact
def _uniform(word: Any) -> Any:
    return np.float32(2 * int(word >> _EIGHT) + 1 - (1 << 24)) * _UNIT


@exact
def _fill_codes(kind: Any, scale: Any, seed: Any, block: Any, first: Any, out: Any) -> None:
    """Codes of targets first, first + 1, ...: out (targets, units)."""
    for target in range(out.shape[0]):
        for unit in range(out.shape[1]):
            counter = unit // 2 if kind == _PAIRED else unit
            w0, w1, _, _ = philox(seed, _U(counter), _U(first + target), _U(block), _U(0))
            if kind == _GAUSSIAN:
                out[target, unit] = _gaussian(w0, w1) * scale
            elif kind == _PAIRED:
                value = _gaussian(w0, w1) * scale
                out[target, unit] = -value if unit % 2 else value
            elif kind == _SIGN:
                out[target, unit] = scale if w0 >> _U(31) else -scale
            else:
                out[target, unit] = _uniform(w0) * scale


def codes_into(
    kind: Codes, scale: float, seed: int, block: int, out: FloatArray, first: int = 0, of: int | None = None
) -> None:
    """Regenerate the codes of a block: out (targets, units), rows beginning with target `first`; units are the first
    `of` so many."""
    factor = np.float32(scale)
    if kind is Codes.HE_UNIFORM:
        factor *= np.sqrt(np.float32(6) / np.float32(of or out.shape[1]))
    _fill_codes(int(kind), factor, word64(seed), block, first, out)


def draw(seed: int, block: int, step: int) -> np.float32:
    """A number in [0, 1) that a step draws for the width of a block."""
    at = word64(step)
    word = philox(word64(seed), _U(block), at & _LOW, at >> _HALF, _U(4))[0]
    return np.float32(word >> _EIGHT) * _UNIT


def word64(value: int) -> np.uint64:
    """A seed or count as the 64-bit word that the counters take."""
    return np.uint64(value & 0xFFFFFFFFFFFFFFFF)


@exact
def _drop(x: Any, rate: Any, kept: Any, seed: Any, update: Any, block: Any, start: Any, out: Any) -> None:
    for quad in range(start // 4, (start + x.size + 3) // 4):
        words = philox(seed, _U(quad) & _LOW, update & _LOW, _U(block), _ONE)
        for lane in range(max(start - 4 * quad, 0), min(start + x.size - 4 * quad, 4)):
            keep = np.float32(words[lane] >> _EIGHT) * _UNIT >= rate
            i = 4 * quad + lane - start
            out[i] = x[i] * kept if keep else np.float32(0)


def dropout(x: FloatArray, rate: float, seed: int, update: int, block: int, start: int, out: FloatArray) -> None:
    """Zero a share `rate` of x (n, units) into out and scale the rest; x and out may be one array. `start` values of
    the same batch come before x."""
    kept = np.float32(1) / (np.float32(1) - np.float32(rate))
    _drop(x.reshape(-1), np.float32(rate), kept, word64(seed), word64(update), block, start, out.reshape(-1))


@exact
def _drop_steps(
    x: Any, rate: Any, kept: Any, seed: Any, update: Any, block: Any, sample: Any, first: Any, total: Any, out: Any
) -> None:
    for t in range(x.shape[0]):
        for b in range(x.shape[1]):
            step = first + t if total > 1 else 0
            start = ((sample + b) * total + step) * x.shape[2]
            _drop(x[t, b], rate, kept, seed, update, block, start, out[t, b])


def drop_steps(
    x: FloatArray, rate: float, seed: int, update: int, block: int, at: tuple[int, int, int], out: FloatArray
) -> None:
    """As `dropout`, of steps x (steps, n, units); `at` are the places of their first sample and first step, and how
    many steps there are in all: with one, all steps share its mask."""
    kept = np.float32(1) / (np.float32(1) - np.float32(rate))
    _drop_steps(x, np.float32(rate), kept, word64(seed), word64(update), block, *at, out)


@exact
def _mix(x: Any) -> Any:
    x = ((x ^ (x >> _SIXTEEN)) * _U(0x85EBCA6B)) & _LOW
    x = ((x ^ (x >> _THIRTEEN)) * _U(0xC2B2AE35)) & _LOW
    return x ^ (x >> _SIXTEEN)


@exact
def _permute(value: Any, half: Any, keys: Any) -> Any:
    mask = (_ONE << half) - _ONE
    left, right = value >> half, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


@exact
def _fill_order(seed: Any, epoch: Any, n: Any, first: Any, out: Any) -> None:
    """Places in the data of positions first, first + 1, ... of an epoch: a Feistel permutation, walking its
    cycle until it lands inside the data."""
    half = _ONE
    while half < _HALF and (_ONE << (half + half)) < n:
        half += _ONE
    a, b, c, d = philox(seed, _U(0), epoch & _LOW, epoch >> _HALF, _U(2))
    e, f, _, _ = philox(seed, _ONE, epoch & _LOW, epoch >> _HALF, _U(2))
    for i in range(out.size):
        value = _permute(first + _U(i), half, (a, b, c, d, e, f))
        while value >= n:
            value = _permute(value, half, (a, b, c, d, e, f))
        out[i] = value


def order_into(seed: int, epoch: int, n: int, first: int, out: NDArray[np.int64]) -> None:
    """Shuffled places of out.size positions of an epoch of n samples, beginning with position `first`."""
    _fill_order(word64(seed), word64(epoch), word64(n), word64(first), out)

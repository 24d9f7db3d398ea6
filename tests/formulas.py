# SPDX-License-Identifier: Apache-2.0
"""The formulas of layers, losses and random numbers in float64, one by one; nothing of the engines is used.

n samples, I inputs, U units, K classes or targets. A layer gives its output and a pullback, from the error of
the output to the error of the input and the gradients of its weights; what works on each position by itself takes
maps (n, height, width, U) as well. A loss gives its value for each sample (n,) and its gradient.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from edgelearn.rules import Codes

MASK32 = 0xFFFFFFFF


def single(value):
    """Settings reach the engines as float32."""
    return float(np.float32(value))


def philox(seed, c0, c1, c2, c3):
    """Philox4x32-10 in plain integers (Salmon et al. 2011, section 3.3), or in arrays of 64 bits of them."""
    key = [seed & MASK32, seed >> 32 & MASK32]
    for _ in range(10):
        low, high = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high >> 32 ^ c1 ^ key[0], high & MASK32, low >> 32 ^ c3 ^ key[1], low & MASK32
        key = [key[0] + 0x9E3779B9 & MASK32, key[1] + 0xBB67AE85 & MASK32]
    return c0, c1, c2, c3


def code(kind, scale, seed, block, target, units):
    """One row of P."""
    if kind is Codes.PAIRED:
        pairs = np.repeat(code(Codes.GAUSSIAN, scale, seed, block, target, (units + 1) // 2), 2)[:units]
        return pairs * np.resize([1, -1], units)
    w0, w1, _, _ = (w.astype(np.int64) for w in philox(seed, np.arange(units, dtype=np.uint64), target, block, 0))
    if kind is Codes.GAUSSIAN:
        total = sum((w >> shift) & 0xFF for w in (w0, w1) for shift in (0, 8, 16, 24))
        return (total - 1020) * single(0.0047842372) * scale
    if kind is Codes.SIGN:
        return np.where(w0 >> 31, scale, -scale)
    values = (2 * (w0 >> 8) + 1 - 2**24) / 2**24 * scale
    return values * np.sqrt(6 / units) if kind is Codes.HE_UNIFORM else values


@lru_cache
def codes(rule, seed, block, units, targets):
    """P (K,U)."""
    return np.array([code(rule.codes, single(rule.scale), seed, block, k, units) for k in range(targets)])


def dropout_mask(rate, seed, update, block, shape, first=0):
    """0 for what is dropped, 1 / (1 - rate) for what is kept; `first` elements of the batch come before these."""
    rate = single(rate)
    elements = np.arange(first, first + math.prod(shape), dtype=np.uint64)
    words = np.array(philox(seed, elements >> 2, update & MASK32, block, 1))
    own = words[elements & 3, np.arange(elements.size)]
    return (own >> 8 >= rate * 2**24).reshape(shape) / (1 - rate)


def shuffle(seed, epoch, n, position):
    """Place in the data of one position of an epoch: six Feistel rounds, until inside."""
    half = next(h for h in range(1, 33) if 4**h >= n)
    mask = 2**half - 1
    keys = [philox(seed, r >> 2, epoch & MASK32, epoch >> 32, 2)[r & 3] for r in range(6)]
    while True:
        left, right = position >> half, position & mask
        for key in keys:
            left, right = right, left ^ mix(right ^ key) & mask
        position = left << half | right
        if position < n:
            return position


def mix(x):
    """The finaliser of MurmurHash3 on 32 bits."""
    x = (x ^ x >> 16) * 0x85EBCA6B & MASK32
    x = (x ^ x >> 13) * 0xC2B2AE35 & MASK32
    return x ^ x >> 16


def dense(x, w, b=0.0):
    return x @ w + b, lambda d: (d @ w.T, [x.T @ d, d.sum(0)])


def batchnorm(x, gamma, beta, epsilon):
    rows = tuple(range(x.ndim - 1))
    mean, variance = x.mean(rows), x.var(rows)
    deviation = np.sqrt(variance + epsilon)
    xhat = (x - mean) / deviation

    def pull(d):
        inner = d - d.mean(rows) - xhat * (d * xhat).mean(rows)
        return gamma / deviation * inner, [(d * xhat).sum(rows), d.sum(rows)]

    return gamma * xhat + beta, pull


def layernorm(x, gamma, beta, epsilon):
    rows = tuple(range(x.ndim - 1))
    deviation = np.sqrt(x.var(-1, keepdims=True) + epsilon)
    xhat = (x - x.mean(-1, keepdims=True)) / deviation

    def pull(d):
        e = gamma * d
        inner = e - e.mean(-1, keepdims=True) - xhat * (e * xhat).mean(-1, keepdims=True)
        return inner / deviation, [(d * xhat).sum(rows), d.sum(rows)]

    return gamma * xhat + beta, pull


def relu(x, slope=0.0):
    y = np.where(x <= 0, slope * x, x)
    return y, lambda d: (d * np.where(x > 0, 1.0, slope), [])


def tanh(x):
    y = np.tanh(x)
    return y, lambda d: (d * (1 - y**2), [])


def sigmoid(x):
    y = 1 / (1 + np.exp(-x))
    return y, lambda d: (d * y * (1 - y), [])


def gelu(x):
    """The tanh form (Hendrycks & Gimpel 2016, section 2)."""
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2)
    return 0.5 * x * (1 + t), lambda d: (d * slope, [])


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def l2(h, t):
    return 0.5 * ((h - t) ** 2).sum(1), h - t


def l1(h, t):
    return np.abs(h - t).sum(1), np.sign(h - t)


def huber(h, t, bend):
    size = np.abs(h - t)
    loss = np.where(size <= bend, 0.5 * size**2, bend * (size - 0.5 * bend)).sum(1)
    return loss, np.clip(h - t, -bend, bend)


def linear(h, t):
    return -(h * t).sum(1), -t


def cross_entropy(z, labels):
    shifted, onehot = z - z.max(1, keepdims=True), np.eye(z.shape[1])[labels]
    return np.log(np.exp(shifted).sum(1)) - shifted[onehot == 1], softmax(z) - onehot

# SPDX-License-Identifier: Apache-2.0
"""Convolution and pooling in float64, window by window; layers as in formulas.py over maps (n, height, width, I).

A window that reaches over the edge is cut off there: what padding adds is zero to a convolution and nothing to a
pooling.
"""

from __future__ import annotations

import numpy as np


def spans(side, kernel, stride, same):
    """Along one axis, for each output: the inputs under its window, and which part of the window they fill."""
    count = -(-side // stride) if same else (side - kernel) // stride + 1
    before = max((count - 1) * stride + kernel - side, 0) // 2 if same else 0
    starts = [i * stride - before for i in range(count)]
    edges = [(start, max(start, 0), min(start + kernel, side)) for start in starts]
    return [(slice(low, high), slice(low - start, high - start)) for start, low, high in edges]


def windows(x, window):
    """Sides of the output; for each of its places, where that is, the part of x under it and that of the window."""
    axes = zip(x.shape[1:3], window.kernel, window.strides, strict=True)
    rows, columns = (spans(*axis, window.same) for axis in axes)
    places = [
        ((slice(None), i, j), (slice(None), row, column), (inside, across))
        for i, (row, inside) in enumerate(rows)
        for j, (column, across) in enumerate(columns)
    ]
    return (len(rows), len(columns)), places


def conv(x, window, groups, kernel, bias=0.0):
    """kernel (height, width, I / groups, U): output u of group g reads the inputs of group g alone."""
    sides, places = windows(x, window)
    k = kernel.reshape(*kernel.shape[:3], groups, -1)
    parts = x.reshape(*x.shape[:3], groups, -1)
    y = np.zeros((len(x), *sides, *k.shape[3:]))
    for at, under, inside in places:
        y[at] = np.einsum("nhwgc,hwcgu->ngu", parts[under], k[inside])

    def pull(d):
        d, dx, dk = d.reshape(y.shape), np.zeros(parts.shape), np.zeros(k.shape)
        for at, under, inside in places:
            dx[under] += np.einsum("ngu,hwcgu->nhwgc", d[at], k[inside])
            dk[inside] += np.einsum("nhwgc,ngu->hwcgu", parts[under], d[at])
        return dx.reshape(x.shape), [dk.reshape(kernel.shape), d.sum((0, 1, 2)).ravel()]

    return y.reshape(len(x), *sides, -1) + bias, pull


def maxpool(x, window):
    """The error goes to the largest value of a window, the first of them in row-major order."""
    sides, places = windows(x, window)
    y = np.zeros((len(x), *sides, x.shape[3]))
    for at, under, _ in places:
        y[at] = x[under].max((1, 2))

    def pull(d):
        dx = np.zeros(x.shape)
        for at, under, _ in places:
            seen = x[under].reshape(len(x), -1, x.shape[3])
            share = np.zeros(seen.shape)
            np.put_along_axis(share, seen.argmax(1)[:, None], d[at][:, None], 1)
            dx[under] += share.reshape(x[under].shape)
        return dx, []

    return y, pull


def avgpool(x, window):
    """Means over what lies inside the map."""
    sides, places = windows(x, window)
    y = np.zeros((len(x), *sides, x.shape[3]))
    for at, under, _ in places:
        y[at] = x[under].mean((1, 2))

    def pull(d):
        dx = np.zeros(x.shape)
        for at, under, _ in places:
            _, height, width, _ = x[under].shape
            dx[under] += d[at][:, None, None] / (height * width)
        return dx, []

    return y, pull


def global_avgpool(x):
    positions = x.shape[1] * x.shape[2]
    return x.mean((1, 2)), lambda d: (np.broadcast_to(d[:, None, None] / positions, x.shape), [])


def cells(side, grid):
    """(cells, side): what each position along an axis counts for in the mean of each cell; cells may overlap."""
    count = min(grid, side) if grid else side
    shares = np.zeros((count, side))
    for i in range(count):
        low, high = i * side // count, -(-(i + 1) * side // count)
        shares[i, low:high] = 1 / (high - low)
    return shares


def adaptive(h, grid):
    """What an objective sees of a map: means of grid x grid cells, or with grid 0 all positions, as vectors."""
    rows, columns = (cells(side, grid) for side in h.shape[1:3])
    q = np.einsum("ah,bw,nhwc->nabc", rows, columns, h)
    return q.reshape(len(h), -1), lambda d: (np.einsum("ah,bw,nabc->nhwc", rows, columns, d.reshape(q.shape)), [])

# SPDX-License-Identifier: Apache-2.0
"""The loops of pooling over maps x (B,H,W,C) into y (B,H',W',C), and of their errors back. Outputs come last.

`before` is the padding at the upper left; windows are cut off at the edges of the map, so that padding has no value
and does not count.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelearn.engines.numba.kernels import kernel

_ZERO, _ONE = np.float32(0), np.float32(1)


@kernel
def _window(output: Any, size: Any, stride: Any, before: Any, side: Any) -> Any:
    """First and end of the positions along one side that an output reads."""
    first = output * stride - before
    return max(first, 0), min(first + size, side)


@kernel
def _cell(index: Any, cells: Any, side: Any) -> Any:
    """First and end of the positions along one side in a cell of the adaptive average."""
    return index * side // cells, ((index + 1) * side + cells - 1) // cells


@kernel
def _raise_to(x: Any, y: Any) -> None:
    """y = max(x, y); NaN stays NaN."""
    for c in range(y.size):
        if x[c] > y[c] or x[c] != x[c]:
            y[c] = x[c]


@kernel
def max_pool(x: Any, size: Any, strides: Any, before: Any, y: Any) -> None:
    """The largest value of each window, per channel."""
    y[:] = -np.inf
    for b in range(y.shape[0]):
        for i in range(y.shape[1]):
            top, bottom = _window(i, size[0], strides[0], before[0], x.shape[1])
            for j in range(y.shape[2]):
                left, right = _window(j, size[1], strides[1], before[1], x.shape[2])
                for h in range(top, bottom):
                    for w in range(left, right):
                        _raise_to(x[b, h, w], y[b, i, j])


@kernel
def _first_equal(x: Any, rows: Any, columns: Any, channel: Any, value: Any) -> Any:
    """Where a map (H,W,C) first has that value inside a window, row by row."""
    for h in range(rows[0], rows[1]):
        for w in range(columns[0], columns[1]):
            if x[h, w, channel] == value:
                return h, w
    return rows[0], columns[0]


@kernel
def max_pool_backward(x: Any, y: Any, d: Any, size: Any, strides: Any, before: Any, dx: Any) -> None:
    """dx: the error of each output goes to the first of the largest inputs of its window."""
    dx[:] = _ZERO
    for b in range(d.shape[0]):
        for i in range(d.shape[1]):
            rows = _window(i, size[0], strides[0], before[0], x.shape[1])
            for j in range(d.shape[2]):
                columns = _window(j, size[1], strides[1], before[1], x.shape[2])
                for c in range(d.shape[3]):
                    h, w = _first_equal(x[b], rows, columns, c, y[b, i, j, c])
                    dx[b, h, w, c] += d[b, i, j, c]


@kernel
def _mean(x: Any, rows: Any, columns: Any, y: Any) -> None:
    """y (C) = the mean of a map (H,W,C) inside a window."""
    y[:] = _ZERO
    for h in range(rows[0], rows[1]):
        for w in range(columns[0], columns[1]):
            for c in range(y.size):
                y[c] += x[h, w, c]
    y *= _ONE / np.float32((rows[1] - rows[0]) * (columns[1] - columns[0]))


@kernel
def _spread(d: Any, rows: Any, columns: Any, dx: Any) -> None:
    """The error of a mean, back into a map (H,W,C)."""
    share = _ONE / np.float32((rows[1] - rows[0]) * (columns[1] - columns[0]))
    for h in range(rows[0], rows[1]):
        for w in range(columns[0], columns[1]):
            for c in range(d.size):
                dx[h, w, c] += d[c] * share


@kernel
def average_pool(x: Any, size: Any, strides: Any, before: Any, y: Any) -> None:
    """The mean of each window, per channel."""
    for b in range(y.shape[0]):
        for i in range(y.shape[1]):
            rows = _window(i, size[0], strides[0], before[0], x.shape[1])
            for j in range(y.shape[2]):
                _mean(x[b], rows, _window(j, size[1], strides[1], before[1], x.shape[2]), y[b, i, j])


@kernel
def average_pool_backward(d: Any, size: Any, strides: Any, before: Any, dx: Any) -> None:
    """dx: each output shares its error among its window."""
    dx[:] = _ZERO
    for b in range(d.shape[0]):
        for i in range(d.shape[1]):
            rows = _window(i, size[0], strides[0], before[0], dx.shape[1])
            for j in range(d.shape[2]):
                _spread(d[b, i, j], rows, _window(j, size[1], strides[1], before[1], dx.shape[2]), dx[b])


@kernel
def adaptive_average(x: Any, y: Any) -> None:
    """The mean of each of H' x W' cells, which may overlap where the sides do not divide; 1 x 1 is the global mean."""
    for b in range(y.shape[0]):
        for i in range(y.shape[1]):
            rows = _cell(i, y.shape[1], x.shape[1])
            for j in range(y.shape[2]):
                _mean(x[b], rows, _cell(j, y.shape[2], x.shape[2]), y[b, i, j])


@kernel
def adaptive_average_backward(d: Any, dx: Any) -> None:
    """dx: each cell shares its error among its positions."""
    dx[:] = _ZERO
    for b in range(d.shape[0]):
        for i in range(d.shape[1]):
            rows = _cell(i, d.shape[1], dx.shape[1])
            for j in range(d.shape[2]):
                _spread(d[b, i, j], rows, _cell(j, d.shape[2], dx.shape[2]), dx[b])

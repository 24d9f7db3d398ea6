# SPDX-License-Identifier: Apache-2.0
"""The loops of convolution, straight over maps x (B,H,W,C) and y (B,H',W',U): nothing is copied into columns.

Kernels k are (kernel height, kernel width, C / groups, stride), of which the first U columns are in use; group g
reads channels g C / groups ... and leaves units g U / groups .... `before` is the padding at the upper left; what
lies outside the map is 0 and passed over. A row of y at one place of the kernel is the innermost work: four channels
of k and a row of y stay in the first-level cache. Outputs come last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelearn.engines.numba.kernels import add_row, add_rows, dot, kernel

_ZERO = np.float32(0)


@kernel
def _span(side: Any, shift: Any, stride: Any, after: Any) -> Any:
    """First and end of the outputs o of a row that read inside it: 0 <= o * stride + shift < side."""
    return max(0, -(shift // stride)), min(after, (side - 1 - shift) // stride + 1)


@kernel
def _add_products(a: Any, b: Any, y: Any) -> None:
    for j in range(y.size):
        y[j] += a[j] * b[j]


@kernel
def _forward_group(x: Any, w: Any, group: Any, units: Any, stride: Any, shift: Any, y: Any) -> None:
    """A row of y (W',U) += a row of x (W,C) times one place of the kernel, for one group."""
    channels, first = x.shape[1] * units // y.shape[1], group * units
    start, end = _span(x.shape[0], shift, stride, y.shape[0])
    base, quads = group * channels, channels - channels % 4
    for c in range(0, quads, 4):
        for o in range(start, end):
            a, p = x[o * stride + shift], base + c
            add_rows(a[p], a[p + 1], a[p + 2], a[p + 3], w, c, first, y[o, first : first + units])
    for c in range(quads, channels):
        for o in range(start, end):
            add_row(x[o * stride + shift, base + c], w[c, first : first + units], y[o, first : first + units])


@kernel
def _forward_row(x: Any, w: Any, groups: Any, stride: Any, shift: Any, y: Any) -> None:
    if groups == x.shape[1] and groups == y.shape[1]:
        start, end = _span(x.shape[0], shift, stride, y.shape[0])
        for o in range(start, end):
            _add_products(x[o * stride + shift], w[0], y[o])
        return
    for group in range(groups):
        _forward_group(x, w, group, y.shape[1] // groups, stride, shift, y)


@kernel
def convolve(x: Any, k: Any, groups: Any, strides: Any, before: Any, y: Any) -> None:
    """y = x * k."""
    y[:] = _ZERO
    for b in range(y.shape[0]):
        for o in range(y.shape[1]):
            for i in range(k.shape[0]):
                at = o * strides[0] + i - before[0]
                if at < 0 or at >= x.shape[1]:
                    continue
                for j in range(k.shape[1]):
                    _forward_row(x[b, at], k[i, j], groups, strides[1], j - before[1], y[b, o])


@kernel
def _gradient_group(x: Any, d: Any, group: Any, units: Any, stride: Any, shift: Any, dw: Any) -> None:
    """One place of the kernel dw (C / groups,U) += rows of x^T rows of d, for one group."""
    first = group * units
    start, end = _span(x.shape[0], shift, stride, d.shape[0])
    quads = start + max(end - start, 0) // 4 * 4
    for c in range(dw.shape[0]):
        y, at = dw[c, first : first + units], group * dw.shape[0] + c
        for o in range(start, quads, 4):
            p = o * stride + shift
            a0, a1, a2, a3 = x[p, at], x[p + stride, at], x[p + 2 * stride, at], x[p + 3 * stride, at]
            add_rows(a0, a1, a2, a3, d, o, first, y)
        for o in range(quads, end):
            add_row(x[o * stride + shift, at], d[o, first : first + units], y)


@kernel
def _gradient_row(x: Any, d: Any, groups: Any, stride: Any, shift: Any, dw: Any) -> None:
    if groups == x.shape[1] and groups == d.shape[1]:
        start, end = _span(x.shape[0], shift, stride, d.shape[0])
        for o in range(start, end):
            _add_products(x[o * stride + shift], d[o], dw[0])
        return
    for group in range(groups):
        _gradient_group(x, d, group, d.shape[1] // groups, stride, shift, dw)


@kernel
def convolve_gradients(x: Any, d: Any, groups: Any, strides: Any, before: Any, dk: Any) -> None:
    """dk (kernel height, kernel width, C / groups, U) += the gradient of k from the error d of y."""
    for b in range(d.shape[0]):
        for o in range(d.shape[1]):
            for i in range(dk.shape[0]):
                at = o * strides[0] + i - before[0]
                if at < 0 or at >= x.shape[1]:
                    continue
                for j in range(dk.shape[1]):
                    _gradient_row(x[b, at], d[b, o], groups, strides[1], j - before[1], dk[i, j])


@kernel
def _backward_group(d: Any, w: Any, group: Any, units: Any, stride: Any, shift: Any, dx: Any) -> None:
    """A row of dx (W,C) += a row of d (W',U) times one place of the kernel, for one group."""
    channels, first = dx.shape[1] * units // d.shape[1], group * units
    start, end = _span(dx.shape[0], shift, stride, d.shape[0])
    for o in range(start, end):
        error, into = d[o, first : first + units], dx[o * stride + shift]
        for c in range(channels):
            into[group * channels + c] += dot(error, w[c, first : first + units])


@kernel
def _backward_row(d: Any, w: Any, groups: Any, stride: Any, shift: Any, dx: Any) -> None:
    if groups == dx.shape[1] and groups == d.shape[1]:
        start, end = _span(dx.shape[0], shift, stride, d.shape[0])
        for o in range(start, end):
            _add_products(d[o], w[0], dx[o * stride + shift])
        return
    for group in range(groups):
        _backward_group(d, w, group, d.shape[1] // groups, stride, shift, dx)


@kernel
def convolve_backward(d: Any, k: Any, groups: Any, strides: Any, before: Any, dx: Any) -> None:
    """dx (B,H,W,C) = the error of x from the error d of y."""
    dx[:] = _ZERO
    for b in range(d.shape[0]):
        for o in range(d.shape[1]):
            for i in range(k.shape[0]):
                at = o * strides[0] + i - before[0]
                if at < 0 or at >= dx.shape[1]:
                    continue
                for j in range(k.shape[1]):
                    _backward_row(d[b, o], k[i, j], groups, strides[1], j - before[1], dx[b, at])

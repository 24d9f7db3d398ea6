# SPDX-License-Identifier: Apache-2.0
"""The loops of the Numba engine: B batch, I inputs, U units, K targets; arrays are float32 and C-contiguous.

A weight matrix w is (rows, stride); the loops touch only the columns in use. Outputs come last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

_njit: Any = numba.njit
_ZERO, _HALF, _ONE, _THREE = np.float32(0), np.float32(0.5), np.float32(1), np.float32(3)
_GELU, _CUBE = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)


def exact(function: Function) -> Function:
    """Compile as written: every rounding as in the formula."""
    compiled: Function = _njit(cache=True, error_model="numpy")(function)
    return compiled


def kernel(function: Function) -> Function:
    """Compile with fused multiply-add; NaN and infinity keep their meaning."""
    compiled: Function = _njit(cache=True, error_model="numpy", fastmath={"contract"})(function)
    return compiled


def reduction(function: Function) -> Function:
    """Compile sums that may be reordered, without which they do not vectorise."""
    flags = {"contract", "reassoc", "nsz"}
    compiled: Function = _njit(cache=True, error_model="numpy", fastmath=flags)(function)
    return compiled


@kernel
def add_rows(a0: Any, a1: Any, a2: Any, a3: Any, rows: Any, k: Any, first: Any, y: Any) -> None:
    """y += a0 rows[k] + ... + a3 rows[k+3], from column `first` on: four rows at once quarter the traffic of y."""
    end = first + y.size
    r0, r1, r2, r3 = rows[k, first:end], rows[k + 1, first:end], rows[k + 2, first:end], rows[k + 3, first:end]
    for j in range(y.size):
        y[j] += a0 * r0[j] + a1 * r1[j] + a2 * r2[j] + a3 * r3[j]


@kernel
def add_row(a: Any, row: Any, y: Any) -> None:
    """y += a row."""
    for j in range(y.size):
        y[j] += a * row[j]


@kernel
def _add_product(row: Any, w: Any, y: Any) -> None:
    quads = row.size - row.size % 4
    for k in range(0, quads, 4):
        add_rows(row[k], row[k + 1], row[k + 2], row[k + 3], w, k, 0, y)
    for k in range(quads, row.size):
        add_row(row[k], w[k], y)


@kernel
def matmul(x: Any, w: Any, out: Any) -> None:
    """out (B,U) = x (B,I) w (I,stride)."""
    for i in range(out.shape[0]):
        out[i, :] = _ZERO
        _add_product(x[i], w, out[i])


@kernel
def matmul_tn(x: Any, d: Any, out: Any) -> None:
    """out (I,U) += x^T d with x (B,I), d (B,U): the gradient of a weight matrix."""
    batch = x.shape[0]
    quads = batch - batch % 4
    for k in range(out.shape[0]):
        y = out[k]
        for i in range(0, quads, 4):
            add_rows(x[i, k], x[i + 1, k], x[i + 2, k], x[i + 3, k], d, i, 0, y)
        for i in range(quads, batch):
            add_row(x[i, k], d[i], y)


@reduction
def dot(a: Any, b: Any) -> Any:
    """Sum of the products of a and b, as long as a."""
    total = _ZERO
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@kernel
def matmul_nt(d: Any, w: Any, out: Any) -> None:
    """out (B,I) = d w^T with d (B,U), w (I,stride)."""
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[i, k] = dot(d[i], w[k])


@kernel
def add_bias(bias: Any, y: Any) -> None:
    """y (B,U) += bias (U)."""
    for i in range(y.shape[0]):
        add_row(_ONE, bias, y[i])


@kernel
def sum_rows(d: Any, totals: Any, out: Any) -> None:
    """out (U) += sum of d (B,U) over the batch, added up in the float64 of totals: maps have many rows."""
    sums = totals[: out.size]
    sums[:] = 0.0
    for i in range(d.shape[0]):
        for j in range(sums.size):
            sums[j] += d[i, j]
    for j in range(sums.size):
        out[j] += np.float32(sums[j])


@kernel
def rescale(x: Any, scale: Any, shift: Any, at: Any, out: Any) -> None:
    """out = x * scale + shift, feature j with pair (at + j) % pairs."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            pair = (at + j) % scale.size
            out[i, j] = x[i, j] * scale[pair] + shift[pair]


@kernel
def leaky_relu(x: Any, slope: Any, out: Any) -> None:
    """Slope 0 is ReLU; NaN stays NaN."""
    for i in range(x.size):
        out[i] = x[i] if not x[i] <= _ZERO else (x[i] * slope if slope != _ZERO else _ZERO)


@kernel
def leaky_relu_backward(y: Any, slope: Any, d: Any) -> None:
    """d *= 1 where y > 0, slope elsewhere."""
    for i in range(d.size):
        d[i] = d[i] if y[i] > _ZERO else d[i] * slope


@kernel
def tanh(x: Any, out: Any) -> None:
    """out = tanh(x)."""
    for i in range(x.size):
        out[i] = np.tanh(x[i])


@kernel
def tanh_backward(y: Any, d: Any) -> None:
    """d *= 1 - y^2."""
    for i in range(d.size):
        d[i] *= _ONE - y[i] * y[i]


@kernel
def sigmoid(x: Any, out: Any) -> None:
    """out = 1 / (1 + exp(-x))."""
    for i in range(x.size):
        out[i] = _ONE / (_ONE + np.exp(-x[i]))


@kernel
def sigmoid_backward(y: Any, d: Any) -> None:
    """d *= y (1 - y)."""
    for i in range(d.size):
        d[i] *= y[i] * (_ONE - y[i])


@kernel
def gelu(x: Any, out: Any) -> None:
    """out = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): Hendrycks & Gimpel 2016, section 2."""
    for i in range(x.size):
        bend = np.tanh(_GELU * (x[i] + _CUBE * x[i] * x[i] * x[i]))
        out[i] = _HALF * x[i] * (_ONE + bend)


@kernel
def gelu_backward(x: Any, d: Any) -> None:
    """d *= the slope of gelu at x."""
    for i in range(d.size):
        square = x[i] * x[i]
        bend = np.tanh(_GELU * (x[i] + _CUBE * x[i] * square))
        inner = _GELU * (_ONE + _THREE * _CUBE * square)
        d[i] *= _HALF * (_ONE + bend) + _HALF * x[i] * (_ONE - bend * bend) * inner


@kernel
def softmax(x: Any, out: Any) -> None:
    """Rows of out (B,U) sum to one."""
    for i in range(x.shape[0]):
        top = x[i].max()
        out[i] = np.exp(x[i] - top)
        out[i] /= out[i].sum()


@exact
def first_with_bits(bits: Any, exponent: Any) -> int:
    """First row of bits (n, width) in which all bits of the exponent are set in some place, or -1."""
    for i in range(bits.shape[0]):
        bad = False
        for j in range(bits.shape[1]):
            bad |= (bits[i, j] & exponent) == exponent
        if bad:
            return i
    return -1


@exact
def gather(x: Any, rows: Any, out: Any) -> None:
    """out[i] = x[rows[i]], turned into the type of out."""
    for i in range(rows.size):
        for j in range(out.shape[1]):
            out[i, j] = x[rows[i], j]

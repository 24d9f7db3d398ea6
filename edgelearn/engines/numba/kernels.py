# SPDX-License-Identifier: Apache-2.0
"""The loops of the Numba engine: B batch, I inputs, U units, K targets; arrays are float32 and C-contiguous.

A weight matrix w is (rows, stride); the loops touch only the columns in use. Outputs come last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

_njit: Any = numba.njit
_ZERO, _ONE = np.float32(0), np.float32(1)
_EXPONENT = np.uint32(0x7F800000)


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
def _add_rows(a0: Any, a1: Any, a2: Any, a3: Any, w: Any, k: Any, y: Any) -> None:
    """y += a0 w[k] + ... + a3 w[k+3]: four rows at once quarter the traffic of y."""
    w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
    for j in range(y.size):
        y[j] += a0 * w0[j] + a1 * w1[j] + a2 * w2[j] + a3 * w3[j]


@kernel
def _add_row(a: Any, w: Any, y: Any) -> None:
    for j in range(y.size):
        y[j] += a * w[j]


@kernel
def matmul(x: Any, w: Any, out: Any) -> None:
    """out (B,U) = x (B,I) w (I,stride)."""
    depth = x.shape[1]
    quads = depth - depth % 4
    for i in range(out.shape[0]):
        y, row = out[i], x[i]
        y[:] = _ZERO
        for k in range(0, quads, 4):
            _add_rows(row[k], row[k + 1], row[k + 2], row[k + 3], w, k, y)
        for k in range(quads, depth):
            _add_row(row[k], w[k], y)


@kernel
def matmul_tn(x: Any, d: Any, out: Any) -> None:
    """out (I,U) = x^T d with x (B,I), d (B,U): the gradient of a weight matrix."""
    batch = x.shape[0]
    quads = batch - batch % 4
    for k in range(out.shape[0]):
        y = out[k]
        y[:] = _ZERO
        for i in range(0, quads, 4):
            _add_rows(x[i, k], x[i + 1, k], x[i + 2, k], x[i + 3, k], d, i, y)
        for i in range(quads, batch):
            _add_row(x[i, k], d[i], y)


@reduction
def _dot(a: Any, b: Any) -> Any:
    total = _ZERO
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@kernel
def matmul_nt(d: Any, w: Any, out: Any) -> None:
    """out (B,I) = d w^T with d (B,U), w (I,stride)."""
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[i, k] = _dot(d[i], w[k])


@kernel
def add_bias(bias: Any, y: Any) -> None:
    """y (B,U) += bias (U)."""
    for i in range(y.shape[0]):
        _add_row(_ONE, bias, y[i])


@kernel
def sum_rows(d: Any, out: Any) -> None:
    """out (U) = sum of d (B,U) over the batch."""
    out[:] = _ZERO
    for i in range(d.shape[0]):
        _add_row(_ONE, d[i], out)


@kernel
def rescale(x: Any, scale: Any, shift: Any, out: Any) -> None:
    """out = x * scale + shift, feature j with pair j % pairs."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            pair = j % scale.size
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
def softmax(x: Any, out: Any) -> None:
    """Rows of out (B,U) sum to one."""
    for i in range(x.shape[0]):
        top = x[i].max()
        out[i] = np.exp(x[i] - top)
        out[i] /= out[i].sum()


@kernel
def statistics(x: Any, mean: Any, variance: Any) -> None:
    """Mean and biased variance of x (B,U) over the batch, in two passes."""
    share = _ONE / np.float32(x.shape[0])
    sum_rows(x, mean)
    mean *= share
    variance[:] = _ZERO
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            variance[j] += (x[i, j] - mean[j]) * (x[i, j] - mean[j])
    variance *= share


@kernel
def normalise(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: Any, out: Any) -> None:
    """out = gamma (x - mean) / sqrt(variance + epsilon) + beta."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            factor = gamma[j] / np.sqrt(variance[j] + epsilon)
            out[i, j] = (x[i, j] - mean[j]) * factor + beta[j]


@kernel
def normalise_gradients(x: Any, mean: Any, variance: Any, epsilon: Any, d: Any, dgamma: Any, dbeta: Any) -> None:
    """dgamma (U) = sum d xhat, dbeta (U) = sum d, with xhat the normalised input."""
    sum_rows(d, dbeta)
    dgamma[:] = _ZERO
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            dgamma[j] += d[i, j] * ((x[i, j] - mean[j]) / np.sqrt(variance[j] + epsilon))


@kernel
def normalise_backward(
    x: Any, gamma: Any, mean: Any, variance: Any, epsilon: Any, dgamma: Any, dbeta: Any, d: Any
) -> None:
    """d = gamma / deviation (d - mean(d) - xhat mean(d xhat)): through the batch statistics too."""
    share = _ONE / np.float32(x.shape[0])
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            inverse = _ONE / np.sqrt(variance[j] + epsilon)
            xhat = (x[i, j] - mean[j]) * inverse
            d[i, j] = gamma[j] * inverse * (d[i, j] - (dbeta[j] + xhat * dgamma[j]) * share)


@kernel
def follow(batch: Any, momentum: Any, running: Any) -> None:
    """running = momentum * running + (1 - momentum) * batch."""
    for j in range(batch.size):
        running[j] = momentum * running[j] + (_ONE - momentum) * batch[j]


@exact
def first_not_finite(bits: Any) -> int:
    """Row of the first NaN or infinity in float32 bits (n, width), or -1."""
    for i in range(bits.shape[0]):
        bad = False
        for j in range(bits.shape[1]):
            bad |= (bits[i, j] & _EXPONENT) == _EXPONENT
        if bad:
            return i
    return -1


@exact
def gather(x: Any, rows: Any, out: Any) -> None:
    """out[i] = x[rows[i]], turned into the type of out."""
    for i in range(rows.size):
        for j in range(out.shape[1]):
            out[i, j] = x[rows[i], j]

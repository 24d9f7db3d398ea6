# SPDX-License-Identifier: Apache-2.0
"""What the operations over features do with a slice: x (B,I) forward to y (B,U), and the error d (B,U) of y backward.

Gradients are added to what earlier slices left. `dense_back` leaves the error of x in `into`; for the others, `into`
is d itself.
"""

from __future__ import annotations

import numpy as np

from edgelearn.engines.numba import kernels, normalisation
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.nodes import Node
from edgelearn.engines.numba.passes import Pass, as_rows
from edgelearn.engines.numba.random import dropout
from edgelearn.records import Op


def rescale(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """y = x * scale + shift."""
    scale, shift = p.params[node.offset : node.offset + node.params].reshape(2, -1)
    kernels.rescale(x, scale, shift, 0, y)


def dense(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """y = gain x W + b."""
    kernels.matmul(x, p.weights(node), y)
    if node.gain != 1:
        y *= np.float32(node.gain)
    p.add_bias(node, y)


def dense_gradients(p: Pass, node: Node, x: FloatArray, d: FloatArray) -> None:
    """gain x^T d, and the sum of d, which becomes gain d for the way back."""
    p.add_bias_gradient(node, d)
    if node.gain != 1:
        d *= np.float32(node.gain)
    kernels.matmul_tn(x, d, p.gradient(node, 0))


def dense_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """d W^T, of an error that `dense_gradients` has scaled."""
    kernels.matmul_nt(d, p.weights(node), into)


def batchnorm(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """By the statistics of the slice in training, by the running ones otherwise."""
    (gamma, beta), (mean, variance) = p.per_unit(node)[:2], p.running(node)
    rows = as_rows(x, node.active)
    if p.training:
        mean, variance = p.statistics(node)[:2]
        normalisation.statistics(rows, p.memory.totals, mean, variance)
    epsilon = np.float32(node.arg[0])
    normalisation.normalise(rows, gamma, beta, mean, variance, epsilon, as_rows(y, node.active))


def batchnorm_gradients(p: Pass, node: Node, x: FloatArray, d: FloatArray) -> None:
    """Sums of the slice, which are kept for the way back through its statistics too."""
    mean, variance, _, _, dgamma, dbeta = p.statistics(node)
    rows, errors, epsilon = as_rows(x, node.active), as_rows(d, node.active), np.float32(node.arg[0])
    normalisation.normalise_gradients(rows, mean, variance, epsilon, errors, p.memory.totals, dgamma, dbeta)
    kernels.add_row(np.float32(1), dgamma, p.gradient(node, 0)[0])
    kernels.add_row(np.float32(1), dbeta, p.gradient(node, 1)[0])


def batchnorm_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """Through the statistics of the slice."""
    mean, variance, _, _, dgamma, dbeta = p.statistics(node)
    gamma, epsilon = p.per_unit(node)[0], np.float32(node.arg[0])
    rows, errors = as_rows(x, node.active), as_rows(into, node.active)
    normalisation.normalise_backward(rows, gamma, mean, variance, epsilon, dgamma, dbeta, errors)


def layernorm(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """Every row by its own statistics."""
    gamma, beta = p.per_unit(node)
    normalisation.normalise_rows(as_rows(x, node.active), gamma, beta, np.float32(node.arg[0]), as_rows(y, node.active))


def layernorm_gradients(p: Pass, node: Node, x: FloatArray, d: FloatArray) -> None:
    """Of gamma and beta."""
    dgamma, dbeta = p.gradient(node, 0)[0], p.gradient(node, 1)[0]
    rows, errors, epsilon = as_rows(x, node.active), as_rows(d, node.active), np.float32(node.arg[0])
    normalisation.normalise_rows_gradients(rows, epsilon, errors, p.memory.totals, dgamma, dbeta)


def layernorm_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """Through the statistics of every row."""
    gamma, epsilon = p.per_unit(node)[0], np.float32(node.arg[0])
    normalisation.normalise_rows_backward(as_rows(x, node.active), gamma, epsilon, as_rows(into, node.active))


def activate(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """One of the functions of a single value."""
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    if node.op is Op.TANH:
        kernels.tanh(flat_x, flat_y)
    elif node.op is Op.SIGMOID:
        kernels.sigmoid(flat_x, flat_y)
    elif node.op is Op.GELU:
        kernels.gelu(flat_x, flat_y)
    else:
        kernels.leaky_relu(flat_x, np.float32(node.arg[0]), flat_y)


def activate_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """Times the slope of the function."""
    flat = into.reshape(-1)
    if node.op is Op.TANH:
        kernels.tanh_backward(y.reshape(-1), flat)
    elif node.op is Op.SIGMOID:
        kernels.sigmoid_backward(y.reshape(-1), flat)
    elif node.op is Op.GELU:
        kernels.gelu_backward(x.reshape(-1), flat)
    else:
        kernels.leaky_relu_backward(x.reshape(-1), np.float32(node.arg[0]), flat)


def softmax(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """Shares of one; nothing goes back through it, since the loss takes what comes before."""
    kernels.softmax(x, y)


def drop(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """Zeroes in training; which values depends on their places in the whole batch, not on the slices."""
    if p.training:
        dropout(x, node.arg[0], p.config.seed, p.update, node.block, p.start * node.features, y)
    else:
        y[...] = x


def drop_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """The same values are dropped from the error."""
    dropout(d, node.arg[0], p.config.seed, p.update, node.block, p.start * node.features, into)

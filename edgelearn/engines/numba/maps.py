# SPDX-License-Identifier: Apache-2.0
"""What the operations over maps do with a slice: x (B,I) forward to y (B,U), and the error d (B,U) of y backward.

Maps come flattened. A kernel's gradient is added to what earlier slices left; the error of x is left in `into`.
"""

from __future__ import annotations

from edgelearn.engines.numba import convolution, pooling
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.nodes import Node
from edgelearn.engines.numba.passes import Pass, as_map


def conv(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """y = x * K + b."""
    source, kernel = as_map(x, node.sides), p.kernel(node)
    convolution.convolve(source, kernel, node.groups, node.window.strides, node.before, as_map(y, node.after))
    p.add_bias(node, y)


def conv_gradients(p: Pass, node: Node, x: FloatArray, d: FloatArray) -> None:
    """Of K and b."""
    sources, errors = as_map(x, node.sides), as_map(d, node.after)
    gradient = p.gradient(node, 0).reshape(*node.window.kernel, -1, node.active)
    convolution.convolve_gradients(sources, errors, node.groups, node.window.strides, node.before, gradient)
    p.add_bias_gradient(node, d)


def conv_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """Each error to the inputs of its window."""
    errors, kernel, maps = as_map(d, node.after), p.kernel(node), as_map(into, node.sides)
    convolution.convolve_backward(errors, kernel, node.groups, node.window.strides, node.before, maps)


def max_pool(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """The largest of each window."""
    window = node.window
    pooling.max_pool(as_map(x, node.sides), window.kernel, window.strides, node.before, as_map(y, node.after))


def max_pool_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """Each error to the first of the largest."""
    sources, largest, errors = as_map(x, node.sides), as_map(y, node.after), as_map(d, node.after)
    window, maps = node.window, as_map(into, node.sides)
    pooling.max_pool_backward(sources, largest, errors, window.kernel, window.strides, node.before, maps)


def average_pool(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """The mean of each window."""
    window = node.window
    pooling.average_pool(as_map(x, node.sides), window.kernel, window.strides, node.before, as_map(y, node.after))


def average_pool_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """Each error in equal shares to its window."""
    window, maps = node.window, as_map(into, node.sides)
    pooling.average_pool_backward(as_map(d, node.after), window.kernel, window.strides, node.before, maps)


def global_average(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """The mean of all positions."""
    pooling.adaptive_average(as_map(x, node.sides), as_map(y, node.after))


def global_average_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """Each error in equal shares to all positions."""
    pooling.adaptive_average_backward(as_map(d, node.after), as_map(into, node.sides))

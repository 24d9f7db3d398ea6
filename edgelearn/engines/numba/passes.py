# SPDX-License-Identifier: Apache-2.0
"""A slice of a batch on its way through a group, and how its values are seen: B samples, or R rows, which are samples
or the positions of their maps."""

from __future__ import annotations

from dataclasses import dataclass

from edgelearn.engines import Config
from edgelearn.engines.numba import kernels
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.memory import Memory
from edgelearn.engines.numba.nodes import STATISTICS, Node
from edgelearn.geometry import Sides
from edgelearn.records import Op


@dataclass(frozen=True)
class Pass:
    """The way of a slice through a group: its first sample has place `start` in the batch of update `update`."""

    config: Config
    params: FloatArray
    memory: Memory
    training: bool
    update: int
    start: int

    def weights(self, node: Node) -> FloatArray:
        """(rows, stride) of a matrix or a kernel, and the bias as one more row."""
        return self.params[node.offset : node.offset + node.params].reshape(-1, node.stride)

    def kernel(self, node: Node) -> FloatArray:
        """(kernel height, kernel width, channels / groups, stride) of a convolution."""
        weights = self.weights(node)
        return weights[: len(weights) - node.biased].reshape(*node.window.kernel, -1, node.stride)

    def per_unit(self, node: Node) -> FloatArray:
        """(n,U) of a normalisation: gamma, beta and, over batches, running mean and variance, once or more."""
        return self.params[node.offset : node.offset + node.params].reshape(-1, node.units)[:, : node.active]

    def running(self, node: Node) -> FloatArray:
        """(2,U) running mean and variance in use."""
        return self.per_unit(node)[2 + 2 * node.pair :][:2]

    def scales(self, node: Node) -> tuple[tuple[FloatArray, FloatArray], ...]:
        """Scale and shift of a rescaling, as `Feed` has them; none of another node."""
        if node.op is not Op.RESCALE:
            return ()
        scale, shift = self.params[node.offset : node.offset + node.params].reshape(2, -1)
        return ((scale, shift),)

    def statistics(self, node: Node) -> FloatArray:
        """(STATISTICS,U) of batch normalisation."""
        return view(self.memory.statistics[node.column :], STATISTICS, node.active)

    def scores(self, node: Node) -> FloatArray:
        """(2,T,T) of one head of attention: its scores and their error."""
        steps = node.sides.positions
        return self.memory.scores[: 2 * steps * steps].reshape(2, steps, steps)

    def gradient(self, node: Node, index: int) -> FloatArray:
        """(rows, columns) of one trained part of a node."""
        segment = node.trained[index]
        return segment.packed(self.memory.gradients, segment.gradient)

    def add_bias(self, node: Node, y: FloatArray) -> None:
        """y += bias, if there is one."""
        if node.biased:
            kernels.add_bias(self.weights(node)[-1], as_rows(y, node.active))

    def add_bias_gradient(self, node: Node, d: FloatArray) -> None:
        """Add the sum of errors to the gradient of a bias, if there is one."""
        if node.biased:
            kernels.sum_rows(as_rows(d, node.active), self.memory.totals, self.gradient(node, -1)[0])


def view(floats: FloatArray, rows: int, columns: int) -> FloatArray:
    """The first rows * columns floats as a matrix."""
    return floats[: rows * columns].reshape(rows, columns)


def as_rows(values: FloatArray, units: int) -> FloatArray:
    """(R,U) of what has U features at each position."""
    return values.reshape(-1, units)


def as_map(values: FloatArray, sides: Sides) -> FloatArray:
    """(B, height, width, channels) of flattened maps."""
    return values.reshape(len(values), *sides, -1)

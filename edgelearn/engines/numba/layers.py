# SPDX-License-Identifier: Apache-2.0
"""The records of one group run forward, and backward from its objective; nothing but its output leaves it.

B is the batch at hand, I a group's inputs, U units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.engines.numba import kernels
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.plan import COUNT_BYTES, Group, Memory, Node
from edgelearn.engines.numba.random import dropout
from edgelearn.graph import Op


@dataclass(frozen=True)
class Layers:
    """The memory of a session and the walk over the records in it."""

    config: Config
    params: FloatArray
    memory: Memory
    groups: tuple[Group, ...]

    @property
    def counts(self) -> NDArray[np.uint64]:
        """(groups) batches that each group has run in training: names the dropout mask, and Adam's t."""
        return self.memory.state[: COUNT_BYTES * len(self.groups)].view(np.uint64)

    def entry(self, group: Group, batch: int) -> FloatArray:
        """(B,I) input of a group."""
        return view(self.memory.entry, batch, group.nodes[0].fan_in)

    def output(self, node: Node, batch: int) -> FloatArray:
        """(B,U) of a node of the group that ran last."""
        return view(self.memory.pool[node.slot * self.config.batch :], batch, node.active)

    def forward(self, group: Group, batch: int, training: bool) -> FloatArray:
        """Run a group on its entry: (B,U) of its last node. Training leaves the softmax to the loss."""
        x = self.entry(group, batch)
        for node in group.nodes:
            if node.op is Op.SOFTMAX and training:
                break
            y = self.output(node, batch)
            self._run(node, group, x, training, y)
            x = y
        return x

    def hand_over(self, group: Group, x: FloatArray) -> None:
        """Make a group's output (B,U) the entry of the next."""
        if not group.output:
            self.entry(self.groups[group.index + 1], len(x))[...] = x

    def backward(self, group: Group, d: FloatArray) -> None:
        """Gradients of a group's weights from the error d (B,U) of its objective; d is used up."""
        spare, used = self.memory.spare, self.memory.errors
        for place in range(group.seen - 1, -1, -1):
            node = group.nodes[place]
            before = group.nodes[place - 1] if place else None
            x = self.output(before, len(d)) if before else self.entry(group, len(d))
            if node.op is not Op.DENSE:
                self._pull(node, group, x, d)
                continue
            self._dense_gradients(node, x, d)
            if before is None or before.op is Op.RESCALE:
                return
            into = view(spare, len(d), node.fan_in)
            kernels.matmul_nt(d, self._matrix(node), into)
            d, spare, used = into, used, spare

    def follow(self, group: Group) -> None:
        """Move running statistics towards those of the batch."""
        for node in group.nodes:
            if node.op is Op.BATCHNORM:
                _, _, mean, variance = self._normalisation(node)
                batch_mean, batch_variance = self._statistics(node)
                kernels.follow(batch_mean, np.float32(node.arg[1]), mean)
                kernels.follow(batch_variance, np.float32(node.arg[1]), variance)

    def _run(self, node: Node, group: Group, x: FloatArray, training: bool, y: FloatArray) -> None:
        if node.op is Op.DENSE:
            kernels.matmul(x, self._matrix(node), y)
            if node.biased:
                kernels.add_bias(self._matrix(node)[-1], y)
        elif node.op is Op.BATCHNORM:
            self._normalise(node, x, training, y)
        elif node.op is Op.RESCALE:
            scale, shift = self.params[node.offset : node.offset + node.params].reshape(2, -1)
            kernels.rescale(x, scale, shift, y)
        elif node.op is Op.DROPOUT and training:
            dropout(x, node.arg[0], self.config.seed, int(self.counts[group.index]), node.block, y)
        else:
            _activate(node, x, y)

    def _pull(self, node: Node, group: Group, x: FloatArray, d: FloatArray) -> None:
        """Error of a node's input from that of its output, in place."""
        y, flat = self.output(node, len(d)).reshape(-1), d.reshape(-1)
        if node.op is Op.BATCHNORM:
            self._pull_normalisation(node, x, d)
        elif node.op is Op.DROPOUT:
            dropout(d, node.arg[0], self.config.seed, int(self.counts[group.index]), node.block, d)
        elif node.op is Op.TANH:
            kernels.tanh_backward(y, flat)
        elif node.op is Op.SIGMOID:
            kernels.sigmoid_backward(y, flat)
        else:
            kernels.leaky_relu_backward(x.reshape(-1), np.float32(node.arg[0]), flat)

    def _matrix(self, node: Node) -> FloatArray:
        """(fan_in, stride), and the bias as one more row."""
        return self.params[node.offset : node.offset + node.params].reshape(-1, node.stride)

    def _dense_gradients(self, node: Node, x: FloatArray, d: FloatArray) -> None:
        gradients = self.memory.gradients
        kernels.matmul_tn(x, d, node.trained[0].packed(gradients, node.trained[0].gradient))
        if node.biased:
            kernels.sum_rows(d, node.trained[1].packed(gradients, node.trained[1].gradient)[0])

    def _normalise(self, node: Node, x: FloatArray, training: bool, y: FloatArray) -> None:
        gamma, beta, mean, variance = self._normalisation(node)
        if training:
            mean, variance = self._statistics(node)
            kernels.statistics(x, mean, variance)
        kernels.normalise(x, gamma, beta, mean, variance, np.float32(node.arg[0]), y)

    def _pull_normalisation(self, node: Node, x: FloatArray, d: FloatArray) -> None:
        gamma, epsilon = self._normalisation(node)[0], np.float32(node.arg[0])
        mean, variance = self._statistics(node)
        dgamma, dbeta = (s.packed(self.memory.gradients, s.gradient)[0] for s in node.trained)
        kernels.normalise_gradients(x, mean, variance, epsilon, d, dgamma, dbeta)
        kernels.normalise_backward(x, gamma, mean, variance, epsilon, dgamma, dbeta, d)

    def _normalisation(self, node: Node) -> tuple[FloatArray, ...]:
        """gamma, beta, running mean and running variance, (U) each."""
        stored = self.params[node.offset : node.offset + node.params].reshape(4, node.units)
        return tuple(row[: node.active] for row in stored)

    def _statistics(self, node: Node) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of the batch, (U) each."""
        mean, variance = view(self.memory.statistics[node.column :], 2, node.active)
        return mean, variance


def view(floats: FloatArray, rows: int, columns: int) -> FloatArray:
    """The first rows * columns floats as a matrix."""
    return floats[: rows * columns].reshape(rows, columns)


def _activate(node: Node, x: FloatArray, y: FloatArray) -> None:
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    if node.op in (Op.RELU, Op.LEAKY_RELU):
        kernels.leaky_relu(flat_x, np.float32(node.arg[0]), flat_y)
    elif node.op is Op.TANH:
        kernels.tanh(flat_x, flat_y)
    elif node.op is Op.SIGMOID:
        kernels.sigmoid(flat_x, flat_y)
    elif node.op is Op.SOFTMAX:
        kernels.softmax(x, y)
    else:
        flat_y[...] = flat_x

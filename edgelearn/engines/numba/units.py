# SPDX-License-Identifier: Apache-2.0
"""What tokens, positions, attention and additions do with a slice: x (B,I) forward to y (B,U), and the error d (B,U)
of y backward. Gradients are added to what earlier slices left."""

from __future__ import annotations

import math

import numpy as np

from edgelearn.engines.numba import attention, kernels
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.nodes import Node
from edgelearn.engines.numba.passes import Pass, as_rows


def embed(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """The row of each token."""
    attention.look_up(x.reshape(-1), p.weights(node), as_rows(y, node.active))


def embed_gradients(p: Pass, node: Node, x: FloatArray, d: FloatArray) -> None:
    """Of the rows whose tokens came."""
    attention.scatter(x.reshape(-1), as_rows(d, node.active), p.gradient(node, 0))


def add_positions(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """y = x + the table."""
    y[...] = x
    kernels.add_bias(p.params[node.offset : node.offset + node.params], y)


def position_gradients(p: Pass, node: Node, x: FloatArray, d: FloatArray) -> None:
    """The sum over samples."""
    for sample in d:
        kernels.add_row(np.float32(1), sample, p.gradient(node, 0)[0])


def attend(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """softmax(q k^T / sqrt(U)) v of each head."""
    scores, _ = p.scores(node)
    attention.attend(_heads(node, x, 3), _scale(node), scores, _heads(node, y, 1)[..., 0, :])


def attend_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """To queries, keys and values, by way of the scores, which are found again."""
    scores, errors = p.scores(node)
    of_output = _heads(node, d, 1)[..., 0, :]
    attention.attend_back(_heads(node, x, 3), of_output, _scale(node), scores, errors, _heads(node, into, 3))


def _heads(node: Node, values: FloatArray, parts: int) -> FloatArray:
    """(B,T,H,parts,U) of flattened sequences."""
    units = node.units // node.groups
    return values.reshape(len(values), node.sides.positions, node.active // units, parts, units)


def _scale(node: Node) -> np.float32:
    return np.float32(1 / math.sqrt(node.units // node.groups))


def pass_on(p: Pass, node: Node, x: FloatArray, y: FloatArray) -> None:
    """y = x; the walk adds what the branch began with."""
    y[...] = x


def pass_back(p: Pass, node: Node, x: FloatArray, y: FloatArray, d: FloatArray, into: FloatArray) -> None:
    """The error of a sum is that of each of its terms."""

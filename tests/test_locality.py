# SPDX-License-Identifier: Apache-2.0
"""What free of backpropagation means: no later weight has a say in how a block learns, to the bit."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from benches import BACKENDS, OPTIMIZERS, RULES, open_net, samples
from nets import CLASSES

from edgelearn import rules
from edgelearn.layers import (
    Activation,
    AvgPool,
    BatchNormalization,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    FeedForward,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
    MultiHeadAttention,
    PositionEmbedding,
    Reshape,
    Residual,
)

SIZES = {"vectors": (6,), "maps": (6, 5, 2), "units": (6, 4, 1)}
LAYERS = {
    "vectors": [
        Dense(17, use_bias=False),
        BatchNormalization(),
        Activation("relu"),
        Dropout(0.25),
        Dense(9, "tanh"),
        Dense(8, "leaky_relu"),
        Dense(CLASSES),
    ],
    "maps": [
        Conv2D(7, 3, padding="same", use_bias=False),
        BatchNormalization(),
        Activation("relu"),
        MaxPool(3, strides=2, padding="same"),
        Dropout(0.25),
        DepthwiseConv2D(2, depth_multiplier=2, activation="gelu"),
        LayerNormalization(),
        Conv2D(5, 2, padding="same", activation="tanh"),
        AvgPool(2, padding="same"),
        GlobalAvgPool(),
        Dense(CLASSES),
    ],
    "units": [
        Conv2D(8, 2, strides=2),
        Reshape((-1, 8)),
        PositionEmbedding(),
        Residual([LayerNormalization(), MultiHeadAttention(2)]),
        Residual([LayerNormalization(), FeedForward(9)]),
        LayerNormalization(),
        Dropout(0.25),
        GlobalAvgPool(),
        Dense(CLASSES),
    ],
}
BLOCKS = 4


def opened(backend, net, name, group, optimizer):
    settings = {"rule": rules.get(name), "group": group, "optimizer": OPTIMIZERS[optimizer]}
    return open_net(backend, LAYERS[net], SIZES[net], **settings)


def earlier(bench, block):
    """Number of parameters that belong to blocks up to this one, which come first in the flat vector."""
    later = bench.graph.records[bench.graph.records["block"] > block]
    return int(later["offset"][later["params"] > 0].min())


def updates(backend, net, name, group, block, optimizer):
    """Earlier parameters before a step, after it, and after it with all later weights replaced.

    Two steps come first, so that read-outs are not zero.
    """
    x, y = samples(16, prod(SIZES[net]))
    one, other = (opened(backend, net, name, group, optimizer) for _ in range(2))
    for bench in (one, other):
        for _ in range(2):
            bench.session.step(x, y, 0.05)
    edge = earlier(one, block)
    before = one.params[:edge].copy()
    fresh = np.random.default_rng(block).uniform(0.1, 1.0, other.params.size - edge)
    other.params[edge:] = fresh
    one.session.step(x, y, 0.05)
    other.session.step(x, y, 0.05)
    return before, one.params[:edge], other.params[:edge]


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("net", list(LAYERS))
@pytest.mark.parametrize("backend", BACKENDS)
def test_replacing_all_later_weights_changes_no_bit_of_an_earlier_update(backend, net, name, optimizer):
    for block in range(BLOCKS - 1):
        before, after, replaced = updates(backend, net, name, 1, block, optimizer)
        assert after.tobytes() == replaced.tobytes()
        assert name == "untrained" or before.tobytes() != after.tobytes()


@pytest.mark.parametrize("name", [n for n in RULES if n != "untrained"])
@pytest.mark.parametrize("net", list(LAYERS))
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_of_two_blocks_does_not_see_behind_its_end(backend, net, name):
    _, after, replaced = updates(backend, net, name, 2, 1, "adam")
    assert after.tobytes() == replaced.tobytes()
    _, after, replaced = updates(backend, net, name, 2, 0, "adam")
    assert after.tobytes() != replaced.tobytes()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("net", list(LAYERS))
@pytest.mark.parametrize("backend", BACKENDS)
def test_with_all_blocks_in_one_group_every_earlier_update_does_change(backend, net, name):
    for block in range(BLOCKS - 1):
        _, after, replaced = updates(backend, net, name, BLOCKS, block, "sgd")
        assert after.tobytes() != replaced.tobytes()

# SPDX-License-Identifier: Apache-2.0
"""Nets of every kind of layer that nests, opened in an engine, and their steps against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import ATOL, RTOL
from benches import OPTIMIZERS, Bench, samples, seeded
from nesting import NestedOracle
from nets import CLASSES

from edgelearn import engines, nested, rules
from edgelearn.engines import Config
from edgelearn.graph import build
from edgelearn.layers import (
    GRU,
    LSTM,
    Activation,
    AvgPool,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Embedding,
    FeedForward,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
    MultiHeadAttention,
    PositionEmbedding,
    Reshape,
    Residual,
    SimpleRNN,
)

GRID = nested.Nested((0.25, 0.5, 1.0), "weighted")

# Layers and the shape of their input; widths that divide nothing, maps that end in a product, groups of channels.
NESTS = {
    "vectors": ([Dense(9, "tanh"), Dense(13, "relu"), Dropout(0.3), Dense(7, "tanh"), Dense(CLASSES)], (6,)),
    "fewer units than widths": ([Dense(2, "tanh"), Dense(9, "tanh"), Dense(1, "tanh"), Dense(CLASSES)], (6,)),
    "fewer channels than widths": ([Conv2D(2, 2, activation="tanh"), Dense(2, "tanh"), Dense(CLASSES)], (4, 3, 2)),
    "norms": (
        [
            Dense(9, use_bias=False),
            BatchNormalization(),
            Activation("tanh"),
            Dense(8, use_bias=False),
            BatchNormalization(momentum=0.7),
            Activation("relu"),
            Dense(7),
            LayerNormalization(),
            Dense(CLASSES),
        ],
        (6,),
    ),
    "maps": (
        [
            Conv2D(6, 3, padding="same", use_bias=False),
            BatchNormalization(),
            Activation("relu"),
            MaxPool(2),
            Conv2D(7, (2, 3), strides=(1, 2), padding="same", activation="tanh"),
            AvgPool(2, strides=1),
            Conv2D(5, 1, use_bias=False),
            BatchNormalization(),
            Dense(9, "tanh"),
            Dense(CLASSES),
        ],
        (6, 7, 2),
    ),
    "groups": (
        [
            Conv2D(8, 3, activation="tanh"),
            DepthwiseConv2D(3, padding="same", use_bias=False),
            BatchNormalization(),
            Activation("relu"),
            Conv2D(16, 2, groups=4, activation="tanh"),
            DepthwiseConv2D(2, depth_multiplier=2, activation="tanh"),
            GlobalAvgPool(),
            Dense(CLASSES),
        ],
        (6, 5, 1),
    ),
    "sequence": ([Conv1D(6, 5, strides=2, activation="gelu"), MaxPool(2), Conv1D(8, 2), Dense(CLASSES)], (15, 3)),
    "recurrent": (
        [
            LSTM(7, return_sequences=True),
            LayerNormalization(),
            Dropout(0.3),
            GRU(9, use_bias=False, return_sequences=True),
            Activation("gelu"),
            SimpleRNN(6),
            LayerNormalization(),
            Dense(5, "tanh"),
            Dense(CLASSES),
        ],
        (4, 3),
    ),
    "gated": ([Conv1D(5, 2, activation="tanh"), GRU(8, return_sequences=True), LSTM(6), Dense(CLASSES)], (5, 2)),
    "all steps": ([GRU(7, return_sequences=True), Dropout(0.4), Dense(5, "relu"), Dense(CLASSES)], (3, 5)),
    "units": (
        [
            Conv2D(8, 3, strides=3),
            Reshape((-1, 8)),
            PositionEmbedding(),
            Residual([LayerNormalization(), MultiHeadAttention(4)]),
            Residual([LayerNormalization(), FeedForward(11), Dropout(0.2)]),
            LayerNormalization(),
            GlobalAvgPool(),
            Dense(7, "tanh"),
            Dense(CLASSES),
        ],
        (9, 7, 1),
    ),
    "branches": (
        [
            Residual([LayerNormalization(), Dense(8, "relu"), Dense(6)]),
            Dense(9, use_bias=False),
            BatchNormalization(),
            Residual(
                [Dense(12), BatchNormalization(), Activation("tanh"), Dense(7, "relu"), BatchNormalization(), Dense(9)]
            ),
            FeedForward(7, "tanh"),
            Dense(10, use_bias=False),
            BatchNormalization(),
            Dense(CLASSES),
        ],
        (6,),
    ),
    "maps in branches": (
        [
            Conv2D(6, 3, padding="same", activation="tanh"),
            Residual(
                [
                    Conv2D(8, 1, use_bias=False),
                    DepthwiseConv2D(3, padding="same"),
                    BatchNormalization(),
                    Activation("relu"),
                    Conv2D(6, 1),
                ]
            ),
            Conv2D(8, 2, activation="tanh"),
            DepthwiseConv2D(2, use_bias=False),
            BatchNormalization(),
            Dense(CLASSES),
        ],
        (5, 4, 2),
    ),
    "tokens": (
        [
            Embedding(5, 6),
            MultiHeadAttention(3, key_dim=4),
            Activation("tanh"),
            FeedForward(9, "relu"),
            GlobalAvgPool(),
            Dense(CLASSES),
        ],
        (7,),
    ),
}


def opened(net, grid=GRID, seed=0x1234567887654321, backend="native", **config):
    layers, shape = NESTS[net]
    softmax = config.get("loss", rules.Loss.CROSS_ENTROPY) is rules.Loss.CROSS_ENTROPY
    graph = build(list(layers), shape, 0, softmax, len(grid.widths))
    defaults = {"rule": rules.get("tp-ce"), "optimizer": OPTIMIZERS["adam"], "targets": CLASSES, "batch": 16}
    settings = Config(**{**defaults, "seed": seed, "nest": nested.levels(graph, grid), **config})
    params = seeded(graph)
    return Bench(graph, settings, params, engines.load(backend).open(graph.records, params, settings))


def features(net):
    return int(np.prod(NESTS[net][1]))


def samples_of(net, n=12):
    x, y = samples(n, features(net))
    return (np.abs(x * 3).astype(np.int64) % 5).astype(np.float32) if net == "tokens" else x, y


def check_steps(bench, x, y, count=6, lr=0.03):
    oracle, start = NestedOracle(bench.graph.records, bench.params, bench.config), bench.params.copy()
    levels = len(bench.config.nest.units)
    for _ in range(count):
        stats = bench.session.step(x, y, lr)
        loss, correct = oracle.step(x, y, lr)
        assert stats.loss == pytest.approx(loss, rel=1e-4)
        assert stats.correct == correct
    np.testing.assert_allclose(bench.params, oracle.params, rtol=5 * RTOL, atol=5 * ATOL)
    assert np.abs(bench.params - start).max() > 1e-3
    for level in [*range(levels), None]:
        which = None if level is None else [level] * bench.graph.blocks
        bench.session.resize(which)
        oracle.use(which)
        np.testing.assert_allclose(bench.session.forward(x), oracle.forward(x.astype(float)), rtol=1e-3, atol=1e-5)

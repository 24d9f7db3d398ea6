# SPDX-License-Identifier: Apache-2.0
"""Small nets of every kind of layer that the tests of engines and exports share."""

from __future__ import annotations

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
    Flatten,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
    MultiHeadAttention,
    PositionEmbedding,
    Reshape,
    Residual,
    SimpleRNN,
)

CLASSES = 4

NETS = {
    "plain": [Dense(9, "relu"), Dense(7, "tanh"), Dense(CLASSES)],
    "leaky": [
        Dense(8, "leaky_relu", negative_slope=0.2),
        Dense(17, "sigmoid", use_bias=False),
        Dense(CLASSES),
    ],
    "batchnorm": [
        Dense(9, use_bias=False),
        BatchNormalization(),
        Activation("relu"),
        Dense(7, use_bias=False),
        BatchNormalization(momentum=0.7),
        Activation("tanh"),
        Dense(CLASSES),
    ],
    "layernorm": [
        Dense(9, use_bias=False),
        LayerNormalization(),
        Activation("gelu"),
        Dense(7, "relu"),
        LayerNormalization(epsilon=1e-3),
        Dense(CLASSES),
    ],
    "dropout": [Dense(9, "tanh"), Dropout(0.4), Dense(16), Dropout(0.2), Activation("relu"), Dense(CLASSES)],
}

# Layers and the shape of their input. Between them: both kinds of map, both paddings, windows that overlap, leave
# gaps or reach over two edges at once, kernels of one position and of more than half the map, groups, odd sides.
MAPS = {
    "strides": (
        [
            Conv2D(5, 3, strides=(2, 1), padding="same", activation="relu"),
            MaxPool(2, strides=1),
            Conv2D(3, (2, 3)),
            Dense(CLASSES),
        ],
        (7, 6, 2),
    ),
    "norms": (
        [
            Conv2D(6, 3, padding="same", use_bias=False),
            BatchNormalization(),
            Activation("relu"),
            AvgPool(3, strides=2, padding="same"),
            Conv2D(7, 1, activation="gelu"),
            LayerNormalization(),
            GlobalAvgPool(),
            Dense(CLASSES),
        ],
        (5, 6, 3),
    ),
    "depthwise": (
        [
            Conv2D(4, 2, strides=3, padding="same", activation="sigmoid"),
            DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False),
            BatchNormalization(momentum=0.7),
            Activation("relu"),
            Conv2D(6, 2, groups=2, activation="leaky_relu", negative_slope=0.2),
            MaxPool((2, 3), strides=(1, 2), padding="same"),
            Dense(CLASSES),
        ],
        (11, 8, 1),
    ),
    "sequence": (
        [
            Conv1D(6, 5, strides=2, padding="same", activation="relu"),
            MaxPool(3, strides=2, padding="same"),
            Conv1D(4, 3, groups=2, activation="gelu"),
            AvgPool(2, strides=1),
            Dense(CLASSES),
        ],
        (15, 3),
    ),
    "dropout": (
        [
            Conv2D(3, 3, activation="tanh"),
            Dropout(0.3),
            MaxPool(2),
            Conv2D(4, 2, padding="same"),
            LayerNormalization(),
            Activation("relu"),
            Dropout(0.4),
            Flatten(),
            Dense(5, "tanh"),
            Dense(CLASSES),
        ],
        (6, 6, 2),
    ),
    "wide": (
        [
            Conv2D(3, 5, padding="same", activation="gelu"),
            AvgPool(2, padding="same"),
            Conv2D(4, (3, 2), use_bias=False),
            BatchNormalization(),
            Activation("tanh"),
            Dense(CLASSES),
        ],
        (5, 4, 1),
    ),
    "picture": (
        [
            Conv2D(4, 5, strides=2, padding="same", activation="relu"),
            MaxPool(2),
            Conv2D(6, 3, padding="same", activation="relu"),
            MaxPool(2),
            Dense(CLASSES),
        ],
        (28, 28),
    ),
}

# Branches that begin at the sample, behind an activation that keeps its output, inside a block and at its edge; tokens
# that come twice; heads of one unit and of several; norms in front and behind.
UNITS = {
    "branches": (
        [
            Residual([LayerNormalization(), Dense(6, "relu")]),
            Dense(9, "tanh"),
            Residual([Dense(12, "relu"), Dense(9)]),
            Residual([FeedForward(7, "tanh")]),
            LayerNormalization(),
            Activation("gelu"),
            Dense(CLASSES),
        ],
        (6,),
    ),
    "maps in branches": (
        [
            Conv2D(3, 3, strides=2, padding="same", activation="tanh"),
            Residual([Conv2D(4, 3, padding="same"), BatchNormalization(), Activation("gelu"), Conv2D(3, 1)]),
            Residual([FeedForward(5, "sigmoid", use_bias=False), Dropout(0.3)]),
            MaxPool(2),
            Dense(CLASSES),
        ],
        (7, 6, 2),
    ),
    "patches": (
        [
            Conv2D(8, 3, strides=3),
            Reshape((-1, 8)),
            PositionEmbedding(),
            Residual([LayerNormalization(), MultiHeadAttention(2)]),
            Residual([LayerNormalization(), FeedForward(11), Dropout(0.2)]),
            LayerNormalization(),
            GlobalAvgPool(),
            Dense(CLASSES),
        ],
        (9, 7, 1),
    ),
    "tokens": (
        [
            Embedding(5, 6),
            PositionEmbedding(),
            Dropout(0.2),
            MultiHeadAttention(3, use_bias=False, key_dim=4),
            Activation("tanh"),
            FeedForward(9, "relu"),
            GlobalAvgPool(),
            Dense(CLASSES),
        ],
        (7,),
    ),
}

# Recurrent layers and the shape of a sequence: stacked, after a convolution, handing on all steps or the last one, with
# what may follow in a block, odd widths and steps.
SEQUENCES = {
    "simple": ([SimpleRNN(5, return_sequences=True), SimpleRNN(7, "relu", use_bias=False), Dense(CLASSES)], (7, 3)),
    "gru": ([GRU(6, return_sequences=True), GRU(9), Dense(CLASSES)], (5, 4)),
    "lstm": ([LSTM(5, use_bias=False, return_sequences=True), LSTM(6), Dense(CLASSES)], (6, 3)),
    "mixed": (
        [
            LSTM(6, return_sequences=True),
            LayerNormalization(),
            Dropout(0.3),
            GRU(5, use_bias=False, return_sequences=True),
            Activation("gelu"),
            SimpleRNN(4),
            Dropout(0.2),
            LayerNormalization(),
            Dense(5, "tanh"),
            Dense(CLASSES),
        ],
        (4, 3),
    ),
    "all steps": ([GRU(4, return_sequences=True), Dropout(0.4), Dense(5, "relu"), Dense(CLASSES)], (3, 5)),
    "after maps": ([Conv1D(4, 3, strides=2, activation="relu"), GRU(5), Dense(CLASSES)], (9, 2)),
}

ALL_NETS = {**{name: (layers, (6,)) for name, layers in NETS.items()}, **MAPS, **UNITS}

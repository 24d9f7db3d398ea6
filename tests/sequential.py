# SPDX-License-Identifier: Apache-2.0
"""A small net that learns block by block: tests import it, and processes that tests start."""

import numpy as np

import edgelearn as el

EPOCHS, BATCH = 3, 32


def net():
    layers = [
        *(el.Conv2D(6, 3, padding="same"), el.BatchNormalization(), el.Activation("relu"), el.MaxPool(2)),
        *(el.Conv2D(8, 3, activation="tanh"), el.Dropout(0.2)),
        *(el.Dense(12, "relu"), el.Dense(4)),
    ]
    return el.Net(layers, input_shape=(8, 8, 2))


def pictures(n=300):
    rng, y = np.random.default_rng(0), np.arange(n) % 4
    patterns = rng.normal(0, 1, (4, 8, 8, 2))
    return (patterns[y] + rng.normal(0, 1, (n, 8, 8, 2))).astype(np.float32), y


def fit(backend="native", **settings):
    said = {"schedule": "sequential", "epochs": EPOCHS, "batch": BATCH, "rule": "readout", "lr": 0.01, **settings}
    return net().fit(*pictures(), backend=backend, **said)

# SPDX-License-Identifier: Apache-2.0
"""Our training step of an MLP: one session.step() of the native engine per call, plain SGD."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgelearn import engines, graph, rules
from edgelearn.layers import Dense
from edgelearn.optim import optimizer


class Trainer:
    """Hidden layers relu, softmax cross-entropy, plain SGD; `layers` are widths from input to output."""

    def __init__(self, layers: Sequence[int], batch: int, lr: float, rule: str, threads: int = 1) -> None:
        hidden = [Dense(width, "relu") for width in layers[1:-1]]
        net = graph.build([*hidden, Dense(layers[-1])], (layers[0],))
        config = engines.Config(
            rule=rules.get(rule), optimizer=optimizer("sgd"), batch=batch, targets=layers[-1], threads=threads
        )
        self.lr = lr
        self.session = engines.load("native").open(net.records, net.initial(0), config)

    def prepare(
        self, x: NDArray[np.float32], labels: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """What `step` takes."""
        return x, labels

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax outputs (batch, classes)."""
        return self.session.forward(x)

    def step(self, x: NDArray[np.float32], labels: NDArray[np.int32]) -> None:
        """One update."""
        self.session.step(x, labels, self.lr)

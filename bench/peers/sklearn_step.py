# SPDX-License-Identifier: Apache-2.0
"""The training step of an MLP in scikit-learn: MLPClassifier.partial_fit on one batch, plain SGD."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier


class Trainer:
    """Hidden layers relu, softmax cross-entropy, plain SGD; `layers` are widths from input to output."""

    def __init__(self, layers: Sequence[int], batch: int, lr: float) -> None:
        self.classes = np.arange(layers[-1])
        self.net = MLPClassifier(
            tuple(layers[1:-1]),
            solver="sgd",
            alpha=0.0,
            batch_size=batch,
            learning_rate_init=lr,
            momentum=0.0,
            nesterovs_momentum=False,
            random_state=0,
        )

    def prepare(
        self, x: NDArray[np.float32], labels: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """What `step` takes; the net is given its shape by a first step."""
        self.net.partial_fit(x, labels, classes=self.classes)
        return x, labels

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax outputs (batch, classes)."""
        return self.net.predict_proba(x)

    def step(self, x: NDArray[np.float32], labels: NDArray[np.int32]) -> None:
        """One update."""
        self.net.partial_fit(x, labels)

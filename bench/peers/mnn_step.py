# SPDX-License-Identifier: Apache-2.0
"""The training step of an MLP by backpropagation in MNN's Python package."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import MNN.expr as expr
import MNN.nn as nn
import MNN.optim as optim
import numpy as np
from numpy.typing import NDArray

# Without it expressions are computed at once, no graph is kept, and step() changes nothing without a word.
expr.lazy_eval(True)


class Mlp(nn.Module):
    """Hidden layers relu, linear output."""

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        self.depth = len(layers) - 1
        for index, (inputs, width) in enumerate(pairwise(layers)):
            setattr(self, f"dense_{index}", nn.linear(inputs, width))

    def forward(self, x: Any) -> Any:
        """Logits (batch, classes)."""
        for index in range(self.depth - 1):
            x = expr.relu(getattr(self, f"dense_{index}")(x))
        return getattr(self, f"dense_{self.depth - 1}")(x)


class Trainer:
    """Softmax cross-entropy, plain SGD; `layers` are widths from input to output."""

    def __init__(self, layers: Sequence[int], batch: int, lr: float, threads: int = 1) -> None:
        expr.set_thread_number(threads)
        self.classes = layers[-1]
        self.net = Mlp(layers)
        self.net.train(True)
        self.optimizer = optim.SGD(self.net, lr, 0.0, 0.0)

    def prepare(self, x: NDArray[np.float32], labels: NDArray[np.int32]) -> tuple[Any, Any]:
        """What `step` takes: x and the labels as one-hot rows."""
        one_hot = np.eye(self.classes, dtype=np.float32)[labels]
        return tuple(expr.const(a, a.shape, expr.NCHW, expr.float) for a in (x, one_hot))

    def probabilities(self, x: Any) -> NDArray[np.float32]:
        """Softmax outputs (batch, classes)."""
        return np.array(expr.softmax(self.net.forward(x)).read())

    def step(self, x: Any, one_hot: Any) -> None:
        """One update.

        Raises:
            RuntimeError: MNN could not form a gradient and left the weights alone.
        """
        loss = nn.loss.cross_entropy(expr.softmax(self.net.forward(x)), one_hot)
        if not self.optimizer.step(loss):
            raise RuntimeError("MNN took no step: a gradient is missing")

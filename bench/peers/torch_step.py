# SPDX-License-Identifier: Apache-2.0
"""The training step of an MLP by backpropagation in PyTorch, written as its tutorials do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Trainer:
    """Hidden layers relu, softmax cross-entropy, plain SGD; `layers` are widths from input to output."""

    def __init__(self, layers: Sequence[int], batch: int, lr: float, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        parts: list[nn.Module] = []
        for inputs, width in pairwise(layers):
            parts += [nn.Linear(inputs, width), nn.ReLU()]
        self.net = nn.Sequential(*parts[:-1])
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=lr)

    def prepare(self, x: NDArray[np.float32], labels: NDArray[np.int32]) -> tuple[Tensor, Tensor]:
        """What `step` takes."""
        return torch.from_numpy(x), torch.from_numpy(labels.astype(np.int64))

    def probabilities(self, x: Tensor) -> NDArray[np.float32]:
        """Softmax outputs (batch, classes)."""
        with torch.no_grad():
            return self.net(x).softmax(1).numpy()

    def step(self, x: Tensor, labels: Tensor) -> None:
        """One update."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.net(x), labels).backward()
        self.optimizer.step()

# SPDX-License-Identifier: Apache-2.0
"""The training step of an MLP by backpropagation, by hand in NumPy, with every buffer allocated beforehand.

Temporaries would cost NumPy page faults and make it an unfair opponent. Needs nothing but NumPy.
BLAS takes its threads from OMP/OPENBLAS/MKL_NUM_THREADS, set before NumPy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Trainer:
    """Hidden layers relu, softmax cross-entropy, plain SGD; `layers` are widths from input to output.

    `product` is np.matmul or np.dot by name: the same BLAS at batch 32, but at batch 1 np.matmul forms the
    weight gradient, an outer product, in a plain loop, several times slower than np.dot.
    """

    def __init__(self, layers: Sequence[int], batch: int, lr: float, product: str = "dot", seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.product: Callable[..., Floats] = np.matmul if product == "matmul" else np.dot
        pairs = list(pairwise(layers))
        bounds = [np.float32(np.sqrt(6 / inputs)) for inputs, _ in pairs]
        self.weights = [
            (2 * rng.random(pair, np.float32) - 1) * bound for pair, bound in zip(pairs, bounds, strict=True)
        ]
        self.biases = [np.zeros(width, np.float32) for width in layers[1:]]
        self.outputs = [np.empty((batch, width), np.float32) for width in layers[1:]]
        self.errors = [np.empty((batch, width), np.float32) for width in layers[1:-1]]
        self.weight_steps = [np.empty(pair, np.float32) for pair in pairs]
        self.bias_steps = [np.empty(width, np.float32) for width in layers[1:]]
        self.column = np.empty((batch, 1), np.float32)
        self.rate = np.float32(lr / batch)

    def prepare(self, x: Floats, labels: NDArray[np.int32]) -> tuple[Floats, Floats]:
        """What `step` takes: x (batch, inputs) and the labels as one-hot rows."""
        return x, np.eye(self.biases[-1].size, dtype=np.float32)[labels]

    def probabilities(self, x: Floats) -> Floats:
        """Softmax outputs (batch, classes) of a full batch, in a buffer that the next call overwrites."""
        inputs = x
        for weight, bias, out in zip(self.weights, self.biases, self.outputs, strict=True):
            self.product(inputs, weight, out=out)
            np.add(out, bias, out=out)
            if out is not self.outputs[-1]:
                np.maximum(out, 0, out=out)
            inputs = out
        np.maximum.reduce(inputs, axis=1, keepdims=True, out=self.column)
        np.subtract(inputs, self.column, out=inputs)
        np.exp(inputs, out=inputs)
        np.add.reduce(inputs, axis=1, keepdims=True, out=self.column)
        return np.divide(inputs, self.column, out=inputs)

    def step(self, x: Floats, one_hot: Floats) -> None:
        """One update. The rate goes into the output error, which saves a pass over each weight gradient."""
        error = self.probabilities(x)
        np.subtract(error, one_hot, out=error)
        np.multiply(error, self.rate, out=error)
        for layer in range(len(self.weights) - 1, -1, -1):
            inputs = self.outputs[layer - 1] if layer else x
            self.product(inputs.T, error, out=self.weight_steps[layer])
            np.add.reduce(error, axis=0, out=self.bias_steps[layer])
            before = self._error_before(layer, error) if layer else error
            np.subtract(self.weights[layer], self.weight_steps[layer], out=self.weights[layer])
            np.subtract(self.biases[layer], self.bias_steps[layer], out=self.biases[layer])
            error = before

    def _error_before(self, layer: int, error: Floats) -> Floats:
        """Error at the layer's inputs; no longer needed themselves, their sign becomes relu's derivative."""
        before, slope = self.errors[layer - 1], self.outputs[layer - 1]
        self.product(error, self.weights[layer].T, out=before)
        np.sign(slope, out=slope)
        return np.multiply(before, slope, out=before)


def numpy_step(
    layers: Sequence[int], x: Floats, labels: NDArray[np.int32], lr: float = 0.01, product: str = "dot"
) -> Callable[[], Any]:
    """A call that takes one training step on x (batch, inputs) and labels (batch,), ready to be timed."""
    trainer = Trainer(layers, len(x), lr, product)
    prepared = trainer.prepare(x, labels)
    return lambda: trainer.step(*prepared)

# SPDX-License-Identifier: Apache-2.0
"""The peer of `bench step`: backpropagation by hand in numpy, every buffer allocated beforehand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def samples(widths: list[int], batch: int) -> tuple[Array, NDArray[np.int32]]:
    """Random samples (batch, widths[0]) and labels."""
    rng = np.random.default_rng(0)
    return rng.random((batch, widths[0]), np.float32), rng.integers(0, widths[-1], batch).astype(np.int32)


class NumpyBackprop:
    """Relu layers, softmax cross-entropy, plain SGD. `product` is np.matmul or np.dot: np.dot is much quicker at the
    outer products of a single sample, np.matmul is what people write."""

    def __init__(self, widths: list[int], batch: int, product: Any = np.matmul) -> None:
        self.product = product
        rng, pairs = np.random.default_rng(0), list(pairwise(widths))
        self.weights: list[Array] = [
            (rng.standard_normal((i, o)) * np.sqrt(2 / i)).astype(np.float32) for i, o in pairs
        ]
        self.biases: list[Array] = [np.zeros(o, np.float32) for o in widths[1:]]
        self.gradients: list[Array] = [np.empty_like(w) for w in self.weights]
        self.bias_gradients: list[Array] = [np.empty_like(b) for b in self.biases]
        self.outputs: list[Array] = [np.empty((batch, o), np.float32) for o in widths[1:]]
        self.errors: list[Array] = [np.empty((batch, o), np.float32) for o in widths[1:]]
        self.masks: list[NDArray[Any]] = [np.empty((batch, o), bool) for o in widths[1:]]
        self.column: Array = np.empty((batch, 1), np.float32)
        self.rows = np.arange(batch)

    def step(self, x: Array, y: NDArray[np.int32], lr: float) -> float:
        """One update; returns the mean loss before it."""
        self._forward(x)
        loss = self._loss(y)
        self._backward(x)
        rate = np.float32(-lr / len(x))
        for values, gradients in ((self.weights, self.gradients), (self.biases, self.bias_gradients)):
            for value, gradient in zip(values, gradients, strict=True):
                np.multiply(gradient, rate, out=gradient)
                np.add(value, gradient, out=value)
        return loss

    def _forward(self, x: Array) -> None:
        for i, out in enumerate(self.outputs):
            self.product(self.outputs[i - 1] if i else x, self.weights[i], out=out)
            np.add(out, self.biases[i], out=out)
            if i + 1 < len(self.outputs):
                np.maximum(out, 0, out=out)

    def _loss(self, y: NDArray[np.int32]) -> float:
        error = self.errors[-1]
        np.max(self.outputs[-1], axis=1, keepdims=True, out=self.column)
        np.subtract(self.outputs[-1], self.column, out=error)
        np.exp(error, out=error)
        np.sum(error, axis=1, keepdims=True, out=self.column)
        np.divide(error, self.column, out=error)
        loss = -float(np.log(error[self.rows, y]).mean())
        error[self.rows, y] -= 1
        return loss

    def _backward(self, x: Array) -> None:
        for i in range(len(self.weights) - 1, -1, -1):
            self.product((self.outputs[i - 1] if i else x).T, self.errors[i], out=self.gradients[i])
            np.sum(self.errors[i], axis=0, out=self.bias_gradients[i])
            if i:
                self.product(self.errors[i], self.weights[i].T, out=self.errors[i - 1])
                np.greater(self.outputs[i - 1], 0, out=self.masks[i - 1])
                np.multiply(self.errors[i - 1], self.masks[i - 1], out=self.errors[i - 1])

# SPDX-License-Identifier: Apache-2.0
"""What a net answers: outputs, labels and scores, and the session that it answers with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn import engines
from edgelearn.engines import Config, Session
from edgelearn.errors import ModelError, UsageError
from edgelearn.metrics import accuracy, r_squared
from edgelearn.net.structure import Structure
from edgelearn.training.recipe import Recipe

_BATCH = 64
"""Samples that go through the net at once."""


class Answering(Structure, ABC):
    """A net that answers samples."""

    _inference: Session | None = None

    @abstractmethod
    def recipe(self, **settings: Any) -> Recipe:
        """How it would be trained; what it is trained by also answers."""

    def _build(self) -> None:
        """A session holds the old layout, so it ends with it."""
        super()._build()
        if self._inference:
            self._inference.close()
        self._inference = None

    def forward(self, x: ArrayLike) -> NDArray[np.float32]:
        """Raw outputs (n, outputs): probabilities, or predicted values in regression.

        Raises:
            DataError: samples of another shape, or with NaN or infinity.
            ModelError: outputs that are not finite.
        """
        if self._inference is None:
            config = Config(batch=_BATCH, targets=self.graph.outputs, train=False)
            self._inference = engines.load(self.recipe().backend).open(self.graph.records, self._flat, config)
        outputs = self._inference.forward(self.input.prepare(self.one_length(x)))
        if not np.isfinite(outputs).all():
            raise ModelError("the net's outputs are not finite, so its weights are damaged: load or train it again")
        return outputs

    def predict_proba(self, x: ArrayLike) -> NDArray[np.float32]:
        """Probabilities (n, classes).

        Raises:
            UsageError: a regression net has none.
        """
        if self.loss != "cross_entropy":
            raise UsageError("a regression net has no probabilities: use predict")
        return self.forward(x)

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Class indices (n,), class names where the net has them, or predicted values (n,) or (n, k)."""
        outputs = self.forward(x)
        if self.loss != "cross_entropy":
            return outputs[:, 0] if outputs.shape[1] == 1 else outputs
        best: NDArray[Any] = outputs.argmax(axis=1)
        return np.array(self.classes)[best] if self.classes else best

    def score(self, x: ArrayLike, y: ArrayLike) -> float:
        """Accuracy, or R squared (mean over values) in regression."""
        data = self.dataset(x, y, several=False)
        outputs = self.forward(data.x_train)
        measure = accuracy if self.loss == "cross_entropy" else r_squared
        return measure(outputs, data.y_train)

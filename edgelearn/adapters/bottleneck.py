# SPDX-License-Identifier: Apache-2.0
"""A residual bottleneck behind a frozen layer: h' = h + U relu(D h + b) (Houlsby et al. 2019, section 2.1), U zero at
the start. Not linear, so it learns from every position of a map and cannot merge.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


class Bottleneck:
    """See `Adapter`; `down` (r, channels), `bias` (r,), `up` (channels, r)."""

    kind: ClassVar[str] = "bottleneck"
    linear: ClassVar[bool] = False

    def __init__(self, weights: dict[str, FloatArray]) -> None:
        self.weights = weights
        self.rank, self.channels = weights["down"].shape
        if weights["up"].shape != (self.channels, self.rank) or weights["bias"].shape != (self.rank,):
            raise ValueError("down, bias and up do not join")

    @classmethod
    def fresh(cls, channels: int, rank: int, rng: np.random.Generator) -> Bottleneck:
        """He-uniform rows down, zeros up."""
        bound = math.sqrt(6 / channels)
        down = rng.uniform(-bound, bound, (rank, channels)).astype(np.float32)
        return cls({"down": down, "bias": np.zeros(rank, np.float32), "up": np.zeros((channels, rank), np.float32)})

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def _inner(self, h: FloatArray) -> FloatArray:
        inner: FloatArray = h @ self.weights["down"].T
        inner += self.weights["bias"]
        np.maximum(inner, 0, out=inner)
        return inner

    def apply(self, h: FloatArray) -> FloatArray:
        """h + U relu(D h + b), by rows."""
        out = self._inner(h) @ self.weights["up"].T
        out += h
        return out

    def gradients(self, h: FloatArray, dout: FloatArray) -> dict[str, FloatArray]:
        """Of all three."""
        rows, errors = h.reshape(-1, self.channels), dout.reshape(-1, self.channels)
        inner = self._inner(rows)
        back = (errors @ self.weights["up"]) * (inner > 0)
        return {"down": back.T @ rows, "bias": back.sum(0), "up": errors.T @ inner}

    def after_step(self) -> None:
        """Nothing to do."""

# SPDX-License-Identifier: Apache-2.0
"""A residual 1x1 convolution behind a frozen layer: h' = h + W h, W (channels, channels) zero at the start
(local-learning adaptors after Lomnitz et al. 2022). The rank is that of the channels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


class Convolution:
    """See `Adapter`."""

    kind: ClassVar[str] = "conv1x1"
    linear: ClassVar[bool] = True

    def __init__(self, weights: dict[str, FloatArray]) -> None:
        self.weights = weights
        self.channels, self.rank = weights["weight"].shape
        if self.channels != self.rank:
            raise ValueError("the weight is not square")

    @classmethod
    def fresh(cls, channels: int, rank: int, rng: np.random.Generator) -> Convolution:
        """All zeros: neither rank nor draw has a say."""
        return cls({"weight": np.zeros((channels, channels), np.float32)})

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def apply(self, h: FloatArray) -> FloatArray:
        """h + W h, by rows."""
        out = h @ self.weights["weight"].T
        out += h
        return out

    def gradients(self, h: FloatArray, dout: FloatArray) -> dict[str, FloatArray]:
        """Of W."""
        return {"weight": dout.reshape(-1, self.channels).T @ h.reshape(-1, self.channels)}

    def after_step(self) -> None:
        """Nothing to do."""

    def matrix(self) -> FloatArray:
        """(channels, channels): h' = matrix h."""
        return self.weights["weight"] + np.eye(self.channels, dtype=np.float32)

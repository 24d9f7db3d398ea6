# SPDX-License-Identifier: Apache-2.0
"""LoRA (Hu et al. 2022, section 4.1) of what a layer hands on: h' = h + (alpha / r) B A h.

Names, shapes and scaling are those of PEFT: lora_A (r, channels), lora_B (channels, r), zero at the start. Ranks nest:
the first k rows of A and columns of B are an adapter of rank k.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def rank_prefixes(rank: int) -> tuple[int, ...]:
    """Ranks that are trained to stand alone where ranks nest: a quarter, half and all."""
    return tuple(sorted({max(1, rank // 4), max(1, rank // 2), rank}))


class Lora:
    """See `Adapter`; `alpha` is PEFT's lora_alpha, by default the rank, so that the scaling is 1."""

    kind: ClassVar[str] = "lora"
    linear: ClassVar[bool] = True

    def __init__(self, weights: dict[str, FloatArray], alpha: float) -> None:
        self.weights, self.alpha = weights, alpha
        self.rank, self.channels = weights["lora_A"].shape
        if weights["lora_B"].shape != (self.channels, self.rank):
            raise ValueError("lora_A and lora_B do not join")

    @classmethod
    def fresh(cls, channels: int, rank: int, rng: np.random.Generator, alpha: float | None = None) -> Lora:
        """A as PEFT draws it (Kaiming uniform with a = sqrt 5, which is uniform within 1 / sqrt(channels)), B zero."""
        bound = 1 / math.sqrt(channels)
        down = rng.uniform(-bound, bound, (rank, channels)).astype(np.float32)
        return cls({"lora_A": down, "lora_B": np.zeros((channels, rank), np.float32)}, float(alpha or rank))

    @property
    def scaling(self) -> np.float32:
        """alpha / r."""
        return np.float32(self.alpha / self.rank)

    def settings(self) -> dict[str, Any]:
        """alpha."""
        return {"alpha": self.alpha}

    def prefix(self, rank: int) -> Lora:
        """The adapter of the first `rank` ranks, its arrays views; the scaling stays."""
        cut = {"lora_A": self.weights["lora_A"][:rank], "lora_B": self.weights["lora_B"][:, :rank]}
        return Lora(cut, self.alpha * rank / self.rank)

    def apply(self, h: FloatArray) -> FloatArray:
        """h + scaling B A h, by rows."""
        inner: FloatArray = h @ self.weights["lora_A"].T
        inner *= self.scaling
        out: FloatArray = inner @ self.weights["lora_B"].T
        out += h
        return out

    def gradients(self, h: FloatArray, dout: FloatArray) -> dict[str, FloatArray]:
        """Of A and B."""
        rows, errors = h.reshape(-1, self.channels), dout.reshape(-1, self.channels)
        inner = rows @ self.weights["lora_A"].T
        back: FloatArray = (errors @ self.weights["lora_B"]) * self.scaling
        up: FloatArray = (errors.T @ inner) * self.scaling
        return {"lora_A": back.T @ rows, "lora_B": up}

    def after_step(self) -> None:
        """Nothing to do."""

    def matrix(self) -> FloatArray:
        """(channels, channels): h' = matrix h."""
        delta: FloatArray = self.scaling * (self.weights["lora_B"] @ self.weights["lora_A"])
        return delta + np.eye(self.channels, dtype=np.float32)

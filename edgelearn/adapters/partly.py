# SPDX-License-Identifier: Apache-2.0
"""Partly learnable projections (Break-for-Make, Xu et al. 2025, section 4.2): two skills in the two halves of one LoRA.

Rows of A begin as disjoint rows of one orthonormal basis. While one skill learns, the half of the other is not
touched, so that the halves of two adapters from the same seed can be spliced into one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgelearn.adapters.lora import Lora
from edgelearn.errors import ModelError, UsageError

FloatArray = NDArray[np.float32]


class Partly(Lora):
    """A `Lora` of which only the half of `skill` (0 or 1) learns."""

    kind: ClassVar[str] = "partly"

    def __init__(self, weights: dict[str, FloatArray], alpha: float, skill: int = 0) -> None:
        super().__init__(weights, alpha)
        self.skill = skill
        if self.rank % 2 or skill not in (0, 1):
            raise UsageError(f"skills 0 and 1 own half of the ranks each: choose an even rank, not {self.rank}")

    @classmethod
    def fresh(
        cls, channels: int, rank: int, rng: np.random.Generator, alpha: float | None = None, skill: int = 0
    ) -> Partly:
        """Rows of A from one orthonormal basis, B zero."""
        basis = np.linalg.qr(rng.normal(size=(channels, rank)))[0].T.astype(np.float32)
        zeros = np.zeros((channels, rank), np.float32)
        return cls({"lora_A": np.ascontiguousarray(basis), "lora_B": zeros}, float(alpha or rank), skill)

    @property
    def owned(self) -> slice:
        """The ranks of the skill that learns."""
        half = self.rank // 2
        return slice(self.skill * half, (self.skill + 1) * half)

    def settings(self) -> dict[str, Any]:
        """alpha and the skill."""
        return {"alpha": self.alpha, "skill": self.skill}

    def switch(self, skill: int) -> Partly:
        """The same arrays, the other half of which learns from now on."""
        return Partly(self.weights, self.alpha, skill)

    def gradients(self, h: FloatArray, dout: FloatArray) -> dict[str, FloatArray]:
        """Zero in the half of the other skill."""
        full = super().gradients(h, dout)
        down, up = np.zeros_like(full["lora_A"]), np.zeros_like(full["lora_B"])
        down[self.owned], up[:, self.owned] = full["lora_A"][self.owned], full["lora_B"][:, self.owned]
        return {"lora_A": down, "lora_B": up}


def splice(first: Partly, second: Partly) -> Partly:
    """The half of skill 0 from one adapter and the half of skill 1 from the other.

    Raises:
        ModelError: adapters of other shapes or scaling, or of the same skill.
    """
    if {first.skill, second.skill} != {0, 1}:
        raise ModelError(f"both adapters hold skill {first.skill}: train one of them with skill={1 - first.skill}")
    if first.weights["lora_A"].shape != second.weights["lora_A"].shape or first.alpha != second.alpha:
        raise ModelError("the halves of two adapters fit together only at one rank and alpha: train them alike")
    both = {name: array.copy() for name, array in first.weights.items()}
    both["lora_A"][second.owned] = second.weights["lora_A"][second.owned]
    both["lora_B"][:, second.owned] = second.weights["lora_B"][:, second.owned]
    return Partly(both, first.alpha, first.skill)

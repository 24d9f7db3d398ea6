# SPDX-License-Identifier: Apache-2.0
"""Real numbers in 8 bits: what exported files hold, and what runtimes take and give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

LOWEST, HIGHEST = -128, 127


@dataclass(frozen=True)
class Affine:
    """An integer q stands for scale * (q - zero_point)."""

    scale: float
    zero_point: int

    @classmethod
    def over(cls, low: float, high: float, least: float = 0.0) -> Affine:
        """Of int8, the finest that holds a range, has an exact zero and is no finer than `least`."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32(max((high - low) / (HIGHEST - LOWEST), least))) or 1.0
        return cls(scale, int(np.clip(round(LOWEST - low / scale), LOWEST, HIGHEST)))

    def quantized(self, x: NDArray[Any], dtype: DTypeLike = np.int8) -> NDArray[Any]:
        """The nearest integers, ties to even, as the runtimes round; what lies outside goes to the end of the range."""
        ends = np.iinfo(np.dtype(dtype))
        scaled = np.rint(np.asarray(x, np.float32) / np.float32(self.scale)) + self.zero_point
        rounded: NDArray[Any] = np.clip(scaled, ends.min, ends.max).astype(dtype)
        return rounded

    def real(self, q: NDArray[Any]) -> NDArray[np.float32]:
        """What integers stand for."""
        return (q.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)

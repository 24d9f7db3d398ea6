# SPDX-License-Identifier: Apache-2.0
"""What a frozen backbone is to those who adapt it: stages between taps, and the linear head behind the last."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgelearn.inputs.frontend import Input

FloatArray = NDArray[np.float32]

Statistics = dict[str, FloatArray]
"""Means and variances of normalisations, by the names that the backbone gives them."""


@dataclass(frozen=True)
class Tap:
    """A place where features can be read and changed: (positions, channels) of each sample, positions = height x
    width, a sequence being a map of height 1 and a vector one position."""

    name: str
    sides: tuple[int, int]
    channels: int

    @property
    def positions(self) -> int:
        """Places of the map."""
        return math.prod(self.sides)

    def __str__(self) -> str:
        where = f"{self.sides[0]} x {self.sides[1]} x " if self.positions > 1 else ""
        return f"{self.name} ({where}{self.channels})"


@dataclass(frozen=True, eq=False)
class Head:
    """A linear output layer: logits = features weight + bias; weight (features, classes), bias (classes,)."""

    weight: FloatArray
    bias: FloatArray

    def logits(self, features: FloatArray) -> FloatArray:
        """(n, classes)."""
        out: FloatArray = features @ self.weight + self.bias
        return out


class Backbone(Protocol):
    """A frozen net. Stage i leads from tap i - 1, or from prepared samples, to tap i, and the stage behind the last tap
    to the features (n, values) that the head reads."""

    name: str
    digest: str
    taps: tuple[Tap, ...]
    head: Head | None
    input: Input
    classes: list[str] | None

    def prepare(self, x: NDArray[Any]) -> NDArray[Any]:
        """Samples as stage 0 takes them, from samples as the data holds them.

        Raises:
            DataError: another shape, or no samples.
        """

    def stage(self, index: int, h: NDArray[Any]) -> FloatArray:
        """Features (n, positions, channels) at tap `index`, or (n, values) behind the last, from those before."""

    def statistics(self, x: NDArray[Any]) -> Statistics:
        """Those of its normalisations on prepared samples, one after the other; empty where it has none."""

    def restated(self, statistics: Statistics) -> Backbone:
        """The same with these statistics.

        Raises:
            ModelError: statistics of another backbone.
        """

    def release(self) -> None:
        """Let go of memory that only running takes; what is needed is opened again."""


def features(backbone: Backbone, rows: NDArray[Any]) -> FloatArray:
    """What the head reads of prepared samples."""
    for index in range(len(backbone.taps) + 1):
        rows = backbone.stage(index, rows)
    return rows


def sha256(*parts: bytes) -> str:
    """Digest of bytes one after the other; hashlib is imported late because it costs five megabytes."""
    import hashlib

    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

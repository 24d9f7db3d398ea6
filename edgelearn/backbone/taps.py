# SPDX-License-Identifier: Apache-2.0
"""What a frozen backbone is to those who adapt it: stages between taps, and the linear head behind the last."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgelearn.errors import DataError, ModelError
from edgelearn.export.int8 import Affine
from edgelearn.inputs.frontend import Input
from edgelearn.inputs.labels import check_finite

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


def arranged(x: NDArray[Any], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Samples as (n, *shape); a side of 1 may be missing, or all of them be flat.

    Raises:
        DataError: another shape, no samples, no numbers, NaN or infinity.
    """
    given = tuple(side for side in x.shape[1:] if side != 1)
    fits = (tuple(side for side in shape if side != 1), (math.prod(shape),))
    if not len(x) or x.dtype.kind not in "biuf" or given not in fits:
        raise DataError(
            f"samples of shape {x.shape[1:]} do not fit the input {shape} of {name}: give them in that order of axes"
        )
    check_finite("the samples", x)
    return np.ascontiguousarray(x.reshape(len(x), *shape))


def entered(rows: NDArray[Any], kind: DTypeLike, affine: Affine | None, name: str) -> NDArray[Any]:
    """Samples in the type of a file's input: those of that type as they are, others as bytes that stand for them.

    Raises:
        DataError: fractions where nothing says what bytes stand for.
    """
    if affine is not None and rows.dtype != kind:
        return affine.quantized(rows, kind)
    cast: NDArray[Any] = rows.astype(kind)
    if kind != np.float32 and not np.array_equal(cast, rows):
        raise DataError(
            f"{name} reads {np.dtype(kind)}: give the samples as such, or export it with floats at its ends"
        )
    return cast


def described(metadata: Mapping[str, str], shape: tuple[int, ...], name: str) -> tuple[Input, list[str] | None]:
    """How files of a folder become samples, and the names of the classes, where a file of ours says so.

    Raises:
        ModelError: an entry that is damaged.
    """
    try:
        said, classes = (json.loads(metadata.get(key, "null")) for key in ("input", "classes"))
        found = Input.from_config(said or {})
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"the metadata of {name} is damaged ({error}): export it again") from error
    named = [str(one) for one in classes] if isinstance(classes, list) else None
    return (found if found.shape else replace(found, shape=shape)), named


def class_names(backbone: Backbone) -> list[str]:
    """Of the classes of the backbone's own head: numbers where it has no words for them, none without a head."""
    count = backbone.head.bias.size if backbone.head is not None else 0
    return backbone.classes or [str(number) for number in range(count)]


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

# SPDX-License-Identifier: Apache-2.0
"""Adapters: small changes of what a frozen layer hands on, h' = f(h) over the channels of every position.

Each starts as the identity, has its own gradients and knows no other layer. A new kind is one class in a file here and
one entry in KINDS.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edgelearn.adapters.bottleneck import Bottleneck
from edgelearn.adapters.convolution import Convolution
from edgelearn.adapters.householder import Householder
from edgelearn.adapters.lora import Lora
from edgelearn.adapters.partly import Partly
from edgelearn.errors import ModelError, UsageError

FloatArray = NDArray[np.float32]

__all__ = ["KINDS", "Adapter", "Bottleneck", "Convolution", "Householder", "Lora", "Partly", "fresh", "kind_of"]


class Adapter(Protocol):
    """What the training, the files and the exports ask of an adapter over `channels` channels.

    `weights` are its arrays by name, trained in place. `linear` adapters are one matrix over the channels, so that
    they may learn from averages of a map and merge into what comes next.
    """

    kind: ClassVar[str]
    linear: ClassVar[bool]
    channels: int
    rank: int
    weights: dict[str, FloatArray]

    def settings(self) -> dict[str, Any]:
        """What `restored` needs beside the weights."""

    def apply(self, h: FloatArray) -> FloatArray:
        """h (..., channels) adapted."""

    def gradients(self, h: FloatArray, dout: FloatArray) -> dict[str, FloatArray]:
        """Of a loss whose gradient at `apply(h)` is dout (..., channels), by the names of `weights`; an array that is
        not trained is left out."""

    def after_step(self) -> None:
        """Bring the weights back to where they must be."""


KINDS: dict[str, type[Any]] = {kind.kind: kind for kind in (Lora, Householder, Bottleneck, Convolution, Partly)}
"""Every kind by its name in files and on the command line."""


def kind_of(name: str) -> type[Any]:
    """The class of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in KINDS:
        raise UsageError(f"unknown adapter '{name}': choose one of {', '.join(KINDS)}")
    return KINDS[name]


def fresh(name: str, channels: int, rank: int, seed: int, where: str = "this layer", **settings: Any) -> Adapter:
    """A new adapter, which changes nothing yet.

    Raises:
        UsageError: an unknown kind, or a rank that is not from 1 to the channels.
    """
    cls = kind_of(name)
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= channels:
        raise UsageError(f"rank {rank} does not fit the {channels} channels of {where}: choose 1 to {channels}")
    made: Adapter = cls.fresh(channels, rank, np.random.default_rng([seed, channels, rank]), **settings)
    return made


def restored(name: str, weights: dict[str, FloatArray], settings: dict[str, Any]) -> Adapter:
    """An adapter from a file.

    Raises:
        ModelError: arrays that do not belong to an adapter of that kind.
    """
    try:
        made: Adapter = kind_of(name)(weights=weights, **settings)
        made.apply(np.zeros((1, made.channels), np.float32))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"the arrays do not make an adapter of kind {name}: save it again") from error
    return made

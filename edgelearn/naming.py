# SPDX-License-Identifier: Apache-2.0
"""Names of layers, after which their weights are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from typing import Protocol

from edgelearn.errors import ModelError


class Named(Protocol):
    """A layer as far as its name goes."""

    @property
    def name(self) -> str | None:
        """Its own name, if it was given one."""


def layer_names(layers: Sequence[Named]) -> list[str]:
    """Given names, or Keras's habit: dense, dense_1, dense_2.

    Raises:
        ModelError: a name given twice.
    """
    given = [layer.name for layer in layers if layer.name]
    for name in given:
        if given.count(name) > 1:
            raise ModelError(f"two layers are called '{name}': give each layer its own name")
    seen: dict[str, int] = {}
    names = []
    for layer in layers:
        base = _snake(type(layer).__name__)
        free = (f"{base}_{n}" if n else base for n in count(seen.get(base, 0)))
        name = layer.name or next(n for n in free if n not in given)
        seen[base] = seen.get(base, 0) + (layer.name is None)
        names.append(name)
    return names


def _snake(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()

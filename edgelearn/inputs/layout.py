# SPDX-License-Identifier: Apache-2.0
"""How samples lie in the data: their shape there, which axis is that of channels, and how they become rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import DataError

LAYOUTS = ("channels_last", "channels_first")


@dataclass(frozen=True)
class Layout:
    """Samples of this shape in the data, their channels in front or behind."""

    shape: tuple[int, ...]
    is_first: bool = False

    @property
    def net_shape(self) -> tuple[int, ...]:
        """Shape of a sample as the net sees it, channels last."""
        return (*self.shape[1:], self.shape[0]) if self.is_first else self.shape

    @property
    def features(self) -> int:
        """Values of one sample."""
        return math.prod(self.shape)

    def shaped(self, x: NDArray[Any]) -> NDArray[Any]:
        """x as (n, *shape), nothing copied; a channel axis of 1 may be missing, and samples may be flat.

        Raises:
            DataError: no samples, or another shape.
        """
        channels, bare = (self.shape[0], self.shape[1:]) if self.is_first else (self.shape[-1], self.shape[:-1])
        one = [] if self.is_first else [(*self.shape, 1)]
        accepted = [self.shape, (self.features,), *([bare] if channels == 1 else []), *one]
        if x.shape[1:] not in accepted or x.ndim == 0:
            hint = ": pass a single sample as x[None]" if x.shape in accepted else ": reshape them"
            raise DataError(f"expected samples of shape (n, {', '.join(map(str, self.shape))}), got {x.shape}{hint}")
        if len(x) == 0:
            raise DataError(f"there are no samples (shape {x.shape}): pass at least one")
        return x.reshape(-1, *self.shape)

    def rows(self, x: NDArray[Any]) -> NDArray[Any]:
        """x as (n, features), C order, channels last: uint8 as it is, all else float32.

        Raises:
            DataError: as `shaped`.
        """
        turned = np.moveaxis(self.shaped(x), 1, -1) if self.is_first else self.shaped(x)
        kind = np.uint8 if x.dtype == np.uint8 else np.float32
        with np.errstate(over="ignore"):  # what overflows is infinite, and the engines refuse that
            flat: NDArray[Any] = np.ascontiguousarray(turned.reshape(len(turned), -1), kind)
        return flat

    def in_net_order(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(1,), (channels,) or (features,) numbers in the order in which the net sees what they belong to."""
        if self.is_first and values.size == self.features != self.net_shape[-1]:
            return np.moveaxis(values.reshape(self.shape), 0, -1).reshape(-1)
        return values

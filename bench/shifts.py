# SPDX-License-Identifier: Apache-2.0
"""Images of another domain: the same digits rotated, inverted, blurred, or low in contrast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[Any]


def rotated(x: Images, degrees: float = 45.0) -> Images:
    """About the middle, bilinear, black around it: (n, side, side)."""
    n, side, _ = x.shape
    angle, middle = np.deg2rad(degrees), (side - 1) / 2
    y, z = np.mgrid[:side, :side] - middle
    rows = np.cos(angle) * y - np.sin(angle) * z + middle
    columns = np.sin(angle) * y + np.cos(angle) * z + middle
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    padded = np.pad(x.astype(np.float32), ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((n, side, side), np.float32)
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - (rows - top)) * np.abs(1 - right - (columns - left))
            places = (np.clip(v + 1, 0, side + 1) for v in (top + down, left + right))
            out += padded[:, next(places), next(places)] * weight
    return out


def blurred(x: Images, sigma: float = 2.0) -> Images:
    """By a Gaussian, the border repeated: (n, side, side)."""
    reach = int(3 * sigma)
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    out = np.pad(x.astype(np.float32), ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    out = sum(weight * out[:, i : i + x.shape[1]] for i, weight in enumerate(kernel))
    return sum(weight * out[:, :, i : i + x.shape[2]] for i, weight in enumerate(kernel))


SHIFTS: dict[str, Callable[[Images], Images]] = {
    "rotated 45 degrees": rotated,
    "inverted": lambda x: 255.0 - x,
    "blurred, sigma 2": blurred,
    "contrast a quarter": lambda x: 96.0 + 0.25 * x,
}


def shifted(name: str, x: Images) -> Images:
    """Images (n, side, side) of a shift, uint8 again."""
    return np.rint(np.clip(SHIFTS[name](x), 0, 255)).astype(np.uint8)

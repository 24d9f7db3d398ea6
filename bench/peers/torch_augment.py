# SPDX-License-Identifier: Apache-2.0
"""Augmentations in PyTorch, equal in kind to those of edgelearn/augment/: the same names, amounts and order.

They act on samples as the net sees them, after scaling: images (n, height, width, channels) or sequences (n, steps,
features). What `shift` and `time_shift` move in from outside is 0 there, or the outermost value repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def augment(x: Tensor, table: Mapping[str, Any]) -> Tensor:
    """A batch under an `augment` table.

    Raises:
        ValueError: an augmentation that is not built here.
    """
    fill = table.get("fill", "zero")
    unknown = set(table) - {"fill", *CHANGES}
    if unknown:
        raise ValueError(f"the PyTorch peer has no augmentation {', '.join(sorted(unknown))}")
    for name, change in CHANGES.items():
        if table.get(name):
            x = change(x, table[name], fill)
    return x


def _offsets(n: int, amount: int) -> Tensor:
    return torch.randint(-amount, amount + 1, (n, 1))


def _gather(x: Tensor, axis: int, places: Tensor, fill: str) -> Tensor:
    """x read along an axis at places (n, side), which may lie outside."""
    side = x.shape[axis]
    inside = ((places >= 0) & (places < side)).view(_along(x, axis))
    if fill == "reflect":
        places = side - 1 - (side - 1 - places.abs()).abs()
    index = places.clamp(0, side - 1).view(_along(x, axis)).expand(x.shape)
    moved = x.gather(axis, index)
    return moved * inside if fill == "zero" else moved


def _along(x: Tensor, axis: int) -> tuple[int, ...]:
    return (len(x), *(x.shape[a] if a == axis else 1 for a in range(1, x.ndim)))


def _moved(x: Tensor, axes: tuple[int, ...], amount: int, fill: str) -> Tensor:
    for axis in axes:
        x = _gather(x, axis, torch.arange(x.shape[axis]) + _offsets(len(x), amount), fill)
    return x


def _flip(x: Tensor, amount: bool, fill: str) -> Tensor:
    return torch.where((torch.rand(len(x)) < 0.5).view(-1, 1, 1, 1), x.flip(2), x)


def _mix(x: Tensor, amount: float, fill: str) -> Tensor:
    n = len(x)
    if n == 1:
        return x
    share = (torch.rand(n) * amount).view(-1, *(1,) * (x.ndim - 1))
    return x + share * (x[(torch.arange(n) + torch.randint(1, n, (n,))) % n] - x)


def _masked(x: Tensor, axis: int, amount: int) -> Tensor:
    """0 to `amount` neighbours along an axis set to 0."""
    side = x.shape[axis]
    width = torch.randint(0, amount + 1, (len(x), 1))
    start = (torch.rand(len(x), 1) * (side - width + 1)).long()
    place = torch.arange(side)
    inside = (place >= start) & (place < start + width)
    return x * ~inside.view(_along(x, axis))


CHANGES: dict[str, Callable[[Tensor, Any, str], Tensor]] = {
    "crop": lambda x, amount, fill: _moved(x, (1, 2), amount, "reflect"),
    "shift": lambda x, amount, fill: _moved(x, (1, 2), amount, fill),
    "flip": _flip,
    "time_shift": lambda x, amount, fill: _moved(x, (1,), amount, fill),
    "mix": _mix,
    "noise": lambda x, amount, fill: x + amount * torch.randn_like(x),
    "time_mask": lambda x, amount, fill: _masked(x, 1, amount),
    "band_mask": lambda x, amount, fill: _masked(x, 2, amount),
}

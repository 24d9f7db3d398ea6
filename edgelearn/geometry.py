# SPDX-License-Identifier: Apache-2.0
"""Maps and windows: how the sides of a feature map, a kernel and its strides fit into two words of a record.

A map is (height, width); a sequence is a map of height 1. Padding `same` is that of TensorFlow: output sides are
ceil(side / stride), and what an odd number of padding leaves over goes to the end.
"""

from __future__ import annotations

from typing import NamedTuple

LARGEST_SIDE = 2**16 - 1
LARGEST_WINDOW = 2**8 - 1


class Sides(NamedTuple):
    """Height and width of a map; 1 x 1 for what has no map."""

    height: int
    width: int

    @property
    def positions(self) -> int:
        """Places in the map."""
        return self.height * self.width

    def packed(self) -> int:
        """The word `size` of a record."""
        return self.height << 16 | self.width


class Window(NamedTuple):
    """Kernel and strides of a convolution or pooling, height before width."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    same: bool

    def packed(self) -> int:
        """The word `window` of a record, but for the padding, which is a flag."""
        return self.kernel[0] << 24 | self.kernel[1] << 16 | self.strides[0] << 8 | self.strides[1]

    def over(self, sides: Sides) -> Sides:
        """Sides of the output; a side of 0 or below when the kernel is larger than its input."""
        pairs = zip(sides, self.kernel, self.strides, strict=True)
        return Sides(*(-(-n // s) if self.same else (n - k) // s + 1 for n, k, s in pairs))

    def padding(self, sides: Sides) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros (before, after) along height and along width."""
        totals = []
        for n, k, s, out in zip(sides, self.kernel, self.strides, self.over(sides), strict=True):
            total = max((out - 1) * s + k - n, 0) if self.same else 0
            totals.append((total // 2, total - total // 2))
        return totals[0], totals[1]


def sides_of(size: int) -> Sides:
    """Sides from the word `size` of a record; 0 is a flat vector."""
    return Sides(size >> 16, size & LARGEST_SIDE) if size else Sides(1, 1)


def window_of(word: int, same: bool) -> Window:
    """The window from the word of a record and its padding flag."""
    kernel_h, kernel_w, stride_h, stride_w = (word >> shift & LARGEST_WINDOW for shift in (24, 16, 8, 0))
    return Window((kernel_h, kernel_w), (stride_h, stride_w), same)

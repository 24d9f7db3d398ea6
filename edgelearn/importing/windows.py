# SPDX-License-Identifier: Apache-2.0
"""Windows of ONNX, with padding of any kind, as those of layers here: none, or `same` as TensorFlow has it.

A convolution with other padding is one with `same` and a larger kernel: zeros in front of the weights and behind them
bring each weight to where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.geometry import LARGEST_WINDOW, Sides, Window

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """A window along one axis: side of the input, kernel, stride, padding before and behind, side of the output."""

    side: int
    kernel: int
    stride: int
    before: int
    behind: int
    output: int

    def fits(self, kernel: int, before: int, same: bool) -> bool:
        """Whether a window of ours with that kernel has the outputs, and begins `before` the input."""
        window = Window((1, kernel), (1, self.stride), same)
        sides = Sides(1, self.side)
        return window.over(sides).width == self.output and window.padding(sides)[1][0] == before


def axes_of(attributes: Attributes, kernel: tuple[int, ...], sides: tuple[int, ...]) -> list[Axis]:
    """The window of a node over a map of these sides, axis by axis."""
    count = len(kernel)
    strides = attributes.get("strides", (1,) * count)
    pads = list(attributes.get("pads", (0,) * 2 * count))
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    axes = []
    for index, (side, size, stride) in enumerate(zip(sides, kernel, strides, strict=True)):
        before, behind = pads[index], pads[index + count]
        if auto != "NOTSET":
            before, behind = _automatic(auto, side, size, stride)
        output = _steps(side + before + behind - size, stride, bool(attributes.get("ceil_mode", 0)))
        if (output - 1) * stride >= side + before:  # by rule of ONNX no window begins in the padding behind
            output -= 1
        axes.append(Axis(side, size, stride, before, behind, output))
    return axes


def _automatic(auto: str, side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding by its name."""
    if auto == "VALID":
        return 0, 0
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    less = total // 2
    return (less, total - less) if auto == "SAME_UPPER" else (total - less, less)


def _steps(room: int, stride: int, up: bool) -> int:
    return (-(-room // stride) if up else room // stride) + 1


def exact(axes: list[Axis]) -> Window | None:
    """The same window here, if there is one."""
    for same in (False, True):
        if all(axis.fits(axis.kernel, axis.before, same) for axis in axes):
            return _window([axis.kernel for axis in axes], axes, same)
    return None


def grown(axes: list[Axis]) -> tuple[Window, list[tuple[int, int]]] | None:
    """A window with `same` padding, and the zeros (in front, behind) that make a kernel as large; None where no zeros
    do."""
    found = [next(_larger(axis), None) for axis in axes]
    zeros = [each for each in found if each is not None]
    if len(zeros) < len(axes):
        return None
    kernel = [axis.kernel + sum(each) for axis, each in zip(axes, zeros, strict=True)]
    return _window(kernel, axes, True), zeros


def _larger(axis: Axis) -> Iterator[tuple[int, int]]:
    """Zeros in front and behind, the fewest first."""
    most = min(2 * (axis.kernel + axis.before + axis.stride), LARGEST_WINDOW - axis.kernel)
    for total in range(most + 1):
        for front in range(total + 1):
            if axis.fits(axis.kernel + total, axis.before + front, True):
                yield front, total - front


def _window(kernel: list[int], axes: list[Axis], same: bool) -> Window:
    height, width = ([1, *sizes][-2:] for sizes in (kernel, [axis.stride for axis in axes]))
    return Window((height[0], height[1]), (width[0], width[1]), same)


def with_zeros(weight: NDArray[Any], zeros: list[tuple[int, int]]) -> NDArray[Any]:
    """Weights (filters, channels, *kernel) of a larger kernel."""
    return np.pad(weight, [(0, 0), (0, 0), *zeros])

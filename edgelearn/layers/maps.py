# SPDX-License-Identifier: Apache-2.0
"""Layers over maps: convolution and pooling. A map is (height, width, channels) or, in time, (steps, channels);
an input without a channel axis is read as a map of one channel."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from edgelearn.errors import ModelError
from edgelearn.geometry import LARGEST_SIDE, LARGEST_WINDOW, Window
from edgelearn.graph import Builder
from edgelearn.layers.basic import ACTIVATIONS, INITIALIZERS, check_choice, emit_activation, whole
from edgelearn.records import FLAG_BIAS, GROUPS_SHIFT, Op

PADDINGS = ("valid", "same")

Pair = int | tuple[int, ...]


def _sides(layer: str, what: str, value: Pair, axes: int) -> tuple[int, int]:
    """Height and width from one number or one per axis; along time the height is 1."""
    values = value if isinstance(value, tuple) else (value,) * axes
    if len(values) != axes:
        raise ModelError(f"{layer} takes one {what}, or {axes} of them for its {axes} axes, not {value!r}")
    counts = [whole(layer, what, v) for v in values]
    if max(counts) > LARGEST_WINDOW:
        raise ModelError(f"{layer} takes a {what} of at most {LARGEST_WINDOW}, not {max(counts)}")
    return (counts[0], counts[1]) if axes == 2 else (1, counts[0])


def _window(layer: str, size: Pair, strides: Pair, padding: str, axes: int) -> Window:
    check_choice("padding", padding, PADDINGS)
    return Window(_sides(layer, "kernel size", size, axes), _sides(layer, "stride", strides, axes), padding == "same")


def _as_map(layer: str, build: Builder, rank: int) -> None:
    """Give the input its channel axis and check that it is a map of that many axes."""
    if len(build.shape) == rank - 1 and all(row["op"] is Op.RESCALE for row in build.rows):
        build.shape = (*build.shape, 1)
    if len(build.shape) != rank:
        axes = "height, width" if rank == 3 else "steps"
        raise ModelError(f"{layer} takes samples of shape ({axes}, channels), not {build.shape}: declare the shape so")
    if max(build.shape[:-1]) > LARGEST_SIDE:
        raise ModelError(f"a map of shape {build.shape} is larger than {LARGEST_SIDE} on a side: give smaller samples")


def _slide(layer: str, build: Builder, window: Window) -> tuple[int, ...]:
    """Sides of the output, as many as the map at hand has axes."""
    after = window.over(build.sides)
    if min(after) < 1:
        kernel = window.kernel if len(build.shape) == 3 else window.kernel[1]
        raise ModelError(
            f"{layer}: a window of {kernel} does not fit into its input of shape {build.shape}: make it smaller, "
            "pool less before it, or use padding 'same'"
        )
    return tuple(after) if len(build.shape) == 3 else (after.width,)


@dataclass(frozen=True)
class Conv2D:
    """y = activation(x * K + b) over (height, width, channels), K of shape (kernel height, kernel width,
    channels / groups, filters).

    Raises:
        ModelError: an argument out of range, or groups that do not divide filters and channels.
    """

    filters: int
    kernel_size: Pair = 3
    strides: Pair = 1
    padding: str = "valid"
    groups: int = 1
    activation: str = "linear"
    use_bias: bool = True
    negative_slope: float = 0.01
    kernel_initializer: str = "he_uniform"
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_convolution(self, 2)

    def emit(self, build: Builder) -> None:
        """Write K, b and the records."""
        _as_map("Conv2D", build, 3)
        _convolve(self, build, self.filters, self.groups)


@dataclass(frozen=True)
class Conv1D:
    """y = activation(x * K + b) over (steps, channels), K of shape (kernel, channels / groups, filters).

    Raises:
        ModelError: an argument out of range, or groups that do not divide filters and channels.
    """

    filters: int
    kernel_size: Pair = 3
    strides: Pair = 1
    padding: str = "valid"
    groups: int = 1
    activation: str = "linear"
    use_bias: bool = True
    negative_slope: float = 0.01
    kernel_initializer: str = "he_uniform"
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_convolution(self, 1)

    def emit(self, build: Builder) -> None:
        """Write K, b and the records."""
        _as_map("Conv1D", build, 2)
        _convolve(self, build, self.filters, self.groups)


@dataclass(frozen=True)
class DepthwiseConv2D:
    """A convolution of each channel by itself, `depth_multiplier` outputs each: output channel
    c * depth_multiplier + j reads channel c. K of shape (kernel height, kernel width, 1, outputs).

    Raises:
        ModelError: an argument out of range.
    """

    kernel_size: Pair = 3
    strides: Pair = 1
    padding: str = "valid"
    depth_multiplier: int = 1
    activation: str = "linear"
    use_bias: bool = True
    negative_slope: float = 0.01
    kernel_initializer: str = "he_uniform"
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_convolution(self, 2)
        whole("DepthwiseConv2D", "depth_multiplier", self.depth_multiplier)

    def emit(self, build: Builder) -> None:
        """Write K, b and the records."""
        _as_map("DepthwiseConv2D", build, 3)
        _convolve(self, build, build.channels * self.depth_multiplier, build.channels)


Convolution = Conv2D | Conv1D | DepthwiseConv2D


def _check_convolution(layer: Convolution, axes: int) -> None:
    name = type(layer).__name__
    _window(name, layer.kernel_size, layer.strides, layer.padding, axes)
    check_choice("kernel_initializer", layer.kernel_initializer, INITIALIZERS)
    check_choice("activation", layer.activation, ACTIVATIONS)
    if not isinstance(layer, DepthwiseConv2D):
        filters, groups = whole(name, "filter", layer.filters), whole(name, "group", layer.groups)
        if filters % groups:
            raise ModelError(f"{name}: {groups} groups do not divide {filters} filters: change one of them")


def _convolve(layer: Convolution, build: Builder, filters: int, groups: int) -> None:
    name, axes, channels, first = type(layer).__name__, len(build.shape) - 1, build.channels, build.total
    window = _window(name, layer.kernel_size, layer.strides, layer.padding, axes)
    after = _slide(name, build, window)
    if channels % groups or groups > LARGEST_SIDE:
        raise ModelError(f"{name}: {groups} groups do not divide {channels} channels: change one of them")
    kernel = (*window.kernel[-axes:], channels // groups)
    build.parameter("weight", (*kernel, filters), layer.kernel_initializer, prod(kernel))
    if layer.use_bias:
        build.parameter("bias", (filters,), "zeros")
    flags = (FLAG_BIAS if layer.use_bias else 0) | groups << GROUPS_SHIFT
    build.record(Op.CONV, filters, first, flags, window=window)
    build.shape = (*after, filters)
    emit_activation(build, layer.activation, layer.negative_slope)


@dataclass(frozen=True)
class MaxPool:
    """The largest value of each window, per channel, over images or time; strides default to the pool size.

    Raises:
        ModelError: an argument out of range.
    """

    pool_size: Pair = 2
    strides: Pair | None = None
    padding: str = "valid"
    name: str | None = None
    opens_block: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_pool(self)

    def emit(self, build: Builder) -> None:
        """Write the record."""
        _pool(self, Op.MAXPOOL, build)


@dataclass(frozen=True)
class AvgPool:
    """The mean of each window, per channel, padding not counted; strides default to the pool size.

    Raises:
        ModelError: an argument out of range.
    """

    pool_size: Pair = 2
    strides: Pair | None = None
    padding: str = "valid"
    name: str | None = None
    opens_block: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_pool(self)

    def emit(self, build: Builder) -> None:
        """Write the record."""
        _pool(self, Op.AVGPOOL, build)


@dataclass(frozen=True)
class GlobalAvgPool:
    """The mean of each channel over all positions: a vector of one value per channel."""

    name: str | None = None
    opens_block: ClassVar[bool] = False

    def emit(self, build: Builder) -> None:
        """Write the record."""
        _check_is_map("GlobalAvgPool", build)
        build.record(Op.GLOBAL_AVGPOOL, build.channels)
        build.shape = (build.channels,)


def _check_is_map(name: str, build: Builder) -> None:
    if len(build.shape) not in (2, 3):
        raise ModelError(f"{name} pools maps, not {build.shape}: put it behind a convolution")


def _check_pool(layer: MaxPool | AvgPool) -> None:
    """Over which axes is not known yet, so a pair is checked as one."""
    size = layer.pool_size
    axes = len(size) if isinstance(size, tuple) else 2
    if axes not in (1, 2):
        raise ModelError(f"{type(layer).__name__} takes one pool_size or two, height and width, not {size!r}")
    _window(type(layer).__name__, size, size if layer.strides is None else layer.strides, layer.padding, axes)


def _pool(layer: MaxPool | AvgPool, op: Op, build: Builder) -> None:
    name, axes = type(layer).__name__, len(build.shape) - 1
    _check_is_map(name, build)
    strides = layer.pool_size if layer.strides is None else layer.strides
    window = _window(name, layer.pool_size, strides, layer.padding, axes)
    after = _slide(name, build, window)
    build.record(op, build.channels, window=window)
    build.shape = (*after, build.channels)

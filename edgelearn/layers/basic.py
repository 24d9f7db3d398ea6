# SPDX-License-Identifier: Apache-2.0
"""Layers over features: dense, activations, normalisation, dropout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from edgelearn.errors import ModelError
from edgelearn.graph import Builder
from edgelearn.records import FLAG_BIAS, Op

ACTIVATIONS: dict[str, Op | None] = {
    "linear": None,
    "relu": Op.RELU,
    "leaky_relu": Op.LEAKY_RELU,
    "tanh": Op.TANH,
    "sigmoid": Op.SIGMOID,
    "gelu": Op.GELU,
    "softmax": Op.SOFTMAX,
}
"""gelu is the tanh form of Hendrycks & Gimpel 2016, section 2."""

INITIALIZERS = ("he_uniform", "lecun_uniform", "zeros")


def emit_activation(build: Builder, activation: str, slope: float) -> None:
    """Write the record of an activation, if it has one."""
    op = ACTIVATIONS[activation]
    if op is not None:
        build.record(op, build.channels, None, 0, slope if op is Op.LEAKY_RELU else 0.0)


def check_choice(what: str, value: Any, known: Iterable[str]) -> None:
    """Refuse a value that is not among the known ones.

    Raises:
        ModelError: naming all of them.
    """
    names = list(known)
    if value not in names:
        raise ModelError(f"unknown {what} '{value}': choose one of {', '.join(names)}")


def whole(layer: str, what: str, value: Any) -> int:
    """A count of at least 1.

    Raises:
        ModelError: anything else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ModelError(f"{layer} needs at least 1 {what}, not {value!r}")
    return int(value)


@dataclass(frozen=True)
class Dense:
    """y = activation(x W + b), W of shape (inputs, units). Samples with more than one axis are flattened.

    Raises:
        ModelError: units below 1 or an unknown activation.
    """

    units: int
    activation: str = "linear"
    use_bias: bool = True
    negative_slope: float = 0.01
    kernel_initializer: str = "he_uniform"
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", whole("Dense", "unit", self.units))
        check_choice("kernel_initializer", self.kernel_initializer, INITIALIZERS)
        check_choice("activation", self.activation, ACTIVATIONS)

    def emit(self, build: Builder) -> None:
        """Write W, b and the records."""
        inputs, first = build.features, build.total
        build.parameter("weight", (inputs, self.units), self.kernel_initializer, inputs)
        if self.use_bias:
            build.parameter("bias", (self.units,), "zeros")
        build.record(Op.DENSE, self.units, first, FLAG_BIAS if self.use_bias else 0)
        build.shape = (self.units,)
        emit_activation(build, self.activation, self.negative_slope)


@dataclass(frozen=True)
class Activation:
    """An activation on its own, for nets that normalise before it.

    Raises:
        ModelError: an unknown activation.
    """

    activation: str
    negative_slope: float = 0.01
    name: str | None = None
    opens_block: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, ACTIVATIONS)

    def emit(self, build: Builder) -> None:
        """Write the record."""
        emit_activation(build, self.activation, self.negative_slope)


@dataclass(frozen=True)
class BatchNormalization:
    """Per-feature normalisation by the batch in training, by running statistics otherwise
    (Ioffe & Szegedy 2015, algorithms 1 and 2); on maps per channel, over batch and positions.
    Training needs batches of at least 2.

    Raises:
        ModelError: momentum outside [0, 1) or epsilon not positive.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    name: str | None = None
    opens_block: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or not self.epsilon > 0:
            raise ModelError("BatchNormalization needs momentum in [0, 1) and a positive epsilon")

    def emit(self, build: Builder) -> None:
        """Write gamma (.weight), beta (.bias), the running statistics and the record; a nested net has statistics of
        its own for each width that the block may read, the widest first."""
        size, first = build.channels, build.total
        build.parameter("weight", (size,), "ones")
        build.parameter("bias", (size,), "zeros")
        for level in range(max(build.levels, 1)):
            suffix = f"_{level}" if level else ""
            build.parameter(f"mean{suffix}", (size,), "zeros", trainable=False)
            build.parameter(f"variance{suffix}", (size,), "ones", trainable=False)
        build.record(Op.BATCHNORM, size, first, 0, self.epsilon, self.momentum)


@dataclass(frozen=True)
class LayerNormalization:
    """Normalisation of each position over its own features, with a gain and a shift per feature (Ba, Kiros &
    Hinton 2016); the same in training and in use, for any batch.

    Raises:
        ModelError: epsilon not positive.
    """

    epsilon: float = 1e-5
    name: str | None = None
    opens_block: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ModelError("LayerNormalization needs a positive epsilon")

    def emit(self, build: Builder) -> None:
        """Write gamma (.weight), beta (.bias) and the record."""
        size, first = build.channels, build.total
        build.parameter("weight", (size,), "ones")
        build.parameter("bias", (size,), "zeros")
        build.record(Op.LAYERNORM, size, first, 0, self.epsilon)


@dataclass(frozen=True)
class Dropout:
    """Zeroes a share `rate` of what is forwarded and scales the rest by 1 / (1 - rate); the block's own
    objective sees the values before it (Nokland & Eidnes 2019).

    Raises:
        ModelError: rate outside [0, 1).
    """

    rate: float
    name: str | None = None
    opens_block: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ModelError(f"Dropout needs a rate in [0, 1), not {self.rate}")

    def emit(self, build: Builder) -> None:
        """Write the record."""
        build.record(Op.DROPOUT, build.channels, None, 0, self.rate)


@dataclass(frozen=True)
class Flatten:
    """A map as one vector, positions before channels; Dense does the same by itself."""

    name: str | None = None
    opens_block: ClassVar[bool] = False

    def emit(self, build: Builder) -> None:
        """Change the shape; nothing is computed, so there is no record."""
        build.shape = (build.features,)

# SPDX-License-Identifier: Apache-2.0
"""The layers: one class each, which checks its arguments and writes its own records.

A new layer is one class here, one operation in the core and in the Numba engine, and one lowering in export.
Names and arguments are those of Keras.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any, ClassVar

from edgelearn.errors import ModelError
from edgelearn.graph import FLAG_BIAS, Builder, Op

ACTIVATIONS: dict[str, Op | None] = {
    "linear": None,
    "relu": Op.RELU,
    "leaky_relu": Op.LEAKY_RELU,
    "tanh": Op.TANH,
    "sigmoid": Op.SIGMOID,
    "softmax": Op.SOFTMAX,
}


def _emit_activation(build: Builder, activation: str, slope: float) -> None:
    op = ACTIVATIONS[activation]
    if op is not None:
        build.record(op, build.features, None, 0, slope if op is Op.LEAKY_RELU else 0.0)


def _check_activation(activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ModelError(f"unknown activation '{activation}': choose one of {', '.join(ACTIVATIONS)}")


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
        if not isinstance(self.units, Integral) or isinstance(self.units, bool) or self.units < 1:
            raise ModelError(f"Dense needs at least 1 unit, not {self.units!r}")
        object.__setattr__(self, "units", int(self.units))
        if self.kernel_initializer not in ("he_uniform", "lecun_uniform", "zeros"):
            raise ModelError(
                f"unknown kernel_initializer '{self.kernel_initializer}': choose he_uniform, lecun_uniform or zeros"
            )
        _check_activation(self.activation)

    def emit(self, build: Builder) -> None:
        """Write W, b and the records."""
        inputs, first = build.features, build.total
        build.parameter("weight", (inputs, self.units), self.kernel_initializer, inputs)
        if self.use_bias:
            build.parameter("bias", (self.units,), "zeros")
        build.record(Op.DENSE, self.units, first, FLAG_BIAS if self.use_bias else 0)
        build.shape = (self.units,)
        _emit_activation(build, self.activation, self.negative_slope)


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
        _check_activation(self.activation)

    def emit(self, build: Builder) -> None:
        """Write the record."""
        _emit_activation(build, self.activation, self.negative_slope)


@dataclass(frozen=True)
class BatchNormalization:
    """Per-feature normalisation by the batch in training, by running statistics otherwise
    (Ioffe & Szegedy 2015, algorithms 1 and 2). Training needs batches of at least 2.

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
        """Write gamma (.weight), beta (.bias), the running statistics and the record."""
        size, first = build.features, build.total
        build.parameter("weight", (size,), "ones")
        build.parameter("bias", (size,), "zeros")
        build.parameter("mean", (size,), "zeros", trainable=False)
        build.parameter("variance", (size,), "ones", trainable=False)
        build.record(Op.BATCHNORM, size, first, 0, self.epsilon, self.momentum)


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
        build.record(Op.DROPOUT, build.features, None, 0, self.rate)


AnyLayer = Dense | Activation | BatchNormalization | Dropout

LAYERS: dict[str, type[AnyLayer]] = {c.__name__: c for c in (Dense, Activation, BatchNormalization, Dropout)}
"""Every layer by the name used in .toml and model files."""


def from_config(config: dict[str, Any]) -> AnyLayer:
    """A layer from its table in a .toml or model file, `type` naming it.

    Raises:
        ModelError: unknown type or argument.
    """
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if kind not in LAYERS:
        raise ModelError(f"unknown layer '{kind}': choose one of {', '.join(LAYERS)}")
    known = [f.name for f in fields(LAYERS[kind])]
    for key in arguments:
        if key not in known:
            raise ModelError(f"layer {kind} has no argument '{key}': it takes {', '.join(known)}")
    try:
        return LAYERS[kind](**arguments)
    except TypeError as error:
        raise ModelError(f"layer {kind}: {error}") from error


def to_config(layer: AnyLayer) -> dict[str, Any]:
    """The table that `from_config` reads; arguments at their defaults are left out."""
    defaults = {f.name: f.default for f in fields(layer)}
    kept = {k: v for k, v in asdict(layer).items() if v != defaults[k]}
    return {"type": type(layer).__name__, **kept}

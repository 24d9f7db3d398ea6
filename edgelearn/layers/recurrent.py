# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers over sequences (steps, features), from a state of zeros. Gates lie in the order of Keras.

Weights of shape (features, gates * units) read the step, recurrent ones (units, gates * units) the output before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import numpy as np

from edgelearn.errors import ModelError
from edgelearn.geometry import LARGEST_SIDE
from edgelearn.graph import Builder
from edgelearn.layers.basic import check_choice, whole
from edgelearn.records import FLAG_BIAS, FLAG_PADDED, FLAG_SEQUENCES, RECURRENT, Op

_RNN_ACTIVATIONS = ("tanh", "relu")


@dataclass(frozen=True)
class Masking:
    """Sequences of several lengths: steps in front of and behind a sequence, all of whose values are `mask_value` as
    the data holds them, are none of it. Every sequence ends at the net's last step, whichever side its padding is on;
    the recurrent layers that follow pass over what comes before it, and no loss is taken of it. The net's first layer.

    Raises:
        ModelError: a value that is no finite number.
    """

    mask_value: float = 0.0
    name: str | None = None
    opens_block: ClassVar[bool] = False

    def __post_init__(self) -> None:
        value = self.mask_value
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            raise ModelError(
                f"mask_value must be a finite number, not {value!r}: give the value that samples have there"
            )
        object.__setattr__(self, "mask_value", float(np.float32(value)))

    def emit(self, build: Builder) -> None:
        """Tell the recurrent layers."""
        if build.padding is not None or build.block or any(row["op"] is not Op.RESCALE for row in build.rows):
            raise ModelError("Masking looks at the samples: make it the first layer")
        build.padding = self.mask_value


@dataclass(frozen=True)
class SimpleRNN:
    """h[t] = activation(x[t] W + h[t-1] V + b), activation tanh or relu. `return_sequences` hands on every h, else the
    last one.

    Raises:
        ModelError: units below 1 or an unknown activation.
    """

    units: int
    activation: str = "tanh"
    use_bias: bool = True
    return_sequences: bool = False
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", whole("SimpleRNN", "unit", self.units))
        check_choice("activation", self.activation, _RNN_ACTIVATIONS)

    def emit(self, build: Builder) -> None:
        """Write W, V, b and the record."""
        _emit(self, Op.SIMPLE_RNN, build, ("bias",), float(self.activation == "relu"))


@dataclass(frozen=True)
class GRU:
    """Gates z, r and candidate n (Cho et al. 2014): h[t] = z h[t-1] + (1 - z) n, z and r sigmoids of their products,
    n = tanh(x[t] W + b + r (h[t-1] V + c)). The reset gate multiplies the product with its bias c, as with
    `reset_after` of Keras, `linear_before_reset` of ONNX, and PyTorch. `return_sequences` hands on every h, else the
    last one.

    Raises:
        ModelError: units below 1.
    """

    units: int
    use_bias: bool = True
    return_sequences: bool = False
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", whole("GRU", "unit", self.units))

    def emit(self, build: Builder) -> None:
        """Write W, V, b, c and the record."""
        _emit(self, Op.GRU, build, ("bias", "recurrent.bias"))


@dataclass(frozen=True)
class LSTM:
    """Gates i, f, o and candidate g (Hochreiter & Schmidhuber 1997; Gers et al. 2000): c[t] = f c[t-1] + i g and
    h[t] = o tanh(c[t]). `return_sequences` hands on every h, else the last one.

    Raises:
        ModelError: units below 1.
    """

    units: int
    use_bias: bool = True
    return_sequences: bool = False
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", whole("LSTM", "unit", self.units))

    def emit(self, build: Builder) -> None:
        """Write W, V, b and the record."""
        _emit(self, Op.LSTM, build, ("bias",))


def _emit(layer: SimpleRNN | GRU | LSTM, op: Op, build: Builder, biases: tuple[str, ...], *args: float) -> None:
    steps, features = _as_sequence(type(layer).__name__, build)
    columns, first = RECURRENT[op] * layer.units, build.total
    build.parameter("weight", (features, columns), "lecun_uniform", features)
    build.parameter("recurrent.weight", (layer.units, columns), "lecun_uniform", 3 * layer.units)
    for bias in biases if layer.use_bias else ():
        build.parameter(bias, (columns,), "zeros")
    flags = (FLAG_BIAS if layer.use_bias else 0) | (FLAG_SEQUENCES if layer.return_sequences else 0)
    if build.padding is not None:
        flags, args = flags | FLAG_PADDED, ((*args, 0.0)[0], build.padding)
    build.record(op, layer.units, first, flags, *args)
    build.shape = (steps, layer.units) if layer.return_sequences else (layer.units,)


def _as_sequence(layer: str, build: Builder) -> tuple[int, int]:
    """Steps and features of what the layer reads."""
    if len(build.shape) == 1 and build.rows and build.rows[-1]["op"] in RECURRENT:
        raise ModelError(f"{layer} reads sequences: set return_sequences of the recurrent layer before it")
    if len(build.shape) != 2:
        raise ModelError(f"{layer} takes samples of shape (steps, features), not {build.shape}: declare the shape so")
    if build.shape[0] > LARGEST_SIDE:
        raise ModelError(
            f"a sequence of {build.shape[0]} steps is longer than {LARGEST_SIDE}: cut it into shorter ones"
        )
    return build.shape[0], build.shape[1]

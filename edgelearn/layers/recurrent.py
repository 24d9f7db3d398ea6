# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers over sequences (steps, features), from a state of zeros. Gates lie in the order of Keras.

Weights of shape (features, gates * units) read the step, recurrent ones (units, gates * units) the output before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgelearn.errors import ModelError
from edgelearn.geometry import LARGEST_SIDE
from edgelearn.graph import FLAG_BIAS, FLAG_SEQUENCES, RECURRENT, Builder, Op
from edgelearn.layers.basic import check_choice, whole

_RNN_ACTIVATIONS = ("tanh", "relu")


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

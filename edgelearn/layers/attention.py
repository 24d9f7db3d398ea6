# SPDX-License-Identifier: Apache-2.0
"""Layers of transformers: embeddings, learned positions, attention, feed-forward and residual units.

A sequence is (steps, features). Residual, MultiHeadAttention and FeedForward are blocks of their own: one local
objective each, a gradient inside, none between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from numbers import Integral
from typing import ClassVar

from edgelearn.errors import ModelError
from edgelearn.geometry import LARGEST_SIDE, Window
from edgelearn.graph import Builder, Layer
from edgelearn.layers.basic import ACTIVATIONS, check_choice, emit_activation, whole
from edgelearn.naming import layer_names
from edgelearn.records import FLAG_BIAS, GROUPS_SHIFT, Op

_ONE = Window((1, 1), (1, 1), False)


def _project(build: Builder, name: str, units: int, initializer: str, use_bias: bool) -> None:
    """A product over the features of each position: parameters `name`.weight (features, units) and `name`.bias."""
    features, first = build.channels, build.total
    build.parameter(f"{name}.weight", (features, units), initializer, features)
    if use_bias:
        build.parameter(f"{name}.bias", (units,), "zeros")
    flags = FLAG_BIAS if use_bias else 0
    if len(build.shape) == 1:
        build.record(Op.DENSE, units, first, flags)
    else:
        build.record(Op.CONV, units, first, flags | 1 << GROUPS_SHIFT, window=_ONE)
    build.shape = (*build.shape[:-1], units)


def _check_sequence(layer: str, build: Builder) -> None:
    if len(build.shape) != 2:
        raise ModelError(
            f"{layer} takes sequences (steps, features), not {build.shape}: "
            f"put Reshape((-1, {build.channels})) in front of it"
        )
    if build.shape[0] > LARGEST_SIDE:
        raise ModelError(f"{layer}: {build.shape[0]} steps are more than {LARGEST_SIDE}: give shorter sequences")


@dataclass(frozen=True)
class Embedding:
    """A learned row of `output_dim` values for each token of 0 .. input_dim - 1: (steps,) to (steps, output_dim).
    The first layer of a net; its samples are whole numbers and are not scaled.

    Raises:
        ModelError: an argument below 1, or another place than the first.
    """

    input_dim: int
    output_dim: int
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_dim", whole("Embedding", "token", self.input_dim))
        object.__setattr__(self, "output_dim", whole("Embedding", "output_dim", self.output_dim))

    def emit(self, build: Builder) -> None:
        """Write the table, its rows of variance 1, and the record."""
        if any(row["op"] is not Op.RESCALE for row in build.rows):
            raise ModelError("Embedding reads tokens, which only samples are: make it the first layer")
        steps = build.features
        if len(build.shape) != 1 and build.shape != (steps, 1):
            raise ModelError(f"Embedding takes samples of shape (steps,), not {build.shape}: declare the shape so")
        build.shape = (steps, 1)
        _check_sequence("Embedding", build)
        first = build.total
        build.parameter("weight", (self.input_dim, self.output_dim), "lecun_uniform")
        build.record(Op.EMBEDDING, self.output_dim, first)
        build.shape = (steps, self.output_dim)


@dataclass(frozen=True)
class PositionEmbedding:
    """Adds a learned vector for each step of a sequence (steps, features), so that what follows can tell steps apart.
    Part of the block before it."""

    name: str | None = None
    opens_block: ClassVar[bool] = False

    def emit(self, build: Builder) -> None:
        """Write the table (steps, features), Glorot-uniform, and the record."""
        _check_sequence("PositionEmbedding", build)
        first = build.total
        build.parameter("weight", build.shape, "glorot_uniform", sum(build.shape))
        build.record(Op.POSITIONS, build.channels, first)


@dataclass(frozen=True)
class Reshape:
    """The same values in another shape, without the batch; one side may be -1, for what is left. Behind the first
    layer it turns a map (height, width, channels) into a sequence (height * width, channels).

    Raises:
        ModelError: a shape that does not hold as many values, or mixes positions and channels.
    """

    target_shape: tuple[int, ...]
    name: str | None = None
    opens_block: ClassVar[bool] = False

    def __post_init__(self) -> None:
        shape = self.target_shape if isinstance(self.target_shape, (tuple, list)) else (self.target_shape,)
        sides = [side for side in shape if isinstance(side, Integral) and (side > 0 or side == -1)]
        if not shape or len(sides) < len(shape) or sides.count(-1) > 1:
            raise ModelError(f"Reshape takes sides from 1 up, one of them may be -1, not {self.target_shape!r}")
        object.__setattr__(self, "target_shape", tuple(int(side) for side in sides))

    def emit(self, build: Builder) -> None:
        """Change the shape; nothing is computed, so there is no record."""
        known = prod(side for side in self.target_shape if side != -1)
        shape = tuple(build.features // known if side == -1 else side for side in self.target_shape)
        if prod(shape) != build.features:
            raise ModelError(f"Reshape: {build.shape} does not fill {self.target_shape}: change one of them")
        is_input = all(row["op"] is Op.RESCALE for row in build.rows)
        if not is_input and len(shape) > 1 and (len(shape) > 2 or shape[-1] != build.channels):
            raise ModelError(
                f"Reshape turns {build.shape} into (-1, {build.channels}) or ({build.features},), not {shape}: "
                "channels stay channels"
            )
        build.shape = shape


@dataclass(frozen=True)
class MultiHeadAttention:
    """Self-attention of a sequence (steps, features), over all steps: every head has `key_dim` units, features /
    num_heads where that is left out (Vaswani et al. 2017, section 3.2.2). `qkv.weight` is (features, 3 num_heads
    key_dim), for each head its queries, keys and values beside each other, so that leading heads are leading columns;
    `output.weight` is (num_heads key_dim, features).

    Raises:
        ModelError: no head or no unit, or heads that do not divide the features where key_dim is left out.
    """

    num_heads: int
    use_bias: bool = True
    name: str | None = None
    key_dim: int | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_heads", whole("MultiHeadAttention", "head", self.num_heads))
        if self.key_dim is not None:
            object.__setattr__(self, "key_dim", whole("MultiHeadAttention", "unit of a head", self.key_dim))

    def emit(self, build: Builder) -> None:
        """Write the two projections and the records."""
        _check_sequence("MultiHeadAttention", build)
        width, heads = build.channels, self.num_heads
        if heads > LARGEST_SIDE or (self.key_dim is None and width % heads):
            raise ModelError(
                f"MultiHeadAttention: {heads} heads do not divide a width of {width}: change num_heads or the width, "
                "or give key_dim"
            )
        inner = heads * (self.key_dim or width // heads)
        _project(build, "qkv", 3 * inner, "lecun_uniform", self.use_bias)
        build.record(Op.ATTENTION, inner, None, heads << GROUPS_SHIFT)
        build.shape = (*build.shape[:-1], inner)
        _project(build, "output", width, "lecun_uniform", self.use_bias)


@dataclass(frozen=True)
class FeedForward:
    """activation(x W1 + b1) W2 + b2 of each position by itself, with `units` hidden units and as many outputs as
    inputs (Vaswani et al. 2017, section 3.3): `hidden.weight` (features, units), `output.weight` (units, features).

    Raises:
        ModelError: units below 1 or an unknown activation.
    """

    units: int
    activation: str = "gelu"
    use_bias: bool = True
    negative_slope: float = 0.01
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", whole("FeedForward", "hidden unit", self.units))
        check_choice("activation", self.activation, [name for name in ACTIVATIONS if name != "softmax"])

    def emit(self, build: Builder) -> None:
        """Write the two products and the records."""
        width = build.channels
        _project(build, "hidden", self.units, "he_uniform", self.use_bias)
        emit_activation(build, self.activation, self.negative_slope)
        _project(build, "output", width, "lecun_uniform", self.use_bias)


@dataclass(frozen=True)
class Residual:
    """x + layers(x): what its layers make of x is added to x (He et al. 2016, section 3.1). One block, whatever its
    layers are; their output has the shape of x.

    Raises:
        ModelError: no layers, none with weights, or another Residual among them.
    """

    layers: Sequence[Layer]
    name: str | None = None
    opens_block: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.layers, Sequence) or not all(hasattr(layer, "emit") for layer in self.layers):
            raise ModelError(f"Residual takes a list of layers, not {self.layers!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        if any(isinstance(layer, (Residual, Embedding)) for layer in self.layers):
            raise ModelError("a Residual holds neither another one nor an Embedding: put them one behind the other")
        if not any(layer.opens_block for layer in self.layers):
            raise ModelError("a Residual without weights has nothing to learn: put a layer that has some into it")

    def emit(self, build: Builder) -> None:
        """Write the layers, all in one block, and the addition."""
        own, shape, source = build.name, build.shape, len(build.rows) - 1
        for layer, name in zip(self.layers, layer_names(self.layers), strict=True):
            build.name = f"{own}.{name}"
            layer.emit(build)
        if build.shape != shape:
            raise ModelError(
                f"Residual: its layers turn {shape} into {build.shape}, which cannot be added to it: "
                "give the last one the width of the first one's input"
            )
        build.record(Op.ADD, build.channels, source=source)

# SPDX-License-Identifier: Apache-2.0
"""A net as a table of 64-byte records, and where each weight sits in the one flat parameter vector.

Layers (layers.py) write themselves into a Builder; engines, plan, model file and export read the Graph that
comes out. The table is byte for byte what the C core runs and what a model file stores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgelearn import philox
from edgelearn.errors import ModelError
from edgelearn.geometry import Sides, Window
from edgelearn.naming import layer_names
from edgelearn.records import FLAG_NESTED, FLAG_SAME, RECORD, RECURRENT, Op, macs_of_record

FloatArray = NDArray[np.float32]


_MOST_PARAMETERS = 2**31 - 1
"""Offsets are 32-bit words in records and files."""


@dataclass(frozen=True)
class Parameter:
    """A named part of the flat parameter vector; only trainable ones are `net.weights`, the rest are buffers. For
    `glorot_uniform`, `fan_in` is that and fan_out together."""

    name: str
    shape: tuple[int, ...]
    offset: int
    init: str
    fan_in: int = 1
    trainable: bool = True

    @property
    def size(self) -> int:
        """Number of floats."""
        return math.prod(self.shape)

    def view(self, flat: FloatArray) -> FloatArray:
        """This parameter inside the flat vector, writable, nothing copied."""
        return flat[self.offset : self.offset + self.size].reshape(self.shape)


class Layer(Protocol):
    """What a layer must offer to be part of a net."""

    @property
    def name(self) -> str | None:
        """Its own name, if it was given one."""

    @property
    def opens_block(self) -> bool:
        """Whether a new local objective begins with it."""

    def emit(self, build: Builder) -> None:
        """Write the layer's records and parameters."""


@dataclass
class Builder:
    """Collects records and parameters while layers write themselves into it; `shape` is the current output, `padding`
    what recurrent layers pass over."""

    shape: tuple[int, ...]
    name: str = ""
    block: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    total: int = 0
    levels: int = 0
    padding: float | None = None

    @property
    def features(self) -> int:
        """Number of values of one sample at this point."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """Features of one position: the last axis."""
        return self.shape[-1]

    @property
    def sides(self) -> Sides:
        """Of the map at this point; 1 x 1 behind a flat layer."""
        return Sides(*(1, 1, *self.shape[:-1])[-2:])

    def parameter(
        self, suffix: str, shape: tuple[int, ...], init: str, fan_in: int = 1, trainable: bool = True
    ) -> None:
        """Append a parameter called `<layer>.<suffix>` to the flat vector."""
        name = f"{self.name}.{suffix}"
        self.parameters.append(Parameter(name, shape, self.total, init, fan_in, trainable))
        self.total += math.prod(shape)

    def record(
        self,
        op: Op,
        units: int,
        offset: int | None = None,
        flags: int = 0,
        *args: float,
        window: Window | None = None,
        source: int = -1,
    ) -> None:
        """Append a record whose parameters are those added since `offset`; it reads a map where there is one, and an
        addition the record `source` as well."""
        is_flat = op in (Op.RESCALE, Op.DENSE) or len(self.shape) == 1
        fan_in = self.features if is_flat else self.channels
        first = self.total if offset is None else offset
        padded = (*args, 0.0, 0.0)[:2]
        last = len(self.rows) - 1
        nested = FLAG_NESTED if self.levels and op in (Op.DENSE, Op.CONV, *RECURRENT) else 0
        if op is Op.DROPOUT and self.rows[last]["op"] is Op.DROPOUT:
            raise ModelError("two Dropouts in a row: keep one of them")
        self.rows.append(
            dict(
                op=op,
                block=self.block,
                input=(last, source),
                units=units,
                active=units,
                fan_in=fan_in,
                fan_in_active=fan_in,
                stride=units,
                offset=first,
                params=self.total - first,
                flags=flags | nested | (FLAG_SAME if window and window.same else 0),
                arg=padded,
                size=0 if is_flat else self.sides.packed(),
                window=window.packed() if window else 0,
            )
        )


@dataclass(frozen=True)
class Graph:
    """Records, parameters and shapes of a net."""

    records: NDArray[np.void]
    parameters: tuple[Parameter, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    levels: int = 0

    @property
    def blocks(self) -> int:
        """Number of blocks, the output block included."""
        return int(self.records["block"].max()) + 1

    @property
    def features(self) -> int:
        """Values of one input sample."""
        return math.prod(self.input_shape)

    @property
    def outputs(self) -> int:
        """Values of one output."""
        return math.prod(self.output_shape)

    @property
    def size(self) -> int:
        """Floats in the flat parameter vector."""
        return sum(p.size for p in self.parameters)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample's forward pass, matrix products only."""
        products = (Op.DENSE, Op.CONV, Op.ATTENTION, *RECURRENT)
        return sum(macs_of_record(record) for record in self.records if record["op"] in products)

    def initial(self, seed: int) -> FloatArray:
        """A fresh flat parameter vector; a function of the seed alone."""
        flat = np.zeros(self.size, np.float32)
        for index, parameter in enumerate(self.parameters):
            parameter.view(flat)[...] = _initial(parameter, seed, index)
        return flat


def _initial(parameter: Parameter, seed: int, index: int) -> FloatArray:
    if parameter.init in ("zeros", "ones"):
        return np.full(parameter.shape, float(parameter.init == "ones"), np.float32)
    gain = {"he_uniform": 6.0, "lecun_uniform": 3.0, "glorot_uniform": 6.0}[parameter.init]
    bound = np.float32(math.sqrt(gain / parameter.fan_in))
    values = philox.uniform(seed, index, parameter.size).reshape(parameter.shape)
    values *= bound
    return values


_NO_WEIGHTS = "a net begins with a layer that has weights: add a Dense layer first"


def build(
    layers: Sequence[Layer], input_shape: tuple[int, ...], rescale: int = 0, softmax: bool = True, levels: int = 0
) -> Graph:
    """Lay out a net: an optional input rescaling of `rescale` (weight, bias) pairs, the layers, and a softmax. A nested
    net has so many `levels` of width.

    Raises:
        ModelError: no layers, an empty input shape, or a net that does not begin with a layer that has weights.
    """
    if not any(layer.opens_block for layer in layers):
        raise ModelError(_NO_WEIGHTS)
    if not input_shape or min(input_shape) < 1:
        raise ModelError(f"input shape {input_shape} has no values: every side must be at least 1")
    builder = Builder(shape=tuple(input_shape), levels=levels)
    if rescale:
        _emit_rescale(builder, rescale)
    opened = False
    for layer, builder.name in zip(layers, layer_names(layers), strict=True):
        builder.block += int(layer.opens_block and opened)
        opened |= layer.opens_block
        layer.emit(builder)
        if not opened and len(builder.rows) > bool(rescale):
            raise ModelError(_NO_WEIGHTS)
    if builder.padding is not None and not any(row["op"] in RECURRENT for row in builder.rows):
        raise ModelError("Masking is for recurrent layers: add one behind it, or leave out Masking")
    if softmax and builder.rows[-1]["op"] != Op.SOFTMAX:
        builder.record(Op.SOFTMAX, builder.features)
    if builder.total > _MOST_PARAMETERS:
        raise ModelError(f"{builder.total:,} parameters are more than a net can hold: make the layers narrower")
    if any(row["op"] is Op.SOFTMAX for row in builder.rows[:-1]):
        raise ModelError("softmax is for the output: use another activation in the other layers")
    records = np.zeros(len(builder.rows), RECORD)
    for record, row in zip(records, builder.rows, strict=True):
        for key, value in row.items():
            record[key] = value
    return Graph(records, tuple(builder.parameters), tuple(input_shape), builder.shape, levels)


def _emit_rescale(builder: Builder, pairs: int) -> None:
    """Input scaling is a record of its own, so that core, file and exports apply the same numbers."""
    if pairs not in (1, builder.features) and builder.features % pairs:
        raise ModelError(f"{pairs} input scales do not fit {builder.features} input values")
    builder.name = "input"
    builder.parameter("scale", (pairs,), "ones", trainable=False)
    builder.parameter("shift", (pairs,), "zeros", trainable=False)
    builder.record(Op.RESCALE, builder.features, builder.total - 2 * pairs)

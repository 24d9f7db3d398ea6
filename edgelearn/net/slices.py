# SPDX-License-Identifier: Apache-2.0
"""Cuts of a nested net: which widths, at which blocks; and a cut as a plain net of its own, for files and exports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import UsageError
from edgelearn.graph import FloatArray, Graph
from edgelearn.layers import (
    GRU,
    LSTM,
    AnyLayer,
    Conv1D,
    Conv2D,
    Dense,
    FeedForward,
    MultiHeadAttention,
    Residual,
    SimpleRNN,
)
from edgelearn.naming import layer_names
from edgelearn.nested import Nested
from edgelearn.net.skipping import shortened
from edgelearn.prefixes import NESTING, Freedom, cut, freedoms, views
from edgelearn.records import FLAG_NESTED, RECURRENT, Op, groups_of_record

Width = float | Sequence[float]
"""One width for all blocks, or one for each; the output block is always whole, and may be left out."""


@dataclass(frozen=True)
class Slice:
    """What is in use of a net: the width of each block, and which statistics go with it; `most` is its level in the
    grid where all blocks that can have the same, `least` the smallest width of the grid. Blocks are those that are left
    without the units `skipped`, layers by name, at `gone` of the whole net's blocks."""

    widths: tuple[float, ...]
    below: tuple[int, ...]
    most: int | None = None
    least: float = 1.0
    skipped: tuple[str, ...] = ()
    gone: tuple[int, ...] = ()

    def of(self, graph: Graph) -> Graph:
        """The graph of the slice, over the same parameters."""
        left = shortened(graph, self.gone) if self.gone else graph
        return cut(left, self.widths, self.below, self.least)

    def without(self, names: Sequence[str], blocks: Sequence[int]) -> Slice:
        """The slice of a net that was shortened by these units."""
        return replace(self, skipped=tuple(names), gone=tuple(blocks))


def widths_of(graph: Graph, width: Width) -> tuple[float, ...]:
    """A width per block: the output's and that of blocks that have one is 1, a convolution in groups has that of the
    block in front.

    Raises:
        UsageError: another number of widths than blocks, or one outside (0, 1].
    """
    hidden = graph.blocks - 1
    given = list(width) if isinstance(width, Iterable) and not isinstance(width, str) else [width] * hidden
    if len(given) not in (hidden, graph.blocks):
        raise UsageError(f"{len(given)} widths for {hidden} hidden blocks: give one for each, or one for all")
    for value in given:
        if isinstance(value, bool | np.bool_) or not isinstance(value, Real) or not 0 < value <= 1:
            raise UsageError(f"width {value} is not a share of the units: give a number above 0, up to 1")
    if given[hidden:] not in ([], [1]):
        raise UsageError(f"the output block is whole: give {hidden} widths, or 1 as the last, not {given[-1]:g}")
    return _followed(graph, (*map(float, given[:hidden]), 1.0))


def _followed(graph: Graph, widths: tuple[float, ...]) -> tuple[float, ...]:
    """Convolutions in groups are as wide as what they read."""
    found: list[float] = []
    for width, freedom in zip(widths, freedoms(graph), strict=True):
        follows = found[-1] if found and freedom is Freedom.FOLLOWS else 1.0
        found.append(width if freedom is Freedom.OWN else follows)
    return tuple(found)


def slice_of(graph: Graph, nested: Nested, width: Width) -> Slice:
    """The slice of a nested net at widths of its grid.

    Raises:
        UsageError: a width that is not in the grid, or another number of them than blocks.
    """
    widths, top = widths_of(graph, width), len(nested.widths) - 1
    at = [nested.level(w) for w in widths]
    own = {level for level, freedom in zip(at, freedoms(graph), strict=True) if freedom is not Freedom.WHOLE} or {top}
    most = own.pop() if len(own) == 1 else None
    return Slice(widths, tuple(top - level for level in at), most, nested.widths[0])


def truncation_of(graph: Graph, width: Width) -> Slice:
    """The same of a net that was not trained for it.

    Raises:
        UsageError: as `widths_of`.
    """
    widths = widths_of(graph, width)
    return Slice(widths, (0,) * len(widths))


def parts(graph: Graph, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """All that a slice uses of the flat vector, as views by the name that it has in a plain net: trained weights,
    input scaling, and those statistics that go with the widths."""
    found = views(graph, flat)
    for parameter in graph.parameters:
        if parameter.name.startswith("input."):
            found[parameter.name] = parameter.view(flat)
    for record in graph.records:
        if record["op"] == Op.BATCHNORM:
            name = next(p.name for p in graph.parameters if p.offset == record["offset"]).removesuffix(".weight")
            first, units = int(record["offset"]), int(record["units"])
            rows = flat[first : first + int(record["params"])].reshape(-1, units)[2 + 2 * int(record["window"]) :]
            found[f"{name}.mean"], found[f"{name}.variance"] = rows[0, : record["active"]], rows[1, : record["active"]]
    return found


def used(graph: Graph) -> NDArray[np.bool_]:
    """(size) which floats of the flat vector learning in a slice may change."""
    mask = np.zeros(graph.size, np.bool_)
    for name, part in parts(graph, mask).items():
        part[...] = not name.startswith("input.")
    return mask


def bytes_used(graph: Graph, flat: FloatArray) -> int:
    """Bytes of a slice as a plain net."""
    return sum(4 * view.size for view in parts(graph, flat).values())


def gains(graph: Graph) -> dict[str, float]:
    """What the weights of products that read a prefix are multiplied by when they become a plain net's, by name."""
    found = {}
    for record in graph.records:
        is_product = record["op"] in NESTING and record["flags"] & FLAG_NESTED
        if is_product and not (record["op"] == Op.CONV and groups_of_record(record) > 1):
            name = next(p.name for p in graph.parameters if p.offset == record["offset"])
            found[name] = float(np.sqrt(np.float32(record["fan_in"]) / np.float32(record["fan_in_active"])))
            if record["op"] in RECURRENT:
                inner = float(np.sqrt(np.float32(record["units"]) / np.float32(record["active"])))
                found[name.removesuffix("weight") + "recurrent.weight"] = inner
    return found


def narrowed(layers: Sequence[AnyLayer], graph: Graph) -> list[AnyLayer]:
    """The layers of a slice as those of a plain net."""
    units = {}
    for record in graph.records:
        if record["op"] in NESTING:
            units[next(p.name for p in graph.parameters if p.offset == record["offset"])] = int(record["active"])
    return _narrowed(layers, units, "")


def _narrowed(layers: Sequence[Any], units: Mapping[str, int], within: str) -> list[Any]:
    """Layers with the units of their products in use, which go by the name of the weight."""
    found = []
    for layer, own in zip(layers, layer_names(layers), strict=True):
        name, changed = f"{within}{own}", layer
        if isinstance(layer, Residual):
            changed = replace(layer, layers=_narrowed(layer.layers, units, f"{name}."))
        elif isinstance(layer, MultiHeadAttention):
            changed = _fewer_heads(layer, units[f"{name}.qkv.weight"], units[f"{name}.output.weight"])
        elif isinstance(layer, FeedForward):
            changed = replace(layer, units=units[f"{name}.hidden.weight"])
        elif isinstance(layer, Conv1D | Conv2D):
            changed = replace(layer, filters=units[f"{name}.weight"])
        elif isinstance(layer, Dense | SimpleRNN | GRU | LSTM):
            changed = replace(layer, units=units[f"{name}.weight"])
        found.append(changed)
    return found


def _fewer_heads(layer: MultiHeadAttention, columns: int, width: int) -> MultiHeadAttention:
    """Queries, keys and values of each head are that many columns; heads keep their units."""
    each = layer.key_dim or width // layer.num_heads
    heads = columns // (3 * each)
    return layer if heads == layer.num_heads else replace(layer, num_heads=heads, key_dim=each)


def fill(target: Graph, into: FloatArray, graph: Graph, flat: FloatArray) -> None:
    """Copy a slice into the flat vector of its plain net, products with their gain."""
    found, factors = parts(graph, flat), gains(graph)
    for parameter in target.parameters:
        parameter.view(into)[...] = (found[parameter.name] * np.float32(factors.get(parameter.name, 1.0))).reshape(
            parameter.shape
        )

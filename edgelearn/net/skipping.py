# SPDX-License-Identifier: Apache-2.0
"""Nets of fewer blocks over the same weights: units that add to what they read, or give as much, may be left out
(Huang et al. 2016, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError, UsageError
from edgelearn.graph import Graph
from edgelearn.layers import AnyLayer, FeedForward, MultiHeadAttention, Residual
from edgelearn.naming import layer_names
from edgelearn.prefixes import PRODUCTS
from edgelearn.records import Op
from edgelearn.sequences import check_order

UNITS = (Residual, MultiHeadAttention, FeedForward)
"""Layers that give as many features as they read."""

Skip = str | int | Iterable[str | int]
"""Layers to leave out: names, or places in `net.layers`."""


def units_of(layers: Sequence[AnyLayer]) -> dict[str, tuple[int, int]]:
    """Place and block of each layer that may be left out, by its name."""
    found, block = {}, -1
    for place, (layer, name) in enumerate(zip(layers, layer_names(layers), strict=True)):
        block += layer.opens_block
        if isinstance(layer, UNITS) and place + 1 < len(layers):
            found[name] = place, block
    return found


def chosen(layers: Sequence[AnyLayer], skip: Skip) -> tuple[str, ...]:
    """The names of the layers to leave out, in order.

    Raises:
        UsageError: none are named, or one that is not there or that others cannot do without.
    """
    units, names = units_of(layers), layer_names(layers)
    wanted = list(skip) if isinstance(skip, Iterable) and not isinstance(skip, str) else [skip]
    can = f"choose from {', '.join(units)}" if units else "this net has none; give a width instead"
    found = [_name(one, names) for one in wanted]
    for one, name in zip(wanted, found, strict=True):
        if name not in units:
            what = f"there is no layer {one!r}" if name is None else f"layer '{name}' cannot be skipped"
            raise UsageError(f"{what}: only residual, attention and feed-forward units inside the net can; {can}")
    if not found:
        raise UsageError(f"no unit to skip is named; {can}")
    return tuple(name for name in units if name in found)


def _name(one: Any, names: Sequence[str]) -> str | None:
    if isinstance(one, str):
        return one if one in names else None
    is_place = isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(names)
    return names[one] if is_place else None


def remaining(layers: Sequence[AnyLayer], names: Sequence[str]) -> list[AnyLayer]:
    """All other layers, each by the name that it had."""
    own = zip(layers, layer_names(layers), strict=True)
    return [replace(layer, name=name) for layer, name in own if name not in names]


def shortened(graph: Graph, blocks: Sequence[int]) -> Graph:
    """The graph without the units that these blocks begin with, over the same parameters; what follows such a unit in
    its block belongs to the block in front.

    Raises:
        ModelError: what is left is no net.
    """
    records = graph.records
    gone = np.zeros(len(records), bool)
    for block in blocks:
        own = np.flatnonzero(records["block"] == block)
        own = own[records["op"][own] != Op.RESCALE]
        last = own[np.isin(records["op"][own], (*PRODUCTS, Op.ADD))][-1]
        gone[own[0] : last + 1] = True
    kept = records[~gone].copy()
    _check(kept, blocks)
    place = np.cumsum(~gone) - 1  # of what is gone: the record in front of it
    for i, record in enumerate(kept):
        source, block = int(record["input"][1]), int(record["block"])
        record["input"] = i - 1, place[source] if source >= 0 else -1
        record["block"] = max(block - sum(one <= block for one in blocks), 0)  # scaling belongs to the first
    check_order(kept)
    return replace(graph, records=kept)


def _check(kept: NDArray[np.void], blocks: Sequence[int]) -> None:
    ops = kept["op"]
    if 0 in blocks and (kept["block"][ops != Op.RESCALE] == 0).any():
        raise ModelError("what follows the first unit has no weights and would begin the net: skip another one")
    if (ops[:-1][ops[1:] == Op.DROPOUT] == Op.DROPOUT).any():
        raise ModelError("two Dropouts would follow each other: skip another unit, or put the Dropout into it")

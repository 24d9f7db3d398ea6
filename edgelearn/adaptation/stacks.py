# SPDX-License-Identifier: Apache-2.0
"""A trained net with more or fewer layers (Learngene: Xia et al. 2024, TLEG and SWS), as a start for training.

Its stack is the longest row of layers, or of groups of layers, that are alike: residual units, as in vit-tiny. Stacks
of residual units keep most of what they do; without the sums a copied layer sees features that it never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgelearn.adaptation import depth
from edgelearn.errors import ModelError, UsageError
from edgelearn.graph import Graph
from edgelearn.layers import AnyLayer, to_config
from edgelearn.naming import layer_names
from edgelearn.net import Net

WAYS = ("stages", "linear")
"""Copies of the trained layers in order, or layers on the line that comes closest to the trained ones."""


@dataclass(frozen=True)
class Place:
    """Where a stack is: its first layer, layers of one unit, units."""

    first: int
    period: int
    count: int

    @property
    def end(self) -> int:
        """The first layer behind it."""
        return self.first + self.period * self.count


def stack_of(net: Net) -> Place:
    """The longest row of like units in a net; of equally long ones that of the smallest units.

    Raises:
        ModelError: no two neighbours are alike.
    """
    keys = [_key(layer, net.graph, name) for layer, name in zip(net.layers, layer_names(net.layers), strict=True)]
    found = [
        Place(first, period, _repeats(keys, first, period))
        for period in range(1, len(keys) // 2 + 1)
        for first in range(len(keys))
        if net.layers[first].opens_block
    ]
    stacks = [place for place in found if place.count > 1]
    if not stacks:
        raise ModelError("no two neighbouring layers of this net are alike: give it residual units of one width")
    return max(stacks, key=lambda place: (place.period * place.count, place.count))


def _key(layer: AnyLayer, graph: Graph, name: str) -> tuple[Any, ...]:
    shapes = {n: p.shape for n, p in _parameters(graph, name).items()}
    return {**to_config(layer), "name": None}, shapes


def _parameters(graph: Graph, name: str) -> dict[str, Any]:
    """Parameters and statistics of a layer by their names in it."""
    prefix = f"{name}."
    return {p.name.removeprefix(prefix): p for p in graph.parameters if p.name.startswith(prefix)}


def _repeats(keys: Sequence[Any], first: int, period: int) -> int:
    count = 1
    while keys[first : first + period] == keys[first + count * period : first + (count + 1) * period]:
        count += 1
    return count


def with_depth(net: Net, units: int, how: str = "stages") -> Net:
    """A new net whose stack has so many units, their weights made of the trained ones by a way of WAYS; all else, and
    what a net of the same depth answers by "stages", stays.

    Raises:
        UsageError: an unknown way, fewer than one unit, or a submodel.
        ModelError: a net without a stack.
    """
    if how not in WAYS or isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise UsageError(f"{units} units by '{how}': give 1 or more, by one of {', '.join(WAYS)}")
    if net.slice:
        raise UsageError("a submodel shares the weights of its net: change the depth of the whole net")
    place = stack_of(net)
    names = layer_names(net.layers)
    trained = [_unit(net, names[start : start + place.period]) for start in range(place.first, place.end, place.period)]
    grown = (
        depth.stagewise(trained, units)
        if how == "stages"
        else depth.linear_expansion(*depth.linear_gene(trained), units)
    )
    made = _built(net, place, units)
    _fill(made, net, place, grown)
    return made


def _unit(net: Net, names: Sequence[str]) -> dict[str, Any]:
    return {
        f"{number}.{key}": parameter.view(net.flat)
        for number, name in enumerate(names)
        for key, parameter in _parameters(net.graph, name).items()
    }


def _built(net: Net, place: Place, units: int) -> Net:
    """The layers; those of the stack lose names of their own, which copies cannot share."""
    unit = [replace(layer, name=None) for layer in net.layers[place.first : place.first + place.period]]
    layers = [*net.layers[: place.first], *unit * units, *net.layers[place.end :]]
    made = Net(
        layers, seed=net.seed, loss=net.loss, input=net.input, train=net.train, classes=net.classes, nested=net.nested
    )
    made.restore(net.samples, net.provenance)
    return made


def _fill(made: Net, net: Net, place: Place, grown: Sequence[dict[str, Any]]) -> None:
    old, new = layer_names(net.layers), layer_names(made.layers)
    tail = len(net.layers) - place.end
    same = [*zip(old[: place.first], new[: place.first], strict=True)]
    same += [*zip(old[place.end :], new[len(new) - tail :], strict=True)]
    for before, after in [*same, ("input", "input")]:
        source = _parameters(net.graph, before)
        for key, parameter in _parameters(made.graph, after).items():
            parameter.view(made.flat)[...] = source[key].view(net.flat)
    for unit, arrays in enumerate(grown):
        for number in range(place.period):
            name = new[place.first + unit * place.period + number]
            for key, parameter in _parameters(made.graph, name).items():
                parameter.view(made.flat)[...] = arrays[f"{number}.{key}"]

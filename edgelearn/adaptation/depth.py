# SPDX-License-Identifier: Apache-2.0
"""Trained stacks of like layers made deeper or shallower, wider or narrower, as a start for training.

A stack is a list of layers, each a dictionary of arrays by name, alike in all layers. Linear expansion is TLEG's (Xia
et al. 2024), stage-wise sharing SWS's (Xia et al. 2024), coalescing that of multi-level training (Zou et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import UsageError

Array = NDArray[np.floating]
Layer = Mapping[str, Array]
Stack = list[dict[str, Array]]


def _check(stack: Sequence[Layer], depth: int) -> None:
    if not stack or depth < 1:
        raise UsageError(f"{len(stack)} layers cannot become {depth}: give one or more of each")
    shapes = [{name: array.shape for name, array in layer.items()} for layer in stack]
    if any(shape != shapes[0] for shape in shapes):
        raise UsageError("layers of a stack must have the same arrays: leave out those that differ")


def linear_gene(stack: Sequence[Layer]) -> tuple[dict[str, Array], dict[str, Array]]:
    """theta_B and theta_A of layer l = theta_B + l / L theta_A that come closest to a stack of L layers.

    Raises:
        UsageError: no layers, or layers that are not alike.
    """
    _check(stack, 1)
    places = np.arange(len(stack)) / len(stack)
    design = np.linalg.pinv(np.stack([np.ones(len(stack)), places], axis=1))
    base, slope = {}, {}
    for name in stack[0]:
        values = np.stack([layer[name] for layer in stack])
        found = np.tensordot(design, values, axes=1).astype(values.dtype)
        base[name], slope[name] = found[0], found[1]
    return base, slope


def linear_expansion(base: Layer, slope: Layer, depth: int) -> Stack:
    """A stack of any depth L from a gene: layer l is base + l / L slope.

    Raises:
        UsageError: a depth below 1, or parts that do not fit.
    """
    _check([base, slope], depth)
    return [
        {name: (base[name] + layer / depth * slope[name]).astype(base[name].dtype) for name in base}
        for layer in range(depth)
    ]


def stage_map(stages: int, depth: int) -> list[int]:
    """Which stage each of `depth` layers copies: never falling, as even as can be, every stage where depth allows.

    Raises:
        UsageError: no stages or no layers.
    """
    if stages < 1 or depth < 1:
        raise UsageError(f"{stages} stages and {depth} layers cannot be: give one or more of each")
    return [layer * stages // depth for layer in range(depth)]


def stagewise(stages: Sequence[Layer], depth: int) -> Stack:
    """A stack of any depth whose layers copy the stages in order.

    Raises:
        UsageError: as `stage_map`, or stages that are not alike.
    """
    _check(stages, depth)
    return [{name: array.copy() for name, array in stages[place].items()} for place in stage_map(len(stages), depth)]


def stages_of(stack: Sequence[Layer], count: int) -> Stack:
    """A stack shared within `count` stages: the mean of the layers of each; what is stored shrinks to count / L.

    Raises:
        UsageError: more stages than layers, or layers that are not alike.
    """
    _check(stack, 1)
    if not 1 <= count <= len(stack):
        raise UsageError(f"{len(stack)} layers do not make {count} stages: choose 1 to {len(stack)}")
    places = np.array(stage_map(count, len(stack)))
    return [
        {name: np.mean([stack[i][name] for i in np.flatnonzero(places == stage).tolist()], axis=0) for name in stack[0]}
        for stage in range(count)
    ]


def coalesce_depth(stack: Sequence[Layer]) -> Stack:
    """Half as many layers: the means of neighbours.

    Raises:
        UsageError: an odd number of layers, or layers that are not alike.
    """
    _check(stack, 1)
    if len(stack) % 2:
        raise UsageError(f"{len(stack)} layers have no pairs: give an even number")
    pairs = zip(stack[::2], stack[1::2], strict=True)
    return [{name: ((a[name] + b[name]) / 2).astype(a[name].dtype) for name in a} for a, b in pairs]


def decoalesce_depth(stack: Sequence[Layer]) -> Stack:
    """Twice as many layers, each twice; coalescing them gives the stack back exactly."""
    _check(stack, 1)
    return [{name: array.copy() for name, array in layer.items()} for layer in stack for _ in range(2)]


def coalesce_width(weight: Array, inputs: bool = True, outputs: bool = True) -> Array:
    """A matrix (inputs, outputs) of half the width: pairs of inputs summed, pairs of outputs averaged, so that of
    doubled inputs it gives what the whole gives on average.

    Raises:
        UsageError: an odd side that should be halved.
    """
    out = weight
    for wanted, axis in ((inputs, 0), (outputs, 1)):
        if wanted and out.shape[axis] % 2:
            raise UsageError(f"a side of {out.shape[axis]} has no pairs: give an even one")
    if inputs:
        out = out[0::2] + out[1::2]
    if outputs:
        out = (out[:, 0::2] + out[:, 1::2]) / 2
    return np.ascontiguousarray(out, weight.dtype)


def decoalesce_width(weight: Array, inputs: bool = True, outputs: bool = True) -> Array:
    """A matrix of twice the width that does on doubled features what this one does; coalescing undoes it exactly."""
    out = weight
    if inputs:
        out = np.repeat(out, 2, axis=0) / 2
    if outputs:
        out = np.repeat(out, 2, axis=1)
    return np.ascontiguousarray(out, weight.dtype)


def interpolate(before: Sequence[Layer], grown: Sequence[Layer], alpha: float) -> Stack:
    """(1 - alpha) of the large stack from before and alpha of the one grown from the small: units that were doubled are
    no longer alike, and can learn apart.

    Raises:
        UsageError: alpha outside 0 to 1, or stacks that do not fit.
    """
    _check([*before, *grown], 1)
    if not 0 <= alpha <= 1 or len(before) != len(grown):
        raise UsageError(f"alpha {alpha} and stacks of {len(before)} and {len(grown)} layers do not mix: correct them")
    pairs = zip(before, grown, strict=True)
    return [{name: ((1 - alpha) * a[name] + alpha * b[name]).astype(a[name].dtype) for name in a} for a, b in pairs]

# SPDX-License-Identifier: Apache-2.0
"""Nested nets: a grid of widths, and how training draws from it: per step as in MatFormer (Kudugunta et al. 2023,
section 3.2), or per block as in Once-for-All (Cai et al. 2020), or all learn from every batch as in slimmable networks
(Yu et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from edgelearn.errors import UsageError
from edgelearn.graph import Graph
from edgelearn.prefixes import units_at

WIDTHS = (0.125, 0.25, 0.5, 1.0)

_LARGEST, _SMALLEST, _NEXT = 0.41, 0.17, 0.22
"""Chances of the largest width, the smallest and the one below the largest: MatFormer, table 6. Drawn alike, four
widths cost the full one two to three times as much."""

SAMPLINGS = ("same", "independent", "every")
"""same: one width is drawn for all blocks in a step; independent: one for each block; every: all widths learn from
every batch, the narrowest first, which costs as much as nets of these widths would alone."""


@dataclass(frozen=True)
class Levels:
    """What an engine is told: units in use of each record at each level, (levels, records) ascending to the net as it
    is, the chance of each, the place of the sampling in SAMPLINGS, and which statistics of a batch normalisation the
    last one has."""

    units: tuple[tuple[int, ...], ...]
    chances: tuple[float, ...]
    sampling: int = 0
    statistics: int = 0


@dataclass(frozen=True)
class Nested:
    """The widths of a nested net, ascending to 1, and which of them learn from a batch: left out, every one, or, where
    they have chances, one that is drawn.

    Raises:
        UsageError: widths that are no such grid, chances that do not fit them or are not drawn by, or an unknown
            sampling.
    """

    widths: tuple[float, ...] = WIDTHS
    chances: tuple[float, ...] | str | None = None
    sampling: str | None = None

    def __post_init__(self) -> None:
        sampling = self.sampling or ("every" if self.chances is None else "same")
        if sampling not in SAMPLINGS:
            raise UsageError(f"unknown sampling '{sampling}': choose one of {', '.join(SAMPLINGS)}")
        if sampling == "every" and self.chances is not None:
            raise UsageError("where every width learns none has a chance: leave out chances, or draw by sampling same")
        object.__setattr__(self, "widths", _grid(self.widths))
        object.__setattr__(self, "sampling", sampling)
        if sampling != "every":
            object.__setattr__(self, "chances", _chances(self.chances or "weighted", len(self.widths)))

    def level(self, width: float) -> int:
        """The place of a width in the grid.

        Raises:
            UsageError: it is not in it.
        """
        near = [i for i, known in enumerate(self.widths) if math.isclose(known, width, rel_tol=1e-6)]
        if not near:
            known = ", ".join(f"{w:g}" for w in self.widths)
            raise UsageError(f"width {width:g} is not in the grid of this net: choose one of {known}")
        return near[0]

    def to_table(self) -> dict[str, Any]:
        """As a model file holds it."""
        drawn = {} if self.chances is None else {"chances": list(self.chances)}
        return {"widths": list(self.widths), **drawn, "sampling": self.sampling}


Grid = Nested | Iterable[float] | Mapping[str, Any] | bool | None
"""What `nested` of a net may be."""


def parse(value: Grid) -> Nested | None:
    """What `nested` of a net means: True, a grid of widths, a table of Nested's arguments, or one; False for none.

    Raises:
        UsageError: anything else.
    """
    if value is None or isinstance(value, Nested):
        return value
    if isinstance(value, bool):
        return Nested() if value else None
    if isinstance(value, Mapping):
        known = ("widths", "chances", "sampling")
        for key in value:
            if key not in known:
                raise UsageError(f"nested has no '{key}': it takes {', '.join(known)}")
        return Nested(**value)
    return Nested(tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value)


def _grid(widths: Any) -> tuple[float, ...]:
    given = tuple(widths) if isinstance(widths, Iterable) and not isinstance(widths, str) else ()
    if not given or not all(isinstance(w, Real) and not isinstance(w, bool) for w in given):
        raise UsageError(f"widths must be shares of the units, as 0.25, 0.5, 1, not {widths!r}: list them")
    if not all(0 < a < b for a, b in pairwise((*given, 2))) or float(given[-1]) != 1:
        raise UsageError(f"widths {given} must ascend from above 0 to 1: sort them and end with 1")
    return tuple(float(w) for w in given)


def _chances(chances: Any, count: int) -> tuple[float, ...]:
    if isinstance(chances, str):
        if chances not in ("weighted", "uniform"):
            raise UsageError(f"chances must be weighted, uniform or one number per width, not '{chances}'")
        return _weighted(count) if chances == "weighted" else (1 / count,) * count
    given: tuple[Any, ...] = tuple(chances) if isinstance(chances, Iterable) else (chances,)
    numbers = len(given) == count and all(isinstance(c, Real) for c in given)
    if not numbers or not all(0 <= c < math.inf for c in given) or not sum(given):
        raise UsageError(f"{count} widths need {count} chances of 0 or more, not {chances!r}: give one for each")
    return tuple(float(c / sum(given)) for c in given)


def _weighted(count: int) -> tuple[float, ...]:
    """The largest width has 0.41; the others share the rest, rising as MatFormer's three do."""
    if count == 1:
        return (1.0,)
    rest = np.linspace(_SMALLEST, _NEXT, count - 1)
    return (*(rest / rest.sum() * (1 - _LARGEST)).tolist(), _LARGEST)


def levels(graph: Graph, nested: Nested, most: int | None = None) -> Levels:
    """What an engine draws from: the widths of the grid, up to level `most`."""
    last = len(nested.widths) - 1
    count = last + 1 if most is None else most + 1
    table = tuple(units_at(graph, [width] * graph.blocks) for width in nested.widths[:count])
    given = nested.chances if nested.chances and count == last + 1 else _weighted(count)
    return Levels(table, tuple(map(float, given)), SAMPLINGS.index(str(nested.sampling)), last + 1 - count)

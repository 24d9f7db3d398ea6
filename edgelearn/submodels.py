# SPDX-License-Identifier: Apache-2.0
"""What a net can be cut into: views of its prefixes, which share its weights, and plain nets of their own."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from typing import TypeVar

from edgelearn.errors import UsageError
from edgelearn.layers import AnyLayer
from edgelearn.slices import Slice, Width, fill, narrowed, slice_of, truncation_of
from edgelearn.structure import Structure

N = TypeVar("N", bound="Nestable")


class Nestable(Structure, ABC):
    """A net that submodels are cut from, or such a submodel."""

    @abstractmethod
    def _cut(self: N, cut: Slice) -> N:
        """The same net with that slice in use."""

    @abstractmethod
    def _plain(self: N, layers: list[AnyLayer]) -> N:
        """A net of these layers, otherwise like this one, with weights of its own."""

    def submodel(self: N, width: Width, *, truncate: bool = False) -> N:
        """A narrower net over the same weights: a prefix of the units of every block, or, with one width per hidden
        block, another prefix of each (Mix'n'Match). Nothing is copied: what it learns changes that prefix of this net,
        too, and nothing else.

        `truncate` cuts a net that is not nested all the same, and warns.

        Raises:
            UsageError: a width that is not in the grid, or a net that was never trained at other widths.
        """
        if self.slice:
            raise UsageError("this is a submodel: cut the whole net instead")
        if self.nested:
            return self._cut(slice_of(self.graph, self.nested, width))
        if not truncate:
            raise UsageError(
                "this net is not nested, so its prefixes were never trained: make it with nested=True, or pass "
                "truncate=True to cut it all the same"
            )
        warnings.warn("this net was not trained at other widths: its submodels answer poorly", stacklevel=2)
        return self._cut(truncation_of(self.graph, width))

    def adopt_slice(self, cut: Slice) -> None:
        """Become a submodel of what this is a copy of."""
        self._graph, self.slice, self.nested = cut.of(self.graph), cut, None

    @property
    def sharing(self) -> str:
        """What learning in this net changes, in words."""
        changed = sum(view.size for view in self.weights.values())
        if not self.slice:
            return f"learning changes all of its {changed:,} weights"
        shared = f"{changed:,} of {sum(p.size for p in self.graph.parameters if p.trainable):,}"
        return f"learning changes {shared} weights, which the whole net shares, and leaves the others alone"

    def compact(self: N) -> N:
        """A submodel as a plain net of its own, its weights copied and no longer shared."""
        if not self.slice:
            return copy.deepcopy(self)
        plain = self._plain(narrowed(self.layers, self.graph))
        fill(plain.graph, plain.flat, self.graph, self._flat)
        return plain

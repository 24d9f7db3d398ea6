# SPDX-License-Identifier: Apache-2.0
"""What a net can be cut into: views of its prefixes, which share its weights, and plain nets of their own."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from typing import Any, TypeVar

from numpy.typing import NDArray

from edgelearn.costs.boards import Board
from edgelearn.costs.budget import Budget, known
from edgelearn.costs.calibration import Tick, latency_on, silent
from edgelearn.costs.plan import Plan
from edgelearn.errors import BudgetError, UsageError
from edgelearn.graph import Graph
from edgelearn.layers import AnyLayer
from edgelearn.net.answering import Answering
from edgelearn.net.choice import Chooser, Planned, Scores, Widths, needs
from edgelearn.net.planning import heat_on, planner, smallest_batch, warn_unheld
from edgelearn.net.skipping import Skip, chosen, remaining, shortened, units_of
from edgelearn.net.slices import Slice, Width, fill, narrowed, slice_of, truncation_of
from edgelearn.training.recipe import Recipe

N = TypeVar("N", bound="Nestable")

OF_WHOLE = ("submodels", "scored_on", "trained_width")
"""What provenance says of a nested net and not of its submodels."""


class Nestable(Answering, ABC):
    """A net that submodels are cut from, or such a submodel."""

    provenance: dict[str, Any]

    @abstractmethod
    def _cut(self: N, cut: Slice) -> N:
        """The same net with that slice in use."""

    @abstractmethod
    def _plain(self: N, layers: list[AnyLayer]) -> N:
        """A net of these layers, otherwise like this one, with weights of its own."""

    def plan(
        self,
        budget: Budget | None = None,
        *,
        batch: int | None = None,
        purpose: str = "train",
        samples: int = 1,
        board: str | Board | None = None,
        **settings: Any,
    ) -> Plan:
        """What a run would take. Without `batch`, the largest up to the recipe's that fits the budget; `samples` are
        those of the training set, which the sequential schedule keeps on disk. `board` is one of boards/, or a .toml;
        left out, times are this machine's. A nested net that does not fit whole has the plan of the widest prefix that
        does, which is what `fit` with that budget trains.

        Raises:
            BudgetError: nothing fits, or the given batch does not; the nearest plan that fits is named.
        """
        run, smallest = self.recipe(**settings), smallest_batch(self, purpose)
        most = max(run.batch if purpose == "train" else 1, smallest)
        latency = latency_on(board) if board or purpose == "infer" else None
        warn_unheld(known(budget), heat_on(latency))
        for part in self._prefixes():
            plans = planner(part, run, purpose, samples, latency)
            if batch is None and budget is not None:
                found = plans.largest(most, budget, smallest)
            else:
                found = plans.at(batch or most, budget)
            if found is not None and found.fits:
                return found
        if self.nested is None or part is self:
            return plans.require(batch or most, budget, smallest)
        least = plans.at(batch or smallest, budget)
        raise BudgetError(
            f"no width fits ({least.reason}): the smallest, {self.nested.widths[0]:g}, needs {needs(least)} with batch "
            f"{least.batch}; raise the budget or make the layers narrower"
        )

    @property
    def trained(self: N) -> N:
        """What of a nested net was trained: all of it, or, under a budget, the widest prefix that fitted."""
        width = self.provenance.get("trained_width")
        return self if width is None or self.nested is None else self.prefix(self.nested.level(width))

    @property
    def top(self) -> int:
        """The level of the grid that the widest of its submodels has."""
        assert self.levels is not None
        return len(self.levels.units) - 1

    def _prefixes(self: N) -> list[N]:
        """The net, and if it is nested the narrower ones in it, each with those below."""
        count = len(self.nested.widths) if self.nested and not self.slice else 1
        return [self, *(self.prefix(level) for level in range(count - 2, -1, -1))]

    def submodel(
        self: N,
        width: Width | None = None,
        *,
        budget: Budget | None = None,
        board: str | Board | None = None,
        truncate: bool = False,
        skip: Skip | None = None,
    ) -> N:
        """A narrower net over the same weights: a prefix of the units of every block, or, with one width per hidden
        block, another prefix of each (Mix'n'Match). Nothing is copied: what it learns changes that prefix of this net,
        too, and nothing else.

        `skip` leaves out residual, attention and feed-forward units, named or by their place in `layers`; widths, if
        any, are those of the hidden blocks that are left. What is left was not trained for it, so score it. Later
        blocks learn by the codes of their new places.

        With a `budget` it is the mix that scored highest of those that fit, on this machine or on a `board` of boards/.
        Scores are those of `score_submodels`; `fit` makes them of what `validation` holds out, or else of training
        samples. `truncate` cuts a net that is not nested all the same, and warns.

        Raises:
            UsageError: a width that is not in the grid, or a net that was never trained at other widths.
            BudgetError: no submodel fits; the smallest and what it needs are named.
        """
        if (width is None and skip is None) == (budget is None):
            raise UsageError(
                "a submodel has a width or a budget to fit: pass one of the two; units to skip go with a width"
            )
        if self.slice:
            raise UsageError("this is a submodel: cut the whole net instead")
        budget = known(budget)
        if budget is not None:
            return self.submodel(self.chooser(board).best(budget).widths)
        if board is not None:
            raise UsageError("a submodel of a width is the same on every board: leave out board, or give a budget")
        if skip is None:
            return self._cut(self._narrow(self.graph, width, truncate))
        names, units = chosen(self.layers, skip), units_of(self.layers)
        blocks = [units[name][1] for name in names]
        left = self._narrow(shortened(self.graph, blocks), width, truncate)
        return self._cut(left.without(names, blocks))

    def _narrow(self, graph: Graph, width: Width | None, truncate: bool) -> Slice:
        """The slice of a width, None for all of it, of this net or of what is left of it."""
        if self.nested:
            return slice_of(graph, self.nested, 1.0 if width is None else width)
        if width is None:
            return truncation_of(graph, 1.0)
        if not truncate:
            raise UsageError(
                "this net is not nested, so its prefixes were never trained: make it with nested=True (--nested), or "
                "cut it all the same with truncate=True (`edgelearn submodel --truncate`)"
            )
        warnings.warn("this net was not trained at other widths: its submodels answer poorly", stacklevel=3)
        return truncation_of(graph, width)

    def chooser(self, board: str | Board | None = None) -> Chooser:
        """The submodels that were scored on held-out samples, planned for this machine or a board.

        Raises:
            UsageError: none were: the net is not nested, or was not fitted.
        """
        scores = {tuple(one["widths"]): one["score"] for one in self.provenance.get("submodels", [])}
        if not scores:
            why = "was not fitted" if self.nested else "is not nested"
            raise UsageError(
                f"this net {why}, so none of its submodels has been scored: fit it with nested=True "
                "(`edgelearn train --nested`), or give a width"
            )
        return Chooser(scores, self.planned(board), heat_on(latency_on(board)))

    def planned(self, board: str | Board | None = None) -> Planned:
        """What the submodel of some widths takes on this machine or a board, for one sample at a time."""
        latency = latency_on(board)
        found: dict[Widths, Plan] = {}

        def planned(widths: Widths) -> Plan:
            if widths not in found:
                small = self.submodel(widths)
                found[widths] = planner(small, small.recipe(), "infer", latency=latency).at(1)
            return found[widths]

        return planned

    @property
    def scored_on(self) -> str:
        """Which samples the submodels were scored on, in words."""
        return str(self.provenance.get("scored_on", "samples that the file does not name"))

    def score_submodels(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        tick: Tick = silent,
        budget: Budget | None = None,
        board: str | Board | None = None,
        of: str = "held-out",
    ) -> None:
        """Score mixes on samples x and their answers y, for choices under a budget; model files keep the scores and
        what samples they are of: held-out ones, which did not train the net, or others that `of` names. Where mixes are
        too many to score all, a `budget` (without limits, if need be) has more of them scored: those that a
        search for the best that fits on the board comes by."""
        scores = Scores(self.trained, x, y)
        scores.measure(tick)
        if budget is not None:
            scores.search(self.planned(board), budget, tick)
        self.provenance["submodels"] = scores.table()
        self.provenance["scored_on"] = f"{scores.count:,} {of} samples"

    def score_fitted(self, x: NDArray[Any], y: NDArray[Any], held: NDArray[Any] | None) -> None:
        """Score submodels after all of this net was trained on samples x: on those held out, or else on all."""
        self.provenance.pop("trained_width", None)
        rows: Any = slice(None) if held is None else held
        self.score_submodels(x[rows], y[rows], of="training" if held is None else "held-out")

    def take_scores(self: N, part: N) -> None:
        """Those of a prefix, after that alone was trained."""
        assert self.nested is not None
        learned = {key: part.provenance[key] for key in ("submodels", "scored_on")}
        self.provenance.update(learned, trained_width=self.nested.widths[part.top])

    def widest(self: N, budget: Budget | None, run: Recipe, samples: int) -> N:
        """The largest prefix of a nested net, with the narrower ones in it, whose training fits the budget; the net
        itself where it is not nested or nothing is to be kept.

        Raises:
            BudgetError: not even the smallest does; what it needs is named.
        """
        if budget is None or self.nested is None or self.slice:
            return self
        batch = min(run.batch, samples)
        for part in self._prefixes():
            plan = planner(part, run, samples=samples).at(batch, budget)
            if plan.fits:
                return part
        raise BudgetError(
            f"no width fits ({plan.reason}): the smallest, {self.nested.widths[0]:g}, needs {needs(plan)} with batch "
            f"{batch}; raise the budget or take a smaller batch"
        )

    def prefix(self: N, level: int) -> N:
        """The submodel of a level of the grid, still nested: it trains the levels up to its own."""
        assert self.nested is not None
        if level + 1 == len(self.nested.widths):
            return self
        part = self._cut(slice_of(self.graph, self.nested, self.nested.widths[level]))
        part.nested = self.nested
        return part

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
        left = remaining(self.layers, self.slice.skipped) if self.slice.skipped else self.layers
        plain = self._plain(narrowed(left, self.graph))
        fill(plain.graph, plain.flat, self.graph, self._flat)
        return plain

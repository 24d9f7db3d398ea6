# SPDX-License-Identifier: Apache-2.0
"""Which submodel: the accuracies of mixes on held-out samples, the best mix that fits a budget, and the front of those
that nothing beats.

Mixes are all of them where these are few, else those of two neighbouring widths (Kudugunta et al. 2023, section 3.3)
and what a search under the budget comes by.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import engines
from edgelearn.costs.budget import Budget
from edgelearn.costs.calibration import Tick
from edgelearn.costs.plan import Plan
from edgelearn.engines import Config
from edgelearn.errors import BudgetError, UsageError
from edgelearn.metrics import accuracy, r_squared
from edgelearn.net.planning import warn_unheld
from edgelearn.net.search import MOST, Levels, Search
from edgelearn.net.structure import Structure
from edgelearn.prefixes import Freedom, freedoms

EXHAUSTIVE = 256
"""So many mixes are all measured; where there are more, a part of them."""

SAMPLES = 1000
"""Most held-out samples that a mix is measured on."""

Mix = tuple[int, ...]
"""The level of each block, the output's included."""

Widths = tuple[float, ...]
Planned = Callable[[Widths], Plan]


@dataclass(frozen=True)
class Candidate:
    """A mix with what it scores and takes."""

    widths: Widths
    score: float
    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """Widths, accuracy, bytes, multiply-adds and milliseconds."""
        plan = self.plan
        return {
            "widths": list(self.widths),
            "accuracy": self.score,
            "peak_bytes": plan.peak_bytes,
            "weight_bytes": plan.weight_bytes,
            "macs": plan.macs,
            "predicted_ms": plan.predicted_ms,
        }


def free_blocks(net: Structure) -> list[int]:
    """Blocks whose width may be chosen: neither what has one nor convolutions in groups, which follow their inputs."""
    return [block for block, freedom in enumerate(freedoms(net.graph)) if freedom is Freedom.OWN]


def spread(net: Structure, chosen: Sequence[int], top: int) -> Mix:
    """The level of every block from those of the free ones."""
    given, levels = iter(chosen), list[int]()
    for freedom in freedoms(net.graph):
        follows = levels[-1] if levels and freedom is Freedom.FOLLOWS else top
        levels.append(next(given) if freedom is Freedom.OWN else follows)
    return tuple(levels)


class Scores:
    """Scores of mixes of a nested net on samples, each measured once, all in one session.

    Args:
        net: nested.
        x: samples as the net's data holds them.
        y: labels or targets.
    """

    def __init__(self, net: Structure, x: NDArray[Any], y: NDArray[Any]) -> None:
        if net.nested is None or net.levels is None:
            raise UsageError("this net is not nested: it has one width to score")
        self.net, self.top = net, len(net.levels.units) - 1  # of a prefix, the levels up to its own
        self.widths = net.nested.widths
        picked = np.unique(np.linspace(0, len(x) - 1, min(SAMPLES, len(x))).astype(np.int64))
        self.count = len(picked)
        self._rows, self._y = net.input.prepare(x[picked]), y[picked]
        config = Config(batch=64, targets=net.graph.outputs, train=False, nest=net.levels)
        self._session = engines.load("native").open(net.graph.records, net.flat, config)
        self.found: dict[Mix, float] = {}

    def of(self, mix: Mix) -> float:
        """Accuracy, or R squared in regression."""
        if mix not in self.found:
            self._session.resize(mix)
            measure = accuracy if self.net.loss == "cross_entropy" else r_squared
            self.found[mix] = float(measure(self._session.forward(self._rows), self._y))
        return self.found[mix]

    def table(self) -> list[dict[str, Any]]:
        """What was measured, as model files hold it."""
        return [{"widths": list(self.widths_of(mix)), "score": score} for mix, score in self.found.items()]

    def measure(self, tick: Tick) -> None:
        """All mixes, or, where these are many, those of neighbouring widths."""
        free, levels = len(free_blocks(self.net)), self.top + 1
        mixes = list(itertools.product(range(levels), repeat=free)) if self.is_small else neighbours(free, levels)
        for done, mix in enumerate(mixes, 1):
            self.of(spread(self.net, mix, self.top))
            tick(done, len(mixes))

    @property
    def is_small(self) -> bool:
        """Whether all mixes are measured, so that there is nothing to search."""
        mixes: int = (self.top + 1) ** len(free_blocks(self.net))
        return mixes <= EXHAUSTIVE

    def search(self, plan: Planned, budget: Budget, tick: Tick) -> None:
        """Measure further mixes where these are many: those of a search for the best that fits."""
        if self.is_small:
            return
        chosen = free_blocks(self.net)

        def score(levels: Levels) -> float:
            return self.of(spread(self.net, levels, self.top))

        def fits(levels: Levels) -> bool:
            widths = self.widths_of(spread(self.net, levels, self.top))
            return not broken(plan(widths), budget)

        known = [tuple(mix[block] for block in chosen) for mix in self.found] + neighbours(len(chosen), self.top + 1)
        looking = Search(len(chosen), self.top, score, fits)
        for _ in looking.run(known):
            tick(len(looking.found), max(MOST, len(looking.found)))

    def widths_of(self, mix: Mix) -> Widths:
        """The widths of a mix, the output's being 1."""
        return (*(self.widths[level] for level in mix[:-1]), 1.0)


def neighbours(free: int, levels: int) -> list[tuple[int, ...]]:
    """Mixes of one level and the next: wider ones behind, and, for comparison, in front."""
    found: dict[tuple[int, ...], None] = {(level,) * free: None for level in range(levels)}
    for level, wider in itertools.product(range(levels - 1), range(1, free)):
        rising = (level,) * (free - wider) + (level + 1,) * wider
        found[rising] = found[rising[::-1]] = None
    return list(found)


@dataclass(frozen=True)
class Chooser:
    """The best of the mixes that were scored; `plan` says what the submodel of some widths takes, `heat` how hot the
    board is."""

    scores: Mapping[Widths, float]
    plan: Planned
    heat: Callable[[], float | None] = lambda: None

    def candidates(self) -> list[Candidate]:
        """All mixes, the smallest first."""
        found = [Candidate(widths, score, self.plan(widths)) for widths, score in self.scores.items()]
        return sorted(found, key=_size)

    def best(self, budget: Budget, among: Sequence[Candidate] | None = None) -> Candidate:
        """The mix of the highest score that fits, of equal ones the smallest.

        Raises:
            BudgetError: none fits; the smallest and what it needs are named. Or the board is too hot for any.
        """
        warn_unheld(budget, self.heat)
        if hot := budget.broken(0, 0, None, 0, temperature=self.heat()):
            raise BudgetError(f"no submodel fits ({hot[0]}): let the board cool, or raise the budget")
        known = self.candidates() if among is None else list(among)
        fitting = [one for one in known if not broken(one.plan, budget)]
        if not fitting:
            least = known[0]
            raise BudgetError(
                f"no submodel fits ({', '.join(broken(least.plan, budget))}): the smallest, of widths "
                f"{_said(least.widths)}, needs {needs(least.plan)}; raise the budget"
            )
        return max(fitting, key=lambda one: (one.score, *(-figure for figure in _size(one))))


def broken(plan: Plan, budget: Budget) -> list[str]:
    """The limits that a plan breaks, in words."""
    seconds = None if plan.predicted_ms is None else plan.predicted_ms / 1e3
    return budget.broken(plan.peak_bytes, plan.weight_bytes, seconds, plan.macs)


def needs(plan: Plan) -> str:
    """What a plan takes of each limit, in words."""
    time = "" if plan.predicted_ms is None else f" and {plan.predicted_ms:.3g} ms"
    return f"{plan.peak_bytes:,} bytes of memory, {plan.weight_bytes:,} of flash, {plan.macs:,} multiply-adds{time}"


def _said(widths: Widths) -> str:
    return ", ".join(f"{w:g}" for w in widths[:-1])


def _size(one: Candidate) -> tuple[float, ...]:
    return one.plan.macs, one.plan.weight_bytes, one.plan.peak_bytes


def explain(chosen: Candidate, among: Sequence[Candidate], budget: Budget) -> str:
    """Why that one, in one sentence."""
    fitting = [one for one in among if not broken(one.plan, budget)]
    head = f"widths {_said(chosen.widths)} score highest, {chosen.score:.4f}, of "
    if len(fitting) == len(among):
        return f"{head}all {len(among)} submodels, and all of them fit"
    head += f"the {len(fitting)} of {len(among)} submodels that fit"
    better = [one for one in among if one.score > chosen.score]
    if not better:
        return f"{head}, and none of the others scores more"
    next_up = min(better, key=_size)
    return (
        f"{head}; the next better one scores {next_up.score:.4f} but breaks {', '.join(broken(next_up.plan, budget))}"
    )


def pareto(among: Sequence[Candidate], cost: Callable[[Candidate], float]) -> list[Candidate]:
    """Those that no cheaper one equals, in order of cost."""
    front: list[Candidate] = []
    for one in sorted(among, key=lambda c: (cost(c), -c.score, *_size(c))):
        if not front or one.score > front[-1].score:
            front.append(one)
    return front

# SPDX-License-Identifier: Apache-2.0
"""One run: each way learned on some of the samples and judged on the others, the best learned on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import adapters
from edgelearn.adaptation.adapted import Adapted
from edgelearn.adaptation.readouts import Readouts, linear
from edgelearn.adaptation.tuning import as_logits, tuned
from edgelearn.adaptation.ways import Judged, Settings, Way, all_ways, folds
from edgelearn.adapters.local import (
    CodeDistance,
    Labels,
    Objective,
    Training,
    cells,
    cross_entropy,
    fit,
    of_codes,
    pooled,
)
from edgelearn.backbone.cache import CHUNK, FeatureCache
from edgelearn.backbone.taps import Backbone, FloatArray, Head, Statistics, Tap
from edgelearn.engines.native import codes
from edgelearn.errors import UsageError
from edgelearn.heads import RidgeHead
from edgelearn.rules import RULES

Tick = Callable[[str], None]


@dataclass(eq=False)
class Adaptation:
    """One run: the backbone, prepared samples and labels, read-outs of the source domain if there are any; `new` says
    that the classes are others than those of the backbone's head, however many."""

    backbone: Backbone
    x: NDArray[Any]
    y: Labels
    classes: int
    settings: Settings
    readouts: Readouts | None = None
    tick: Tick = lambda line: None
    judged: list[Judged] = field(default_factory=list)
    cache: FeatureCache = field(default_factory=FeatureCache)
    new: bool = False
    _statistics: Statistics = field(default_factory=dict)
    _frozen: dict[bool, Backbone] = field(default_factory=dict)
    _first: dict[bool, FloatArray] = field(default_factory=dict)
    _running: bool = False

    def __post_init__(self) -> None:
        self._places = self._chosen_taps()
        wanted = self.settings.ways or tuple(way.name for way in all_ways())
        if any("adapters" in way for way in wanted):
            for tap in self._places:  # before seconds are spent
                self.settings.fresh(tap)
        if not self.settings.ways or any("statistics" in way for way in self.settings.ways):
            self._statistics = self.backbone.statistics(self.x)
        self._frozen = {False: self.backbone}
        if self._statistics:
            self._frozen[True] = self.backbone.restated(self._statistics)

    def _chosen_taps(self) -> tuple[Tap, ...]:
        known = {tap.name: tap for tap in self.backbone.taps}
        strange = [f"'{name}'" for name in self.settings.taps if name not in known]
        if strange:
            raise UsageError(f"there is no tap {', '.join(strange)}: choose from {', '.join(known)}")
        return tuple(tap for tap in self.backbone.taps if not self.settings.taps or tap.name in self.settings.taps)

    @property
    def _keeps_classes(self) -> bool:
        """Whether the backbone's own head answers the same classes."""
        head = self.backbone.head
        return not self.new and head is not None and head.bias.size == self.classes

    def run(self) -> Adapted:
        """Choose a way and learn it on all samples."""
        start = time.perf_counter()
        ways = list(self._ways())
        if not ways:
            raise UsageError(self._impossible())
        if len(ways) > 1:
            self.judged = [self._judge(way) for way in ways]
            way = self._best().way
        else:
            way = ways[0]
        adapted = self._learned(way, np.arange(len(self.y)))
        adapted.about = {
            "way": way.name,
            "lr": way.lr,
            "samples": len(self.y),
            "judged": [
                {"way": j.way.name, "lr": j.way.lr, "accuracy": j.accuracy, "loss": j.loss} for j in self.judged
            ],
            "rule": self.settings.rule,
            "nested": self.settings.nested,
            "seconds": time.perf_counter() - start,
        }
        return adapted

    def _impossible(self) -> str:
        wanted = ", ".join(self.settings.ways)
        if not self._statistics and any("statistics" in way for way in self.settings.ways):
            return (
                f"{self.backbone.name} has no normalisation to measure again, as exporters fold it into the products "
                f"before it, so {wanted} cannot be: choose adapters+head, or export it without folding"
            )
        return f"{self.backbone.name} has no head for {self.classes} classes, so {wanted} cannot be: add +head to it"

    def _ways(self) -> Iterator[Way]:
        """Those asked for, or all that are different here: for other classes `head` is a new one as `ridge` is."""
        for way in all_ways():
            asked = way.name in self.settings.ways
            answers = way.head or self._keeps_classes or (way.ridge and asked)
            there = (not way.statistics or self._statistics) and (not way.adapters or self._places)
            if answers and there and (asked or not self.settings.ways):
                yield way

    def _best(self) -> Judged:
        """The most accurate, of equals the one that changes least, since losses of the same few samples favour what
        fits them too well; the backbone as it is unless that is beaten."""
        best = max(self.judged, key=lambda j: j.accuracy)
        asis = next((j for j in self.judged if j.way == Way()), None)
        return asis if asis is not None and best.accuracy < asis.accuracy + self.settings.margin else best

    def _judge(self, way: Way) -> Judged:
        logits = np.zeros((len(self.y), self.classes), np.float32)
        for learned, held in folds(self.y, self.settings.folds, self.settings.seed):
            adapted = self._learned(way, learned)
            logits[held] = adapted.output.logits(self._features(way, adapted, held))
        accuracy = float((logits.argmax(axis=1) == self.y).mean())
        found = Judged(way, accuracy, cross_entropy(logits, self.y))
        rate = f" at {way.lr:g}" if way.adapters else ""
        self.tick(f"{way.name}{rate}: {accuracy:.1%} of held-out samples right, loss {found.loss:.3f}")
        return found

    def _at(self, way: Way, adapted: Adapted, index: int, part: NDArray[np.int64]) -> Iterator[FloatArray]:
        """Features of some samples at tap `index`, or behind the last, a few samples at a time. Those at the first tap,
        which no adapter changes, come from disk; the rest is computed again, so that no maps are kept."""
        frozen = self._frozen[way.statistics]
        if way.statistics != self._running:
            self._frozen[self._running].release()
            self._running = way.statistics
        if way.statistics not in self._first:
            used = self._statistics if way.statistics else {}
            self._first[way.statistics] = self.cache.first(frozen, self.x, used)
        for start in range(0, len(part), CHUNK):
            h = np.asarray(self._first[way.statistics][part[start : start + CHUNK]])
            for before in range(index):
                tap = self.backbone.taps[before].name
                h = adapted.adapters[tap].apply(h) if tap in adapted.adapters else h
                h = frozen.stage(before + 1, h)
            yield h

    def _features(self, way: Way, adapted: Adapted, part: NDArray[np.int64]) -> FloatArray:
        """What the head reads of some samples."""
        return np.concatenate(list(self._at(way, adapted, len(self.backbone.taps), part)))

    def _learned(self, way: Way, part: NDArray[np.int64]) -> Adapted:
        """One way, learned on some of the samples: tap after tap, then the head."""
        adapted = Adapted(self.backbone, dict(self._statistics) if way.statistics else {})
        for index, tap in enumerate(self.backbone.taps):
            if way.adapters and tap in self._places:
                adapter = self.settings.fresh(tap)
                self._fit(adapter, tap, index, way, adapted, part)
                adapted.adapters[tap.name] = adapter
        if way.head or way.ridge:
            adapted.head = self._head(way, self._features(way, adapted, part), self.y[part])
        return adapted

    def _fit(
        self, adapter: adapters.Adapter, tap: Tap, index: int, way: Way, adapted: Adapted, part: NDArray[np.int64]
    ) -> None:
        """Averages are all that a linear adapter needs of the maps."""
        y, how = self.y[part], self._training(way)
        if adapter.linear:
            averages = np.concatenate([pooled(h, tap.sides) for h in self._at(way, adapted, index, part)])
            fit(adapter, averages, y, self._objective(tap, index, averages, y), how)
            return
        h = np.concatenate(list(self._at(way, adapted, index, part)))
        fit(adapter, h, y, self._objective(tap, index, pooled(h, tap.sides), y), how, cells(tap.sides))

    def _training(self, way: Way) -> Training:
        given = self.settings
        return Training(way.lr, given.steps, optimizer=given.optimizer, seed=given.seed, nested=given.nested)

    def _objective(self, tap: Tap, index: int, averages: FloatArray, y: Labels) -> Objective:
        """The read-out of the source domain; without one a read-out of these samples, or the codes of the rule."""
        if self.settings.rule != "readout":
            return self._of_codes(tap, index, averages.shape[1])
        known = self.readouts.at.get(tap.name) if self.readouts and self.readouts.classes == self.classes else None
        return known or linear(averages, y, self.classes, self.settings.seed)

    def _of_codes(self, tap: Tap, index: int, cell_count: int) -> Objective:
        rule = RULES[self.settings.rule]
        one = (codes(rule, self.settings.seed, index, c, tap.channels, self.classes) for c in range(self.classes))
        table = np.stack(list(one))
        return CodeDistance(table) if rule.name == "tp-l2" else of_codes(table, cell_count, rule.temperature)

    def _head(self, way: Way, features: FloatArray, y: Labels) -> Head:
        """The backbone's own, trained on; or, for other classes and where asked, a new one by ridge regression."""
        if self.backbone.head is not None and self._keeps_classes and not way.ridge:
            return tuned(self.backbone.head, features, y, self.settings.seed)
        ridge = RidgeHead(features.shape[1], balanced=False)
        for number in range(self.classes):
            ridge.add_class(number)
        weight, bias = ridge.partial_fit(features, y).solve()
        # One-hot targets are no logits: this factor makes probabilities of them that fit the samples best.
        return as_logits(Head(weight, bias), features, y)

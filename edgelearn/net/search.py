# SPDX-License-Identifier: Apache-2.0
"""Looking for the best mix of widths that fits, where there are too many mixes to score them all.

A greedy walk widens one block after the other as long as the net fits (as NetAdapt, Yang et al. 2018, narrows them);
local search then climbs from its end and from other good mixes. Nothing that does not fit is ever scored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

TRADES = ((1, 1), (1, 2), (2, 1))
"""So many levels wider is one block, and so many narrower another, when a climb trades. With trades of one level alone
it missed the best mix of five blocks by up to 0.7 points, with these by up to 0.2."""

Levels = tuple[int, ...]
"""The level of each block whose width may be chosen."""

STARTS = 4
"""So many of the best known mixes are climbed from."""

MOST = 400
"""Mixes that a climb may have scored in all; it ends where it is then."""


@dataclass(frozen=True)
class Search:
    """A search among `(top + 1) ** blocks` mixes.

    Args:
        blocks: how many blocks have a level to choose.
        top: the level of the full width.
        score: of a mix; asked once for each.
        fits: whether a mix keeps to the budget. Narrower mixes of one that fits need not fit.
        found: scores by mix, filled while searching.
    """

    blocks: int
    top: int
    score: Callable[[Levels], float]
    fits: Callable[[Levels], bool]
    found: dict[Levels, float] = field(default_factory=dict)

    def of(self, mix: Levels) -> float:
        """The score of a mix."""
        if mix not in self.found:
            self.found[mix] = self.score(mix)
        return self.found[mix]

    def run(self, known: Iterable[Levels]) -> Iterator[Levels]:
        """Look from the narrowest mix and from `known` ones, and give every mix that was arrived at."""
        for mix in known:
            if self.fits(mix):
                self.of(mix)
        yield from self.walk()
        for start in self.best(STARTS):
            yield from self.climb(start)

    def best(self, count: int) -> list[Levels]:
        """The best mixes that were scored, the narrower first among equals."""
        return sorted(self.found, key=lambda mix: (-self.found[mix], sum(mix), mix))[:count]

    def walk(self) -> Iterator[Levels]:
        """From the narrowest mix that fits on, widen the block that helps most, as long as one fits."""
        at: Levels | None = (0,) * self.blocks
        while at is not None and self.fits(at):
            self.of(at)
            yield at
            at = self._best_of(self._wider(at))

    def climb(self, start: Levels) -> Iterator[Levels]:
        """From a mix to the best one beside it, as long as that is better."""
        at, here = start, self.of(start)
        while len(self.found) < MOST:
            beside = self._best_of(self._beside(at))
            if beside is None or self.of(beside) <= here:
                return
            at, here = beside, self.of(beside)
            yield at

    def _best_of(self, mixes: Iterable[Levels]) -> Levels | None:
        fitting = [mix for mix in mixes if self.fits(mix)]
        return max(fitting, key=self.of) if fitting else None

    def _moved(self, mix: Levels, moves: Iterable[tuple[int, int]]) -> Levels | None:
        """The mix with some blocks so many levels wider; None off the grid."""
        levels = list(mix)
        for block, by in moves:
            levels[block] += by
        return tuple(levels) if all(0 <= level <= self.top for level in levels) else None

    def _wider(self, mix: Levels) -> list[Levels]:
        found = [self._moved(mix, [(block, 1)]) for block in range(self.blocks)]
        return [one for one in found if one]

    def _beside(self, mix: Levels) -> list[Levels]:
        """One block at another level, or one wider and another narrower."""
        others = [by for by in range(-self.top, self.top + 1) if by]
        single = [self._moved(mix, [(block, by)]) for block in range(self.blocks) for by in others]
        pairs = list(itertools.permutations(range(self.blocks), 2))
        traded = [self._moved(mix, [(w, up), (n, -down)]) for up, down in TRADES for w, n in pairs]
        return [one for one in (*single, *traded) if one]

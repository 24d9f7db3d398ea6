# SPDX-License-Identifier: Apache-2.0
"""The search among mixes of widths, on lattices whose every mix can be looked up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from clouds import clouds
from hypothesis import given, settings
from hypothesis import strategies as st

import edgelearn as el
from edgelearn.costs.calibration import silent
from edgelearn.net import choice
from edgelearn.net.search import MOST, Search

GRID = np.array([0.125, 0.25, 0.5, 1.0])
POINT = 0.01


class Lattice:
    """Mixes of blocks with scores that rise with every width, less where another block is the bottleneck, and noise of
    held-out samples; costs that grow with neighbouring widths, as products do."""

    def __init__(self, seed, blocks, noise=0.01):
        rng = np.random.default_rng(seed)
        self.blocks, self.noise = blocks, noise
        self.gain, self.bottleneck = rng.uniform(0.005, 0.05, blocks), rng.uniform(0, 0.06)
        self.own, self.pairs = rng.uniform(0.2, 3, blocks), rng.uniform(0, 3, blocks - 1)
        self.luck = rng.uniform(-0.5, 0.5, (4,) * blocks) if blocks < 8 else None

    def score(self, mix):
        width = np.log(GRID[list(mix)])
        luck = self.noise * self.luck[mix] if self.luck is not None else 0
        return float(0.9 + (self.gain @ width + self.bottleneck * width.min()) / 2 + luck)

    def cost(self, mix):
        width = GRID[list(mix)]
        return float(self.own @ width + self.pairs @ (width[1:] * width[:-1]))

    def limit(self, share):
        least, most = self.cost((0,) * self.blocks), self.cost((3,) * self.blocks)
        return least + share * (most - least)

    def search(self, share):
        limit = self.limit(share)
        return Search(self.blocks, 3, self.score, lambda mix: self.cost(mix) <= limit)

    def found(self, share):
        looking = self.search(share)
        list(looking.run(choice.neighbours(self.blocks, 4)))
        return looking

    def greedy(self, share):
        """What a walk that only ever widens ends with."""
        at, limit = (0,) * self.blocks, self.limit(share)
        while True:
            wider = [(*at[:b], at[b] + 1, *at[b + 1 :]) for b in range(self.blocks) if at[b] < 3]
            wider = [mix for mix in wider if self.cost(mix) <= limit]
            if not wider:
                return self.score(at)
            at = max(wider, key=self.score)


lattices = st.builds(Lattice, st.integers(0, 10**6), st.integers(5, 7), st.sampled_from([0, 0.01, 0.03]))


@settings(max_examples=25, deadline=None)
@given(lattices, st.floats(0, 1))
def test_nothing_over_budget_is_scored_and_the_best_is_no_worse_than_a_greedy_walk_ends(lattice, share):
    looking = lattice.found(share)
    limit = lattice.limit(share)
    assert looking.found
    assert all(lattice.cost(mix) <= limit for mix in looking.found)
    assert max(looking.found.values()) >= lattice.greedy(share)
    assert all(score == lattice.score(mix) for mix, score in looking.found.items())


@settings(max_examples=25, deadline=None)
@given(lattices, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_budget_never_scores_half_a_point_less(lattice, one, other):
    small, large = (max(lattice.found(share).found.values()) for share in sorted((one, other)))
    assert large >= small - POINT / 2


@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize(("blocks", "miss"), [(2, 0), (3, 0), (4, POINT / 2), (5, POINT / 2)])
def test_on_small_lattices_it_finds_the_best_of_all_or_one_beside_it(blocks, miss, share):
    for seed in range(8):
        lattice = Lattice(seed, blocks)
        limit = lattice.limit(share)
        fitting = [mix for mix in itertools.product(range(4), repeat=blocks) if lattice.cost(mix) <= limit]
        best, found = max(map(lattice.score, fitting)), max(lattice.found(share).found.values())
        assert best - miss <= found <= best


def test_local_search_leaves_where_greed_ends():
    """Of two blocks the first helps at first, the second more, and both do not fit together."""
    scores = {(0, 0): 0.5, (1, 0): 0.7, (0, 1): 0.6, (0, 2): 0.9, (2, 0): 0.71}
    looking = Search(2, 2, scores.__getitem__, scores.__contains__)
    assert list(looking.walk()) == [(0, 0), (1, 0), (2, 0)]
    assert list(looking.climb((1, 0))) == [(0, 2)]


def test_a_budget_that_nothing_meets_has_nothing_scored():
    looking = Search(5, 3, lambda mix: pytest.fail("scored what does not fit"), lambda mix: False)
    assert not list(looking.run(choice.neighbours(5, 4)))
    assert not looking.found


def test_a_deep_net_is_looked_at_in_part():
    looking = Lattice(3, 12).found(0.4)
    beside = 3 * 12 + 3 * 12 * 11
    assert len(looking.found) <= MOST + beside


@pytest.fixture(scope="module")
def deep():
    x, y = clouds(600, 6, (12,), 1.2)
    net = el.Net([*(el.Dense(16, "relu") for _ in range(5)), el.Dense(6)], input_shape=(12,), nested=True, seed=1)
    return net.fit(x, y, rule="readout", epochs=8, batch=30, lr=0.01), x, y


@pytest.mark.parametrize("budget", [{"macs": 500}, {"flash": 2000}, {"ram": 22_500}])
def test_a_net_of_1024_mixes_is_searched_under_its_budget(deep, budget):
    net, x, y = deep
    net.score_submodels(x, y)
    before = net.chooser()
    limits = el.Budget(**budget)
    assert len(before.scores) == len(choice.neighbours(5, 4))
    net.score_submodels(x, y, budget=limits)
    after = net.chooser()
    assert set(before.scores) < set(after.scores)
    added = [net.submodel(widths).plan(purpose="infer") for widths in set(after.scores) - set(before.scores)]
    assert not any(choice.broken(plan, limits) for plan in added)
    assert after.best(limits).score >= before.best(limits).score
    plan = net.submodel(budget=limits).plan(purpose="infer")
    assert not choice.broken(plan, limits)


def test_a_search_without_limits_comes_to_the_full_net(deep):
    net, x, y = deep
    net.score_submodels(x, y, budget=el.Budget())
    assert (1.0,) * 6 in net.chooser().scores
    assert len(net.chooser().scores) > len(choice.neighbours(5, 4)) + 30


def test_a_search_alone_looks_at_what_nets_learn_at(deep):
    net, x, y = deep
    scores, limit = choice.Scores(net, x, y), net.submodel(0.5).graph.macs
    scores.search(net.planned(), el.Budget(macs=limit), silent)
    looked_at = {mix[:-1] for mix in scores.found}
    assert {level for level in range(4) if (level,) * 5 in looked_at} == {0, 1, 2}

# SPDX-License-Identifier: Apache-2.0
"""The chooser: never over budget, the best that fits, ties towards the smaller, and why; training under a budget."""

from __future__ import annotations

import itertools

import mixes
import numpy as np
import pytest
from mixes import deep

import edgelearn as el
from edgelearn import nested
from edgelearn.costs import calibration
from edgelearn.costs.plan import Plan
from edgelearn.net import choice, slices
from edgelearn.prefixes import prefixes


def made(widths, score, macs, ram, flash, ms):
    return widths, score, Plan(True, ram, flash, ram - flash, macs, ms, list(widths), 1)


def chooser_of(rows):
    plans = {widths: plan for widths, _, plan in rows}
    return choice.Chooser({widths: score for widths, score, _ in rows}, plans.__getitem__)


@pytest.fixture(scope="module")
def lattice():
    """Six blocks of four widths: 4096 mixes with costs and scores of their own."""
    rng, grid, rows = np.random.default_rng(0), (0.125, 0.25, 0.5, 1.0), []
    weights = rng.uniform(1, 3, 6)
    for mix in itertools.product(grid, repeat=6):
        size = float(weights @ np.array(mix))
        score = round(float(0.5 + 0.03 * size**0.7 + rng.normal(0, 0.01)), 3)
        macs, ram = int(1e6 * size**2), int(1e5 * size + 1e4 * mix[0])
        rows.append(made((*mix, 1.0), score, macs, ram, int(8e4 * size), 0.1 + size**2 / 7 + mix[1]))
    return chooser_of(rows)


BUDGETS = [
    *(el.Budget(macs=m) for m in (4_000_000, 1e7, 4e7, 1e9)),
    *(el.Budget(ram=r) for r in (200_000, 500_000, 900_000)),
    el.Budget(latency="5ms", ram=700_000),
    el.Budget(latency="9ms", flash=400_000, macs="50M"),
]


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_choice_is_the_best_of_all_that_fit_and_the_smallest_of_the_best(lattice, budget):
    among = lattice.candidates()
    assert len(among) == 4096
    chosen = lattice.best(budget, among)
    assert not choice.broken(chosen.plan, budget)
    fitting = [one for one in among if not choice.broken(one.plan, budget)]
    assert chosen.score == max(one.score for one in fitting)
    equal = [one for one in fitting if one.score == chosen.score]
    assert chosen.plan.macs == min(one.plan.macs for one in equal)
    said = choice.explain(chosen, among, budget)
    count = "all 4096 submodels" if len(fitting) == 4096 else f"the {len(fitting)} of 4096 submodels that fit"
    assert count in said
    assert "\n" not in said


def test_a_larger_budget_never_scores_less(lattice):
    among = lattice.candidates()
    scores = [lattice.best(el.Budget(ram=ram), among).score for ram in range(150_000, 1_600_000, 50_000)]
    assert scores == sorted(scores)


def test_a_budget_that_nothing_meets_names_the_smallest_and_what_it_needs(lattice):
    words = "no submodel fits .ram .*: the smallest, of widths 0.125, 0.125, .* needs .* bytes of memory"
    with pytest.raises(el.BudgetError, match=words):
        lattice.best(el.Budget(ram=1000))


def test_the_front_holds_what_no_cheaper_one_equals(lattice):
    among = lattice.candidates()
    front = choice.pareto(among, lambda one: one.plan.macs)
    for one in front:
        cheaper = [other for other in among if other.plan.macs < one.plan.macs]
        assert all(other.score < one.score for other in cheaper)
    assert front[-1].score == max(one.score for one in among)


def test_many_blocks_are_looked_at_in_part():
    mixes = choice.neighbours(7, 4)
    assert len(mixes) == len(set(mixes)) == 4 + 3 * 6 * 2
    assert (0, 0, 0, 0, 0, 1, 1) in mixes
    assert all(max(mix) - min(mix) <= 1 for mix in mixes)


@pytest.fixture(scope="module")
def data():
    return mixes.data()


@pytest.fixture(scope="module")
def fitted():
    return mixes.fitted()


def test_256_mixes_are_scored_when_a_net_was_fitted_and_each_is_what_its_submodel_scores(fitted, data):
    table = fitted.provenance["submodels"]
    assert len({tuple(one["widths"]) for one in table}) == 256
    scores = choice.Scores(fitted, *data)
    for mix in [(0, 0, 0, 0, 3), (3, 1, 0, 2, 3), (3, 3, 3, 3, 3)]:
        widths = [fitted.nested.widths[level] for level in mix]
        assert scores.of(mix) == pytest.approx(fitted.submodel(widths[:-1]).score(*data))


@pytest.mark.parametrize("budget", [{"flash": 1500}, {"macs": 400}, {"ram": "30KB"}, {"macs": 700, "flash": 2600}])
def test_a_submodel_by_budget_fits_it_and_scores_highest(fitted, budget):
    limits = el.Budget(**budget)
    small = fitted.submodel(budget=limits)
    plan = small.plan(purpose="infer")
    assert not choice.broken(plan, limits)
    scores = {tuple(one["widths"]): one["score"] for one in fitted.provenance["submodels"]}
    for widths, score in scores.items():
        if score > scores[small.widths]:
            assert choice.broken(fitted.submodel(widths).plan(purpose="infer"), limits)


def test_a_board_makes_its_own_choice(fitted):
    zero = fitted.chooser("raspberry-pi-zero-2w").candidates()
    assert len(zero) == 256
    limit = float(np.median([one.plan.predicted_ms for one in zero]))
    small = fitted.submodel(budget=el.Budget(latency=f"{limit}ms"), board="raspberry-pi-zero-2w")
    assert calibration.latency_on("raspberry-pi-zero-2w").seconds(small.graph) <= limit / 1e3


def test_what_cannot_be_chosen_is_refused(fitted):
    with pytest.raises(el.UsageError, match="a width or a budget to fit: pass one of the two"):
        fitted.submodel()
    with pytest.raises(el.UsageError, match="a width or a budget"):
        fitted.submodel(0.5, budget=el.Budget(ram="1MB"))
    with pytest.raises(
        el.UsageError, match="was not fitted, so none of its submodels has been scored: fit it with nested=True"
    ):
        deep(nested=True).submodel(budget=el.Budget(ram="1MB"))
    with pytest.raises(el.UsageError, match="is not nested, so none of its submodels has been scored"):
        deep().submodel(budget=el.Budget(ram="1MB"))
    with pytest.raises(el.BudgetError, match="no submodel fits"):
        fitted.submodel(budget=el.Budget(flash=10))


def test_fitting_under_a_budget_trains_the_largest_prefix_that_fits_and_later_the_rest(data, tmp_path):
    net = deep(nested=True, seed=1)
    quarter = net.prefix(1).plan(batch=30, rule="readout")
    assert quarter.rest_bytes == 4 * net.flat.size - quarter.weight_bytes > 0  # they lie in memory all the same
    assert quarter.peak_bytes == 4 * net.flat.size + quarter.arena_bytes
    assert net.prefix(1).plan(purpose="infer").rest_bytes == 0
    peaks = [net.prefix(level).plan(batch=30, rule="readout").peak_bytes for level in range(4)]
    assert peaks == sorted(peaks)
    start = net.flat.copy()
    settings = {"rule": "readout", "batch": 30, "lr": 0.01}
    net.fit(*data, budget=el.Budget(ram=peaks[2] + 2000), epochs=30, **settings)
    inside = slices.used(net.submodel(0.5).graph)
    assert not (net.flat != start)[~inside].any()
    assert (net.flat != start)[inside].mean() > 0.9
    assert net.submodel(0.5).score(*data) > 0.4
    assert {max(one["widths"][:-1]) for one in net.provenance["submodels"]} == {0.125, 0.25, 0.5}
    assert net.provenance["trained_width"] == 0.5
    net.save(tmp_path / "half.safetensors")
    net, middle = el.load(tmp_path / "half.safetensors"), net.flat.copy()
    assert net.trained.widths == net.submodel(0.5).widths
    net.score_submodels(*data)
    assert max(max(one["widths"][:-1]) for one in net.provenance["submodels"]) == 0.5
    net.fit(*data, budget=el.Budget(ram="4MB"), epochs=20, **settings)
    assert "trained_width" not in net.provenance
    assert net.trained is net
    assert (net.flat != middle)[~inside].mean() > 0.9
    assert net.score(*data) > 0.5
    with pytest.raises(
        el.BudgetError, match="no width fits .*: the smallest, 0.125, needs .* bytes of memory, .* with batch 30"
    ):
        net.fit(*data, budget=el.Budget(ram=1000), epochs=1, **settings)


def test_a_plan_counts_every_width_that_learns_from_a_batch():
    def planned(part, purpose="train"):
        return part.plan(batch=30, purpose=purpose, board="raspberry-pi-3b").predicted_ms

    net, plain = deep(nested=True), deep()
    drawn = deep(nested=nested.Nested(sampling="same"))
    assert planned(drawn) == pytest.approx(planned(plain))
    assert planned(net, "infer") == pytest.approx(planned(plain, "infer"))
    assert 1.2 * planned(plain) < planned(net) < 2 * planned(plain)
    half = planned(drawn.prefix(2))
    assert 1.1 * half < planned(net.prefix(2)) < 2 * half


def test_a_prefix_under_a_budget_draws_its_own_levels(data):
    net = deep(nested=True)
    part = net.prefix(1)
    levels = part.levels
    assert len(levels.units) == 2
    assert [levels.units[-1][prefix.record] for prefix in prefixes(net.graph)] == [4, 4, 4, 4, 6]
    assert levels.statistics == 2
    assert sum(levels.chances) == pytest.approx(1)


def test_scores_say_which_samples_they_are_of(fitted, data):
    assert fitted.scored_on == "120 held-out samples"
    net = deep(1, nested=True).fit(*data, epochs=1, rule="readout", batch=30)
    assert net.scored_on == "600 training samples"
    net.score_submodels(data[0][:50], data[1][:50])
    assert net.scored_on == "50 held-out samples"


def test_mixes_of_nets_with_groups_leave_those_blocks_to_the_ones_before():
    layers = [el.Conv2D(8, 3), el.DepthwiseConv2D(3), el.Conv2D(8, 1), el.GlobalAvgPool(), el.Dense(4)]
    net = el.Net(layers, input_shape=(8, 8, 1), nested=nested.Nested((0.5, 1.0)))
    assert choice.free_blocks(net) == [0, 2]
    assert choice.spread(net, (0, 1), 1) == (0, 0, 1, 1)
    assert net.submodel([0.5, 1.0, 1.0]).widths == (0.5, 0.5, 1.0, 1.0)

# SPDX-License-Identifier: Apache-2.0
"""Nested training in the core does what the float64 oracle does: every rule, optimizer, layer and way of drawing."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import ATOL, RTOL
from benches import OPTIMIZERS, RULES, mild, samples, seeded
from nested_nets import GRID, NESTS, check_steps, features, opened, samples_of
from nesting import NestedOracle, drawn, learning
from nets import CLASSES

from edgelearn import engines, nested, prefixes, rules
from edgelearn.engines import Config
from edgelearn.errors import ModelError, UsageError
from edgelearn.graph import build
from edgelearn.layers import (
    Conv2D,
    Dense,
    GlobalAvgPool,
)
from edgelearn.net import slices


@pytest.mark.parametrize("net", list(NESTS))
@pytest.mark.parametrize("name", [name for name in RULES if name != "untrained"])
def test_steps_agree_for_every_rule_and_net(name, net):
    steps = 3 if "sim" in name else 6  # similarities of one or two units amplify rounding
    check_steps(opened(net, rule=mild(name, similarity=0.2)), *samples_of(net), steps)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("net", list(NESTS))
def test_steps_agree_for_every_optimizer_and_independent_widths(optimizer, net):
    grid = nested.Nested((0.2, 0.6, 1.0), sampling="independent") if net != "groups" else GRID
    check_steps(opened(net, grid, optimizer=OPTIMIZERS[optimizer], rule=mild("readout")), *samples_of(net))


@pytest.mark.parametrize("rule", ["tp-l2", "readout"])
@pytest.mark.parametrize("net", list(NESTS))
def test_steps_agree_where_every_width_learns_from_a_batch(net, rule):
    bench = opened(net, nested.Nested(GRID.widths), rule=mild(rule))
    assert len(learning(bench.config.nest, bench.graph.blocks, 5, 0)) == 3
    check_steps(bench, *samples_of(net), 3)


@pytest.mark.parametrize("settings", [{"micro": 5}, {"clip": 0.5}, {"group": 2}, {"threads": 3}, {"group": 99}])
@pytest.mark.parametrize("net", ["norms", "maps", "groups", "units", "maps in branches"])
def test_steps_agree_for_slices_limits_and_groups(net, settings):
    check_steps(opened(net, rule=mild("readout"), **settings), *samples_of(net))


RECURRENT_SETTINGS = [
    {"micro": 5},
    {"clip": 0.2},
    {"window": 3},
    {"threads": 3, "window": 2, "micro": 7},
    {"rule": mild("tp-ce", traces=True, timing="EVERY")},
    {"rule": mild("readout", traces=True)},
    {"rule": mild("tp-l2", timing="LAST"), "window": 4},
]


@pytest.mark.parametrize("settings", RECURRENT_SETTINGS)
@pytest.mark.parametrize("net", ["recurrent", "gated"])
def test_steps_of_sequences_agree_for_windows_traces_and_slices(net, settings):
    check_steps(opened(net, **{"rule": mild("readout"), **settings}), *samples_of(net))


def test_steps_of_sequences_agree_for_groups_through_all_steps():
    net, steps = "recurrent", NESTS["recurrent"][1][0]
    check_steps(opened(net, rule=mild("readout"), group=99, window=steps), *samples_of(net))


@pytest.mark.parametrize("grid", [0, 1, 2])
@pytest.mark.parametrize("codes", ["GAUSSIAN", "HE_UNIFORM", "PAIRED"])
def test_steps_agree_for_every_grid_that_an_objective_sees(grid, codes):
    check_steps(opened("maps", rule=mild("tp-ce", grid=grid, codes=codes)), *samples(12, features("maps")))


def test_steps_agree_in_regression():
    bench = opened("vectors", loss=rules.Loss.MSE, rule=mild("tp-l2"))
    oracle = NestedOracle(bench.graph.records, bench.params, bench.config)
    x, y = samples(12, 6, targets=CLASSES)
    for _ in range(5):
        bench.session.step(x, y, 0.02)
        oracle.step(x, y, 0.02)
    np.testing.assert_allclose(bench.params, oracle.params, rtol=5 * RTOL, atol=5 * ATOL)


@pytest.mark.parametrize("sampling", ["same", "every"])
def test_a_run_draws_by_its_own_seed_and_step_and_goes_on_where_it_was_left(sampling):
    bench, (x, y) = opened("norms", nested.Nested(GRID.widths, sampling=sampling)), samples(16, 6)
    oracle = NestedOracle(bench.graph.records, bench.params, bench.config)
    bench.fit(x, y, 3, seed=77, shuffle=False)
    bench.fit(x, y, 4, seed=77, shuffle=False, first=3)
    for _ in range(7):
        oracle.step(x, y, 0.03, seed=77)
    np.testing.assert_allclose(bench.params, oracle.params, rtol=5 * RTOL, atol=5 * ATOL)


def test_widths_are_drawn_as_often_as_their_chances_say():
    nest = opened("vectors", nested.Nested(sampling="same")).config.nest
    drawn_levels = [drawn(nest, 1, 5, step)[0] for step in range(4000)]
    shares = np.bincount(drawn_levels, minlength=4) / 4000
    assert np.abs(shares - np.array([0.17, 0.195, 0.22, 0.41]) / 0.995).max() < 0.025


def test_a_step_moves_the_units_that_it_draws_and_no_others():
    for level, widths in enumerate(GRID.widths):
        chances = tuple(float(i == level) for i in range(3))
        bench = opened("vectors", nested.Nested(GRID.widths, chances), optimizer=OPTIMIZERS["momentum"])
        before = bench.params.copy()
        bench.session.step(*samples(12, 6), 0.05)
        small = prefixes.cut(bench.graph, [widths] * 4, [2 - level] * 4, 0.25)
        moved = bench.params != before
        assert not moved[~slices.used(small)].any()
        assert moved[slices.used(small)].mean() > 0.8


def test_a_net_that_always_draws_its_full_width_learns_as_one_that_is_not_nested():
    for net in ("vectors", "sequence"):
        layers, shape = NESTS[net]
        chosen = nested.Nested(GRID.widths, (0.0, 0.0, 1.0))
        bench, (x, y) = opened(net, chosen, rule=mild("tp-l2", grid=1)), samples(12, features(net))
        graph, params = build(list(layers), shape), seeded(build(list(layers), shape))
        plain = engines.load("native").open(graph.records, params, Config(**{**vars(bench.config), "nest": None}))
        for _ in range(4):
            plain.step(x, y, 0.03)
            bench.session.step(x, y, 0.03)
        assert bench.params.tobytes() == params.tobytes()


def test_threads_change_no_bit():
    found = []
    for threads in (1, 3):
        bench = opened("maps", rule=mild("readout+sim"), threads=threads)
        for _ in range(5):
            bench.session.step(*samples(12, features("maps")), 0.03)
        found.append(bench.params.tobytes())
    assert found[0] == found[1]


def test_every_level_fits_the_memory_of_the_widest():
    layers = [Conv2D(36, 3, padding="same"), Conv2D(12, 3, padding="same"), Dense(CLASSES)]
    grid = nested.Nested(tuple(i / 12 for i in range(1, 13)))
    graph = build(layers, (28, 28, 4), 0, True, 12)
    config = Config(rule=rules.get("readout"), targets=CLASSES, batch=4, nest=nested.levels(graph, grid))
    params = graph.initial(0)
    session = engines.load("native").open(graph.records, params, config)
    x, y = samples(4, 28 * 28 * 4)
    for _ in range(25):  # nothing outside the arena may be written: the bytes behind it stay as they are
        session.step(x, y, 0.01)
    assert np.isfinite(session.forward(x)).all()
    narrow = prefixes.cut(graph, [1 / 12] * 3, [11] * 3, 1 / 12)
    forward = Config(targets=CLASSES, train=False)
    sizes = [engines.load("native").sizes(g.records, forward).arena for g in (narrow, graph)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("net", ["recurrent", "gated", "units", "branches"])
def test_a_step_moves_inside_recurrent_layers_and_units_what_it_draws(net):
    for level in range(3):
        chances = tuple(float(i == level) for i in range(3))
        bench = opened(net, nested.Nested(GRID.widths, chances), optimizer=OPTIMIZERS["momentum"], window=1)
        before, blocks = bench.params.copy(), bench.graph.blocks
        bench.session.step(*samples_of(net), 0.05)
        small = prefixes.cut(bench.graph, [GRID.widths[level]] * blocks, [2 - level] * blocks, 0.25)
        moved = bench.params != before
        assert not moved[~slices.used(small)].any()
        assert moved[slices.used(small)].mean() > 0.8


@pytest.mark.parametrize("net", ["recurrent", "gated", "units", "branches", "maps in branches", "tokens"])
def test_a_view_opened_alone_answers_as_a_level_and_takes_less_memory(net):
    bench = opened(net, rule=mild("readout"))
    x, blocks, sizes = samples_of(net)[0], bench.graph.blocks, []
    for level, width in enumerate(GRID.widths):
        bench.session.resize([level] * blocks)
        small = prefixes.cut(bench.graph, [width] * blocks, [2 - level] * blocks, 0.25)
        alone = Config(targets=CLASSES, train=False, batch=12)
        session = engines.load("native").open(small.records, bench.params, alone)
        np.testing.assert_allclose(session.forward(x), bench.session.forward(x), rtol=0, atol=1e-6)
        sizes.append(session.sizes.arena)
    assert sizes[0] < sizes[2]


@pytest.mark.parametrize("rule", ["tp-l2", "tp-l1"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("layer", ["dense", "conv"])
def test_the_first_units_of_a_wide_layer_learn_as_a_narrow_layer_alone(rule, optimizer, layer):
    """With separable objectives, from the same inputs, weights and codes."""
    make = {"dense": lambda n: Dense(n, "tanh"), "conv": lambda n: Conv2D(n, 3, activation="tanh")}[layer]
    shape = {"dense": (11,), "conv": (5, 5, 2)}[layer]
    x, y = samples(24, int(np.prod(shape)))
    weights = {}
    for units in (24, 7):
        graph = build([make(units), Dense(CLASSES)], shape)
        config = Config(rule=mild(rule, grid=1), optimizer=OPTIMIZERS[optimizer], targets=CLASSES, batch=24, seed=5)
        flat = graph.initial(1)
        kernel = graph.parameters[0].view(flat)
        kernel[...] = np.random.default_rng(0).standard_normal((*kernel.shape[:-1], 24))[..., :units] * 0.2
        session = engines.load("native").open(graph.records, flat, config)
        for _ in range(60):
            session.step(x, y, 0.01)
        weights[units] = kernel
    np.testing.assert_allclose(weights[24][..., :7], weights[7], rtol=0, atol=1e-6)


def test_widths_that_end_inside_a_group_are_refused():
    graph = build([Conv2D(8, 3), Conv2D(8, 3, groups=2), GlobalAvgPool(), Dense(CLASSES)], (6, 6, 1), 0, True, 2)
    with pytest.raises(ModelError, match="layer 'conv2d_1': 2 channels end inside a group of 4: use groups=1"):
        nested.levels(graph, nested.Nested((0.25, 1.0)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"widths": (0.5, 0.25, 1)}, "must ascend"),
        ({"widths": (0.5,)}, "must ascend"),
        ({"widths": (0.0, 1)}, "must ascend"),
        ({"widths": ()}, "must be shares"),
        ({"widths": "half"}, "must be shares"),
        ({"chances": "random"}, "weighted, uniform or one number per width"),
        ({"chances": (0.5, 0.5)}, "4 widths need 4 chances"),
        ({"chances": (0, 0, 0, 0)}, "4 widths need 4 chances"),
        ({"sampling": "all"}, "unknown sampling 'all'"),
        ({"sampling": "every", "chances": "uniform"}, "leave out chances, or draw by sampling same"),
    ],
)
def test_grids_that_cannot_be_meant_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        nested.Nested(**arguments)


def test_without_chances_every_width_learns_and_with_them_one_is_drawn():
    assert nested.Nested().sampling == nested.parse(True).sampling == "every"
    assert nested.Nested(chances="uniform").sampling == "same"
    for grid in (nested.Nested(), nested.Nested(chances=(1, 2, 3, 4)), nested.Nested(sampling="independent")):
        assert nested.parse(grid.to_table()) == grid


def test_levels_that_do_not_fit_are_refused():
    bench = opened("vectors")
    with pytest.raises(UsageError, match="2 levels for 4 nested blocks"):
        bench.session.resize([0, 0])
    with pytest.raises(ModelError, match="the core refused"):
        bench.session.resize([0, 0, 0, 3])

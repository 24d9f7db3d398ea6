# SPDX-License-Identifier: Apache-2.0
"""Nested nets of dense layers in the Numba engine do what the float64 oracle does."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import ATOL, RTOL
from benches import OPTIMIZERS, RULES, mild, samples
from nested_nets import GRID, check_steps, opened, samples_of
from nesting import NestedOracle
from nets import CLASSES

from edgelearn import engines, nested, prefixes, rules
from edgelearn.errors import ModelError, UsageError
from edgelearn.net import slices

pytest.importorskip("numba")

EVERY = nested.Nested(GRID.widths)
INDEPENDENT = nested.Nested((0.2, 0.6, 1.0), sampling="independent")


def of_numba(net, grid=EVERY, **config):
    return opened(net, grid, backend="numba", **config)


@pytest.mark.parametrize("net", ["vectors", "norms", "fewer units than widths"])
@pytest.mark.parametrize("name", [name for name in RULES if name != "untrained"])
def test_steps_agree_for_every_rule(name, net):
    check_steps(of_numba(net, rule=mild(name, similarity=0.2)), *samples_of(net), 2 if "sim" in name else 3)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("grid", [GRID, INDEPENDENT], ids=["same", "independent"])
@pytest.mark.parametrize("net", ["vectors", "norms", "fewer units than widths"])
def test_steps_agree_for_every_optimizer_and_sampling(net, grid, optimizer):
    check_steps(of_numba(net, grid, optimizer=OPTIMIZERS[optimizer], rule=mild("readout")), *samples_of(net))


@pytest.mark.parametrize("settings", [{"micro": 5}, {"clip": 0.5}, {"group": 2}, {"group": 99}])
@pytest.mark.parametrize("net", ["vectors", "norms"])
def test_steps_agree_for_slices_limits_and_groups(net, settings):
    check_steps(of_numba(net, GRID, rule=mild("readout"), **settings), *samples_of(net))


def test_steps_agree_for_codes_of_a_prefix_and_in_regression():
    check_steps(of_numba("vectors", rule=mild("tp-ce", codes="HE_UNIFORM")), *samples_of("vectors"), 3)
    bench = of_numba("vectors", loss=rules.Loss.MSE, rule=mild("readout"))
    oracle, (x, y) = NestedOracle(bench.graph.records, bench.params, bench.config), samples(12, 6, targets=CLASSES)
    for _ in range(4):
        bench.session.step(x, y, 0.02)
        oracle.step(x, y, 0.02)
    np.testing.assert_allclose(bench.params, oracle.params, rtol=5 * RTOL, atol=5 * ATOL)


def test_a_run_is_that_of_the_core():
    found = []
    for backend in ("native", "numba"):
        bench, (x, y) = opened("norms", GRID, backend=backend), samples(40, 6)
        bench.fit(x, y, 5, seed=77)
        bench.fit(x, y, 4, seed=77, first=5)
        found.append(bench.params)
    np.testing.assert_allclose(found[1], found[0], rtol=5 * RTOL, atol=5 * ATOL)


def test_a_step_moves_the_units_that_it_draws_and_views_answer_as_levels():
    for level, width in enumerate(GRID.widths):
        chances = tuple(float(i == level) for i in range(3))
        bench = of_numba("vectors", nested.Nested(GRID.widths, chances), optimizer=OPTIMIZERS["momentum"])
        before, x = bench.params.copy(), samples(12, 6)[0]
        bench.session.step(*samples(12, 6), 0.05)
        small = prefixes.cut(bench.graph, [width] * 4, [2 - level] * 4, 0.25)
        moved = bench.params != before
        assert not moved[~slices.used(small)].any()
        assert moved[slices.used(small)].mean() > 0.8
        bench.session.resize([level] * 4)
        alone = engines.load("numba").open(small.records, bench.params, engines.Config(targets=CLASSES, train=False))
        assert np.array_equal(alone.forward(x), bench.session.forward(x))


def test_what_this_engine_does_not_nest_is_refused():
    for net in ("maps", "recurrent", "units", "branches"):
        bench = opened(net)
        with pytest.raises(ModelError, match="of nested nets this backend runs those of dense layers: choose native"):
            engines.load("numba").sizes(bench.graph.records, bench.config)
    session = of_numba("vectors").session
    with pytest.raises(UsageError, match="2 levels for 4 nested blocks"):
        session.resize([0, 0])
    with pytest.raises(UsageError, match="give one from 0 to 2"):
        session.resize([0, 0, 0, 3])

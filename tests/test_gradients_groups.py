# SPDX-License-Identifier: Apache-2.0
"""Each group of blocks of the oracle learns by the gradient of its own objective: layers times rules.

A gradient is held against central differences along a random direction, which any wrong entry would turn.
"""

from __future__ import annotations

import formulas
import numpy as np
import pytest
from benches import RULES, samples, samples_for, seeded
from nets import ALL_NETS, CLASSES, MAPS, NETS, UNITS
from oracle import Oracle

from edgelearn import rules
from edgelearn.engines import Config
from edgelearn.graph import build
from edgelearn.layers import Dense

STEP = 1e-6
TRAINED = [name for name in RULES if name != "untrained"]


def slope(function, at, direction):
    """Central difference of a scalar function when the array `at`, which it reads, moves in a direction."""
    kept = at.copy()
    at += STEP * direction
    above = function()
    at[...] = kept - STEP * direction
    below = function()
    at[...] = kept
    return (above - below) / (2 * STEP)


def directions(gradient):
    rng = np.random.default_rng(gradient.size)
    for _ in range(2):
        direction = rng.standard_normal(gradient.shape)
        yield direction / np.linalg.norm(direction)


def opened(net, **config):
    layers, shape = ALL_NETS[net]
    graph = build(layers, shape)
    oracle = Oracle(graph.records, seeded(graph), Config(targets=CLASSES, seed=11, **config))
    rng = np.random.default_rng(8)
    for heads in oracle.heads.values():
        heads[0] += oracle.config.rule.temperature * rng.standard_normal(heads[0].shape)
    x, y = samples_for(net, 4)
    return oracle, x.astype(np.float64), y


def loss(oracle, g, x, y):
    """What a group learns by, without what it learns."""
    return oracle.objective(g, oracle.run(oracle.seen(g), x, g, 0)[0], y)[0]


def check(oracle, x, y):
    """Every gradient of every group, on the outputs of the groups before it."""
    for g in range(len(oracle.groups)):
        at, found, _ = oracle.learned(g, x, y)
        assert found
        assert loss(oracle, g, x, y) == at
        for weights, gradient in found:
            for direction in directions(gradient):
                numeric = slope(lambda g=g, x=x: loss(oracle, g, x, y), weights, direction)
                assert (gradient * direction).sum() == pytest.approx(
                    numeric, rel=0, abs=1e-6 * max(np.linalg.norm(gradient), 1e-3)
                )
        x = oracle.through(g, x)[0]


@pytest.mark.parametrize("grid", [0, 1, 2, 3])
@pytest.mark.parametrize("net", [name for name in MAPS if name != "picture"])
@pytest.mark.parametrize("name", TRAINED)
def test_blocks_of_maps_have_the_gradients_of_their_own_objectives(name, net, grid):
    check(*opened(net, rule=rules.get(name, grid=grid)))


@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize("name", TRAINED)
def test_blocks_of_vectors_have_the_gradients_of_their_own_objectives(name, net):
    check(*opened(net, rule=rules.get(name)))


@pytest.mark.parametrize("net", list(UNITS))
@pytest.mark.parametrize("name", TRAINED)
def test_units_have_the_gradients_of_their_own_objectives(name, net):
    check(*opened(net, rule=rules.get(name, grid=2)))


@pytest.mark.parametrize("group", [2, 99])
@pytest.mark.parametrize("net", list(ALL_NETS))
@pytest.mark.parametrize("name", ["tp-l2", "tp-ce", "readout"])
def test_groups_of_blocks_have_the_gradients_of_the_objective_at_their_end(name, net, group):
    check(*opened(net, rule=rules.get(name), group=group))


def test_one_group_of_all_blocks_is_backpropagation():
    graph = build([Dense(5, "tanh"), Dense(CLASSES)], (6,))
    oracle = Oracle(graph.records, seeded(graph), Config(targets=CLASSES, group=2))
    x, y = samples(4, 6)
    first, middle = graph.parameters[0].view(oracle.params), graph.parameters[2].view(oracle.params)
    hidden = np.tanh(x @ first + graph.parameters[1].view(oracle.params))
    error = formulas.softmax(hidden @ middle + graph.parameters[3].view(oracle.params)) - np.eye(CLASSES)[y]
    by_hand = x.T @ (error @ middle.T * (1 - hidden**2))
    (gradient,) = [g for w, g in oracle.learned(0, x, y)[1] if w.shape == (1, *first.shape)]
    np.testing.assert_allclose(gradient[0], by_hand, rtol=1e-12)

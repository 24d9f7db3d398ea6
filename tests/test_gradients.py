# SPDX-License-Identifier: Apache-2.0
"""The oracle's gradients are right: each agrees with central differences in float64."""

from __future__ import annotations

import formulas
import numpy as np
import pytest
from nets import CLASSES, NETS, samples, seeded
from oracle import Oracle, hidden_loss, own_loss

from edgelearn import rules
from edgelearn.engines import Config
from edgelearn.graph import build
from edgelearn.layers import Dense
from edgelearn.rules import Loss

STEP = 1e-6
OBJECTIVES = [
    (rule.name, loss)
    for rule in rules.RULES.values()
    for loss in Loss
    if rule.name != "untrained" and (rule.regression or loss is Loss.CROSS_ENTROPY)
]
KINK = 1e-3


def slope(function, at):
    """Central differences of a scalar function at every entry of the array `at`, which it reads."""
    found = np.zeros(at.shape)
    for index in np.ndindex(at.shape):
        kept = at[index]
        at[index] = kept + STEP
        above = function()
        at[index] = kept - STEP
        found[index] = (above - function()) / (2 * STEP)
        at[index] = kept
    return found


def agree(analytic, numeric):
    """Relative error of the whole array: single entries may be zero."""
    return np.linalg.norm(analytic - numeric) <= 1e-6 * max(np.linalg.norm(numeric), 1e-3)


def normal(*shape, seed=5):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("loss", list(Loss))
def test_the_output_loss_has_the_gradient_it_states(loss):
    z = 2 * normal(5, CLASSES)
    y = np.arange(5) % CLASSES if loss is Loss.CROSS_ENTROPY else normal(5, CLASSES, seed=6)
    config = Config(loss=loss, rule=rules.get("tp-l2", huber=0.7))
    assert np.all(np.abs(np.abs(z - y.reshape(5, -1)) - 0.7) > KINK)
    assert agree(own_loss(config, z, y)[1], slope(lambda: own_loss(config, z, y)[0], z))


@pytest.mark.parametrize(("name", "loss"), OBJECTIVES)
def test_the_objective_of_every_rule_has_the_gradient_it_states(name, loss):
    h, readout = normal(5, 7), normal(7, CLASSES, seed=8)
    y = np.arange(5) % CLASSES if loss is Loss.CROSS_ENTROPY else normal(5, CLASSES, seed=6)
    config = Config(rules.get(name, huber=0.7, temperature=1.3), loss=loss, targets=CLASSES, seed=11)

    def value():
        return hidden_loss(config, 2, h, y, readout)[0]

    _, dh, dm = hidden_loss(config, 2, h, y, readout)
    assert agree(dh, slope(value, h))
    if dm is not None:
        assert agree(dm, slope(value, readout))


@pytest.mark.parametrize(
    "layer",
    [
        formulas.relu,
        lambda x: formulas.relu(x, 0.2),
        formulas.tanh,
        formulas.sigmoid,
    ],
    ids=["relu", "leaky_relu", "tanh", "sigmoid"],
)
def test_an_activation_pulls_errors_back_as_its_slope_says(layer):
    x, r = normal(6, 9), normal(6, 9, seed=9)
    assert np.abs(x).min() > KINK
    assert agree(layer(x)[1](r)[0], slope(lambda: (layer(x)[0] * r).sum(), x))


@pytest.mark.parametrize("name", ["dense", "batchnorm"])
def test_a_layer_with_weights_has_the_gradients_it_states(name):
    x, r = normal(6, 4), normal(6, 3 if name == "dense" else 4, seed=9)
    weights = [normal(4, 3), normal(3)] if name == "dense" else [normal(4), normal(4, seed=6)]
    settings = () if name == "dense" else (1e-5,)
    layer = getattr(formulas, name)

    def value():
        return (layer(x, *weights, *settings)[0] * r).sum()

    dx, gradients = layer(x, *weights, *settings)[1](r)
    assert agree(dx, slope(value, x))
    for gradient, weight in zip(gradients, weights, strict=True):
        assert agree(gradient, slope(value, weight))


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize("name", ["tp-l2", "tp-ce", "readout"])
def test_a_group_of_blocks_has_the_gradients_of_its_own_objective(name, net, group):
    graph = build(NETS[net], (6,))
    config = Config(rules.get(name), targets=CLASSES, group=group, seed=11)
    oracle = Oracle(graph.records, seeded(graph), config)
    oracle.readouts = {g: normal(*m.shape) for g, m in oracle.readouts.items()}
    x, y = samples(5, 6)
    x = x.astype(np.float64)
    for g, members in enumerate(oracle.groups):
        found = oracle.learned(g, x, y)[1]
        assert found
        for weights, gradient in found:
            assert agree(gradient, slope(lambda g=g, x=x: oracle.learned(g, x, y)[0] / len(x), weights))
        x = oracle.through(members, x, g)[0]


def test_one_group_of_all_blocks_is_backpropagation():
    graph = build([Dense(5, "tanh"), Dense(CLASSES)], (6,))
    oracle = Oracle(graph.records, seeded(graph), Config(targets=CLASSES, group=2))
    x, y = samples(4, 6)
    first, middle = graph.parameters[0].view(oracle.params), graph.parameters[2].view(oracle.params)
    hidden = np.tanh(x @ first + graph.parameters[1].view(oracle.params))
    error = (formulas.softmax(hidden @ middle + graph.parameters[3].view(oracle.params)) - np.eye(CLASSES)[y]) / 4
    by_hand = x.T @ (error @ middle.T * (1 - hidden**2))
    (gradient,) = [g for w, g in oracle.learned(0, x, y)[1] if w.shape == first.shape]
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-12)

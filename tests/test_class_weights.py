# SPDX-License-Identifier: Apache-2.0
"""Class weights: a sample of weight 3 teaches what three of its kind do, in every block and in the loss told."""

import numpy as np
import pytest
from benches import OPTIMIZERS, open_net, samples
from nets import NETS

import edgelearn as el
from edgelearn import engines, rules
from edgelearn.inputs.data import Dataset
from edgelearn.net import fitting

WEIGHTS = (1.0, 3.0, 2.0, 1.0)
RULES = ["tp-l2", "tp-l1", "tp-huber", "drtp", "tp-ce", "readout", "untrained"]


def opened(rule, group, weights, batch):
    settings = {"rule": rules.get(rule), "group": group, "optimizer": OPTIMIZERS["sgd"], "class_weights": weights}
    return open_net("native", NETS["plain"], batch=batch, **settings)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("group", [1, 2, 3])
def test_a_weight_is_a_sample_that_comes_as_often(rule, group):
    x, y = samples(14, 6)
    often = np.repeat(np.arange(14), np.array(WEIGHTS, int)[y])
    weighed, repeated = opened(rule, group, WEIGHTS, 14), opened(rule, group, None, len(often))
    for _ in range(3):  # read-outs start at zero and teach from the second step on
        one = weighed.session.step(x, y, 0.05)
        many = repeated.session.step(x[often], y[often], 0.05 * len(often) / 14)
        assert one.loss == pytest.approx(many.loss, rel=1e-5)
        assert one.samples == 14
    assert np.allclose(weighed.params, repeated.params, atol=2e-6)
    plain = opened(rule, group, None, 14)
    for _ in range(3):
        plain.session.step(x, y, 0.05)
    assert not np.allclose(weighed.params, plain.params, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_weights_of_one_change_no_bit(rule):
    x, y = samples(14, 6)
    weighed, plain = opened(rule, 1, (1.0,) * 4, 14), opened(rule, 1, None, 14)
    for bench in (weighed, plain):
        bench.fit(x, y, 4)
    assert np.array_equal(weighed.params, plain.params)


@pytest.fixture
def rare():
    """One sample in ten is of class 1, which overlaps with class 0."""
    rng = np.random.default_rng(0)
    y = (np.arange(2000) % 10 == 0).astype(int)
    return (rng.normal(size=(2000, 6)) + 0.7 * y[:, None] * [1, 1, 0, 0, 0, 0]).astype(np.float32), y


def trained(x, y, **settings):
    net = el.Net([el.Dense(16, "relu"), el.Dense(2)], input_shape=(6,))
    return net.fit(x, y, epochs=15, batch=50, lr=0.01, **settings)


@pytest.mark.parametrize("rule", ["tp-ce", "readout", "tp-l2"])
def test_a_rare_class_is_found_when_classes_count_alike(rare, rule):
    x, y = rare
    recall = {}
    for weights in ("none", "balanced"):
        right = trained(x, y, rule=rule, class_weights=weights).predict(x) == y
        recall[weights] = right[y == 0].mean(), right[y == 1].mean()
    assert recall["none"][1] < 0.3
    assert min(recall["balanced"]) > 0.6


def test_a_weighed_run_is_held_against_a_weighed_guess(rare):
    """Its loss is above the entropy of the classes, and yet below that of the best constant answer, log 2."""
    x, y = rare
    loss = trained(x, y, class_weights="balanced").history.epochs[-1].loss
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert entropy < loss < np.log(2)
    with pytest.raises(el.LearningError, match="no better than the 0.693 of a constant guess"):
        trained(np.zeros_like(x), y, class_weights="balanced")


def test_weights_are_in_the_plan(rare):
    x, y = rare
    net = el.Net([el.Dense(16, "relu"), el.Dense(2)], input_shape=(6,))
    plan = net.plan(batch=50, class_weights="balanced")
    fitted = fitting.fitting(net, net.recipe(class_weights="balanced"), Dataset(x, y.astype(np.int32), x[:0], y[:0]))
    config = engines.Config(batch=50, targets=2, keep=True, class_weights=fitted.class_weights)
    assert engines.load().sizes(net.graph.records, config).arena == plan.arena_bytes > net.plan(batch=50).arena_bytes

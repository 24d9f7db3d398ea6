# SPDX-License-Identifier: Apache-2.0
"""Task vectors: what is added can be taken away, and coefficients are learned from forward passes."""

import copy

import numpy as np
import pytest

import edgelearn as el
from edgelearn import adaptation
from edgelearn.adaptation import composition
from edgelearn.backbone.own import OwnBackbone
from edgelearn.errors import DataError, ModelError, UsageError


@pytest.fixture
def learned(blobs):
    """A net, two adaptations to two other domains, and the samples."""
    x, y = blobs
    net = el.Net([el.Dense(16, "relu"), el.Dense(12, "relu"), el.Dense(4)], input_shape=(6,), seed=0)
    net.fit(x, y, epochs=30, batch=20, lr=0.01)
    away = np.array([2, -2, 2, -2, 2, -2], np.float32)
    domains = [x + away, x - away]
    frozen = OwnBackbone(net, "net")
    found = [adaptation.adapt(frozen, d[:60], y[:60], rank=4, ways=("adapters+head",)) for d in domains]
    return net, found, domains, y


def test_one_times_a_vector_is_the_adaptation_and_zero_the_net(learned):
    net, found, domains, _ = learned
    kept = net.flat.copy()
    vectors = [composition.task_vector(net, a) for a in found]
    assert np.array_equal(net.flat, kept)
    mixed = composition.Composition(net, vectors)
    assert np.array_equal(mixed.apply().flat, kept)
    mixed.coefficients[0] = 1
    expected = found[0].forward(domains[0])
    assert mixed.apply().forward(domains[0]) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ModelError, match="no longer those that were frozen"):
        found[0].forward(domains[0])
    mixed.coefficients[:] = -1
    negated = mixed.apply().flat.copy()
    assert negated == pytest.approx(kept - vectors[0] - vectors[1], abs=1e-5)
    assert np.array_equal(mixed.detach().flat, kept)


def test_coefficients_learn_which_vector_a_domain_wants(learned):
    net, found, domains, y = learned
    mixed = composition.Composition(net, [composition.task_vector(net, a) for a in found])
    before = net.score(domains[1], y)
    losses = mixed.learn(domains[1][:40], y[:40], steps=15)
    assert len(losses) == 15
    assert losses[-1] < losses[0]
    assert net.score(domains[1], y) > before
    assert mixed.coefficients[1].mean() > mixed.coefficients[0].mean()


def test_a_domain_can_be_forgotten_and_another_kept(learned):
    net, found, domains, y = learned
    net = copy.deepcopy(net)
    mixed = composition.Composition(net, [composition.task_vector(net, found[0])])
    mixed.coefficients[0] = 1
    mixed.apply()
    before = net.score(domains[0], y)
    mixed.learn(domains[1][:40], y[:40], forget=(domains[0][:40], y[:40]), steps=10)
    assert net.score(domains[0], y) < before


def test_what_cannot_be_composed_is_refused(learned):
    net, _, domains, y = learned
    with pytest.raises(UsageError, match="needs vectors of"):
        composition.Composition(net, [])
    with pytest.raises(UsageError, match="needs vectors of"):
        composition.Composition(net, [np.zeros(3, np.float32)])
    mixed = composition.Composition(net, [np.zeros_like(net.flat)])
    with pytest.raises(UsageError, match="give positive numbers"):
        mixed.learn(domains[0], y, lr=0)
    with pytest.raises(DataError, match="as many labels as samples"):
        mixed.learn(domains[0], y[:3])

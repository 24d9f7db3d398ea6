# SPDX-License-Identifier: Apache-2.0
"""Trained nets with more or fewer layers: what stays to the bit, and that the start is better than none."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import edgelearn as el
from edgelearn.adaptation import stacks
from edgelearn.errors import ModelError, UsageError


def unit():
    return el.Residual([el.LayerNormalization(), el.Dense(32, "relu"), el.Dense(32)])


def net_of(units, seed=0):
    layers = [el.Dense(32, "relu"), *(unit() for _ in range(units)), el.LayerNormalization(), el.Dense(10)]
    return el.Net(layers, input_shape=(64,), input=el.Input(shape=(64,), scale=16.0), seed=seed)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int32)


@pytest.fixture(scope="module")
def net(digits):
    x, y = digits
    return net_of(3).fit(x[:1000], y[:1000], rule="readout", epochs=10, lr=3e-3, batch=50, seed=0)


def test_the_same_depth_is_the_same_net(net, digits):
    again = stacks.with_depth(net, 3)
    assert np.array_equal(again.predict_proba(digits[0][:50]), net.predict_proba(digits[0][:50]))
    assert not np.shares_memory(again.flat, net.flat)


@pytest.mark.parametrize("how", stacks.WAYS)
@pytest.mark.parametrize("units", [1, 2, 5])
def test_another_depth_starts_far_above_none(net, digits, how, units):
    x, y = digits
    other = stacks.with_depth(net, units, how)
    assert len(other.layers) == len(net.layers) - 3 + units
    cold = net_of(units)
    assert other.graph.records.tobytes() == cold.graph.records.tobytes()
    warm = other.score(x[1000:], y[1000:])
    assert warm > cold.score(x[1000:], y[1000:]) + 0.2
    how_long = {"rule": "readout", "epochs": 1, "lr": 1e-3, "batch": 50, "seed": 0}
    warm, cold = (each.fit(x[:1000], y[:1000], **how_long).score(x[1000:], y[1000:]) for each in (other, cold))
    assert warm > cold


def test_deeper_units_are_copies_in_order(net):
    deeper, weights = stacks.with_depth(net, 6).weights, net.weights
    for number in range(6):
        name = "residual" + (f"_{number}" if number else "")
        old = "residual" + (f"_{number // 2}" if number // 2 else "")
        for key in ("dense.weight", "dense_1.bias", "layer_normalization.weight"):
            assert np.array_equal(deeper[f"{name}.{key}"], weights[f"{old}.{key}"])


def test_pairs_of_units_are_a_stack_and_names_are_left_behind():
    tail = [el.GlobalAvgPool(), el.Dense(3)]
    pair = [el.Residual([el.MultiHeadAttention(2)], "see"), el.Residual([el.FeedForward(8)])]
    plain = [el.Residual([el.MultiHeadAttention(2)]), el.Residual([el.FeedForward(8)])]
    net = el.Net([el.Conv1D(4, 3, padding="same"), *pair, *plain, *tail], input_shape=(6, 2), seed=0)
    assert stacks.stack_of(net) == stacks.Place(1, 2, 2)
    assert len(stacks.with_depth(net, 3).layers) == 9
    x = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    assert np.array_equal(stacks.with_depth(net, 2).predict_proba(x), net.predict_proba(x))


def test_what_has_no_stack_or_depth_is_refused(net):
    with pytest.raises(ModelError, match="no two neighbouring layers of this net are alike"):
        stacks.with_depth(el.Net([el.Dense(8), el.Dense(4), el.Dense(2)], input_shape=(3,)), 2)
    with pytest.raises(UsageError, match="0 units by 'stages'"):
        stacks.with_depth(net, 0)
    with pytest.raises(UsageError, match="by one of stages, linear"):
        stacks.with_depth(net, 2, "guess")

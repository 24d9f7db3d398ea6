# SPDX-License-Identifier: Apache-2.0
"""The oracle's gradients are right: each loss and layer agrees with central differences in float64."""

from __future__ import annotations

import formulas
import formulas_attention
import formulas_maps
import numpy as np
import pytest
from benches import RULES
from nets import CLASSES
from objectives import hidden_loss, own_loss

from edgelearn import rules
from edgelearn.engines import Config
from edgelearn.geometry import Window
from edgelearn.rules import Loss

STEP = 1e-6
KINK = 1e-3
WEIGHTS = (0.5, 2.0, 1.0, 1.5)
LOSSES = [(loss, None) for loss in Loss] + [(Loss.CROSS_ENTROPY, WEIGHTS)]
OBJECTIVES = [
    (name, loss, weights)
    for name in RULES
    for loss, weights in LOSSES
    if name != "untrained" and (rules.get(name).regression or loss is Loss.CROSS_ENTROPY)
]
WINDOWS = [
    Window(kernel, strides, same)
    for kernel in ((1, 1), (3, 2), (2, 4), (5, 5))
    for strides in ((1, 1), (2, 3))
    for same in (True, False)
]


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


def spread(*shape):
    """Values in random order, none closer to another than a tenth."""
    return np.random.default_rng(7).permutation(np.prod(shape)).reshape(shape) / 10


def holds(layer, x, *weights):
    """Whether a layer pulls an error back to its input and its weights as its outputs move with them."""
    y, pull = layer(x, *weights)
    r = normal(*y.shape, seed=9)
    dx, gradients = pull(r)
    pairs = zip((dx, *gradients), (x, *weights), strict=True)
    return all(agree(gradient, slope(lambda: (layer(x, *weights)[0] * r).sum(), at)) for gradient, at in pairs)


def answers(loss):
    return np.arange(5) % CLASSES if loss is Loss.CROSS_ENTROPY else normal(5, CLASSES, seed=6)


@pytest.mark.parametrize(("loss", "weights"), LOSSES)
def test_the_output_loss_has_the_gradient_it_states(loss, weights):
    z, y = 2 * normal(5, CLASSES), answers(loss)
    config = Config(loss=loss, rule=rules.get("tp-l2", huber=0.7), class_weights=weights)
    assert np.all(np.abs(np.abs(z - y.reshape(5, -1)) - 0.7) > KINK)
    assert agree(own_loss(config, z, y)[1], slope(lambda: own_loss(config, z, y)[0], z))


@pytest.mark.parametrize(("name", "loss", "weights"), OBJECTIVES)
def test_the_objective_of_every_rule_has_the_gradient_it_states(name, loss, weights):
    q, heads, y = normal(5, 7), [normal(7, CLASSES, seed=8)], answers(loss)
    rule = rules.get(name, huber=0.7, temperature=1.3)
    config = Config(rule, loss=loss, targets=CLASSES, seed=11, class_weights=weights)

    def value():
        return hidden_loss(config, 2, q, y, heads)[0]

    _, dq, gradients = hidden_loss(config, 2, q, y, heads)
    assert agree(dq, slope(value, q))
    assert all(agree(gradient, slope(value, head)) for gradient, head in zip(gradients, heads, strict=False))


def test_the_weight_of_a_class_multiplies_the_losses_of_its_samples():
    z, y = normal(5, CLASSES), answers(Loss.CROSS_ENTROPY)
    each = [own_loss(Config(), z[i : i + 1], y[i : i + 1])[0] for i in range(5)]
    weighed = own_loss(Config(class_weights=WEIGHTS), z, y)[0]
    assert weighed == pytest.approx(sum(WEIGHTS[label] * loss for label, loss in zip(y, each, strict=True)))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid", "gelu"])
def test_an_activation_pulls_errors_back_as_its_slope_says(name):
    x = 2 * normal(6, 9)
    assert np.abs(x).min() > KINK
    assert holds((lambda x: formulas.relu(x, 0.2)) if name == "leaky_relu" else getattr(formulas, name), x)


@pytest.mark.parametrize("shape", [(6, 4), (3, 2, 5, 4)])
@pytest.mark.parametrize("name", ["batchnorm", "layernorm"])
def test_a_normalisation_has_the_gradients_it_states_on_vectors_and_on_maps(name, shape):
    layer = getattr(formulas, name)
    assert holds(lambda *inputs: layer(*inputs, 1e-5), normal(*shape), normal(4), normal(4, seed=6))


def test_dense_has_the_gradients_it_states():
    assert holds(formulas.dense, normal(6, 4), normal(4, 3), normal(3))


@pytest.mark.parametrize(("groups", "channels", "filters"), [(1, 3, 2), (2, 4, 6), (3, 3, 6)])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_convolution_has_the_gradients_it_states(window, groups, channels, filters):
    kernel = normal(*window.kernel, channels // groups, filters)
    inputs = normal(2, 5, 6, channels), kernel, normal(filters)
    assert holds(lambda x, *weights: formulas_maps.conv(x, window, groups, *weights), *inputs)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["maxpool", "avgpool"])
def test_pooling_pulls_errors_back_as_it_pools(name, window):
    layer = getattr(formulas_maps, name)
    assert holds(lambda x: layer(x, window), spread(2, 5, 6, 3))


def test_global_pooling_pulls_errors_back_as_it_pools():
    assert holds(formulas_maps.global_avgpool, normal(2, 5, 6, 3))


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_attention_pulls_errors_back_through_its_shares(heads):
    assert holds(lambda x: formulas_attention.attention(x, heads), normal(2, 1, 4, 18))


def test_attention_is_a_mean_of_values_by_the_likeness_of_query_and_key():
    """Worked by hand: the first step asks for the second's key, the second for nothing."""
    x = np.array([[1e3, 0.0, 5.0], [0.0, 1.0, 7.0]]).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(formulas_attention.attention(x, 1)[0].ravel(), [7.0, 6.0])


def test_tables_have_the_gradients_they_state():
    tokens = np.array([0.0, 3.0, 3.0, 1.0, 0.0, 4.0]).reshape(2, 1, 3, 1)
    table, r = normal(5, 2), normal(2, 1, 3, 2, seed=9)
    (gradient,) = formulas_attention.embedding(tokens, table)[1](r)[1]
    assert agree(gradient, slope(lambda: (formulas_attention.embedding(tokens, table)[0] * r).sum(), table))
    assert holds(formulas_attention.positions, normal(3, 1, 4, 2), normal(4, 2))


@pytest.mark.parametrize("grid", [0, 1, 2, 3, 4, 9])
def test_what_an_objective_sees_of_a_map_pulls_errors_back(grid):
    assert holds(lambda h: formulas_maps.adaptive(h, grid), normal(2, 5, 3, 2))


def test_an_objective_sees_channel_means_quarters_or_every_position_of_a_map():
    h = normal(2, 5, 4, 3)
    np.testing.assert_allclose(formulas_maps.adaptive(h, 1)[0], h.mean((1, 2)))
    quarters = [
        h[:, rows, columns].mean((1, 2)) for rows in (slice(3), slice(2, 5)) for columns in (slice(2), slice(2, 4))
    ]
    np.testing.assert_allclose(formulas_maps.adaptive(h, 2)[0], np.concatenate(quarters, 1))
    for grid in (0, 5, 99):
        np.testing.assert_allclose(formulas_maps.adaptive(h, grid)[0], h.reshape(2, -1))


def test_the_first_of_equal_values_gets_the_error_of_a_maximum():
    x = np.zeros((1, 3, 3, 1))
    x[0, 1, 1] = x[0, 2, 0] = 1.0
    d = formulas_maps.maxpool(x, Window((2, 2), (1, 1), False))[1](np.full((1, 2, 2, 1), 1.0))[0]
    np.testing.assert_array_equal(d[0, :, :, 0], [[0, 0, 0], [0, 4, 0], [0, 0, 0]])


def test_what_same_padding_leaves_over_goes_to_the_end():
    """Worked by hand after TensorFlow's definition of SAME: 6 inputs, a window of 3 at every other place."""
    x, window = np.arange(1.0, 7.0).reshape(1, 1, 6, 1), Window((1, 3), (1, 2), True)
    np.testing.assert_array_equal(formulas_maps.conv(x, window, 1, np.ones((1, 3, 1, 1)))[0].ravel(), [6, 12, 11])
    np.testing.assert_array_equal(formulas_maps.avgpool(x, window)[0].ravel(), [2, 4, 5.5])
    np.testing.assert_array_equal(formulas_maps.maxpool(-x, window)[0].ravel(), [-1, -3, -5])

# SPDX-License-Identifier: Apache-2.0
"""Every backend computes on maps and in units what the float64 oracle does: convolutions, pooling and normalisation of
every geometry, attention and branches, under every rule, seen through every grid."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from agreement import ATOL, RTOL, everywhere, oracle_of, run_agrees, steps_agree
from benches import OPTIMIZERS, RULES, mild, open_named, open_net, samples, samples_for, seeded
from nets import CLASSES, MAPS, UNITS
from operations import weights_of

from edgelearn import rules
from edgelearn.graph import build
from edgelearn.layers import (
    AvgPool,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
)
from edgelearn.rules import Loss

WIDTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 33]
SIDES = [(1, 1), (1, 7), (3, 2), (5, 4), (9, 8)]
KERNELS = [(1, 1), (2, 2), (3, 3), (2, 5), (5, 1)]
STRIDES = [(1, 1), (2, 2), (3, 1), (1, 4)]

pytestmark = everywhere


@pytest.mark.parametrize("net", [*MAPS, *UNITS])
def test_forward_agrees_for_more_samples_than_a_batch_holds(backend, net):
    for train in (True, False):
        bench = open_named(backend, net, batch=5, train=train)
        x, _ = samples_for(net, 13)
        np.testing.assert_allclose(bench.session.forward(x), oracle_of(bench).forward(x), rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("net", [*MAPS, *UNITS])
@pytest.mark.parametrize("name", RULES)
def test_steps_agree_for_every_rule_net_and_optimizer(backend, name, net, optimizer):
    bench = open_named(backend, net, rule=mild(name), optimizer=OPTIMIZERS[optimizer])
    steps_agree(bench, *samples_for(net, 9))


@pytest.mark.parametrize("grid", [0, 1, 3, 99])
@pytest.mark.parametrize("net", ["strides", "norms", "sequence", "dropout", "picture"])
@pytest.mark.parametrize("name", [name for name in RULES if name != "untrained"])
def test_steps_agree_for_every_grid_that_an_objective_sees(backend, name, net, grid):
    bench = open_named(backend, net, rule=mild(name, grid=grid))
    steps_agree(bench, *samples_for(net, 6), counts=(2,))


@pytest.mark.parametrize("codes", list(rules.Codes))
def test_steps_agree_for_every_kind_of_codes(backend, codes):
    bench = open_named(backend, "strides", rule=rules.get("tp-l2", codes=codes.name, grid=0))
    steps_agree(bench, *samples_for("strides", 9))


@pytest.mark.parametrize("group", [2, 3, 99])
@pytest.mark.parametrize("net", list(MAPS))
@pytest.mark.parametrize("name", ["tp-l2", "tp-ce", "readout", "untrained"])
def test_steps_agree_for_groups_of_blocks(backend, name, net, group):
    bench = open_named(backend, net, rule=mild(name), group=group, optimizer=OPTIMIZERS["momentum"])
    steps_agree(bench, *samples_for(net, 8), lr=0.01)


@pytest.mark.parametrize("net", list(MAPS))
@pytest.mark.parametrize("name", ["tp-l2", "readout"])
def test_frozen_blocks_of_maps_stay_and_all_others_agree(backend, name, net):
    bench = open_named(backend, net, rule=mild(name, frozen=True))
    before, oracle = bench.params.copy(), oracle_of(bench)
    learns = [oracle.learns(g) for g in range(len(oracle.groups))]
    steps_agree(bench, *samples_for(net, 9))
    assert not learns[0]
    for record in bench.graph.records:
        for now, then in zip(weights_of(record, bench.params), weights_of(record, before), strict=True):
            assert np.array_equal(now, then) != learns[record["block"]]


def windowed(kind, kernel, strides, padding):
    """A layer of that kind between convolutions that need its error and read its output."""
    settings = {"strides": strides, "padding": padding}
    between = {
        "conv": lambda: [Conv2D(3, kernel, **settings)],
        "depthwise": lambda: [DepthwiseConv2D(kernel, depth_multiplier=2, use_bias=False, **settings)],
        "maxpool": lambda: [MaxPool(kernel, **settings)],
        "avgpool": lambda: [AvgPool(kernel, **settings)],
    }
    return [Conv2D(2, 1, activation="tanh"), *between[kind](), Conv2D(2, 1, activation="tanh"), Dense(CLASSES)]


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "maxpool", "avgpool"])
def test_windows_of_every_geometry_agree(backend, kind, padding):
    for sides, kernel, strides in product(SIDES, KERNELS, STRIDES):
        if padding == "valid" and (kernel[0] > sides[0] or kernel[1] > sides[1]):
            continue
        layers, shape = windowed(kind, kernel, strides, padding), (*sides, 2)
        bench = open_net(backend, layers, shape, group=99, batch=3, optimizer=OPTIMIZERS["sgd"])
        steps_agree(bench, *samples(3, prod(shape)), counts=(1,))


@pytest.mark.parametrize("width", WIDTHS)
def test_steps_agree_for_awkward_numbers_of_channels(backend, width):
    other = WIDTHS[-1 - WIDTHS.index(width)]
    for layers in (
        [Conv2D(other, 2, activation="tanh"), Conv2D(width, 3, padding="same"), Dense(CLASSES)],
        [DepthwiseConv2D(3, padding="same", activation="tanh"), LayerNormalization(), MaxPool(2), Dense(CLASSES)],
        [Conv2D(other, 1), BatchNormalization(), AvgPool(2), Conv2D(width, 1, activation="gelu"), GlobalAvgPool()],
        [Conv1D(width, 3, strides=2, padding="same", groups=width, activation="tanh"), Dense(CLASSES)],
    ):
        shape = (9, width) if isinstance(layers[0], Conv1D) else (4, 3, width)
        targets = width if isinstance(layers[-1], GlobalAvgPool) else CLASSES
        settings = {"targets": targets, "loss": Loss.MSE, "optimizer": OPTIMIZERS["momentum"]}
        for group in (1, 99):
            bench = open_net(backend, layers, shape, group=group, **settings)
            steps_agree(bench, *samples(5, prod(shape), targets=targets), lr=0.01, counts=(2,))


@pytest.mark.parametrize("net", ["strides", "sequence", "norms"])
def test_steps_agree_for_every_batch_size(backend, net):
    for size in range(1, 19):
        steps_agree(open_named(backend, net, rule=mild("tp-ce")), *samples_for(net, size), counts=(1,))


@pytest.mark.parametrize(("name", "loss"), [("tp-l2", Loss.HUBER), ("drtp", Loss.MSE), ("readout", Loss.MSE)])
@pytest.mark.parametrize("net", ["strides", "norms", "dropout"])
def test_steps_agree_in_regression(backend, net, name, loss):
    bench = open_named(backend, net, rule=mild(name), loss=loss, optimizer=OPTIMIZERS["momentum"])
    steps_agree(bench, *samples_for(net, 9, targets=CLASSES), lr=0.02)


@pytest.mark.parametrize("pairs", [1, 2, 84])
def test_steps_agree_on_bytes_that_the_net_rescales(backend, pairs):
    layers, shape = MAPS["strides"]
    graph = build(layers, shape, rescale=pairs)
    params = seeded(graph)
    params[:pairs] = 1 / 255
    bench = open_net(backend, graph=graph, params=params, rule=mild("readout"))
    steps_agree(bench, *samples_for("strides", 9, kind=np.uint8))


@pytest.mark.parametrize("net", list(MAPS))
def test_nan_weights_give_nan(backend, net):
    bench = open_named(backend, net, train=False)
    bench.params[:] = np.nan
    assert np.isnan(bench.session.forward(samples_for(net, 3)[0])).all()


@pytest.mark.parametrize("net", list(MAPS))
def test_a_run_over_shuffled_batches_agrees(backend, net):
    bench = open_named(backend, net, rule=mild("readout"), batch=7, optimizer=OPTIMIZERS["momentum"])
    run_agrees(bench, *samples_for(net, 18))


def test_of_equal_values_the_first_of_a_window_learns(backend):
    """With a kernel of zeros all positions are alike, and which of them gets the error shows in the kernel."""
    layers = [Conv2D(3, 2, padding="same", activation="tanh"), MaxPool(3, strides=2, padding="same"), Dense(CLASSES)]
    graph = build(layers, (5, 6, 2))
    params = seeded(graph)
    graph.parameters[0].view(params)[...] = 0
    bench = open_net(backend, graph=graph, params=params, group=99, optimizer=OPTIMIZERS["sgd"])
    steps_agree(bench, *samples(9, 60), lr=0.1, counts=(1,))


@pytest.mark.parametrize("name", [name for name in RULES if rules.get(name).similarity])
def test_a_blank_sample_has_no_direction_to_be_compared_in(backend, name):
    graph = build([Dense(9, "tanh"), Dense(CLASSES)], (6,))
    params = graph.initial(3)  # with biases of zero a blank sample has features of zero
    bench = open_net(backend, graph=graph, params=params, rule=rules.get(name), optimizer=OPTIMIZERS["sgd"])
    x, y = samples(9, 6)
    x[4] = 0
    bench.session.step(x, y, 0.01)
    assert np.abs(bench.params).max() < 2

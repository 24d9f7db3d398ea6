# SPDX-License-Identifier: Apache-2.0
"""Every backend computes what the float64 oracle does, for all flat layers, rules, optimizers and awkward sizes."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import ATOL, RTOL, agree, everywhere, oracle_of, steps_agree
from benches import OPTIMIZERS, RULES, mild, open_named, open_net, samples, samples_for, seeded
from nets import CLASSES, NETS

from edgelearn import rules
from edgelearn.engines import load
from edgelearn.graph import build
from edgelearn.layers import Activation, BatchNormalization, Dense, Dropout
from edgelearn.records import Op
from edgelearn.rules import Loss

WIDTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65]
REGRESSIONS = [(name, loss) for name in RULES if rules.get(name).regression for loss in (Loss.MSE, Loss.HUBER)]

pytestmark = everywhere


@pytest.mark.parametrize("net", list(NETS))
def test_forward_agrees_for_more_samples_than_a_batch_holds(backend, net):
    bench = open_net(backend, NETS[net], batch=5)
    x, _ = samples(13, 6)
    expected = oracle_of(bench).forward(x)
    np.testing.assert_allclose(bench.session.forward(x), expected, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "softmax"])
def test_forward_agrees_for_every_activation_and_session_without_training(backend, activation):
    hidden = "tanh" if activation == "softmax" else activation
    bench = open_net(backend, [Dense(9, hidden), Dense(5, activation)], loss=Loss.MSE, train=False)
    x, _ = samples(7, 6)
    expected = oracle_of(bench).forward(x)
    np.testing.assert_allclose(bench.session.forward(x), expected, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("value", [-80.0, 80.0, -1000.0, 1000.0])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "softmax"])
def test_saturated_activations_stay_finite_and_agree(backend, activation, value):
    bench = open_net(backend, [Dense(3, activation)], loss=Loss.MSE, train=False)
    x = np.array([[value, -value, 1, 0, 0, 0]], np.float32)
    with np.errstate(over="ignore"):
        expected = oracle_of(bench).forward(x.astype(np.float64))
    np.testing.assert_allclose(bench.session.forward(x), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize("name", RULES)
def test_steps_agree_for_every_rule_net_and_optimizer(backend, name, net, optimizer):
    bench = open_net(backend, NETS[net], rule=mild(name), optimizer=OPTIMIZERS[optimizer])
    steps_agree(bench, *samples(9, 6))


@pytest.mark.parametrize("codes", list(rules.Codes))
def test_steps_agree_for_every_kind_of_codes(backend, codes):
    steps_agree(open_net(backend, rule=rules.get("tp-l2", codes=codes.name)), *samples(9, 6))


@pytest.mark.parametrize("group", [1, 2, 3, 99])
@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize("name", ["tp-l2", "tp-ce", "readout", "untrained"])
def test_steps_agree_for_groups_of_blocks(backend, name, net, group):
    bench = open_net(backend, NETS[net], rule=rules.get(name), group=group, optimizer=OPTIMIZERS["momentum"])
    steps_agree(bench, *samples(12, 6))


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("width", WIDTHS)
def test_steps_agree_for_awkward_widths(backend, width, optimizer):
    layers = [Dense(width, "tanh"), Dense(WIDTHS[-1 - WIDTHS.index(width)], "tanh"), Dense(CLASSES)]
    for group in (1, 3):
        bench = open_net(backend, layers, (width,), group=group, optimizer=OPTIMIZERS[optimizer])
        steps_agree(bench, *samples(9, width), lr=0.01)


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_steps_agree_for_awkward_numbers_of_targets(backend, width):
    layers = [Dense(9, "tanh"), Dense(width)]
    settings = {"targets": width, "loss": Loss.MSE, "rule": rules.get("readout")}
    steps_agree(open_net(backend, layers, **settings), *samples(9, 6, targets=width), lr=0.01)


@pytest.mark.parametrize("net", ["plain", "batchnorm"])
def test_steps_agree_for_every_batch_size(backend, net):
    for size in range(1 if net == "plain" else 2, 34):
        bench = open_net(backend, NETS[net], optimizer=OPTIMIZERS["adam"], rule=rules.get("tp-ce"))
        steps_agree(bench, *samples(size, 6), counts=(1,))


@pytest.mark.parametrize("pairs", [1, 3, 6])
def test_steps_agree_on_bytes_that_the_net_rescales(backend, pairs):
    graph = build(list(NETS["plain"]), (6,), rescale=pairs)
    params = seeded(graph)
    params[:pairs] = 1 / 255
    bench = open_net(backend, graph=graph, params=params, rule=rules.get("tp-ce"))
    scales = bench.params[: 2 * pairs].copy()
    steps_agree(bench, *samples(9, 6, kind=np.uint8), lr=0.05)
    assert np.array_equal(bench.params[: 2 * pairs], scales)


def test_bytes_and_the_same_numbers_as_floats_give_the_same_bits(backend):
    x, y = samples(9, 6, kind=np.uint8)
    one, other = (open_net(backend, rescale=1) for _ in range(2))
    for bench in (one, other):
        bench.params[:2] = 1 / 255, -0.5
    one.session.step(x, y, 0.05)
    other.session.step(x.astype(np.float32), y, 0.05)
    assert one.params.tobytes() == other.params.tobytes()


@pytest.mark.parametrize(("name", "loss"), REGRESSIONS)
def test_steps_agree_in_regression_for_every_rule_and_loss(backend, name, loss):
    for group in (1, 2):
        rule = rules.get(name, scale=0.5, temperature=1.0, huber=0.6)
        bench = open_net(backend, rule=rule, loss=loss, group=group, optimizer=OPTIMIZERS["momentum"])
        steps_agree(bench, *samples(9, 6, targets=CLASSES), lr=0.02)


def test_steps_agree_with_dropout_behind_the_last_layer(backend):
    layers = [Dense(9, "tanh"), Dropout(0.3), Dense(CLASSES), Dropout(0.5)]
    steps_agree(open_net(backend, layers), *samples(9, 6))


@pytest.mark.parametrize("group", [1, 3])
def test_a_prefix_of_the_units_learns_alone(backend, group):
    layers = [
        Dense(9, use_bias=True),
        BatchNormalization(),
        Activation("tanh"),
        Dense(8, "tanh"),
        Dense(CLASSES),
    ]
    graph = build(layers, (6,))
    for record in graph.records:
        if record["block"] < 2:
            record["active"] = (5, 3)[record["block"]]
    for before, record in zip(graph.records[:-1], graph.records[1:], strict=True):
        record["fan_in_active"] = before["active"]
    bench = open_net(backend, graph=graph, group=group, optimizer=OPTIMIZERS["momentum"])
    before = bench.params.copy()
    steps_agree(bench, *samples(9, 6))
    weight = graph.parameters[0]
    assert np.array_equal(weight.view(bench.params)[:, 5:], weight.view(before)[:, 5:])


@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("net", ["plain", "batchnorm", "dropout"])
def test_training_some_groups_agrees_and_leaves_the_others_alone(backend, net, first, last):
    bench = open_net(backend, NETS[net], batch=9)
    before = bench.params.copy()
    oracle = oracle_of(bench)
    x, y = samples(9, 6)
    stats = bench.fit(x, y, 3, shuffle=False, first_group=first, last_group=last)
    losses = [oracle.step(x, y, 0.03, first, last) for _ in range(3)]
    agree(bench, oracle)
    assert stats.loss == pytest.approx(sum(loss for loss, _ in losses), rel=RTOL)
    assert stats.correct == sum(correct for _, correct in losses)
    for record in bench.graph.records[bench.graph.records["params"] > 0]:
        own = slice(int(record["offset"]), int(record["offset"] + record["params"]))
        assert np.array_equal(bench.params[own], before[own]) != (first <= record["block"] <= last)


@pytest.mark.parametrize("net", ["batchnorm", "norms"])
def test_the_untrained_control_moves_the_output_layer_and_running_statistics_alone(backend, net):
    bench = open_named(backend, net, rule=rules.get("untrained"))
    before = bench.params.copy()
    steps_agree(bench, *samples_for(net, 9))
    output = bench.graph.records[bench.graph.records["block"] == bench.graph.blocks - 1]["offset"][0]
    for parameter in bench.graph.parameters:
        is_moved = parameter.offset >= output or not parameter.trainable
        assert np.array_equal(parameter.view(bench.params), parameter.view(before)) != is_moved


def test_nan_weights_give_nan_and_not_zero(backend):
    for activation in ("linear", "relu", "leaky_relu", "tanh", "sigmoid", "gelu"):
        bench = open_net(backend, [Dense(5, activation), Dense(3, activation)], loss=Loss.MSE, train=False)
        bench.params[:] = np.nan
        assert np.isnan(bench.session.forward(samples(3, 6)[0])).all(), activation


def test_the_sizes_asked_for_are_those_of_the_session(backend):
    for optimizer in OPTIMIZERS.values():
        bench = open_net(backend, NETS["batchnorm"], optimizer=optimizer, rule=rules.get("readout"))
        sizes = load(backend).sizes(bench.graph.records, bench.config)
        assert sizes == bench.session.sizes
        assert sizes.arena == sizes.handle + sizes.activations + sizes.state + sizes.scratch
        trained = sum(p.size for p in bench.graph.parameters if p.trainable) + (9 + 7) * CLASSES
        assert bench.session.state.size >= 4 * (trained * optimizer.moments + (9 + 7) * CLASSES)


def test_a_softmax_in_the_table_is_left_to_the_loss(backend):
    named = open_net(backend, [Dense(9, "tanh"), Dense(CLASSES, "softmax")])
    added = open_net(backend, [Dense(9, "tanh"), Dense(CLASSES)])
    assert named.graph.records.tobytes() == added.graph.records.tobytes()
    assert named.graph.records["op"][-1] == Op.SOFTMAX
    steps_agree(named, *samples(9, 6))

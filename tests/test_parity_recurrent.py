# SPDX-License-Identifier: Apache-2.0
"""Every backend runs and learns recurrent nets as the float64 oracle does: every cell, rule, window and timing."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from agreement import ATOL, RTOL, everywhere, oracle_of, run_agrees, steps_agree
from benches import OPTIMIZERS, RULES, mild, open_named, open_net, samples_for
from nets import CLASSES, SEQUENCES

from edgelearn import rules
from edgelearn.engines import load
from edgelearn.errors import DataError, LearningError, ModelError
from edgelearn.graph import build
from edgelearn.layers import GRU, LSTM, Dense, SimpleRNN
from edgelearn.rules import Loss

ENDS = {"simple": (1, 2, 99), "gru": (1, 2, 99), "lstm": (1, 2, 99), "mixed": (1, 2, 3, 99), "all steps": (1,)}
"""Block sizes that nets with recurrent layers in front can learn by."""

pytestmark = everywhere


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("net", list(SEQUENCES))
def test_forward_agrees_for_more_samples_than_a_batch_holds(backend, net, train):
    bench = open_named(backend, net, batch=5, train=train)
    x, _ = samples_for(net, 13)
    np.testing.assert_allclose(bench.session.forward(x), oracle_of(bench).forward(x), rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("net", list(SEQUENCES))
def test_what_each_group_hands_on_agrees_with_all_its_steps(backend, net):
    bench, (x, _) = open_named(backend, net, batch=5), samples_for(net, 7)
    for last in range(bench.session.groups):
        expected = oracle_of(bench).outputs(x.astype(np.float64), last)
        np.testing.assert_allclose(bench.session.outputs(x, last), expected, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("net", list(SEQUENCES))
@pytest.mark.parametrize("name", RULES)
def test_steps_agree_for_every_rule(backend, name, net):
    steps_agree(open_named(backend, net, rule=mild(name)), *samples_for(net, 9))


@pytest.mark.parametrize("timing", ["every", "ramp", "late", "last"])
@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("net", list(SEQUENCES))
def test_steps_agree_for_every_window_and_timing(backend, net, window, timing):
    rule = mild("readout", timing=timing)
    steps_agree(open_named(backend, net, rule=rule, window=window), *samples_for(net, 9))


@pytest.mark.parametrize(("net", "group"), [(net, group) for net, groups in ENDS.items() for group in groups])
def test_steps_agree_for_groups_of_blocks_through_some_steps_or_all(backend, net, group):
    for window in (1, 2, SEQUENCES[net][1][0]):
        bench = open_named(backend, net, rule=mild("tp-ce"), group=group, window=window)
        # One step: a norm of four units behind cells that learn together multiplies what rounding left.
        steps_agree(bench, *samples_for(net, 9), counts=(1,))


@pytest.mark.parametrize("net", list(SEQUENCES))
def test_steps_agree_by_traces_whatever_the_slices(backend, net):
    for micro in (0, 4):
        bench = open_named(backend, net, rule=mild("readout", traces=True), micro=micro)
        steps_agree(bench, *samples_for(net, 9))


@pytest.mark.parametrize("cell", [GRU, LSTM])
def test_traces_agree_over_more_steps_than_are_at_hand(backend, cell):
    """The core takes 32 steps at a time: 70 are two and a piece."""
    layers = [cell(4, return_sequences=True), cell(3), Dense(CLASSES)]
    x, y = np.random.default_rng(3).standard_normal((5, 140), np.float32), np.arange(5, dtype=np.int32) % CLASSES
    for micro in (0, 2):
        bench = open_net(backend, layers, (70, 2), rule=mild("readout", traces=True), micro=micro, batch=5)
        steps_agree(bench, x, y)


def test_traces_reach_back_from_the_loss_of_a_whole_group(backend):
    layers, rule = [LSTM(5), Dense(6, "tanh"), Dense(CLASSES)], mild("tp-ce", traces=True)
    x, y = np.random.default_rng(1).standard_normal((9, 12), np.float32), np.arange(9, dtype=np.int32) % CLASSES
    for group in (2, 3):
        steps_agree(open_net(backend, layers, (4, 3), rule=rule, group=group), x, y)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("net", list(SEQUENCES))
def test_steps_agree_for_every_optimizer_slice_limit_and_rate(backend, net, optimizer):
    blocks = build(*SEQUENCES[net]).blocks
    settings = {"clip": 0.05, "micro": 4, "class_weights": (0.5, 1.0, 2.0, 1.5)}
    rates = tuple(0.4 + 0.3 * i for i in range(blocks))
    bench = open_named(backend, net, rule=mild("tp-ce"), optimizer=OPTIMIZERS[optimizer], rates=rates, **settings)
    steps_agree(bench, *samples_for(net, 9))


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.HUBER])
def test_steps_agree_for_regression_that_ends_in_a_recurrent_layer(backend, loss):
    layers = [GRU(5, return_sequences=True), SimpleRNN(3)]
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((9, 12), np.float32), rng.standard_normal((9, 3), np.float32)
    for window in (1, 4):
        bench = open_net(backend, layers, (4, 3), rule=mild("tp-l2"), loss=loss, targets=3, window=window)
        steps_agree(bench, x, y)


@pytest.mark.parametrize("kind", [np.uint8, np.float16])
def test_samples_of_bytes_and_halves_are_read_step_by_step(backend, kind):
    x, y = samples_for("gru", 9, kind=np.uint8)
    bench = open_named(backend, "gru", rescale=1)
    bench.params[:2] = 1 / 255, -0.5
    steps_agree(bench, x.astype(kind), y)


@pytest.mark.parametrize("pairs", [1, 2, 3, 4, 6, 12, 18, 36])
def test_input_scales_belong_to_places_of_the_whole_sequence(backend, pairs):
    shape = (9, 4)
    bench = open_net(backend, [GRU(5), Dense(CLASSES)], shape, rescale=pairs)
    x, y = np.random.default_rng(3).standard_normal((9, prod(shape)), np.float32), np.arange(9, dtype=np.int32) % 4
    steps_agree(bench, x, y)


@pytest.mark.parametrize("net", list(SEQUENCES))
def test_runs_agree_whole_and_group_by_group(backend, net):
    x, y = samples_for(net, 17)
    run_agrees(open_named(backend, net, batch=7, rule=mild("readout")), x, y)
    for group in range(build(*SEQUENCES[net]).blocks):
        bench = open_named(backend, net, batch=7, rule=mild("readout"), first_group=group, last_group=group)
        run_agrees(bench, x, y, first_group=group, last_group=group)


@pytest.mark.parametrize("settings", [{}, {"window": 5}, {"rule": rules.get("readout", traces=True)}])
def test_memory_is_the_same_for_ten_steps_and_ten_thousand(backend, settings):
    def sizes(steps):
        graph = build([LSTM(16, return_sequences=True), GRU(8), Dense(CLASSES)], (steps, 4))
        bench = open_net(backend, graph=graph, batch=8, **settings)
        return bench.session.sizes

    assert sizes(40 if settings.get("rule") else 10) == sizes(10_000)  # up to 32 steps need no traces
    assert sizes(10).arena <= sizes(10_000).arena


def test_a_long_sequence_takes_a_twentieth_of_what_backpropagation_through_time_keeps(backend):
    """LSTM 128, 1000 steps, batch 32: PyTorch, as any that goes back through time, keeps at least six values per unit
    and the input of each step."""
    units, steps, features, batch = 128, 1000, 40, 32
    graph = build([LSTM(units), Dense(10)], (steps, features))
    config = open_net(backend, graph=graph, targets=10, batch=1).config
    through_time = 4 * batch * steps * (6 * units + features)
    for rule in (rules.get("readout"), rules.get("tp-ce")):
        sizes = load(backend).sizes(graph.records, replace(config, rule=rule, batch=batch))
        assert sizes.arena <= through_time / 20


def test_a_net_learns_from_thousands_of_steps_as_the_oracle_does(backend):
    steps = 10_000 if backend == "native" else 2_000
    bench = open_net(backend, [GRU(3), Dense(CLASSES)], (steps, 2), rule=mild("tp-ce", timing="every"), batch=2)
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 2 * steps), np.float32), np.array([1, 3], np.int32)
    oracle = oracle_of(bench)
    bench.session.step(x, y, 0.03)
    oracle.step(x, y, 0.03)
    np.testing.assert_allclose(bench.params, oracle.params, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("net", "settings", "message"),
    [
        ("gru", {"window": 6}, "5 steps, set it from 1 to 5"),
        ("gru", {"window": 0}, "out of range"),
        ("gru", {"window": 2, "rule": rules.get("tp-l2", traces=True)}, "without a window"),
        ("gru", {"group": 2, "rule": rules.get("tp-l2", traces=True)}, "one recurrent layer at a time"),
        ("all steps", {"group": 2}, "see.* their last step only"),
        ("after maps", {"group": 2}, "share no objective with layers before"),
        ("plain", {"window": 2}, "no recurrent layers"),
    ],
)
def test_what_a_recurrent_net_cannot_learn_by_is_refused(backend, net, settings, message):
    with pytest.raises(ModelError, match=message):
        open_named(backend, net, **settings)


def test_samples_that_are_not_finite_are_refused_wherever_in_the_sequence(backend):
    bench, (x, y) = open_named(backend, "gru"), samples_for("gru", 9)
    x[7, 13] = np.nan
    before = bench.params.copy()
    with pytest.raises(DataError, match="sample 7"):
        bench.session.step(x, y, 0.1)
    with pytest.raises(DataError, match="sample 7"):
        bench.session.forward(x)
    np.testing.assert_array_equal(bench.params, before)


def test_a_rate_that_diverges_is_named_and_no_weight_becomes_infinite(backend):
    bench, (x, y) = open_named(backend, "simple", rule=mild("tp-l2")), samples_for("simple", 9)
    bench.params[...] *= np.float32(1e30)
    with pytest.raises(LearningError):
        bench.fit(x, y, 3)
    assert np.isfinite(bench.params).all()

# SPDX-License-Identifier: Apache-2.0
"""Every backend learns sequences of several lengths as the oracle learns each of them alone."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import ATOL, RTOL
from benches import BACKENDS, OPTIMIZERS, mild, open_net
from nets import CLASSES
from padded import PaddedOracle
from remembered import Remembered

from edgelearn import rules
from edgelearn.engines import Run, Stats, load
from edgelearn.errors import DataError, ModelError
from edgelearn.layers import GRU, LSTM, Dense, LayerNormalization, Masking, SimpleRNN
from edgelearn.optim import schedule
from edgelearn.rules import Loss

STEPS, FEATURES, PADDING = 6, 3, -2.5
NETS = {
    "gru": [Masking(PADDING), GRU(6, return_sequences=True), GRU(5), Dense(CLASSES)],
    "lstm": [Masking(PADDING), LSTM(5), Dense(6, "tanh"), Dense(CLASSES)],
    "stack": [
        Masking(PADDING),
        SimpleRNN(5, return_sequences=True),
        LayerNormalization(),
        LSTM(4, use_bias=False, return_sequences=True),
        GRU(5),
        Dense(CLASSES),
    ],
}
LENGTHS = np.array([6, 1, 4, 2, 6, 3, 5, 1, 2])

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def sequences(side="behind", lengths=LENGTHS, seed=0):
    """Samples (n, steps x features) with padding on a side, or on both, a step of it inside the first; and the same
    with all of it in front."""
    rng = np.random.default_rng(seed)
    x = np.full((len(lengths), STEPS, FEATURES), PADDING, np.float32)
    aligned = x.copy()
    for row, length in enumerate(lengths):
        own = rng.standard_normal((length, FEATURES))
        front = {"behind": 0, "in front": STEPS - length, "on both": (STEPS - length) // 2}[side]
        if length == STEPS:
            own[2] = PADDING
        x[row, front : front + length] = own
        aligned[row, STEPS - length :] = own
    return x.reshape(len(lengths), -1), aligned.reshape(len(lengths), -1)


def answers(n=9):
    return np.arange(n, dtype=np.int32) % CLASSES


def padded_oracle(bench, lengths=LENGTHS):
    """An oracle that starts where a bench stands."""
    return Remembered(PaddedOracle, bench.graph.records, bench.params, bench.config, lengths)


def agree(bench, x, aligned, y, lengths=LENGTHS, lr=0.03, steps=3):
    oracle, start = padded_oracle(bench, lengths), bench.params.copy()
    for _ in range(steps):
        stats = bench.session.step(x, y, lr)
        loss, correct = oracle.step(aligned, y, lr)
        assert stats.loss == pytest.approx(loss, rel=RTOL, abs=1e-4)
        assert stats.correct == correct
        np.testing.assert_allclose(bench.params, oracle.params, rtol=RTOL, atol=ATOL)
    assert np.abs(bench.params - start).max() > 1e-3
    np.testing.assert_allclose(bench.session.forward(x), oracle.forward(aligned), rtol=1e-4, atol=1e-5)


def open_padded(backend, name, **settings):
    return open_net(backend, NETS[name], (STEPS, FEATURES), **settings)


@pytest.mark.parametrize("side", ["behind", "in front", "on both"])
@pytest.mark.parametrize("net", list(NETS))
def test_padding_on_either_side_is_passed_over(backend, net, side):
    x, aligned = sequences(side)
    agree(open_padded(backend, net, rule=mild("readout")), x, aligned, answers())


@pytest.mark.parametrize("name", ["tp-l2", "tp-l1", "tp-huber", "drtp", "tp-ce", "readout"])
def test_every_rule_without_comparisons_agrees(backend, name):
    for timing in ("every", "ramp", "late", "last"):
        agree(open_padded(backend, "stack", rule=mild(name, timing=timing)), *sequences(), answers())


@pytest.mark.parametrize("net", list(NETS))
def test_windows_groups_and_traces_agree(backend, net):
    for settings in ({"window": 2}, {"window": 4}, {"window": STEPS, "group": 99}, {"window": STEPS, "group": 2}):
        agree(open_padded(backend, net, rule=mild("tp-ce"), **settings), *sequences("on both"), answers(), steps=1)
    agree(open_padded(backend, net, rule=mild("readout", traces=True)), *sequences(), answers())


def test_slices_weights_limits_and_scales_agree(backend):
    settings = {"micro": 4, "clip": 0.05, "class_weights": (0.5, 1.0, 2.0, 1.5), "optimizer": OPTIMIZERS["momentum"]}
    x, aligned = sequences()
    bench = open_padded(backend, "gru", rule=mild("readout"), rescale=FEATURES, **settings)
    bench.params[: 2 * FEATURES] = 0.5, 2.0, 1.5, 0.1, -0.2, 0.3
    agree(bench, x, aligned, answers())


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.HUBER])
@pytest.mark.parametrize("name", ["tp-l2", "readout"])
def test_regression_agrees(backend, name, loss):
    x, aligned = sequences()
    y = np.random.default_rng(2).standard_normal((len(x), 3)).astype(np.float32)
    layers = [*NETS["gru"][:-1], Dense(3)]
    bench = open_net(backend, layers, (STEPS, FEATURES), rule=mild(name), loss=loss, targets=3)
    oracle = padded_oracle(bench)
    for _ in range(2):
        assert bench.session.step(x, y, 0.03).loss == pytest.approx(oracle.step(aligned, y, 0.03)[0], rel=RTOL)
    np.testing.assert_allclose(bench.params, oracle.params, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("kind", [np.uint8, np.float16])
def test_bytes_and_halves_are_padded_by_the_values_that_they_hold(backend, kind):
    x, aligned = ((10 * one + 100).astype(kind) for one in sequences())
    layers = [Masking(10 * PADDING + 100), GRU(6), Dense(CLASSES)]
    bench = open_net(backend, layers, (STEPS, FEATURES), rescale=1, rule=mild("readout"))
    bench.params[:2] = 0.02, -2
    agree(bench, x, aligned, answers())


def test_a_run_in_an_order_of_its_own_learns_what_steps_in_that_order_learn(backend):
    x, _ = sequences(lengths=np.tile(LENGTHS, 3))
    y, run = answers(27), Run(schedule("constant", 0.03), batch=8, steps=4, seed=5)
    one, other = (open_padded(backend, "lstm", rule=mild("readout"), batch=8) for _ in range(2))
    one.session.fit(x, y, run, Stats())
    for step in range(4):
        rows = load(backend).order(5, 0, 27, 8 * step, min(8, 27 - 8 * step))
        other.session.step(np.ascontiguousarray(x[rows]), y[rows], 0.03)
    np.testing.assert_allclose(one.params, other.params, rtol=1e-6, atol=1e-7)


def test_samples_of_padding_alone_are_named_before_a_weight_moves(backend):
    bench, (x, _) = open_padded(backend, "gru", rule=mild("readout")), sequences()
    before = bench.params.copy()
    x[4] = PADDING
    run = Run(schedule("constant", 0.03), batch=2, steps=5)
    for call in (
        lambda: bench.session.step(x, answers(), 0.1),
        lambda: bench.session.forward(x),
        lambda: bench.session.fit(x, answers(), run, Stats()),
    ):
        with pytest.raises(DataError, match="sample 4 is padding alone"):
            call()
    np.testing.assert_array_equal(bench.params, before)


def test_rules_that_compare_samples_are_refused(backend):
    with pytest.raises(ModelError, match="have none in common"):
        open_padded(backend, "gru", rule=rules.get("readout+sim"))


def test_memory_is_the_same_for_ten_steps_and_ten_thousand(backend):
    def sizes(steps):
        return open_net(backend, NETS["gru"], (steps, FEATURES), batch=8).session.sizes

    assert sizes(10) == sizes(10_000)

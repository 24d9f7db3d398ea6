# SPDX-License-Identifier: Apache-2.0
"""Recurrent nets as users hold them: layers, settings of [train], runs, plans and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import edgelearn as el
from edgelearn.cli import main
from edgelearn.errors import DataError, ModelError, UsageError
from edgelearn.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Conv1D,
    Dense,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
    Reshape,
    SimpleRNN,
    from_config,
    to_config,
)
from edgelearn.training.recipe import recipe

STEPS, FEATURES = 12, 3


def first_sign(n=400, seed=0):
    """Whether the first value of a noisy sequence was high: nothing that the last step alone would show."""
    rng = np.random.default_rng(seed)
    x, y = 0.1 * rng.standard_normal((n, STEPS, FEATURES)).astype(np.float32), np.arange(n) % 2
    x[:, 0, 0] += np.where(y, 1.0, -1.0)
    return x, y


def gru(units=8, **settings):
    return el.Net([GRU(units, **settings), Dense(2)], input_shape=(STEPS, FEATURES), seed=1)


@pytest.mark.parametrize("layer", [SimpleRNN(5, "relu"), GRU(4, return_sequences=True), LSTM(3, use_bias=False)])
def test_a_layer_comes_back_from_its_table(layer):
    assert from_config(to_config(layer)) == layer


def test_weights_have_names_and_the_shapes_of_keras():
    net = el.Net([GRU(4, return_sequences=True), LSTM(3), Dense(2)], input_shape=(STEPS, FEATURES))
    shapes = {name: array.shape for name, array in net.weights.items()}
    assert shapes == {
        "gru.weight": (3, 12),
        "gru.recurrent.weight": (4, 12),
        "gru.bias": (12,),
        "gru.recurrent.bias": (12,),
        "lstm.weight": (4, 12),
        "lstm.recurrent.weight": (3, 12),
        "lstm.bias": (12,),
        "dense.weight": (3, 2),
        "dense.bias": (2,),
    }
    assert net.plan().macs == STEPS * (12 * (3 + 4) + 12 * (4 + 3)) + 6


def test_windows_and_traces_carry_what_a_single_step_forgets():
    """A read-out of the last step, on noise, teaches nothing about the first step unless errors reach it."""
    x, y = first_sign()
    settings = {"rule": "readout", "epochs": 8, "batch": 20, "lr": 1e-2, "timing": "last", "seed": 0}
    through_time = gru().fit(x, y, window=STEPS, block=2, **settings).score(*first_sign(seed=1))
    windowed = gru().fit(x, y, window=STEPS, **settings).score(*first_sign(seed=1))
    traced = gru().fit(x, y, traces=True, **settings).score(*first_sign(seed=1))
    assert min(through_time, windowed, traced) >= 0.95


def test_blocks_are_trained_one_by_one_from_sequences_on_disk():
    x, y = first_sign()
    net = el.Net([GRU(8, return_sequences=True), GRU(8), Dense(2)], input_shape=(STEPS, FEATURES), seed=1)
    net.fit(x, y, schedule="sequential", cache="float16", rule="readout", epochs=8, batch=20, lr=1e-2)
    assert net.score(*first_sign(seed=1)) >= 0.95


def test_a_saved_net_answers_as_before(tmp_path):
    x, y = first_sign(40)
    net = gru().fit(x, y, epochs=1)
    net.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(el.load(tmp_path / "m.safetensors").predict_proba(x), net.predict_proba(x))


def test_sequences_begin_anew_with_every_call_and_batch():
    x, _ = first_sign(300)
    net = gru()
    whole = net.forward(x)
    np.testing.assert_array_equal(np.concatenate([net.forward(x[i : i + 7]) for i in range(0, 300, 7)]), whole)


def test_a_plan_is_the_same_for_ten_steps_and_ten_thousand():
    def plan(steps, **settings):
        net = el.Net([LSTM(16, return_sequences=True), GRU(8), Dense(4)], input_shape=(steps, FEATURES))
        return net.plan(batch=16, **settings).arena_bytes

    for settings in ({}, {"window": 5}, {"purpose": "infer"}):
        assert plan(10, **settings) == plan(10_000, **settings)
    traced = {"rule": "readout", "traces": True}  # these stand for what came before the 32 steps at hand
    assert plan(10, **traced) == plan(32, **traced) < plan(33, **traced) == plan(10_000, **traced)
    assert plan(10, window=10, block=3) < plan(100, window=100, block=3) / 5


def test_reshape_makes_few_long_steps_of_many_short_ones():
    x = np.random.default_rng(0).standard_normal((5, STEPS, FEATURES), np.float32)
    net = el.Net([Reshape((4, 9)), GRU(5), Dense(2)], input_shape=(STEPS, FEATURES), seed=3)
    direct = el.Net([GRU(5), Dense(2)], input_shape=(4, 9), seed=3)
    np.testing.assert_array_equal(net.forward(x), direct.forward(x.reshape(5, 4, 9)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([GRU(4), LSTM(4), Dense(2)], "set return_sequences"),
        ([Dense(4), GRU(4), Dense(2)], "samples of shape \\(steps, features\\)"),
        ([GRU(4, return_sequences=True), Conv1D(4), LSTM(3), Dense(2)], "recurrent layers follow each other"),
        ([GRU(4, return_sequences=True), MaxPool(2), Dense(2)], "needs all steps at once"),
        ([GRU(4, return_sequences=True), GlobalAvgPool(), Dense(2)], "needs all steps at once"),
        ([GRU(4), BatchNormalization(), Dense(2)], "use LayerNormalization"),
        ([LayerNormalization(), GRU(4), Dense(2)], "begins with a layer that has weights"),
    ],
)
def test_layers_that_do_not_fit_together_are_refused(layers, message):
    with pytest.raises(ModelError, match=message):
        el.Net(layers, input_shape=(STEPS, FEATURES))


def test_the_numba_backend_learns_what_the_core_learns():
    pytest.importorskip("numba")
    x, y = first_sign(120)
    settings = {"rule": "readout", "epochs": 2, "batch": 20, "lr": 1e-2, "window": 5, "schedule": "sequential"}
    nets = [gru().fit(x, y, backend=backend, **settings) for backend in ("native", "numba")]
    answers = [net.predict_proba(first_sign(50, seed=1)[0]) for net in nets]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-3)


@pytest.mark.parametrize("layer", [SimpleRNN, GRU, LSTM])
def test_a_layer_without_units_is_refused(layer):
    with pytest.raises(ModelError, match="at least 1 unit"):
        layer(0)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ModelError, match="unknown activation 'gelu'"):
        SimpleRNN(4, "gelu")
    with pytest.raises(ModelError, match="longer than 65535"):
        el.Net([GRU(2), Dense(2)], input_shape=(70_000, 1))


def test_a_window_longer_than_the_sequence_is_refused():
    with pytest.raises(ModelError, match=f"window {STEPS + 1} .* {STEPS} steps, set it from 1 to {STEPS}"):
        gru().fit(*first_sign(40), window=STEPS + 1)
    with pytest.raises(UsageError, match="window must be a whole number from 1"):
        gru().fit(*first_sign(40), window=0)


@pytest.mark.parametrize(("key", "value"), [("timing", "first"), ("timing", 1), ("traces", 1), ("traces", "yes")])
def test_settings_of_a_rule_over_time_are_checked(key, value):
    with pytest.raises(UsageError, match=key):
        gru().fit(*first_sign(40), rule="readout", **{key: value})


def test_sequences_without_steps_and_of_several_lengths_are_refused():
    x, y = first_sign(4)
    with pytest.raises(DataError, match="nothing to learn"):
        gru().fit(x[:, :0], y)
    with pytest.raises(DataError, match="reshape them"):
        gru().predict(x[:, :5])
    mixed = [list(row[: 5 + i]) for i, row in enumerate(x)]
    for call in (lambda: gru().fit(mixed, y), lambda: gru().predict(mixed)):
        with pytest.raises(DataError, match="pad or cut sequences to one length"):
            call()
    ragged = np.array([None, *mixed], object)[1:]
    with pytest.raises(DataError, match="not real numbers"):
        gru().predict(ragged)
    with pytest.raises(ModelError, match="whole numbers from 1 up"):
        el.Net([GRU(4), Dense(2)], input_shape=(0, FEATURES))


def write_data(path):
    (x, y), (xt, yt) = first_sign(), first_sign(seed=1)
    np.savez(path, x_train=x, y_train=y, x_test=xt, y_test=yt)
    return str(path)


MODEL = """
[[layer]]
type = "GRU"
units = 8

[[layer]]
type = "Dense"
units = 2

[train]
lr = 1e-2
epochs = 8
batch = 20

[train.rule]
default = "readout"

[train.rule.readout]
timing = "last"
"""


def test_the_command_line_names_windows_and_refuses_long_ones(tmp_path, capsys):
    model, data, out = tmp_path / "m.toml", write_data(tmp_path / "d.npz"), str(tmp_path / "out")
    model.write_text(MODEL)
    assert main(["train", str(model), data, "--window", str(STEPS), "-o", out, "--json"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "(windows of 12: not backprop-free)" in "".join(said)
    assert json.loads(said[-1])["accuracy"] >= 0.95
    assert main(["train", str(model), data, "--window", str(STEPS + 1), "-o", out]) == 5
    assert "set it from 1 to 12" in capsys.readouterr().err


def test_traces_of_a_table_give_way_to_a_window_or_blocks_that_are_said():
    table = {"rule": "readout", "traces": True}
    assert recipe(table).local_rule().traces
    assert recipe(table, window=1, block=1).local_rule().traces
    assert not recipe(table, window=4).local_rule().traces
    assert not recipe(table, block=2).local_rule().traces
    assert recipe(table, window=4, traces=True).local_rule().traces  # refused when the net is known

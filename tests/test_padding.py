# SPDX-License-Identifier: Apache-2.0
"""Sequences of several lengths as users hold them: lists and padded arrays, files, streams, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benches import BACKENDS

import edgelearn as el
from edgelearn.cli import main
from edgelearn.errors import DataError, ModelError, UsageError
from edgelearn.layers import GRU, LSTM, Conv1D, Dense, Masking, from_config, to_config

STEPS, FEATURES = 9, 3


def sequences(n=120, seed=0):
    """Lists of 2 to 9 steps whose first one says the class, by a value that padding in front of it would drown."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = [0.1 * rng.standard_normal((rng.integers(2, STEPS + 1), FEATURES)).astype(np.float32) for _ in range(n)]
    for sample, label in zip(x, y, strict=True):
        sample[0, 0] += 1.0 if label else -1.0
    return x, y


def net_of(value=0.0, steps=STEPS, **settings):
    layers = [Masking(value), GRU(8, return_sequences=True), LSTM(6), Dense(2)]
    return el.Net(layers, input_shape=(steps, FEATURES), seed=1, **settings)


def alone(net, sample):
    """What a net of the same weights, for sequences of that length, answers."""
    plain = el.Net(net.layers[1:], input_shape=sample.shape, seed=0)
    for name, weights in plain.weights.items():
        weights[...] = net.weights[name]
    return plain.forward(sample[None])[0]


def in_front(x, value):
    whole = np.full((len(x), STEPS, FEATURES), value, np.float32)
    for row, sample in zip(whole, x, strict=True):
        row[STEPS - len(sample) :] = sample
    return whole


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_sequence_is_learned_and_answered_as_if_it_were_alone(backend):
    (x, y), net = sequences(), net_of()
    net.fit(x, y, rule="readout", epochs=4, batch=20, lr=2e-2, seed=0, window=STEPS, backend=backend)
    later, labels = sequences(seed=1)
    assert net.score(later, labels) >= 0.9
    answers = net.predict_proba(later[:20])
    np.testing.assert_allclose(answers, [alone(net, sample) for sample in later[:20]], atol=1e-5)
    np.testing.assert_allclose(net.predict_proba(in_front(later[:20], 0.0)), answers, atol=1e-6)


def test_a_saved_net_and_a_definition_keep_their_padding(tmp_path):
    net, (x, _) = net_of(-7.0), sequences(10)
    assert from_config(to_config(net.layers[0])) == Masking(-7.0)
    net.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(el.load(tmp_path / "m.safetensors").forward(x), net.forward(x))


def test_streams_pass_over_padding_in_front_of_their_first_step():
    (x, _), net = sequences(8), net_of(5.0)
    whole = in_front(x, 5.0)
    stream = net.stream(8)
    for cut in np.split(whole, (1, 4, 5), axis=1):
        found = stream.forward(np.ascontiguousarray(cut))
    np.testing.assert_allclose(found, net.forward(x), atol=1e-6)


def test_a_stream_learns_padded_pieces_as_a_net_learns_the_samples():
    (x, y), one, other = sequences(8), net_of(5.0), net_of(5.0)
    settings = {"rule": "readout", "lr": 0.01, "seed": 7}
    one.partial_fit(x, y, batch=8, **settings)
    other.stream(8, **settings).learn(in_front(x, 5.0), y)
    np.testing.assert_allclose(other.flat, one.flat, atol=1e-7)


def test_padding_does_not_count_in_means_and_deviations():
    (x, y), steps = sequences(), np.concatenate(sequences()[0])
    net = el.Net([Masking(9.0), GRU(4), Dense(2)], input=el.Input(standardise=True))
    net.fit(x, y, epochs=1)
    np.testing.assert_allclose(net.input.mean, steps.mean(0), atol=1e-6)
    np.testing.assert_allclose(net.input.std, steps.std(0), rtol=1e-5)


def test_the_command_line_trains_padded_samples_of_a_file(tmp_path, capsys):
    x, y = sequences(160)
    (tmp_path / "m.toml").write_text(
        '[[layer]]\ntype = "Masking"\n[[layer]]\ntype = "GRU"\nunits = 8\n[[layer]]\ntype = "Dense"\nunits = 2\n'
        '[train]\nepochs = 6\nbatch = 20\nlr = 2e-2\n[train.rule]\ndefault = "readout"\n'
    )
    padded = in_front(x, 0.0)
    np.savez(tmp_path / "d.npz", x_train=padded[:120], y_train=y[:120], x_test=padded[120:], y_test=y[120:])
    files = str(tmp_path / "m.toml"), str(tmp_path / "d.npz")
    assert main(["train", *files, "--window", str(STEPS), "-o", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] >= 0.9


@pytest.mark.parametrize("name", ["m.onnx", "m.tflite"])
def test_files_that_would_not_know_padding_are_refused_with_a_way_out(tmp_path, name):
    net = net_of()
    with pytest.raises(ModelError, match="copy its weights to a net of the same layers without Masking"):
        net.export(tmp_path / name, samples=in_front(sequences(4)[0], 0.0))
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Masking(), Dense(2)], "Masking is for recurrent layers"),
        ([Masking(), Conv1D(4, 3), GRU(3), Dense(2)], "nets that begin with recurrent layers"),
        ([GRU(3), Masking(), Dense(2)], "make it the first layer"),
        ([Masking(), Masking(1.0), GRU(3), Dense(2)], "make it the first layer"),
        ([Masking(), GRU(3, return_sequences=True), Dense(2)], "their last step in common only"),
    ],
)
def test_nets_in_which_padding_would_be_lost_are_refused(layers, message):
    with pytest.raises(ModelError, match=message):
        el.Net(layers, input_shape=(STEPS, FEATURES))


@pytest.mark.parametrize("value", [float("nan"), "0", None, True])
def test_padding_that_is_no_number_is_refused(value):
    with pytest.raises(ModelError, match="finite number"):
        Masking(value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "sequential", "cache": "float16"}, "do not tell padding"),
        ({"augment": {"noise": 0.1}}, "would change the padding"),
    ],
)
def test_settings_that_lose_padding_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        net_of().fit(*sequences(), **settings)


def test_bad_sequences_are_named():
    (x, y), net = sequences(6), net_of()
    for bad in (np.zeros((0, FEATURES)), np.zeros((STEPS + 1, FEATURES)), np.zeros((4, 2))):
        for call in (lambda bad=bad: net.fit([*x[:5], bad], y), lambda bad=bad: net.predict([*x[:5], bad])):
            with pytest.raises(DataError, match=f"sequence 5 has shape .* 1 to {STEPS} steps"):
                call()
    with pytest.raises(DataError, match="sample 5 is padding alone"):
        net.fit([*x[:5], np.zeros((4, FEATURES), np.float32)], y)

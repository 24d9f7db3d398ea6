# SPDX-License-Identifier: Apache-2.0
"""Sequences in pieces: answers and learning that go on from where the last piece ended, stream by stream."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import ATOL, RTOL

import edgelearn as el
from edgelearn.errors import DataError, LearningError, ModelError, UsageError
from edgelearn.inputs import data
from edgelearn.layers import GRU, LSTM, Conv1D, Dense, Dropout, LayerNormalization, Reshape, SimpleRNN

STEPS, FEATURES = 24, 3

NETS = {
    "gru": [GRU(6), Dense(4)],
    "stack": [LSTM(5, return_sequences=True), LayerNormalization(), Dropout(0.3), GRU(6), Dense(5, "relu"), Dense(4)],
    "simple": [SimpleRNN(7, return_sequences=True), SimpleRNN(5, "relu"), LayerNormalization(), Dense(4)],
}
CUTS = [(STEPS,), (1,) * STEPS, (5, 1, 11, 7)]


def net_of(name, steps=STEPS):
    return el.Net(NETS[name], input_shape=(steps, FEATURES), seed=2)


def samples(n=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, STEPS, FEATURES)).astype(np.float32)


def pieces(x, lengths):
    return np.split(x, np.cumsum(lengths)[:-1], axis=1)


@pytest.mark.parametrize("lengths", CUTS)
@pytest.mark.parametrize("name", list(NETS))
def test_answers_behind_pieces_are_those_of_the_whole_sequence(name, lengths):
    net, x = net_of(name), samples()
    stream = net.stream(len(x))
    for piece in pieces(x, lengths):
        found = stream.forward(piece)
    np.testing.assert_allclose(found, net.forward(x), atol=1e-6)
    assert stream.predict(x[:, :1]).shape == (3,)


def test_a_thousand_steps_one_by_one_are_those_of_the_whole_sequence():
    net = el.Net([LSTM(8, return_sequences=True), GRU(8), Dense(4)], input_shape=(1000, 2), seed=1)
    x = np.random.default_rng(1).standard_normal((2, 1000, 2)).astype(np.float32)
    stream = net.stream(2)
    for t in range(1000):
        found = stream.forward(x[:, t : t + 1])
    np.testing.assert_allclose(found, net.forward(x), atol=1e-6)


def test_streams_are_reset_one_by_one_or_all():
    net, x = net_of("stack"), samples()
    stream, fresh = net.stream(3), net.stream(3).forward(x[:, :2])
    for streams, begun in ((None, [0, 1, 2]), (1, [1]), ([0, 2], [0, 2])):
        stream.forward(x[:, ::-1].copy())
        stream.reset(streams)
        found = stream.forward(x[:, :2])
        for i in range(3):
            assert np.allclose(found[i], fresh[i], atol=1e-6) == (i in begun)


def test_the_scaling_of_the_input_and_bytes_go_through_streams():
    x = np.random.default_rng(0).integers(0, 256, (40, STEPS, FEATURES), np.uint8)
    net = el.Net([Reshape((8, 9)), GRU(6), Dense(2)], input_shape=(STEPS, FEATURES))
    net.fit(x, np.arange(40) % 2, epochs=1)
    stream = net.stream(40)
    frames = x.reshape(40, 8, 9)
    stream.forward(frames[:, :3])
    np.testing.assert_allclose(stream.forward(frames[:, 3:]), net.forward(x), atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"traces": True}, {"window": STEPS}])
@pytest.mark.parametrize("name", list(NETS))
def test_learning_a_whole_sequence_as_one_piece_is_a_step_on_it(name, settings):
    x, y, rule = samples(), np.array([1, 0, 3]), {"rule": "readout", "lr": 0.01, "seed": 7}
    one, other = net_of(name), net_of(name)
    one.partial_fit(x, y, batch=3, **rule, **settings)
    stats = other.stream(3, **rule, **settings).learn(x, y)
    assert stats.samples == 3
    np.testing.assert_array_equal(other.flat, one.flat)


def test_traces_carry_credit_from_piece_to_piece():
    """What the first piece said is in the gradient of the second one only by traces."""
    x, y = samples(), np.array([1, 0, 3])
    settings = {"rule": "readout", "timing": "last", "optimizer": "sgd", "seed": 7, "clip": 0.0}

    def moved(piece_before, **more):
        net = net_of("gru")
        stream = net.stream(3, **settings, **more)
        stream.learn(x[:, :12], y, lr=0.5)  # so that read-outs are not zero
        stream.reset()
        stream.learn(piece_before, y, lr=0.0)
        stream.learn(x[:, 12:], y, lr=1.0)
        return net.weights["gru.weight"].copy()

    assert not np.allclose(moved(x[:, :12], traces=True), moved(x[:, :12]), atol=1e-6)


@pytest.mark.parametrize("cell", [GRU, LSTM])
def test_a_piece_that_changed_nothing_and_the_next_are_a_step_on_both(cell):
    x, y = samples(), np.array([1, 0, 3])
    settings = {"rule": "readout", "timing": "last", "optimizer": "sgd", "seed": 7, "clip": 0.0, "traces": True}

    def moved(*pieces):
        net = el.Net([cell(5), Dense(4)], input_shape=(STEPS, FEATURES), seed=2)
        stream = net.stream(3, **settings)
        stream.learn(x[:, :12], y, lr=0.5)  # so that read-outs are not zero
        stream.reset()
        before = net.flat.copy()
        for piece in pieces:
            stream.learn(piece, y, lr=0.5 if piece is pieces[-1] else 0.0)
        assert np.abs(net.flat - before).max() > 1e-3
        return net.flat

    np.testing.assert_allclose(moved(x[:, :5], x[:, 5:9], x[:, 9:]), moved(x), atol=1e-6)


def test_a_stream_learns_to_tell_what_it_heard_before():
    """The first piece says the class, the second is noise: only a kept state can answer it."""
    rng, net = np.random.default_rng(3), el.Net([GRU(12), Dense(2)], input_shape=(STEPS, 1), seed=0)
    stream = net.stream(16, rule="readout", lr=0.02)
    right = []
    for _ in range(120):
        y = rng.integers(0, 2, 16)
        cue = np.where(y, 1.0, -1.0)[:, None, None] * np.ones((16, 2, 1)) + 0.1 * rng.standard_normal((16, 2, 1))
        stream.reset()
        stream.learn(cue.astype(np.float32), y)
        right.append(stream.learn(0.1 * rng.standard_normal((16, 3, 1)).astype(np.float32), y).correct)
    assert sum(right[-20:]) >= 0.95 * 320


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 0, FEATURES)), "at least one step"),
        (np.zeros((2, 4, FEATURES)), r"\(3, steps, 3\)"),
        (np.zeros((3, 4, 5)), r"\(3, steps, 3\)"),
        (np.zeros((3, 4)), r"pass \(batch, steps, features\)"),
        ([[[1.0]], [[1.0], [2.0]]], "one length"),
        (np.full((3, 4, FEATURES), np.nan), "0 holds NaN"),
    ],
)
def test_pieces_that_do_not_fit_are_refused_and_change_no_state(x, message):
    net, whole = net_of("gru"), samples()
    stream = net.stream(3)
    stream.forward(whole[:, :10])
    for call in (lambda: stream.forward(x), lambda: stream.learn(x, [0, 1, 2])):
        with pytest.raises(DataError, match=message):
            call()
    np.testing.assert_allclose(stream.forward(whole[:, 10:]), net.forward(whole), rtol=RTOL, atol=ATOL)


def test_labels_outside_the_classes_and_streams_that_are_not_there_are_refused():
    stream = net_of("gru").stream(3)
    with pytest.raises(DataError, match="label 9"):
        stream.learn(samples(), [0, 9, 1])
    with pytest.raises(UsageError, match="no stream 3: choose one of 0 to 2"):
        stream.reset(3)


def test_a_stream_that_diverges_says_so_and_begins_anew():
    net = net_of("simple")
    stream = net.stream(3, rule="tp-l2")
    for weights in net.weights.values():
        weights *= np.float32(1e30)
    with pytest.raises(LearningError):
        stream.learn(samples(), [0, 1, 2])


@pytest.mark.parametrize(
    ("layers", "settings", "error", "message"),
    [
        ([Dense(4)], {}, ModelError, "begin with recurrent layers"),
        ([Conv1D(4), GRU(4), Dense(2)], {}, ModelError, "begin with recurrent layers"),
        ([GRU(4, return_sequences=True), Dense(2)], {}, ModelError, "a stream has no end"),
        ([GRU(4), Dense(2)], {"backend": "numba"}, UsageError, "leave out backend"),
        ([GRU(4), Dense(2)], {"micro": 1}, UsageError, "leave out micro"),
    ],
)
def test_nets_and_settings_that_streams_cannot_have_are_refused(layers, settings, error, message):
    with pytest.raises(error, match=message):
        el.Net(layers, input_shape=(STEPS, FEATURES)).stream(2, **settings)


def test_spoken_words_frame_by_frame(real_data):
    whole = data.load(real_data("fsdd_logmel.npz"))
    net = el.load("kws-gru", seed=0)
    net.adopt(whole)
    x = whole.x_test[:20]
    stream = net.stream(20)
    for frame in range(x.shape[1]):
        found = stream.forward(x[:, frame : frame + 1])
    np.testing.assert_allclose(found, net.forward(x), atol=1e-6)

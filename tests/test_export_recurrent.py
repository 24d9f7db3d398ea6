# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers in the real runtimes, against the core: every cell, stacked, all steps or the last, a thousand."""

from __future__ import annotations

import numpy as np
import pytest
from exporting import core, random_parameters, samples_of, write

import edgelearn as el
from edgelearn import graph
from edgelearn.export import Calibration, Precision
from edgelearn.export.evaluation import values
from edgelearn.export.lower import lower
from edgelearn.layers import (
    GRU,
    LSTM,
    Activation,
    Conv1D,
    Dense,
    Dropout,
    LayerNormalization,
    Reshape,
    SimpleRNN,
)

CELLS = {
    "tanh": (SimpleRNN, {}),
    "relu": (SimpleRNN, {"activation": "relu"}),
    "gru": (GRU, {}),
    "lstm": (LSTM, {}),
}

NETS = {
    "all steps": ([GRU(5, return_sequences=True), Activation("relu"), Dense(3)], (7, 4)),
    "in company": (
        [
            Reshape((4, 9)),
            LSTM(6, return_sequences=True),
            LayerNormalization(),
            Dropout(0.2),
            GRU(5),
            LayerNormalization(),
            Dense(3),
        ],
        (12, 3),
    ),
    "after a convolution": ([Conv1D(6, 3, activation="relu"), SimpleRNN(5), Dense(3)], (9, 2)),
}


@pytest.fixture(params=[".onnx", ".tflite"])
def path(request, tmp_path):
    return tmp_path / f"net{request.param}"


def check(path, layers, shape, count=5, **changes):
    """Largest difference of a file from the core; write() itself allows 1e-4."""
    net = graph.build(layers, shape)
    flat = random_parameters(net)
    return write(path, net, flat, forward=lambda x: core(net, flat, x), samples=samples_of(net, count), **changes)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("cell", list(CELLS))
def test_cells_stacked_give_the_answers_of_the_core(path, cell, use_bias):
    layer, settings = CELLS[cell]
    layers = [layer(5, use_bias=use_bias, return_sequences=True, **settings), layer(6, use_bias=use_bias, **settings)]
    assert check(path, [*layers, Dense(3)], (6, 4)).max_abs_diff <= 1e-5


@pytest.mark.parametrize("name", list(NETS))
def test_nets_around_them_give_the_answers_of_the_core(path, name):
    assert check(path, *NETS[name]).max_abs_diff <= 1e-5


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_a_thousand_steps_stay_within_a_thousandth(path, cell):
    layer, settings = CELLS[cell]
    report = check(path, [layer(4, **settings), Dense(3)], (1000, 2), count=2)
    assert report.max_abs_diff <= 1e-3
    assert path.stat().st_size < 1e4


@pytest.mark.parametrize("cell", list(CELLS))
def test_the_formula_that_calibrates_gives_the_answers_of_the_core(cell):
    layer, settings = CELLS[cell]
    net = graph.build([layer(5, return_sequences=True, **settings), layer(4, **settings), Dense(3)], (6, 4))
    flat, x = random_parameters(net), samples_of(net)
    *_, found = values(lower(net, flat), x)
    np.testing.assert_allclose(found, core(net, flat, x), atol=1e-5)


def test_products_around_them_become_int8(path):
    layers, shape = [Conv1D(6, 3, activation="relu"), GRU(5), Dense(16, "relu"), Dense(3)], (9, 2)
    net = graph.build(layers, shape)
    calibration = Calibration(samples_of(net, 64), "minmax")
    report = check(path, layers, shape, 64, precision=Precision("int8", calibration), max_disagreement=0.2)
    assert report.dtype == "int8"
    assert [error.layer for error in report.layers] == ["input", "conv1d", "gru", "dense", "dense_1"]


def test_an_exported_net_is_read_back_with_every_weight(tmp_path, path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 6, 3), np.float32), np.arange(40) % 2
    net = el.Net([LSTM(5, return_sequences=True), GRU(4), Dense(2)], input_shape=(6, 3), seed=1)
    net.fit(x, y, epochs=1)
    net.export(path)
    again = el.load(path)
    np.testing.assert_allclose(again.predict_proba(x), net.predict_proba(x), atol=1e-6)

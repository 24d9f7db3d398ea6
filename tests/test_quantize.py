# SPDX-License-Identifier: Apache-2.0
"""int8 files in the real runtimes, against the formulas and against their own simulation in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from exporting import core, evaluate, random_parameters, samples_of, small, write
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import UNITS
from quantizing import CALIBRATED, FORMATS, STEPS, int8, prepared, simulated, write_int8

from edgelearn import graph
from edgelearn.export import Calibration, onnx_nodes, runtimes, tflite
from edgelearn.export.affine import absorb_scaling
from edgelearn.export.calibration import METHODS
from edgelearn.export.evaluation import FORMULAS, values
from edgelearn.export.int8 import Affine
from edgelearn.export.lower import lower
from edgelearn.export.passes import fold_batchnorm
from edgelearn.export.primitives import Add, Attention, BatchNorm, Branch, LayerNorm, Merge, Mul
from edgelearn.export.quantize import bare, quantize
from edgelearn.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    LayerNormalization,
    SimpleRNN,
)


@pytest.mark.parametrize("rescale", ["none", "one", "channels"])
@pytest.mark.parametrize("name", CALIBRATED)
def test_formulas_give_the_answers_of_the_oracle_in_both_layouts(name, rescale):
    layers, shape = CALIBRATED[name]
    net, flat = small(layers=layers, input_shape=shape, rescale={"none": 0, "one": 1, "channels": shape[-1]}[rescale])
    x = samples_of(net, 5)
    for module in FORMATS.values():
        program = prepared(module, net, flat)
        assert not any(isinstance(bare(step), BatchNorm | Mul | Add) for step in program.steps)
        np.testing.assert_allclose([*values(program, x)][-1], evaluate(net, flat, x), atol=1e-5)


def test_every_primitive_but_a_folded_one_has_a_formula():
    assert set(FORMULAS) == set(onnx_nodes.NODES) - {BatchNorm, Branch, Merge}


@pytest.mark.parametrize("io", ["int8", "float32"])
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", CALIBRATED)
def test_an_int8_file_gives_what_its_simulation_gives(tmp_path, name, suffix, io):
    layers, shape = CALIBRATED[name]
    net, flat = small(layers=layers, input_shape=shape, rescale=1)
    x = samples_of(net, 40)
    report = write_int8(tmp_path / f"net{suffix}", net, flat, x, io, max_disagreement=0.1)
    quantized = quantize(prepared(FORMATS[suffix], net, flat), Calibration(x))
    runtime = runtimes.load(tmp_path / f"net{suffix}")
    assert runtime.dtype == io
    assert (runtime.entering is None) == (io == "float32")
    for count in (1, 7, 1):
        answers = runtime.run(x[:count])
        np.testing.assert_allclose(answers, simulated(quantized, x[:count]), atol=STEPS / 256)
        np.testing.assert_allclose(answers, evaluate(net, flat, x[:count]), atol=0.05)
    assert report.dtype == "int8"
    assert report.worst_layer.layer in {"input", "scaling"} | {p.name.rpartition(".")[0] for p in net.parameters}


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    activation=st.sampled_from(["linear", "relu", "leaky_relu", "tanh", "sigmoid", "gelu"]),
    over=st.sampled_from(["nothing", "steps", "images"]),
    norm=st.sampled_from([None, BatchNormalization(), LayerNormalization(epsilon=0.1)]),
    softmax=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_net_keeps_to_its_simulation(tmp_path_factory, widths, activation, over, norm, softmax, seed):
    shape = {"nothing": (5,), "steps": (7, 3), "images": (6, 5, 2)}[over]
    conv = {"nothing": Dense, "steps": Conv1D, "images": Conv2D}[over]
    window = {} if conv is Dense else {"kernel_size": 2, "padding": "same"}
    layers = [conv(width, activation=activation, **window) for width in widths]
    layers += [norm] if norm else []
    layers += [Dense(3)]
    net = graph.build(layers, shape, softmax=softmax)
    flat, x = random_parameters(net, seed), samples_of(net, 24, seed)
    folder = tmp_path_factory.mktemp("nets")
    for suffix, module in FORMATS.items():
        quantized = quantize(prepared(module, net, flat), Calibration(x))
        expected = simulated(quantized, x)
        write(folder / f"net{suffix}", net, flat, precision=int8(x), samples=x, verify=False)
        answers = runtimes.load(folder / f"net{suffix}").run(x)
        steps = np.abs(answers - expected) / quantized.values[-1].scale
        assert steps.max() <= 3 * STEPS
        assert steps.mean() <= STEPS


RECURRENT = {
    "gru": [GRU(24, return_sequences=True), GRU(16), Dense(3)],
    "lstm": [LSTM(24), Dense(3)],
    "rnn": [SimpleRNN(24, activation="relu"), Dense(3)],
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_compute_in_float_with_weights_held_as_int8(tmp_path, name, suffix):
    net, flat = small(layers=RECURRENT[name], input_shape=(9, 12), rescale=1)
    x = samples_of(net, 40)
    report = write_int8(tmp_path / f"net{suffix}", net, flat, x, max_disagreement=0.1)
    quantized = quantize(prepared(FORMATS[suffix], net, flat), Calibration(x))
    for count in (1, 7):
        answers = runtimes.load(tmp_path / f"net{suffix}").run(x[:count])
        np.testing.assert_allclose(answers, simulated(quantized, x[:count]), atol=STEPS / 256)
        np.testing.assert_allclose(answers, evaluate(net, flat, x[:count]), atol=0.05)
    assert {p.name.split(".")[0] for p in net.parameters} - {"input"} <= {error.layer for error in report.layers}


@pytest.mark.parametrize("suffix", FORMATS)
def test_pictures_go_in_as_bytes_floats_or_int8(tmp_path, suffix):
    net, flat = small(layers=[Conv2D(4, 3), Dense(3)], input_shape=(5, 5, 1), rescale=1)
    flat[:2] = 1 / 255, 0
    x = np.random.default_rng(0).integers(0, 256, (20, 5, 5, 1), np.uint8)
    x[0, 0, 0], x[0, 0, 1] = 0, 255
    write_int8(tmp_path / f"net{suffix}", net, flat, x)
    runtime = runtimes.load(tmp_path / f"net{suffix}")
    assert runtime.entering == Affine(1.0, -128)
    expected = runtime.run(x)
    np.testing.assert_array_equal(runtime.run(x.astype(np.float32)), expected)
    np.testing.assert_array_equal(runtime.run((x.astype(int) - 128).astype(np.int8)), expected)


def test_scales_of_normalisation_and_attention_go_into_products_exactly():
    net, flat = small(layers=UNITS["patches"][0], input_shape=UNITS["patches"][1])
    program = fold_batchnorm(lower(net, flat))
    absorbed = absorb_scaling(program)
    norms = [step for step in absorbed.steps if isinstance(step, LayerNorm)]
    assert norms
    assert all(step.gamma is None and step.beta is None for step in norms)
    assert all(step.is_scaled for step in absorbed.steps if isinstance(step, Attention))
    x = samples_of(net)
    (*_, before), (*_, after) = values(program, x), values(absorbed, x)
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_biases_take_back_the_mean_error_of_the_weights():
    """A weight that lies half a step between two int8 numbers, before an input that is never zero."""
    net, flat = small(layers=[Dense(1)], input_shape=(64,), softmax=False)
    flat[:] = 0.5
    flat[0], flat[-1] = 127, 0
    x = np.random.default_rng(0).uniform(0.9, 1.1, (50, 64)).astype(np.float32)
    quantized = quantize(prepared(tflite, net, flat), Calibration(x))
    exact = core(net, flat, x)
    error = simulated(quantized, x) - exact
    uncorrected = x @ (np.rint(flat[:64]) - flat[:64])
    assert abs(uncorrected.mean()) > 25
    assert abs(error.mean()) < 1


def test_each_method_deals_with_an_outlier_in_its_own_way():
    net, flat = small(layers=[Dense(3)], softmax=False)
    x = np.random.default_rng(0).normal(0, 1, (400, 4)).astype(np.float32)
    x[7, 2] = 500
    highest = {}
    for method in METHODS:
        first = quantize(prepared(tflite, net, flat), Calibration(x, method)).values[0]
        highest[method] = first.scale * (127 - first.zero_point)
    assert highest["minmax"] == pytest.approx(500, rel=1e-2)
    assert highest["entropy"] < 60
    many = np.vstack([x, np.random.default_rng(1).normal(0, 1, (20_000, 4)).astype(np.float32)])
    first = quantize(prepared(tflite, net, flat), Calibration(many, "percentile")).values[0]
    assert first.scale * (127 - first.zero_point) < 10


def test_a_large_bias_beside_small_weights_stays_within_32_bits():
    net, flat = small(layers=[Dense(2)], softmax=False)
    flat[:8] *= 1e-9
    flat[8:] = 3.0, -2.0
    quantized = quantize(prepared(tflite, net, flat), Calibration(samples_of(net, 20)))
    np.testing.assert_allclose(simulated(quantized, samples_of(net, 5)), np.tile([3.0, -2.0], (5, 1)), rtol=1e-2)

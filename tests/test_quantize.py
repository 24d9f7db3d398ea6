# SPDX-License-Identifier: Apache-2.0
"""int8 files in the real runtimes, against the formulas and against their own simulation in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from exporting import EXPORTED, core, evaluate, random_parameters, samples_of, small, write
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import UNITS
from onnx import ModelProto, TensorProto, numpy_helper

from edgelearn import export, graph
from edgelearn.errors import DataError, UsageError, VerificationError
from edgelearn.export import Calibration, Precision, onnx, onnx_nodes, runtimes, tflite, tflite_ops
from edgelearn.export.affine import absorb_scaling
from edgelearn.export.calibration import METHODS
from edgelearn.export.evaluation import FORMULAS, values
from edgelearn.export.int8 import Affine
from edgelearn.export.layer_errors import layer_errors, worst
from edgelearn.export.lower import lower
from edgelearn.export.passes import fold_batchnorm
from edgelearn.export.primitives import Add, Attention, BatchNorm, Branch, LayerNorm, Merge, Mul
from edgelearn.export.quantize import bare, quantize, simulate
from edgelearn.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
    SimpleRNN,
)

FORMATS = {".onnx": onnx, ".tflite": tflite}
CALIBRATED = {**EXPORTED, **{name: net for name, net in UNITS.items() if name != "tokens"}}
"""Samples here are no whole numbers, as tokens are."""

STEPS = 4
"""Of an output's int8 scale that a runtime may be away from the simulation: kernels round halves their own way."""


def prepared(module, net, flat):
    return module.prepare(absorb_scaling(fold_batchnorm(lower(net, flat))))


def simulated(quantized, x):
    """The whole net by the numbers of its report."""
    y = quantized.values[0].real(quantized.values[0].quantized(x))
    kept = []
    for index in range(len(quantized.program.steps)):
        y = simulate(quantized, index, y, kept)
    return y


def int8(samples, method="minmax", io="int8"):
    return Precision("int8", Calibration(samples, method), io)


def write_int8(path, net, flat, samples, io="int8", **changes):
    return write(path, net, flat, precision=int8(samples, io=io), samples=samples, **changes)


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


def test_onnxruntime_runs_every_product_in_int8(tmp_path):
    import onnxruntime

    layers = [Conv2D(8, 3, activation="gelu"), MaxPool(), Conv2D(8, 2, groups=4), Dense(6, "relu"), Dense(3)]
    net, flat = small(layers=layers, input_shape=(9, 8, 2), rescale=2)
    write_int8(tmp_path / "net.onnx", net, flat, samples_of(net, 30))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    operators = [n.op_type for n in ModelProto.FromString((tmp_path / "optimised.onnx").read_bytes()).graph.node]
    assert operators.count("QLinearConv") == 2
    assert operators.count("QGemm") == 2
    assert not {"Conv", "Gemm", "MatMul"} & set(operators)


def test_the_onnx_file_holds_signed_weights_per_channel_and_wide_biases(tmp_path):
    net, flat = small(layers=[Conv2D(4, 3), Dense(3)], input_shape=(6, 6, 2))
    write_int8(tmp_path / "net.onnx", net, flat, samples_of(net, 30))
    body = ModelProto.FromString((tmp_path / "net.onnx").read_bytes()).graph
    ends = [end.type.tensor_type.elem_type for end in (*body.input, *body.output)]
    assert ends == [TensorProto.INT8, TensorProto.INT8]
    held = {t.name: numpy_helper.to_array(t) for t in body.initializer}
    assert not any(a.dtype == np.float32 and a.size > 4 for a in held.values())
    weights = {name: a for name, a in held.items() if a.dtype == np.int8 and a.ndim > 1}
    assert [a.shape for a in weights.values()] == [(4, 2, 3, 3), (64, 3)]
    assert [a.shape for a in held.values() if a.dtype == np.int32] == [(4,), (3,)]
    readers = [node for node in body.node if node.input[0] in weights]
    assert [node.attribute[0].i for node in readers] == [0, 1]
    for node in readers:
        assert not held[node.input[2]].any()
        assert np.abs(held[node.input[0]].astype(int)).max() == 127


def test_the_tflite_file_holds_signed_weights_per_channel_and_wide_biases(tmp_path):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    net, flat = small(layers=[Conv2D(4, 3, activation="relu"), MaxPool(), Dense(3)], input_shape=(6, 6, 2))
    write_int8(tmp_path / "net.tflite", net, flat, samples_of(net, 30))
    model = schema.ModelT.InitFromPackedBuf((tmp_path / "net.tflite").read_bytes())
    part, kinds = model.subgraphs[0], schema.TensorType
    codes = [model.operatorCodes[o.opcodeIndex] for o in part.operators]
    assert {c.builtinCode: c.version for c in codes} == {
        tflite_ops.CONV_2D: 3,
        tflite_ops.MAX_POOL_2D: 2,
        tflite_ops.RESHAPE: 1,
        tflite_ops.FULLY_CONNECTED: 4,
        tflite_ops.SOFTMAX: 2,
    }
    assert {part.tensors[i].type for i in (*part.inputs, *part.outputs)} == {kinds.INT8}
    assert list(part.tensors[part.outputs[0]].quantization.zeroPoint) == [-128]
    for operator in (part.operators[0], part.operators[3]):
        entering, weight, bias = (part.tensors[i] for i in operator.inputs)
        assert (weight.type, bias.type) == (kinds.INT8, kinds.INT32)
        assert weight.quantization.quantizedDimension == 0
        assert not weight.quantization.zeroPoint.any()
        product = entering.quantization.scale * weight.quantization.scale
        np.testing.assert_allclose(bias.quantization.scale, product, rtol=1e-6)


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


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_int8_file_is_at_most_three_tenths_of_the_float_one(tmp_path, suffix):
    net, flat = small(
        layers=[Conv2D(32, 3), Conv2D(128, 3), GlobalAvgPool(), Dense(128), Dense(10)], input_shape=(8, 8, 3)
    )
    x = samples_of(net, 8)
    write(tmp_path / f"float{suffix}", net, flat, verify=False)
    write(tmp_path / f"int8{suffix}", net, flat, precision=int8(x), verify=False)
    sizes = [(tmp_path / f"{name}{suffix}").stat().st_size for name in ("float", "int8")]
    assert sizes[0] > 100_000
    assert sizes[1] <= 0.3 * sizes[0]


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


def test_an_int8_onnx_file_of_recurrent_layers_is_at_most_three_tenths_of_the_float_one(tmp_path):
    net, flat = small(layers=[GRU(64, return_sequences=True), GRU(64), Dense(6)], input_shape=(8, 36))
    write(tmp_path / "float.onnx", net, flat, verify=False)
    write(tmp_path / "int8.onnx", net, flat, precision=int8(samples_of(net, 8)), verify=False)
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("float", "int8")]
    assert sizes[0] > 100_000
    assert sizes[1] <= 0.3 * sizes[0]


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


def test_the_report_names_the_layer_that_int8_costs_most():
    """A weight that is never used, and so large that the others of its unit are nothing beside it."""
    layers = [Dense(8, "relu", name="first"), Dense(8, "relu", name="wide"), Dense(3, name="last")]
    net, flat = small(layers=layers, softmax=False)
    views = {p.name: p.view(flat) for p in net.parameters}
    views["first.bias"][0], views["wide.weight"][0] = -100, 1000
    calibration = Calibration(samples_of(net, 30))
    errors = layer_errors(quantize(prepared(onnx, net, flat), calibration), calibration)
    assert [e.layer for e in errors] == ["input", "first", "wide", "last"]
    assert worst(errors) == errors[2]
    assert errors[2].own > 0.3
    assert all(e.own < 0.05 for e in errors if e.layer != "wide")
    assert errors[3].total > 0.3


def test_a_large_bias_beside_small_weights_stays_within_32_bits():
    net, flat = small(layers=[Dense(2)], softmax=False)
    flat[:8] *= 1e-9
    flat[8:] = 3.0, -2.0
    quantized = quantize(prepared(tflite, net, flat), Calibration(samples_of(net, 20)))
    np.testing.assert_allclose(simulated(quantized, samples_of(net, 5)), np.tile([3.0, -2.0], (5, 1)), rtol=1e-2)


BAD = {
    "none": (np.zeros((0, 4), np.float32), "there are none: pass some of the training samples"),
    "constant": (np.full((5, 4), 3.0, np.float32), "all calibration values are 3, so that no range follows"),
    "not a number": (np.full((5, 4), np.nan, np.float32), "NaN or infinity"),
}


@pytest.mark.parametrize("name", BAD)
def test_samples_without_a_range_are_refused(name):
    samples, says = BAD[name]
    with pytest.raises(DataError, match=says):
        Calibration(samples)


def test_samples_of_another_shape_and_unknown_words_are_refused(tmp_path):
    net, flat = small()
    with pytest.raises(DataError, match=r"calibration samples of shape \(5,\) do not fit the net's input \(4,\)"):
        write(tmp_path / "net.onnx", net, flat, precision=int8(np.eye(5, dtype=np.float32)))
    with pytest.raises(UsageError, match="unknown calibration method 'mean': choose one of minmax"):
        Calibration(samples_of(net), "mean")
    with pytest.raises(UsageError, match="unknown dtype 'int4': choose"):
        Precision("int4")
    with pytest.raises(UsageError, match="unknown io 'uint8': choose int8 or float32"):
        Precision("int8", Calibration(samples_of(net)), "uint8")
    with pytest.raises(DataError, match="int8 needs samples to calibrate on"):
        Precision("int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_gives_too_many_other_labels_is_refused(tmp_path, suffix):
    net, flat = small(layers=[Dense(8, "relu"), Dense(3)])
    x = samples_of(net, 100)
    narrow = int8(0.05 * x)  # ranges that real samples leave far behind
    wanted = {"precision": narrow, "samples": x}
    with pytest.raises(VerificationError, match=r"of 100 samples another label than the core \(5 allowed\)"):
        write(tmp_path / f"net{suffix}", net, flat, **wanted)
    assert not list(tmp_path.iterdir())
    assert write(tmp_path / f"net{suffix}", net, flat, **wanted, max_disagreement=1.0).label_agreement < 0.95


def test_a_regression_file_that_is_far_away_is_refused(tmp_path):
    net, flat = small(layers=[Dense(8, "relu"), Dense(2)], softmax=False)
    x = samples_of(net, 50)
    assert write(tmp_path / "net.onnx", net, flat, precision=int8(x), samples=x).label_agreement is None
    with pytest.raises(VerificationError, match=r"of the spread of its outputs \(10% is allowed\)"):
        write(tmp_path / "far.onnx", net, flat, precision=int8(0.05 * x), samples=x)


def test_accuracies_of_core_and_file_stand_in_the_report(tmp_path):
    net, flat = small(layers=[Dense(3)])
    x = samples_of(net, 60)
    labels = core(net, flat, x).argmax(axis=1)
    labels[:6] = (labels[:6] + 1) % 3
    report = write(tmp_path / "net.tflite", net, flat, precision=int8(x), samples=x, labels=labels)
    assert report.accuracy == 0.9
    assert report.rows[0].accuracy == pytest.approx(0.9, abs=0.05)
    assert {"runtime", "samples", "max_abs_diff", "label_agreement", "accuracy", "worst_layer"} <= set(report.summary())
    lines = str(report).splitlines()
    assert "90.00%" in lines[1]
    assert lines[2].startswith("LiteRT, int8")
    assert lines[3].startswith("worst layer: ")


def test_an_unverified_int8_file_says_so(tmp_path):
    net, flat = small()
    assert write(tmp_path / "net.tflite", net, flat, precision=int8(samples_of(net)), verify=False) is None
    assert runtimes.load(tmp_path / "net.tflite").metadata["unverified"] == "true"
    assert export.DTYPES[0] == "float32"

# SPDX-License-Identifier: Apache-2.0
"""Exported files in the real runtimes, against a plain float64 forward pass."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from exporting import evaluate, random_parameters, samples_of, small, write
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from edgelearn import graph
from edgelearn.errors import ModelError
from edgelearn.export import runtimes
from edgelearn.export.lower import lower
from edgelearn.export.passes import fold_batchnorm
from edgelearn.export.primitives import BatchNorm, Reshape
from edgelearn.layers import ACTIVATIONS, Activation, BatchNormalization, Dense, Dropout
from edgelearn.records import Op

SUFFIXES = (".onnx", ".tflite")


HIDDEN = sorted(set(ACTIVATIONS) - {"softmax"})

NETS = {
    **{a: small(layers=[Dense(6, a, negative_slope=0.2), Dense(3)]) for a in HIDDEN},
    **{f"{a} alone": small(layers=[Dense(3), Activation(a)], softmax=False) for a in ACTIVATIONS},
    "no bias": small(layers=[Dense(6, use_bias=False), BatchNormalization(), Dense(3, use_bias=False)]),
    "norm then relu": small(layers=[Dense(6), BatchNormalization(), Activation("relu"), Dense(3)]),
    "relu then norm": small(layers=[Dense(6, "relu"), BatchNormalization(), Dense(3)]),
    "norm twice": small(layers=[Dense(6), BatchNormalization(), BatchNormalization(epsilon=0.1), Dense(3)]),
    "norm then two relus": small(layers=[Dense(6, "tanh"), BatchNormalization(), Activation("relu"), Dense(3)]),
    "norm at the end": small(layers=[Dense(3), BatchNormalization()], softmax=False),
    "dropout before norm": small(layers=[Dense(6), Dropout(0.5), BatchNormalization(), Dropout(0.5), Dense(3)]),
    "dropout at the end": small(layers=[Dense(3), Dropout(0.5)], softmax=False),
    "one unit": small(layers=[Dense(1)], input_shape=(1,), softmax=False),
    **{
        f"rescale {pairs} of {shape}": small(input_shape=shape, rescale=pairs)
        for shape, counts in {
            (6,): (0, 1, 2, 6),
            (4, 6): (0, 1, 3, 6, 12, 24),
            (4, 2, 3): (0, 1, 3, 6, 24),
        }.items()
        for pairs in counts
    },
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", NETS)
def test_a_file_gives_the_answers_of_the_formulas_at_batch_1_and_7(tmp_path, name, suffix):
    net, flat = NETS[name]
    report = write(tmp_path / f"net{suffix}", net, flat)
    runtime = runtimes.load(tmp_path / f"net{suffix}")
    assert runtime.input_shape == net.input_shape
    assert report.samples == 9
    assert report.runtime == runtime.name
    for count in (1, 7, 1):
        x = samples_of(net, count, seed=count)
        np.testing.assert_allclose(runtime.run(x), evaluate(net, flat, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_active_prefixes_are_cut_out(tmp_path, suffix):
    net, flat = small(layers=[Dense(6, "relu"), BatchNormalization(), Dense(5), Dense(3)])
    records = net.records.copy()
    hidden = records["block"] == 0
    records["active"][hidden] = 2
    records["fan_in_active"][hidden & (records["op"] != Op.DENSE)] = 2
    dense = np.flatnonzero(records["op"] == Op.DENSE)
    records["active"][dense[1]] = 4
    records["fan_in_active"][dense[1:]] = (2, 4)
    narrow = replace(net, records=records)
    write(tmp_path / f"narrow{suffix}", narrow, flat)
    write(tmp_path / f"wide{suffix}", net, flat)
    x = samples_of(net)
    answers = runtimes.load(tmp_path / f"narrow{suffix}").run(x)
    np.testing.assert_allclose(answers, evaluate(narrow, flat, x), atol=1e-5)
    assert np.abs(answers - evaluate(net, flat, x)).max() > 1e-2
    assert (tmp_path / f"narrow{suffix}").stat().st_size < (tmp_path / f"wide{suffix}").stat().st_size


@st.composite
def nets(draw):
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    features = int(np.prod(shape))
    activations = st.sampled_from(HIDDEN)
    dense = st.builds(Dense, st.integers(1, 8), activations, st.booleans(), st.floats(0, 0.5))
    other = st.one_of(
        st.builds(Activation, activations),
        st.builds(BatchNormalization, epsilon=st.floats(1e-5, 0.1)),
        st.builds(Dropout, st.floats(0, 0.9)),
    )
    layers = [draw(dense), *draw(st.lists(st.one_of(dense, other), max_size=6))]
    pairs = draw(st.sampled_from([0, *(k for k in range(1, features + 1) if features % k == 0)]))
    try:
        return graph.build(layers, shape, rescale=pairs, softmax=draw(st.booleans()))
    except ModelError:  # two dropouts in a row
        reject()


@settings(max_examples=100, deadline=None)
@given(net=nets(), seed=st.integers(0, 1000))
def test_any_net_survives_both_formats(tmp_path_factory, net, seed):
    flat = random_parameters(net, seed)
    folder = tmp_path_factory.mktemp("nets")
    for suffix in SUFFIXES:
        report = write(folder / f"net{suffix}", net, flat)
        assert report.max_abs_diff <= 1e-4 * max(1, np.abs(evaluate(net, flat, samples_of(net))).max())


def test_folding_leaves_no_normalisation_and_the_program_as_it_was():
    net, flat = NETS["norm twice"]
    program = lower(net, flat)
    folded = fold_batchnorm(program)
    assert sum(isinstance(s, BatchNorm) for s in program.steps) == 2
    assert [type(s).__name__ for s in folded.steps] == ["MatMul", "MatMul", "Softmax"]


def test_input_scaling_per_channel_stays_small_in_the_file():
    net, flat = small(input_shape=(4, 2, 3), rescale=3)
    program = lower(net, flat)
    assert program.steps[0].factor.shape == (3,)
    assert [s.shape for s in program.steps if isinstance(s, Reshape)] == [(24,)]


def test_the_onnx_file_says_what_runtimes_need(tmp_path):
    import onnx

    net, flat = small(layers=[Dense(6), BatchNormalization(), Dense(3)], input_shape=(2, 2))
    write(tmp_path / "net.onnx", net, flat, classes=["no", "yes", "ä"], metadata={"rule": "tp-ce"})
    model = onnx.load(tmp_path / "net.onnx")
    sides = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert (model.ir_version, model.opset_import[0].version, model.producer_name) == (8, 17, "edgelearn")
    assert (model.graph.input[0].name, model.graph.output[0].name, sides) == (
        "input",
        "output",
        ["batch", 2, 2],
    )
    assert [n.op_type for n in model.graph.node] == [
        "Reshape",
        "Gemm",
        "BatchNormalization",
        "Gemm",
        "Softmax",
    ]
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata.pop("rule") == "tp-ce"
    assert json.loads(metadata.pop("classes")) == ["no", "yes", "ä"]
    assert not metadata


def test_the_tflite_file_says_what_runtimes_need(tmp_path):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    from ai_edge_litert.interpreter import Interpreter

    net, flat = small(layers=[Dense(6, "relu"), Dense(3)])
    write(tmp_path / "net.tflite", net, flat, classes=["a", "b", "c"])
    data = (tmp_path / "net.tflite").read_bytes()
    model = schema.ModelT.InitFromPackedBuf(data)
    part = model.subgraphs[0]
    assert [(c.builtinCode, c.deprecatedBuiltinCode, c.version) for c in model.operatorCodes] == [
        (schema.BuiltinOperator.FULLY_CONNECTED, 9, 1),
        (schema.BuiltinOperator.SOFTMAX, 25, 1),
    ]
    assert [o.builtinOptions.fusedActivationFunction for o in part.operators[:2]] == [1, 0]
    assert part.operators[2].builtinOptions.beta == 1
    assert list(part.tensors[part.inputs[0]].shapeSignature) == [-1, 4]
    assert list(part.tensors[part.inputs[0]].shape) == [1, 4]
    constants = [bytes(b.data) for b in model.buffers if b.data is not None and len(b.data) >= 12]
    assert all(data.index(c) % 16 == 0 for c in constants)
    assert runtimes.load(tmp_path / "net.tflite").metadata == {"classes": '["a", "b", "c"]'}
    signatures = Interpreter(model_content=data).get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["input"], "outputs": ["output"]}}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_net_gives_the_same_bytes(tmp_path, suffix):
    net, flat = NETS["relu then norm"]
    files = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for file in files:
        write(file, net, flat, classes=["a", "b", "c"], metadata={"rule": "drtp"})
    assert files[0].read_bytes() == files[1].read_bytes()

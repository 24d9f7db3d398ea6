# SPDX-License-Identifier: Apache-2.0
"""Convolutions, poolings and what acts on maps, in the real runtimes, against the core and the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from exporting import core, evaluate, samples_of, small, write
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from onnx import ModelProto

from edgelearn import graph
from edgelearn.errors import ModelError
from edgelearn.export import onnx, onnx_nodes, runtimes, tflite_ops, tflite_placing
from edgelearn.export.lower import lower
from edgelearn.export.passes import fold_batchnorm, simplify
from edgelearn.export.primitives import BatchNorm, ChannelsFirst, Primitive
from edgelearn.layers import (
    ACTIVATIONS,
    Activation,
    AvgPool,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
    Residual,
)

SUFFIXES = (".onnx", ".tflite")
HIDDEN = sorted(set(ACTIVATIONS) - {"softmax"})
SHAPES = {Conv2D: (9, 7, 4), DepthwiseConv2D: (9, 7, 4), Conv1D: (11, 4)}
SPLITS = {Conv2D: "groups", DepthwiseConv2D: "depth_multiplier", Conv1D: "groups"}

CNN_SMALL = [
    *(Conv2D(32, 3, padding="same", use_bias=False), BatchNormalization(), Activation("relu"), MaxPool()),
    *(Conv2D(64, 3, padding="same", use_bias=False), BatchNormalization(), Activation("relu"), MaxPool()),
    *(Conv2D(128, 3, padding="same", use_bias=False), BatchNormalization(), Activation("relu"), MaxPool()),
    Dense(10),
]
SENSORS = [Conv1D(8, 5, 2, "same", activation="relu"), MaxPool(), Conv1D(6, 3), GlobalAvgPool(), Dense(3)]


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"net{request.param}"


def check(path, layers, shape, softmax=False, channels_first=False, rescale=0):
    """The file takes samples of the data's shape, and answers as the core and the oracle do, at batch 1 and 7."""
    net, flat = small(layers=layers, input_shape=shape, softmax=softmax, rescale=rescale)
    raw = (shape[-1], *shape[:-1]) if channels_first else shape

    def turned(x):
        return np.moveaxis(x.reshape(len(x), *raw), 1, -1) if channels_first else x

    x = samples_of(net, 7).reshape(7, *raw)
    write(path, net, flat, forward=lambda x: core(net, flat, turned(x)), samples=x, channels_first=channels_first)
    runtime = runtimes.load(path)
    assert runtime.input_shape == raw
    references = core(net, flat, turned(x)), evaluate(net, flat, turned(x))
    atol = 1e-5 * max(1, np.abs(references[1]).max())
    for count in (1, 7, 1):
        answers = runtime.run(x[:count])
        for expected in references:
            np.testing.assert_allclose(answers, expected[:count], rtol=1e-4, atol=atol)


@pytest.mark.parametrize("split", [1, 2, 4])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kind", SHAPES)
def test_every_convolution_with_every_activation(path, kind, padding, strides, split):
    for kernel, activation in zip((1, 2, 3, 4, 5, 2), HIDDEN, strict=True):
        filters = {} if kind is DepthwiseConv2D else {"filters": 8}
        arguments = {"kernel_size": kernel, "strides": strides, "padding": padding, SPLITS[kind]: split}
        check(path, [kind(**filters, **arguments, activation=activation, negative_slope=0.2)], SHAPES[kind])


@pytest.mark.parametrize("strides", [None, 1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kind", [MaxPool, AvgPool])
def test_every_pooling_of_images_and_sequences(path, kind, padding, size, strides):
    pool = kind(size, strides, padding)
    check(path, [Conv2D(3, 2), pool, Activation("relu")], (9, 7, 2))
    check(path, [Conv1D(3, 2), pool, Dense(2)], (11, 2))


@pytest.mark.parametrize("kind", [Conv2D, MaxPool, AvgPool])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_windows_and_strides_may_differ_along_the_axes(path, kind, padding):
    window = {"strides": (1, 3), "padding": padding}
    layer = Conv2D(3, (3, 2), **window) if kind is Conv2D else kind((3, 2), **window)
    check(path, [Conv2D(2, 1), layer, Dense(3)], (9, 7, 2), softmax=True)


NORMS = {"batch": BatchNormalization(epsilon=1e-3), "layer": LayerNormalization(epsilon=1e-3)}
SPLIT = {"groups": 4, "padding": "same"}


@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("norm", NORMS)
def test_every_normalisation_before_and_after_every_activation(path, norm, activation):
    act = Activation(activation, negative_slope=0.2)
    check(path, [Conv2D(8, 3, use_bias=False), NORMS[norm], act, Conv2D(4, 1), Dense(2)], (6, 5, 2))
    check(path, [Conv2D(8, 3), act, NORMS[norm], DepthwiseConv2D(padding="same"), NORMS[norm], act], (6, 5, 2))
    check(path, [Conv1D(8, 3), NORMS[norm], Conv1D(8, 3, **SPLIT), NORMS[norm], act, GlobalAvgPool()], (9, 2))
    check(path, [Conv2D(2, 2), Flatten(), NORMS[norm], act, Dense(4), NORMS[norm], act, Dense(2)], (4, 3, 1))


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize(
    ("layers", "shape", "pairs"),
    [
        *((CNN_SMALL, (12, 9, 3), pairs) for pairs in (0, 1, 3, 9, 324)),
        *((SENSORS, (31, 6), pairs) for pairs in (0, 1, 3, 6, 186)),
        ([DepthwiseConv2D(3, depth_multiplier=2), GlobalAvgPool(), Dense(3)], (5, 5, 3), 3),
        ([Conv2D(3, 1), Dropout(0.5), LayerNormalization(), Flatten(), Activation("tanh"), Dense(3)], (3, 2, 4), 4),
        ([Conv2D(4, 2), Dense(3)], (7, 6), 6),
        ([Conv1D(4, 2), Dense(3)], (7,), 7),
    ],
)
def test_whole_nets_take_samples_as_the_data_holds_them(path, layers, shape, pairs, channels_first):
    check(path, layers, shape, True, channels_first, pairs)


@st.composite
def nets(draw):
    """Nets over images or sequences, and the order of their samples' axes."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    over_time = len(shape) + draw(st.integers(0, 1)) <= 2
    filters, strides, padding = st.sampled_from([2, 4]), st.integers(1, 3), st.sampled_from(["valid", "same"])
    conv = Conv1D if over_time else Conv2D
    choices = [
        st.builds(conv, filters, st.integers(1, 3), strides, padding, st.sampled_from([1, 2]), st.sampled_from(HIDDEN)),
        st.builds(MaxPool, st.integers(1, 3), strides, padding),
        st.builds(AvgPool, st.integers(1, 3), strides, padding),
        st.builds(Activation, st.sampled_from(HIDDEN)),
        # With a small epsilon the rounding of two almost equal values would grow past every tolerance.
        *(st.just(layer) for layer in (BatchNormalization(), LayerNormalization(epsilon=0.1), Dropout(0.5))),
        *(st.just(layer) for layer in (GlobalAvgPool(), Flatten(), Dense(3))),
    ]
    if not over_time:
        choices.append(st.builds(DepthwiseConv2D, st.integers(1, 3), strides, padding, st.integers(1, 2)))
    layers = [conv(draw(filters), 1), *draw(st.lists(st.one_of(choices), max_size=6))]
    pairs = draw(st.sampled_from([0, *(k for k in range(1, int(np.prod(shape)) + 1) if np.prod(shape) % k == 0)]))
    try:
        graph.build(layers, shape, pairs, softmax=False)
    except ModelError:  # a window too large, a convolution of a vector, two dropouts in a row
        reject()
    return layers, shape, pairs, draw(st.booleans())


@settings(max_examples=100, deadline=None)
@given(net=nets())
def test_any_net_over_maps_survives_both_formats(tmp_path_factory, net):
    layers, shape, pairs, channels_first = net
    folder = tmp_path_factory.mktemp("nets")
    for suffix in SUFFIXES:
        check(folder / f"net{suffix}", layers, shape, False, channels_first, pairs)


def onnx_operators(layers, shape, channels_first=False, rescale=0):
    net, flat = small(layers=layers, input_shape=shape, rescale=rescale)
    file = onnx.encode(lower(net, flat, channels_first), {}, "0")
    return [node.op_type for node in ModelProto.FromString(file).graph.node]


def tflite_operators(layers, shape):
    net, flat = small(layers=layers, input_shape=shape)
    return [each.operator for each in tflite_placing.place(simplify(fold_batchnorm(lower(net, flat))))]


def test_onnx_files_turn_maps_round_once_or_not_at_all():
    one = ["Conv", "BatchNormalization", "Relu", "MaxPool"]
    rest = [*one * 3, "Reshape", "Gemm", "Softmax"]
    assert onnx_operators(CNN_SMALL, (12, 9, 3)) == ["Transpose", *rest]
    assert onnx_operators(CNN_SMALL, (12, 9, 3), channels_first=True) == rest
    assert onnx_operators(CNN_SMALL, (12, 9)) == ["Reshape", *rest]
    assert onnx_operators(CNN_SMALL, (12, 9, 3), True, 3) == ["Mul", "Add", *rest]
    assert onnx_operators(SENSORS, (31, 6)).count("Transpose") == 1
    assert "Transpose" not in onnx_operators(SENSORS, (31, 6), channels_first=True)


def test_products_over_one_position_stay_where_their_normalisation_is():
    unit = [Residual([LayerNormalization(), Conv2D(6, 1), Activation("relu"), Conv2D(3, 1)])]
    found = onnx_operators([*unit, Conv2D(4, 2), Dense(3)], (5, 4, 3))
    assert found == [
        *("LayerNormalization", "MatMul", "Add", "Relu", "MatMul", "Add", "Add"),
        *("Transpose", "Conv", "Reshape", "Gemm", "Softmax"),
    ]


def test_files_turn_nothing_round_for_nets_without_maps():
    assert onnx_operators([Dense(3)], (4, 3, 2), rescale=2) == ["Mul", "Add", "Reshape", "Gemm", "Softmax"]
    assert onnx_operators([Dense(3)], (4, 3, 2), channels_first=True) == ["Reshape", "Gemm", "Softmax"]


def test_gelu_has_the_form_that_onnxruntime_knows(tmp_path):
    import onnxruntime

    net, flat = small(layers=[Conv2D(4, 3, activation="gelu"), Dense(3)], input_shape=(5, 5, 1))
    write(tmp_path / "net.onnx", net, flat)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    optimised = ModelProto.FromString((tmp_path / "optimised.onnx").read_bytes())
    assert "FastGelu" in [node.op_type for node in optimised.graph.node]


def test_tflite_files_fold_normalisation_and_relu_into_convolutions():
    operators = tflite_operators(CNN_SMALL, (12, 9, 3))
    conv, pool = tflite_ops.CONV_2D, tflite_ops.MAX_POOL_2D
    assert [o.code for o in operators[:6]] == [conv, pool] * 3
    assert [o.fields[tflite_ops.FUSED] for o in operators[:6]] == [1, 0] * 3
    assert [o.version for o in operators] == [1] * len(operators)


def test_tflite_files_tell_depthwise_from_grouped_convolutions():
    (depthwise, *_) = tflite_operators([Conv2D(8, 3, groups=4)], (5, 5, 4))
    assert (depthwise.code, depthwise.fields["depth_multiplier"]) == (tflite_ops.DEPTHWISE_CONV_2D, 2)
    assert depthwise.constants[0].shape == (1, 3, 3, 8)
    (grouped, *_) = tflite_operators([Conv2D(8, 3, groups=2)], (5, 5, 4))
    assert (grouped.code, grouped.version) == (tflite_ops.CONV_2D, tflite_ops.GROUPED)
    (single, *_) = tflite_operators([Conv2D(8, 3)], (5, 5, 1))
    assert (single.code, single.version) == (tflite_ops.CONV_2D, 1)


def test_tflite_files_pad_themselves_where_strides_pass_over_the_map():
    """tflite-runtime 2.14 gives wrong answers there; newer runtimes have no such fault."""

    def paddings(kernel, strides, shape):
        operators = tflite_operators([Conv2D(2, kernel, strides, "same"), Dense(3)], shape)
        return [o.fields.get("padding") for o in operators if o.code in (tflite_ops.PAD, tflite_ops.CONV_2D)]

    assert paddings(3, 2, (9, 7, 2)) == [tflite_ops.SAME]
    assert paddings(2, 3, (6, 9, 2)) == [tflite_ops.VALID]
    assert paddings(2, 3, (9, 7, 2)) == [None, tflite_ops.VALID]


def test_both_formats_know_every_primitive():
    known = set(get_args(Primitive))
    assert set(onnx_nodes.NODES) == known
    assert set(tflite_ops.OPERATORS) == known - {BatchNorm, ChannelsFirst}


def test_a_convolution_with_channels_cut_off_is_refused(path):
    net, flat = small(layers=[Conv2D(8, 1), GlobalAvgPool(), Dense(3)], input_shape=(6, 5, 2))
    records = net.records.copy()
    records["active"][0] = 3
    records["fan_in_active"][1:3] = 3
    records["active"][1] = 3
    with pytest.raises(ModelError, match="cut dense layers only"):
        write(path, replace(net, records=records), flat)


LIGHT = """
import resource, sys
sys.path.insert(0, sys.argv[2])
import flatbuffers
from exporting import small
from edgelearn import export
from edgelearn.export import onnx, tflite
from edgelearn.layers import BatchNormalization, Conv2D, Dense, MaxPool
conv = [[Conv2D(n, 3, padding="same"), BatchNormalization(), MaxPool()] for n in (32, 64, 128)]
net, flat = small(layers=[*sum(conv, []), Dense(10)], input_shape=(32, 32, 3))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in ("net.tflite", "net.onnx"):
    export.write(sys.argv[1] + "/" + name, net, flat, forward=None, samples=(), verify=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(*{"torch", "tensorflow"} & set(sys.modules))
"""


def test_an_export_of_a_small_net_takes_little_memory_and_no_framework(tmp_path):
    """Kilobytes; the weights are 450."""
    command = [sys.executable, "-c", LIGHT, str(tmp_path), os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    growth, *frameworks = done.stdout.split()
    assert int(growth) < 8 * 1024
    assert not frameworks

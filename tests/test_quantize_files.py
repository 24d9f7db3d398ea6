# SPDX-License-Identifier: Apache-2.0
"""What int8 files hold: operators, signed weights per channel, wide biases, and how large they are."""

from __future__ import annotations

import numpy as np
import pytest
from exporting import samples_of, small, write
from onnx import ModelProto, TensorProto, numpy_helper
from quantizing import FORMATS, int8, write_int8

from edgelearn.export import tflite_ops
from edgelearn.layers import (
    GRU,
    Conv2D,
    Dense,
    GlobalAvgPool,
    MaxPool,
)


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


def test_an_int8_onnx_file_of_recurrent_layers_is_at_most_three_tenths_of_the_float_one(tmp_path):
    net, flat = small(layers=[GRU(64, return_sequences=True), GRU(64), Dense(6)], input_shape=(8, 36))
    write(tmp_path / "float.onnx", net, flat, verify=False)
    write(tmp_path / "int8.onnx", net, flat, precision=int8(samples_of(net, 8)), verify=False)
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("float", "int8")]
    assert sizes[0] > 100_000
    assert sizes[1] <= 0.3 * sizes[0]

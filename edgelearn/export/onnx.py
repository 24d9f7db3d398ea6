# SPDX-License-Identifier: Apache-2.0
"""Primitives as an ONNX model: one table entry per primitive.

Maps are (channels, height, width) inside, as ONNX has them. Sequences stay maps of height 1: onnxruntime lays out only
two-dimensional convolutions for vector units, and takes about 30 % longer for those along one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from edgelearn.export import primitives
from edgelearn.export.passes import channels_first, simplify
from edgelearn.export.primitives import Program
from edgelearn.geometry import Sides, Window

Shape = tuple[int, ...]

OPSET = 17
"""Of June 2022: it has every operator needed here, and runtimes from onnxruntime 1.12 on read it."""

IR_VERSION = 8
"""The file version of the onnx release that brought opset 17; runtimes of that time refuse a newer one."""


@dataclass(frozen=True)
class _Node:
    """One ONNX node: operator, constants that follow the data among its inputs (by name), attributes.

    `reads` names the data by position among what the step has so far: 0 is what the step reads, i what its node i
    gives; nothing means the latest.
    """

    operator: str
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    reads: tuple[int, ...] = ()


def _reshape(step: primitives.Reshape, shape: Shape) -> tuple[_Node, ...]:
    # Zero keeps an axis as it is: the batch.
    return (_Node("Reshape", {"shape": np.array([0, *step.shape], np.int64)}),)


def _matmul(step: primitives.MatMul, shape: Shape) -> tuple[_Node, ...]:
    bias = {} if step.bias is None else {"bias": step.bias}
    return (_Node("Gemm", {"weight": step.weight, **bias}),)


def _conv(step: primitives.Conv, shape: Shape) -> tuple[_Node, ...]:
    constants = {"weight": np.ascontiguousarray(step.weight.transpose(3, 2, 0, 1))}
    if step.bias is not None:
        constants["bias"] = step.bias
    return (_Node("Conv", constants, {**_window(step.window, shape), "group": step.groups}),)


def _maxpool(step: primitives.MaxPool, shape: Shape) -> tuple[_Node, ...]:
    return (_Node("MaxPool", attributes=_window(step.window, shape)),)


def _avgpool(step: primitives.AvgPool, shape: Shape) -> tuple[_Node, ...]:
    return (_Node("AveragePool", attributes={**_window(step.window, shape), "count_include_pad": 0}),)


def _window(window: Window, shape: Shape) -> dict[str, Any]:
    """Attributes of a window over a map (channels, height, width): zeros before both sides, then those behind."""
    pads = np.transpose(window.padding(Sides(*shape[1:]))).ravel().tolist()
    return {"kernel_shape": window.kernel, "strides": window.strides, "pads": pads}


def _batchnorm(step: primitives.BatchNorm, shape: Shape) -> tuple[_Node, ...]:
    constants = {"gamma": step.gamma, "beta": step.beta, "mean": step.mean, "variance": step.variance}
    return (_Node("BatchNormalization", dict(constants), {"epsilon": step.epsilon}),)


def _layernorm(step: primitives.LayerNorm, shape: Shape) -> tuple[_Node, ...]:
    constants = {"gamma": step.gamma, "beta": step.beta}
    return (_Node("LayerNormalization", dict(constants), {"axis": -1, "epsilon": step.epsilon}),)


def _gelu(step: primitives.Gelu, shape: Shape) -> tuple[_Node, ...]:
    """In the steps, and their order, that onnxruntime knows as one fast operator of its own."""
    return (
        _Node("Pow", {"three": _scalar(3)}),
        _Node("Mul", {"cubic": _scalar(0.044715)}),
        _Node("Add", reads=(0, 2)),
        _Node("Mul", {"slope": _scalar(math.sqrt(2 / math.pi))}),
        _Node("Tanh"),
        _Node("Add", {"one": _scalar(1)}),
        _Node("Mul", {"half": _scalar(0.5)}, reads=(0,)),
        _Node("Mul", reads=(7, 6)),
    )


def _scalar(value: float) -> NDArray[np.float32]:
    return np.array(value, np.float32)


def _node(operator: str, **attributes: Any) -> tuple[_Node, ...]:
    return (_Node(operator, attributes=attributes),)


_NODES: dict[type, Callable[[Any, Shape], tuple[_Node, ...]]] = {
    primitives.Reshape: _reshape,
    primitives.Transpose: lambda step, shape: _node("Transpose", perm=[0, *(a + 1 for a in step.order)]),
    primitives.Mul: lambda step, shape: (_Node("Mul", {"factor": step.factor}),),
    primitives.Add: lambda step, shape: (_Node("Add", {"term": step.term}),),
    primitives.MatMul: _matmul,
    primitives.Conv: _conv,
    primitives.MaxPool: _maxpool,
    primitives.AvgPool: _avgpool,
    primitives.GlobalAvgPool: lambda step, shape: _node("GlobalAveragePool"),
    primitives.BatchNorm: _batchnorm,
    primitives.LayerNorm: _layernorm,
    primitives.Relu: lambda step, shape: _node("Relu"),
    primitives.LeakyRelu: lambda step, shape: _node("LeakyRelu", alpha=step.slope),
    primitives.Tanh: lambda step, shape: _node("Tanh"),
    primitives.Sigmoid: lambda step, shape: _node("Sigmoid"),
    primitives.Gelu: _gelu,
    primitives.Softmax: lambda step, shape: _node("Softmax", axis=-1),
    primitives.ChannelsFirst: lambda step, shape: _NODES[type(step.step)](step.step, shape),
}
"""What each primitive is made of, from its step and the shape of a sample before it."""


def encode(program: Program, metadata: Mapping[str, str], version: str) -> bytes:
    """An ONNX file that the ONNX checker accepts, from 'input' (batch, *input_shape) to 'output' (batch,
    outputs), float32, any batch. Equal arguments give equal bytes; `version` is that of edgelearn."""
    model = helper.make_model(
        _graph(simplify(channels_first(program))),
        producer_name="edgelearn",
        producer_version=version,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, dict(metadata))
    # The full check infers every shape strictly: without it what cannot be settled is passed over.
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _graph(program: Program) -> GraphProto:
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    value, shapes = "input", program.shapes
    for index, step in enumerate(program.steps, 1):
        made = _NODES[type(step)](step, shapes[index - 1])
        result = "output" if index == len(program.steps) else f"value_{index}"
        values = [value, *(f"{result}.{place}" for place in range(1, len(made))), result]
        for place, node in enumerate(made):
            names = [f"{node.operator.lower()}_{len(nodes)}.{name}" for name in node.constants]
            inputs = [*(values[read] for read in node.reads or (place,)), *names]
            nodes.append(helper.make_node(node.operator, inputs, [values[place + 1]], **node.attributes))
            arrays = node.constants.values()
            constants += [numpy_helper.from_array(a, name) for a, name in zip(arrays, names, strict=True)]
        value = result
    ends = [_end("input", shapes[0])], [_end("output", shapes[-1])]
    return helper.make_graph(nodes, "edgelearn", *ends, initializer=constants)


def _end(name: str, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

# SPDX-License-Identifier: Apache-2.0
"""Primitives as an ONNX model: one table entry per primitive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from edgelearn.export import primitives
from edgelearn.export.primitives import Program

OPSET = 17
"""Of June 2022: it has every operator needed here, and runtimes from onnxruntime 1.12 on read it."""

IR_VERSION = 8
"""The file version of the onnx release that brought opset 17; runtimes of that time refuse a newer one."""


@dataclass(frozen=True)
class _Node:
    """One ONNX node: operator, constants that follow the data among its inputs (by name), attributes."""

    operator: str
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


def _reshape(step: primitives.Reshape) -> _Node:
    # Zero keeps an axis as it is: the batch.
    return _Node("Reshape", {"shape": np.array([0, *step.shape], np.int64)})


def _matmul(step: primitives.MatMul) -> _Node:
    bias = {} if step.bias is None else {"bias": step.bias}
    return _Node("Gemm", {"weight": step.weight, **bias})


def _batchnorm(step: primitives.BatchNorm) -> _Node:
    constants = {"gamma": step.gamma, "beta": step.beta, "mean": step.mean, "variance": step.variance}
    return _Node("BatchNormalization", dict(constants), {"epsilon": step.epsilon})


_NODES: dict[type, Callable[[Any], _Node]] = {
    primitives.Reshape: _reshape,
    primitives.Transpose: lambda step: _Node("Transpose", attributes={"perm": [0, *(a + 1 for a in step.order)]}),
    primitives.Mul: lambda step: _Node("Mul", {"factor": step.factor}),
    primitives.Add: lambda step: _Node("Add", {"term": step.term}),
    primitives.MatMul: _matmul,
    primitives.BatchNorm: _batchnorm,
    primitives.Relu: lambda step: _Node("Relu"),
    primitives.LeakyRelu: lambda step: _Node("LeakyRelu", attributes={"alpha": step.slope}),
    primitives.Tanh: lambda step: _Node("Tanh"),
    primitives.Sigmoid: lambda step: _Node("Sigmoid"),
    primitives.Softmax: lambda step: _Node("Softmax", attributes={"axis": -1}),
}


def encode(program: Program, metadata: Mapping[str, str], version: str) -> bytes:
    """An ONNX file that the ONNX checker accepts, from 'input' (batch, *input_shape) to 'output' (batch,
    outputs), float32, any batch. Equal arguments give equal bytes; `version` is that of edgelearn."""
    model = helper.make_model(
        _graph(program),
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
    last = len(program.steps)
    for index, step in enumerate(program.steps):
        node = _NODES[type(step)](step)
        names = [f"{node.operator.lower()}_{index}.{name}" for name in node.constants]
        inputs, output = [_value(index, last), *names], [_value(index + 1, last)]
        nodes.append(helper.make_node(node.operator, inputs, output, **node.attributes))
        arrays = node.constants.values()
        constants += [numpy_helper.from_array(a, name) for a, name in zip(arrays, names, strict=True)]
    shapes = program.shapes
    ends = [_end("input", shapes[0])], [_end("output", shapes[-1])]
    return helper.make_graph(nodes, "edgelearn", *ends, initializer=constants)


def _value(index: int, last: int) -> str:
    """Name of what step `index` reads; the ends carry the names that users feed and fetch."""
    return {0: "input", last: "output"}.get(index, f"value_{index}")


def _end(name: str, shape: tuple[int, ...]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

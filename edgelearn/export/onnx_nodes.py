# SPDX-License-Identifier: Apache-2.0
"""Primitives as nodes of ONNX: one table entry per primitive.

Maps are (channels, height, width) inside, as ONNX has them. Sequences stay maps of height 1: onnxruntime lays out only
two-dimensional convolutions for vector units, and takes about 30 % longer for those along one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgelearn.export import primitives, recurrent
from edgelearn.geometry import Sides, Window
from edgelearn.records import Op

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One ONNX node: operator, constants that follow the data among its inputs (by name), attributes.

    `reads` names the data by position among what the step has so far: 0 is what the step reads, i what its node i
    gives; nothing means the latest. Constants come before the data where it `picks` from them.
    """

    operator: str
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    reads: tuple[int, ...] = ()
    picks: bool = False


def _reshape(step: primitives.Reshape, shape: Shape) -> tuple[Node, ...]:
    # Zero keeps an axis as it is: the batch.
    return (Node("Reshape", {"shape": np.array([0, *step.shape], np.int64)}),)


def _matmul(step: primitives.MatMul, shape: Shape) -> tuple[Node, ...]:
    bias = {} if step.bias is None else {"bias": step.bias}
    if len(shape) == 1:
        return (Node("Gemm", {"weight": step.weight, **bias}),)
    return (Node("MatMul", {"weight": step.weight}), *(Node("Add", {name: each}) for name, each in bias.items()))


def _conv(step: primitives.Conv, shape: Shape) -> tuple[Node, ...]:
    constants = {"weight": np.ascontiguousarray(step.weight.transpose(3, 2, 0, 1))}
    if step.bias is not None:
        constants["bias"] = step.bias
    return (Node("Conv", constants, {**_window(step.window, shape), "group": step.groups}),)


def _maxpool(step: primitives.MaxPool, shape: Shape) -> tuple[Node, ...]:
    return (Node("MaxPool", attributes=_window(step.window, shape)),)


def _avgpool(step: primitives.AvgPool, shape: Shape) -> tuple[Node, ...]:
    return (Node("AveragePool", attributes={**_window(step.window, shape), "count_include_pad": 0}),)


def _window(window: Window, shape: Shape) -> dict[str, Any]:
    """Attributes of a window over a map (channels, height, width): zeros before both sides, then those behind."""
    pads = np.transpose(window.padding(Sides(*shape[1:]))).ravel().tolist()
    return {"kernel_shape": window.kernel, "strides": window.strides, "pads": pads}


def _batchnorm(step: primitives.BatchNorm, shape: Shape) -> tuple[Node, ...]:
    constants = {"gamma": step.gamma, "beta": step.beta, "mean": step.mean, "variance": step.variance}
    return (Node("BatchNormalization", dict(constants), {"epsilon": step.epsilon}),)


def _layernorm(step: primitives.LayerNorm, shape: Shape) -> tuple[Node, ...]:
    one = np.ones(shape[-1], np.float32)
    constants = {"gamma": one} if step.gamma is None or step.beta is None else {"gamma": step.gamma, "beta": step.beta}
    return (Node("LayerNormalization", constants, {"axis": -1, "epsilon": step.epsilon}),)


def _gelu(step: primitives.Gelu, shape: Shape) -> tuple[Node, ...]:
    """In the steps, and their order, that onnxruntime knows as one fast operator of its own."""
    return (
        Node("Pow", {"three": _scalar(3)}),
        Node("Mul", {"cubic": _scalar(0.044715)}),
        Node("Add", reads=(0, 2)),
        Node("Mul", {"slope": _scalar(math.sqrt(2 / math.pi))}),
        Node("Tanh"),
        Node("Add", {"one": _scalar(1)}),
        Node("Mul", {"half": _scalar(0.5)}, reads=(0,)),
        Node("Mul", reads=(7, 6)),
    )


def _embedding(step: primitives.Embedding, shape: Shape) -> tuple[Node, ...]:
    return (
        Node("Reshape", {"shape": np.array([0, *shape[:-1]], np.int64)}),
        Node("Cast", attributes={"to": TensorProto.INT32}),
        Node("Gather", {"table": step.table}, picks=True),
    )


def _attention(step: primitives.Attention, shape: Shape) -> tuple[Node, ...]:
    """Queries, keys and values of all heads are every third of what lies beside each other."""
    sides, units, parts = shape[:2], shape[2] // (3 * step.heads), 3 * step.heads
    heads = [np.arange(part, parts, 3) for part in range(3)]
    before = (
        Node("Reshape", {"shape": np.array([0, sides[0] * sides[1], parts, units], np.int64)}),
        Node("Transpose", attributes={"perm": [0, 2, 1, 3]}),
        *(Node("Gather", {"heads": own}, {"axis": 1}, reads=(2,)) for own in heads),
    )
    scaled = () if step.is_scaled else (Node("Mul", {"scale": _scalar(1 / math.sqrt(units))}, reads=(3,)),)
    queries = 6 if scaled else 3
    return (
        *before,
        *scaled,
        Node("Transpose", attributes={"perm": [0, 1, 3, 2]}, reads=(4,)),
        Node("MatMul", reads=(queries, 6 + len(scaled))),
        Node("Softmax", attributes={"axis": -1}),
        Node("MatMul", reads=(8 + len(scaled), 5)),
        Node("Transpose", attributes={"perm": [0, 2, 1, 3]}),
        Node("Reshape", {"shape": np.array([0, *sides, step.heads * units], np.int64)}),
    )


def _recurrent(step: primitives.Recurrent, shape: Shape) -> tuple[Node, ...]:
    """Steps come first, and the one direction that there is has an axis of its own."""
    attributes: dict[str, Any] = {"hidden_size": step.units}
    if step.op is Op.GRU:
        attributes["linear_before_reset"] = 1
    if step.relu:
        attributes["activations"] = ["Relu"]
    ends = (
        (Node("Transpose", attributes={"perm": [2, 1, 0, 3]}),)
        if step.every
        else (
            Node("Gather", {"last": np.array(-1, np.int64)}, {"axis": 0}),
            Node("Squeeze", {"direction": np.array([0], np.int64)}),
        )
    )
    return (
        Node("Transpose", attributes={"perm": [2, 0, 1, 3]}),
        Node("Squeeze", {"height": np.array([2], np.int64)}),
        Node(recurrent.ONNX_NAMES[step.op], dict(recurrent.onnx_weights(step)), attributes),
        *ends,
    )


def _scalar(value: float) -> NDArray[np.float32]:
    return np.array(value, np.float32)


def _node(operator: str, **attributes: Any) -> tuple[Node, ...]:
    return (Node(operator, attributes=attributes),)


NODES: dict[type, Callable[[Any, Shape], tuple[Node, ...]]] = {
    primitives.Reshape: _reshape,
    primitives.Transpose: lambda step, shape: _node("Transpose", perm=[0, *(a + 1 for a in step.order)]),
    primitives.Mul: lambda step, shape: (Node("Mul", {"factor": step.factor}),),
    primitives.Add: lambda step, shape: (Node("Add", {"term": step.term}),),
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
    primitives.Embedding: _embedding,
    primitives.Positions: lambda step, shape: (Node("Add", {"table": step.table}),),
    primitives.Attention: _attention,
    primitives.Recurrent: _recurrent,
    primitives.Branch: lambda step, shape: (),
    primitives.Merge: lambda step, shape: _node("Add"),
    primitives.ChannelsFirst: lambda step, shape: NODES[type(step.step)](step.step, shape),
}
"""What each primitive is made of, from its step and the shape of a sample before it."""

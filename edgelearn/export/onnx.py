# SPDX-License-Identifier: Apache-2.0
"""Primitives as an ONNX model: one table entry per primitive.

Maps are (channels, height, width) inside, as ONNX has them. Sequences stay maps of height 1: onnxruntime lays out only
two-dimensional convolutions for vector units, and takes about 30 % longer for those along one axis.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from edgelearn.export import primitives, recurrent
from edgelearn.export.int8 import LOWEST, Affine
from edgelearn.export.passes import channels_first, simplify
from edgelearn.export.primitives import Program
from edgelearn.export.quantize import Quantized, bare, rounded, unquantized, with_product
from edgelearn.geometry import Sides, Window
from edgelearn.graph import Op

Shape = tuple[int, ...]

OPSET = 17
"""Of June 2022: it has every operator needed here, and runtimes from onnxruntime 1.12 on read it."""

IR_VERSION = 8
"""The file version of the onnx release that brought opset 17; runtimes of that time refuse a newer one."""


@dataclass(frozen=True)
class _Node:
    """One ONNX node: operator, constants that follow the data among its inputs (by name), attributes.

    `reads` names the data by position among what the step has so far: 0 is what the step reads, i what its node i
    gives; nothing means the latest. Constants come before the data where it `picks` from them.
    """

    operator: str
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    reads: tuple[int, ...] = ()
    picks: bool = False


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


def _embedding(step: primitives.Embedding, shape: Shape) -> tuple[_Node, ...]:
    return (
        _Node("Reshape", {"shape": np.array([0, *shape[:-1]], np.int64)}),
        _Node("Cast", attributes={"to": TensorProto.INT32}),
        _Node("Gather", {"table": step.table}, picks=True),
    )


def _attention(step: primitives.Attention, shape: Shape) -> tuple[_Node, ...]:
    """Queries, keys and values of all heads are every third of what lies beside each other."""
    sides, units, parts = shape[:2], shape[2] // (3 * step.heads), 3 * step.heads
    heads = [np.arange(part, parts, 3) for part in range(3)]
    return (
        _Node("Reshape", {"shape": np.array([0, sides[0] * sides[1], parts, units], np.int64)}),
        _Node("Transpose", attributes={"perm": [0, 2, 1, 3]}),
        *(_Node("Gather", {"heads": own}, {"axis": 1}, reads=(2,)) for own in heads),
        _Node("Mul", {"scale": _scalar(1 / math.sqrt(units))}, reads=(3,)),
        _Node("Transpose", attributes={"perm": [0, 1, 3, 2]}, reads=(4,)),
        _Node("MatMul", reads=(6, 7)),
        _Node("Softmax", attributes={"axis": -1}),
        _Node("MatMul", reads=(9, 5)),
        _Node("Transpose", attributes={"perm": [0, 2, 1, 3]}),
        _Node("Reshape", {"shape": np.array([0, *sides, step.heads * units], np.int64)}),
    )


def _recurrent(step: primitives.Recurrent, shape: Shape) -> tuple[_Node, ...]:
    """Steps come first, and the one direction that there is has an axis of its own."""
    attributes: dict[str, Any] = {"hidden_size": step.units}
    if step.op is Op.GRU:
        attributes["linear_before_reset"] = 1
    if step.relu:
        attributes["activations"] = ["Relu"]
    ends = (
        (_Node("Transpose", attributes={"perm": [2, 1, 0, 3]}),)
        if step.every
        else (
            _Node("Gather", {"last": np.array(-1, np.int64)}, {"axis": 0}),
            _Node("Squeeze", {"direction": np.array([0], np.int64)}),
        )
    )
    return (
        _Node("Transpose", attributes={"perm": [2, 0, 1, 3]}),
        _Node("Squeeze", {"height": np.array([2], np.int64)}),
        _Node(recurrent.ONNX_NAMES[step.op], dict(recurrent.onnx_weights(step)), attributes),
        *ends,
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
    primitives.Embedding: _embedding,
    primitives.Positions: lambda step, shape: (_Node("Add", {"table": step.table}),),
    primitives.Attention: _attention,
    primitives.Recurrent: _recurrent,
    primitives.Branch: lambda step, shape: (),
    primitives.Merge: lambda step, shape: _node("Add"),
    primitives.ChannelsFirst: lambda step, shape: _NODES[type(step.step)](step.step, shape),
}
"""What each primitive is made of, from its step and the shape of a sample before it."""


def prepare(program: Program) -> Program:
    """The program in the layout of ONNX."""
    return simplify(channels_first(program))


def encode(net: Program | Quantized, metadata: Mapping[str, str], version: str) -> bytes:
    """An ONNX file that the ONNX checker accepts, from 'input' (batch, *input_shape) to 'output' (batch,
    outputs), any batch: float32, or int8 in QuantizeLinear and DequantizeLinear pairs, which runtimes fuse. What is
    quantized must be prepared. Equal arguments give equal bytes; `version` is that of edgelearn."""
    whole = net if isinstance(net, Quantized) else unquantized(prepare(net))
    model = helper.make_model(
        _Graph(whole).finish(),
        producer_name="edgelearn",
        producer_version=version,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, {**metadata, **_quantization(whole)})
    # The full check infers every shape strictly: without it what cannot be settled is passed over.
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def constants(program: Program) -> dict[str, NDArray[Any]]:
    """The constants that a float32 file of the program holds, by name."""
    made = _Graph(unquantized(prepare(program))).constants
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made}


def _quantization(net: Quantized) -> dict[str, str]:
    """What the integers at the ends stand for."""
    if net.io != "int8":
        return {}
    ends = {"input": net.values[0], "output": net.values[-1]}
    return {"quantization": json.dumps({end: vars(affine) for end, affine in ends.items() if affine})}


class _Graph:
    """The nodes and constants of a graph while it is written; values are known by name."""

    def __init__(self, net: Quantized) -> None:
        self.net = net
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._shared: dict[bytes, str] = {}
        self._branches: list[str] = []
        value, is_int8 = "input", net.io == "int8"
        if net.values[0] is not None:
            value = self._within(self._float("input", net.values[0], np.int8) if is_int8 else "input", net.values[0])
        for index in range(len(net.program.steps)):
            value = self._step(index, value)
        # The last node is renamed, whatever it is.
        last = net.values[-1]
        if last is not None and is_int8:
            self._int8(value, last, np.int8)
        self.nodes[-1].output[0] = "output"

    def _step(self, index: int, value: str) -> str:
        """Write a step that reads a value; the name of what it gives."""
        net = self.net
        step, weight, affine = net.program.steps[index], net.weights[index], net.values[index + 1]
        if weight is not None:
            step = with_product(step, weight.values, weight.bias)
        if isinstance(bare(step), primitives.Branch):
            self._branches.append(value)
            return value
        made = _NODES[type(step)](step, net.program.shapes[index])
        result = f"value_{index + 1}"
        values = [value, *(f"{result}.{place}" for place in range(1, len(made))), result]
        for place, node in enumerate(made):
            base = f"{node.operator.lower()}_{len(self.nodes)}"
            names = [self._constant(node, name, f"{base}.{name}", index) for name in node.constants]
            reads = [values[read] for read in node.reads or (place,)]
            if isinstance(bare(step), primitives.Merge):
                reads.append(self._branches.pop())
            inputs = [*names, *reads] if node.picks else [*reads, *names]
            self._node(node.operator, inputs, values[place + 1], **node.attributes)
        return result if affine is None else self._within(result, affine)

    def _within(self, value: str, affine: Affine) -> str:
        """A float value, rounded to what 8 bits hold. Inside they are unsigned: onnxruntime has fast products of
        unsigned values on every processor, and makes signed ones unsigned itself, but not everywhere."""
        return self._float(self._int8(value, affine, np.uint8), affine, np.uint8)

    def _int8(self, value: str, affine: Affine, kind: type[np.integer[Any]]) -> str:
        return self._node("QuantizeLinear", [value, *self._ends(affine, kind)], f"{value}.{kind.__name__}")

    def _float(self, value: str, affine: Affine, kind: type[np.integer[Any]]) -> str:
        return self._node("DequantizeLinear", [value, *self._ends(affine, kind)], f"{value}.float")

    def _ends(self, affine: Affine, kind: type[np.integer[Any]]) -> list[str]:
        """Scale and zero point in that type, written once."""
        zero = affine.zero_point - LOWEST + int(np.iinfo(kind).min)
        parts = (("scale", np.array(affine.scale, np.float32)), ("zero_point", np.array(zero, kind)))
        return [self._shared_name(name, array) for name, array in parts]

    def _shared_name(self, name: str, array: NDArray[Any]) -> str:
        """A constant by that name; equal ones are written once."""
        key = array.dtype.str.encode() + array.tobytes()
        if key not in self._shared:
            self._shared[key] = self._named(f"{name}_{len(self._shared)}", array)
        return self._shared[key]

    def _constant(self, node: _Node, name: str, full: str, index: int) -> str:
        """A constant of a node; int8 weights and their bias come with their scales."""
        array = node.constants[name]
        weight, before = self.net.weights[index], self.net.values[index]
        if weight is None or before is None:
            if any(self.net.values) and node.operator in recurrent.ONNX_NAMES.values():
                return self._halved(full, array) if name == "bias" else self._rounded(full, array)
            return self._named(full, array)
        is_bias = name == "bias"
        scale = (weight.scale * np.float32(before.scale)) if is_bias else weight.scale
        parts = [self._named(f"{full}.{array.dtype}", array), self._named(f"{full}.scale", scale)]
        if not is_bias:  # where it is left out it is zero, but onnxruntime wants to see that of weights
            parts.append(self._shared_name("zero_point", np.zeros(scale.shape, array.dtype)))
        return self._node("DequantizeLinear", parts, full, axis=int(node.operator == "Gemm" and not is_bias))

    def _rounded(self, full: str, array: NDArray[Any]) -> str:
        """Weights (1, units, inputs) of a float32 operator, which the file holds as int8."""
        values, scale = rounded(array[0].T)
        parts = [self._named(f"{full}.int8", np.ascontiguousarray(values.T)[None]), self._named(f"{full}.scale", scale)]
        return self._node("DequantizeLinear", parts, full, axis=1)

    def _halved(self, full: str, array: NDArray[Any]) -> str:
        """The bias of a float32 operator, which the file holds as float16."""
        return self._node(
            "Cast", [self._named(f"{full}.float16", array.astype(np.float16))], full, to=TensorProto.FLOAT
        )

    def _named(self, name: str, array: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def finish(self) -> GraphProto:
        """The graph."""
        is_int8 = self.net.io == "int8"
        kinds = [TensorProto.INT8 if is_int8 and v is not None else TensorProto.FLOAT for v in self.net.values]
        shapes = self.net.program.shapes
        ends = [_end("input", kinds[0], shapes[0])], [_end("output", kinds[-1], shapes[-1])]
        return helper.make_graph(self.nodes, "edgelearn", *ends, initializer=self.constants)


def _end(name: str, kind: int, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])

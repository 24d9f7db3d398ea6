# SPDX-License-Identifier: Apache-2.0
"""A program as an ONNX file: float32, or int8 in pairs of QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from edgelearn.export import primitives, recurrent
from edgelearn.export.int8 import LOWEST, Affine
from edgelearn.export.onnx_nodes import NODES, Node, Shape
from edgelearn.export.passes import channels_first, simplify
from edgelearn.export.primitives import Program
from edgelearn.export.quantize import Quantized, bare, rounded, unquantized, with_product

OPSET = 17
"""Of June 2022: it has every operator needed here, and runtimes from onnxruntime 1.12 on read it."""

IR_VERSION = 8
"""The file version of the onnx release that brought opset 17; runtimes of that time refuse a newer one."""


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
        self.net, self.is_int8 = net, any(net.values)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._shared: dict[Any, str] = {}
        self._names: dict[str, str] = {}
        self._branches: list[str] = []
        value, ends_int8 = "input", net.io == "int8"
        if net.values[0] is not None:
            value = self._within(self._float("input", net.values[0], np.int8) if ends_int8 else "input", net.values[0])
        for index in range(len(net.program.steps)):
            value = self._step(index, value)
        # The last node is renamed, whatever it is.
        last = net.values[-1]
        if last is not None and ends_int8:
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
        made = NODES[type(step)](step, net.program.shapes[index])
        result = f"value_{index + 1}"
        values = [value]
        for place, node in enumerate(made):
            base = f"{node.operator.lower()}_{len(self.nodes)}"
            names = [self._constant(node, name, f"{base}.{name}", index) for name in node.constants]
            reads = [values[read] for read in node.reads or (place,)]
            if isinstance(bare(step), primitives.Merge):
                reads.append(self._branches.pop())
            inputs = [*names, *reads] if node.picks else [*reads, *names]
            name = result if place == len(made) - 1 else f"{result}.{place + 1}"
            values.append(self._node(node.operator, inputs, name, **node.attributes))
        return values[-1] if affine is None else self._within(values[-1], affine)

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
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self._named(f"{name}_{len(self._shared)}", array)
        return self._shared[key]

    def _constant(self, node: Node, name: str, full: str, index: int) -> str:
        """A constant of a node; int8 weights and their bias come with their scales."""
        array, weight, before = node.constants[name], self.net.weights[index], self.net.values[index]
        if not self.is_int8:
            return self._named(full, array)
        if node.operator in recurrent.ONNX_NAMES.values():
            return self._halved(full, array) if name == "bias" else self._rounded(full, array)
        if weight is not None and name == "table":
            numbers = (array, np.array(weight.scale[0]), np.array(0, np.int8))
            return self._node("DequantizeLinear", [self._shared_name(name, each) for each in numbers], full)
        if weight is None or before is None:
            return self._shared_name(name, array)
        is_bias = name == "bias"
        scale = (weight.scale * np.float32(before.scale)) if is_bias else weight.scale
        if node.operator == "Add" and is_bias:  # of a product that runtimes have no int8 sum for
            return self._named(full, (array * scale).astype(np.float32))
        parts = [self._named(f"{full}.{array.dtype}", array), self._named(f"{full}.scale", scale)]
        if not is_bias:  # where it is left out it is zero, but onnxruntime wants to see that of weights
            parts.append(self._shared_name("zero_point", np.zeros(scale.shape, array.dtype)))
        return self._node("DequantizeLinear", parts, full, axis=int(node.operator != "Conv" and not is_bias))

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

    def _short(self, name: str) -> str:
        """A name as the file has it: in int8 files, where all names would be a tenth of a small net, a number."""
        if not self.is_int8:
            return name
        return self._names.setdefault(name, f"{len(self._names):x}")

    def _named(self, name: str, array: NDArray[Any]) -> str:
        name = self._short(name)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = self._short(output)
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def finish(self) -> GraphProto:
        """The graph."""
        is_int8 = self.net.io == "int8"
        kinds = [TensorProto.INT8 if is_int8 and v is not None else TensorProto.FLOAT for v in self.net.values]
        shapes = self.net.program.shapes
        ends = [_end("input", kinds[0], shapes[0])], [_end("output", kinds[-1], shapes[-1])]
        return helper.make_graph(self.nodes, "edgelearn", *ends, initializer=self.constants)


def _end(name: str, kind: int, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])

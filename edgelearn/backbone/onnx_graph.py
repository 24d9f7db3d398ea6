# SPDX-License-Identifier: Apache-2.0
"""An ONNX file as data: what each node is, where the graph can be cut in two, and parts of it as models of their own.

Any exporter's file will do. What cannot be worked with is refused when it is read, all of it in one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from edgelearn.backbone import onnx_checks
from edgelearn.backbone.onnx_checks import Shape
from edgelearn.errors import ModelError

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Nodes with a weight that mixes channels."""

QUANTISED = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
"""Nodes whose weights are whole numbers."""

PASSING = ("Flatten", "Reshape", "Squeeze", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear", "Cast")
"""Nodes that change a tensor's form and not its values: what is learned behind them is better learned before."""


class OnnxGraph:
    """A checked model with the shapes of its tensors; `input` and `output` are the names of its ends.

    Raises:
        ModelError: no ONNX file, operators or an opset that onnxruntime does not have, more than one input or output,
            or sides other than the batch that are not numbers.
    """

    def __init__(self, data: bytes, name: str) -> None:
        try:
            self.model = _inlined(onnx.load_model_from_string(data))
            self.nodes: list[NodeProto] = list(self.model.graph.node)
            if not self.nodes:
                raise ValueError("it has no nodes")
        except Exception as error:  # protobuf's own errors have no common class
            raise ModelError(f"{name} is damaged or no ONNX file ({_line(error)}): export it again") from error
        self.name = name
        problems = onnx_checks.problems(self.model)
        if problems:
            raise ModelError(f"{name} cannot be a backbone, since it {', '.join(problems)}: export it again")
        self.input, self.output = onnx_checks.inputs(self.model)[0].name, self.model.graph.output[0].name
        self.shapes, self.types = self._inferred()

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return onnx_checks.opset(self.model)

    def _inferred(self) -> tuple[dict[str, Shape], dict[str, int]]:
        """Shapes, -1 for a side that is no number, and element types, of all tensors that are known."""
        try:
            graph: GraphProto = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        except Exception as error:  # onnx's own errors have no common class
            raise ModelError(
                f"the shapes of {self.name} cannot be settled ({_line(error)}): export it again"
            ) from error
        values = [*graph.value_info, *graph.input, *graph.output]
        shapes = {v.name: onnx_checks.shape(v) for v in values if v.type.tensor_type.HasField("shape")}
        return shapes, {v.name: v.type.tensor_type.elem_type for v in values}

    # What a node is

    @cached_property
    def constants(self) -> dict[str, NDArray[Any]]:
        """Initializers, constants, and both dequantised."""
        found = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            elif node.op_type == "Identity" and node.input[0] in found:
                found[node.output[0]] = found[node.input[0]]
            elif node.op_type == "DequantizeLinear" and all(name in found for name in node.input):
                found[node.output[0]] = _dequantised(node, [found[name] for name in node.input])
        return found

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """The node that gives a tensor."""
        return {name: node for node in self.nodes for name in node.output}

    @cached_property
    def order(self) -> dict[str, int]:
        """The place of the node that gives a tensor."""
        return {name: place for place, node in enumerate(self.nodes) for name in node.output}

    @cached_property
    def flowing(self) -> set[str]:
        """Tensors that depend on the input."""
        found = {self.input}
        for node in self.nodes:
            if any(name in found for name in node.input):
                found.update(node.output)
        return found

    def reads(self, node: NodeProto) -> list[str]:
        """Those of a node's inputs that depend on the input."""
        return [name for name in node.input if name in self.flowing]

    def consumers(self, tensor: str) -> list[NodeProto]:
        """Nodes that read a tensor."""
        return [node for node in self.nodes if tensor in node.input]

    @cached_property
    def cuts(self) -> set[str]:
        """Tensors through which everything flows that leads from input to output."""
        needed = set(self.between(set(), self.output))
        last = {name: i for i, node in enumerate(self.nodes) if i in needed for name in self.reads(node)}
        last[self.output] = len(self.nodes)
        live, found = {self.input}, set()
        for i, node in enumerate(self.nodes):
            if i not in needed:
                continue
            live |= {name for name in node.output if name in self.flowing and name in last}
            live = {name for name in live if last[name] > i}
            if len(live) == 1:
                found |= live
        return found

    def between(self, sources: set[str], target: str) -> list[int]:
        """Places of the nodes that lead from sources to a tensor."""
        wanted, found = {target}, []
        for i in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[i]
            if wanted.intersection(node.output) - sources:
                found.append(i)
                wanted.update(_all_inputs(node))
        return found[::-1]

    def part(self, source: str, target: str) -> bytes:
        """The nodes between two tensors as a model, with no more constants than it needs.

        Raises:
            ModelError: other tensors than the source flow into it.
        """
        places = self.between({source}, target)
        nodes = [self.nodes[i] for i in places]
        made = {name for node in nodes for name in node.output}
        outside = {n for node in nodes for n in self.reads(node)} - made - {source}
        if outside:
            raise ModelError(
                f"{self.name} cannot be cut at '{source}': {', '.join(sorted(outside))} leads around it; see "
                "'edgelearn doctor' for the places where it can"
            )
        used = {name for node in nodes for name in _all_inputs(node)}
        constants = [t for t in self.model.graph.initializer if t.name in used]
        ends = [self._end(source)], [self._end(target)]
        graph = helper.make_graph(nodes, "part", *ends, initializer=constants)
        return bytes(self._model(graph).SerializeToString())

    def _end(self, name: str) -> ValueInfoProto:
        sides = [side if side > 0 else f"side_{i}" for i, side in enumerate(self.shapes[name])]
        return helper.make_tensor_value_info(name, self.types[name], sides)

    def _model(self, graph: GraphProto) -> ModelProto:
        return helper.make_model(
            graph, opset_imports=list(self.model.opset_import), ir_version=max(self.model.ir_version, 4)
        )

    def replaced(self, arrays: Mapping[tuple[str, int], NDArray[Any]]) -> OnnxGraph:
        """The same with other constants as inputs of nodes: (output of the node, place among its inputs) -> array."""
        model = ModelProto()
        model.CopyFrom(self.model)
        nodes = {node.output[0]: node for node in model.graph.node}
        for number, ((output, place), array) in enumerate(arrays.items()):
            name = f"edgelearn.replaced_{number}.{output}"
            nodes[output].input[place] = name
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return OnnxGraph(model.SerializeToString(), self.name)


def _inlined(model: ModelProto) -> ModelProto:
    """Without functions of its own, which parts of it would miss."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _all_inputs(node: NodeProto) -> Iterable[str]:
    """Inputs of a node and of the graphs inside it."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _all_inputs(inner)


def _dequantised(node: NodeProto, parts: list[NDArray[Any]]) -> NDArray[Any]:
    """(x - zero point) scale, per tensor or along an axis."""
    values, scale, *rest = parts
    zero = rest[0] if rest else np.zeros_like(scale, values.dtype)
    if scale.ndim:
        shape = [1] * values.ndim
        shape[attributes(node).get("axis", 1)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    out: NDArray[Any] = (values.astype(np.int32) - zero.astype(np.int32)) * scale
    return out


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

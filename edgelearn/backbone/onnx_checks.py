# SPDX-License-Identifier: Apache-2.0
"""What keeps an ONNX file from being a backbone, all of it at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

Shape = tuple[int, ...]

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Of operators that onnxruntime brings along."""

STANDARD = DOMAINS[:2]

OLDEST_OPSET = 7
"""onnxruntime promises nothing below."""

INPUTS = (TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8)
"""Types that a backbone reads."""


def problems(model: ModelProto) -> list[str]:
    """Operators, opset, ends, shapes and types that do not do, as what follows 'it'; empty where all do."""
    found = [*_of_operators(model), *_of_ends(model)]
    for value in inputs(model)[:1]:  # where there are more, they have to go first
        found += _of_input(value)
    return found


def opset(model: ModelProto) -> int:
    """Version of the standard operators, 0 where none is named."""
    return max((one.version for one in model.opset_import if one.domain in STANDARD), default=0)


def inputs(model: ModelProto) -> list[ValueInfoProto]:
    """What is fed: old files list their constants among the inputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def shape(value: ValueInfoProto) -> Shape:
    """Sides, -1 for one that is no number."""
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)


def _of_operators(model: ModelProto) -> Iterator[str]:
    version, newest = opset(model), onnx.defs.onnx_opset_version()
    is_known = OLDEST_OPSET <= version <= newest
    strange = {
        _name(node) for node in _every(model.graph.node) if not _is_brought(node, version if is_known else newest)
    }
    if strange:
        yield f"has operators that onnxruntime does not bring along ({', '.join(sorted(strange))})"
    if not is_known:
        yield f"is of opset {version} instead of {OLDEST_OPSET} to {newest}"


def _every(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _every(attribute.g.node)


def _name(node: NodeProto) -> str:
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def _is_brought(node: NodeProto, version: int) -> bool:
    """Whether onnxruntime has an operator, as far as can be told before it runs."""
    if node.domain in STANDARD:
        return bool(onnx.defs.has(node.op_type, version, ""))
    return node.domain in DOMAINS


def _of_ends(model: ModelProto) -> Iterator[str]:
    fed, given = len(inputs(model)), len(model.graph.output)
    if fed != 1 or given != 1:
        yield f"has {fed} inputs and {given} outputs instead of one each"


def _of_input(value: ValueInfoProto) -> Iterator[str]:
    about = value.type.tensor_type
    if not about.HasField("shape"):
        yield f"says no shape of its input '{value.name}'"
    elif len(shape(value)) < 2 or min(shape(value)[1:]) < 1:
        sides = ", ".join(str(d.dim_param or d.dim_value or "?") for d in about.shape.dim)
        yield f"reads '{value.name}' of shape [{sides}] instead of numbers for all sides but the batch"
    if about.elem_type not in INPUTS:
        kind = TensorProto.DataType.Name(about.elem_type)
        yield f"reads '{value.name}' as {kind} instead of float32 or bytes"

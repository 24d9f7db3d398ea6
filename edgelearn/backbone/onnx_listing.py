# SPDX-License-Identifier: Apache-2.0
"""An ONNX file, node by node."""

from __future__ import annotations

from onnx import NodeProto

from edgelearn.backbone.listing import FROZEN, QUANTISED_WEIGHTS, STANDS_IN, Listing, Row
from edgelearn.backbone.onnx import OnnxBackbone, session
from edgelearn.backbone.onnx_graph import QUANTISED, OnnxGraph
from edgelearn.backbone.onnx_taps import OnnxHead, default_taps, find_head, refusal
from edgelearn.backbone.taps import sha256


def of_onnx(data: bytes, name: str) -> Listing:
    """The nodes of an ONNX file.

    Raises:
        ModelError: it cannot be a backbone, or not be run.
    """
    graph = OnnxGraph(data, name)
    linear = find_head(graph)
    taps = default_taps(graph, linear)
    session(data, graph.name)  # what is listed must work
    if taps:
        OnnxBackbone(graph, sha256(data), taps)
    rows = tuple(_row(graph, node, linear) for node in graph.nodes if node.op_type != "Constant")
    return Listing(
        f"opset {graph.opset}",
        graph.input,
        graph.shapes[graph.input],
        rows,
        taps,
        _head(graph, linear),
        _statistics(rows),
    )


def _statistics(rows: tuple[Row, ...]) -> str:
    found = [row.output for row in rows if row.learns == "statistics"]
    folded = "none: exporters fold normalisation into the product before it; adapters stand in"
    return f"measured again at {', '.join(found)}" if found else folded


def _head(graph: OnnxGraph, linear: OnnxHead | None) -> str:
    if linear is None:
        return f"none found: a new one is put on '{graph.output}'"
    inputs, classes = linear.head.weight.shape
    return f"{inputs} features of '{linear.source}' to {classes} classes: trained on, or replaced"


def _row(graph: OnnxGraph, node: NodeProto, linear: OnnxHead | None) -> Row:
    name = node.output[0]
    parameters = sum(graph.constants[i].size for i in node.input if i in graph.constants)
    why = refusal(graph, name, linear)
    learns = _learns(graph, node, linear)
    if learns == FROZEN and not why:
        learns += STANDS_IN
    return Row(node.op_type, name, graph.shapes.get(name), parameters, learns, why or "yes", not why)


def _learns(graph: OnnxGraph, node: NodeProto, linear: OnnxHead | None) -> str:
    """What of a node itself can be learned with forward passes."""
    if linear is not None and linear.source in node.input and node.op_type in ("Gemm", "MatMul"):
        return "head"
    if node.op_type == "BatchNormalization" and all(name in graph.constants for name in node.input[1:]):
        return "statistics"
    if node.op_type in QUANTISED or any(_is_dequantised(graph, name) for name in [*node.input, node.output[0]]):
        return QUANTISED_WEIGHTS
    weights = [graph.constants[name] for name in node.input if name in graph.constants]
    return FROZEN if any(each.dtype.kind == "f" and each.size > 1 for each in weights) else "no: no weights"


def _is_dequantised(graph: OnnxGraph, name: str) -> bool:
    producer = graph.producers.get(name)
    return name in graph.constants and producer is not None and producer.op_type == "DequantizeLinear"

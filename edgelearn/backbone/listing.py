# SPDX-License-Identifier: Apache-2.0
"""What can be adapted in an ONNX file, node by node, and why nothing can where nothing can."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx import NodeProto

from edgelearn.backbone.onnx import OnnxBackbone, session
from edgelearn.backbone.onnx_graph import QUANTISED, OnnxGraph
from edgelearn.backbone.onnx_taps import OnnxHead, default_taps, find_head, refusal
from edgelearn.backbone.taps import sha256
from edgelearn.errors import ModelError

FROZEN = "no: frozen"


@dataclass(frozen=True)
class Row:
    """A node: its operator, output and the shape of that, its constants' values, what can be learned in it, and the tap
    behind it or why there is none."""

    operator: str
    output: str
    shape: tuple[int, ...] | None
    parameters: int
    learns: str
    adapter: str
    tap: bool


@dataclass(frozen=True)
class Listing:
    """A whole file; `default` are the taps that get an adapter where none are named."""

    opset: int
    input: str
    shape: tuple[int, ...]
    rows: tuple[Row, ...]
    default: tuple[str, ...]
    head: str
    statistics: str

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def __str__(self) -> str:
        widths = [max(len(str(cell)) for cell in column) for column in zip(*map(_cells, self.rows), strict=True)]
        lines = ["  ".join(str(c).ljust(w) for c, w in zip(_cells(r), widths, strict=True)).rstrip() for r in self.rows]
        taps = f"{', '.join(self.default)} (others: --taps)" if self.default else "none: the graph can be cut nowhere"
        return "\n".join(
            [
                f"opset {self.opset}, input {self.input} {_sides(self.shape)}, {len(self.rows)} nodes",
                *lines,
                f"head        {self.head}",
                f"statistics  {self.statistics}",
                f"adapters    {taps}",
            ]
        )


def listing(path: str | Path) -> Listing:
    """The nodes of an ONNX file.

    Raises:
        ModelError: it cannot be read, or what onnxruntime does not have.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path") from error
    graph = OnnxGraph(data, Path(path).name)
    linear = find_head(graph)
    taps = default_taps(graph, linear)
    session(data, graph.name)  # what is listed must work
    if taps:
        OnnxBackbone(graph, sha256(data), taps)
    rows = tuple(_row(graph, node, linear) for node in graph.nodes if node.op_type != "Constant")
    return Listing(
        graph.opset, graph.input, graph.shapes[graph.input], rows, taps, _head(graph, linear), _statistics(rows)
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
        learns += "; an adapter behind it stands in"
    return Row(node.op_type, name, graph.shapes.get(name), parameters, learns, why or "yes", not why)


def _learns(graph: OnnxGraph, node: NodeProto, linear: OnnxHead | None) -> str:
    """What of a node itself can be learned with forward passes."""
    if linear is not None and linear.source in node.input and node.op_type in ("Gemm", "MatMul"):
        return "head"
    if node.op_type == "BatchNormalization" and all(name in graph.constants for name in node.input[1:]):
        return "statistics"
    if node.op_type in QUANTISED or any(_is_dequantised(graph, name) for name in [*node.input, node.output[0]]):
        return "no: quantised weights stay as they are"
    weights = [graph.constants[name] for name in node.input if name in graph.constants]
    return FROZEN if any(each.dtype.kind == "f" and each.size > 1 for each in weights) else "no: no weights"


def _is_dequantised(graph: OnnxGraph, name: str) -> bool:
    producer = graph.producers.get(name)
    return name in graph.constants and producer is not None and producer.op_type == "DequantizeLinear"


def _cells(row: Row) -> tuple[str, ...]:
    shape = "shape unknown" if row.shape is None else _sides(row.shape)
    place = "adapter: yes" if row.tap else f"adapter: no, {row.adapter}"
    return (row.operator, row.output, shape, f"{row.parameters:,}", row.learns, place)


def _sides(shape: tuple[int, ...]) -> str:
    unknown = ("batch", *("?" for _ in shape[1:]))
    return " x ".join(str(side) if side >= 0 else word for side, word in zip(shape, unknown, strict=False))

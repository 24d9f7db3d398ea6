# SPDX-License-Identifier: Apache-2.0
"""Where an ONNX graph can be tapped, where it is by default, and the linear head at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from edgelearn.backbone.onnx_graph import PASSING, PRODUCTS, OnnxGraph, attributes
from edgelearn.backbone.taps import Head

MOST_TAPS = 6
"""Of a deep net; spread evenly, the last always among them."""


@dataclass(frozen=True, eq=False)
class OnnxHead:
    """The linear output of a graph: what it reads, its weights, and whether a softmax follows."""

    source: str
    head: Head
    softmax: bool


def find_head(graph: OnnxGraph) -> OnnxHead | None:
    """The last product of the graph and its bias, if nothing but a softmax follows; None for other ends."""
    tensor, softmax, bias = graph.output, False, None
    while tensor in graph.producers and tensor in graph.flowing:
        node = graph.producers[tensor]
        if node.op_type in ("Softmax", *PASSING) and bias is None:
            softmax |= node.op_type == "Softmax"
        elif node.op_type == "Add" and bias is None:
            fixed = [graph.constants[name] for name in node.input if name in graph.constants]
            bias = fixed[0].reshape(-1) if len(fixed) == 1 else None
            if bias is None:
                return None
        else:
            return _linear(graph, node, bias, softmax)
        tensor = graph.reads(node)[0]
    return None


def _linear(graph: OnnxGraph, node: NodeProto, bias: NDArray[Any] | None, softmax: bool) -> OnnxHead | None:
    if node.op_type not in ("Gemm", "MatMul") or node.input[0] not in graph.flowing:
        return None
    about, weight = attributes(node), graph.constants.get(node.input[1])
    plain = about.get("alpha", 1.0) == about.get("beta", 1.0) == 1.0 and not about.get("transA", 0)
    if weight is None or weight.ndim != 2 or not plain or len(graph.shapes.get(node.input[0], ())) != 2:
        return None
    weight = weight.T if about.get("transB", 0) else weight
    if node.op_type == "Gemm" and len(node.input) > 2:
        bias = graph.constants.get(node.input[2])
    bias = np.zeros(weight.shape[1]) if bias is None else np.broadcast_to(bias.reshape(-1), weight.shape[1:])
    head = Head(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32))
    return OnnxHead(node.input[0], head, softmax)


def channel_axis(graph: OnnxGraph, name: str) -> int:
    """Where the channels of a tensor are: as the nearest node before it that mixes or normalises them has them."""
    rank, tensor = len(graph.shapes[name]), name
    while tensor in graph.producers:
        node = graph.producers[tensor]
        if node.op_type in ("Conv", "BatchNormalization", "QLinearConv"):
            return 1
        if node.op_type in ("Gemm", "MatMul", "LayerNormalization"):
            return rank - 1
        if node.op_type in ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze") or not graph.reads(node):
            break
        tensor = graph.reads(node)[0]
    return 1 if rank != 3 else 2


def float_end(graph: OnnxGraph) -> str:
    """The output, or what a QuantizeLinear at the very end rounds to it."""
    node = graph.producers.get(graph.output)
    return str(node.input[0]) if node is not None and node.op_type == "QuantizeLinear" else graph.output


def refusal(graph: OnnxGraph, name: str, linear: OnnxHead | None) -> str:
    """Why there can be no tap at a tensor of a graph with that head; empty where there can."""
    if name not in graph.flowing:
        return "there is no such tensor" if name not in graph.constants else "it does not depend on the input"
    shape = graph.shapes.get(name)
    if shape is None or -1 in shape[1:]:
        return "its shape is not known"
    if graph.types.get(name) != TensorProto.FLOAT:
        return "it holds whole numbers: what is quantised stays as it is"
    if name in (graph.input, graph.output) or len(shape) not in (2, 3, 4):
        return "it is an end of the graph" if name in (graph.input, graph.output) else f"{len(shape)} axes are no map"
    if name not in graph.cuts:
        return "other paths lead around it"
    end = linear.source if linear else float_end(graph)
    return "it lies behind what the head reads" if graph.order[name] > graph.order.get(end, -1) else ""


def all_taps(graph: OnnxGraph, linear: OnnxHead | None) -> list[str]:
    """Every tensor that a tap may be at, in order."""
    return [name for name in graph.order if name in graph.flowing and not refusal(graph, name, linear)]


def default_taps(graph: OnnxGraph, linear: OnnxHead | None) -> tuple[str, ...]:
    """What products read, as maps where they were maps: one tap per layer with weights, at most MOST_TAPS."""
    found: dict[str, None] = {}
    learned: set[str] = set()  # tensors behind a product: before the first there is nothing learned to adapt
    for node in graph.nodes:
        read = graph.reads(node)
        if node.op_type in PRODUCTS and read and read[0] in learned:
            found[_before_passing(graph, read[0], linear)] = None
        if (node.op_type in (*PRODUCTS, "QLinearConv") and read) or learned.intersection(read):
            learned.update(node.output)
    last = _before_passing(graph, linear.source if linear else float_end(graph), linear)
    names = [name for name in dict.fromkeys([*found, last]) if not refusal(graph, name, linear)]
    names.sort(key=graph.order.__getitem__)
    if len(names) <= MOST_TAPS:
        return tuple(names)
    return tuple(names[round(i * (len(names) - 1) / (MOST_TAPS - 1))] for i in range(MOST_TAPS))


def _before_passing(graph: OnnxGraph, tensor: str, linear: OnnxHead | None) -> str:
    """The nearest tensor on the way to it where a tap can be, past nodes that only change its form."""
    while tensor in graph.producers:
        passing = graph.producers[tensor].op_type in PASSING
        before = graph.reads(graph.producers[tensor])
        if not before or not (passing or refusal(graph, tensor, linear)):
            break
        tensor = before[0]
    return tensor

# SPDX-License-Identifier: Apache-2.0
"""A TFLite file, operator by operator."""

from __future__ import annotations

from typing import Any

from edgelearn.backbone.listing import FROZEN, QUANTISED_WEIGHTS, STANDS_IN, Listing, Row
from edgelearn.backbone.tflite import FULLY_CONNECTED, INT8, UINT8, TfliteBackbone, operator_code, parsed, schema

OUTSIDE = "LiteRT cannot be entered there"


def of_tflite(data: bytes, name: str) -> Listing:
    """The operators of a TFLite file.

    Raises:
        ModelError: it cannot be a backbone, or not be run.
    """
    backbone = TfliteBackbone(data, name)
    model = parsed(data, name)
    rows = tuple(_row(model, place, backbone) for place in range(len(model.subgraphs[0].operators)))
    assert backbone.head is not None
    inputs, classes = backbone.head.weight.shape
    after = ", in floats from there on" if backbone.quantised else ""
    return Listing(
        f"TFLite version {model.version}",
        _called(model.subgraphs[0], int(model.subgraphs[0].inputs[0])),
        (-1, *(backbone.file_shape)),
        rows,
        tuple(tap.name for tap in backbone.taps),
        f"{inputs} features to {classes} classes: trained on, or replaced{after}",
        "none: converters fold normalisation into the product before it",
    )


def _row(model: Any, place: int, backbone: TfliteBackbone) -> Row:
    graph = model.subgraphs[0]
    operator = graph.operators[place]
    output = graph.tensors[operator.outputs[0]]
    constants = [graph.tensors[i] for i in operator.inputs if i >= 0 and _size(model, graph.tensors[i])]
    is_constant = len(constants) == sum(i >= 0 for i in operator.inputs)
    why = "" if place == backbone.first else OUTSIDE if place < backbone.first else "it lies behind what the head reads"
    return Row(
        _name(model, operator),
        _called(graph, int(operator.outputs[0])),
        tuple(int(side) for side in output.shape) if is_constant else (-1, *(int(side) for side in output.shape[1:])),
        sum(_elements(tensor) for tensor in constants),
        _learns(model, operator, constants, backbone, not why),
        why or "yes",
        not why,
    )


def _called(graph: Any, place: int) -> str:
    """The name of a tensor; small files leave the names out."""
    name = graph.tensors[place].name
    return f"tensor_{place}" if name is None else name.decode()


def _learns(model: Any, operator: Any, constants: list[Any], backbone: TfliteBackbone, is_tap: bool) -> str:
    """What of an operator itself can be learned with forward passes."""
    if operator_code(model, operator) == FULLY_CONNECTED and backbone.source in operator.inputs:
        return "head"
    weights = [tensor for tensor in constants if _elements(tensor) > 1]
    if any(tensor.type in (INT8, UINT8) for tensor in weights):
        return QUANTISED_WEIGHTS
    if any(tensor.type in _FLOATS for tensor in weights):
        return FROZEN + (STANDS_IN if is_tap else "")
    return "no: no weights"


_FLOATS = (0, 1)
"""float32 and float16, as the schema numbers them."""


def _size(model: Any, tensor: Any) -> int:
    """Bytes of a constant, 0 of what is computed."""
    data = model.buffers[tensor.buffer].data
    return 0 if data is None else len(data)


def _elements(tensor: Any) -> int:
    count = 1
    for side in tensor.shape if tensor.shape is not None else ():
        count *= int(side)
    return count


def _name(model: Any, operator: Any) -> str:
    """As the schema calls it."""
    known = {code: name for name, code in vars(schema().BuiltinOperator).items() if not name.startswith("_")}
    return str(known.get(operator_code(model, operator), "unknown"))

# SPDX-License-Identifier: Apache-2.0
"""ONNX nets of other tools as layers with weights: chains of nodes that a layer here stands for.

All that is not known is listed at once. Maps are turned from channels first to channels last on the way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper, shape_inference

from edgelearn import graph
from edgelearn.errors import ModelError
from edgelearn.graph import Graph
from edgelearn.importing import sequences
from edgelearn.importing.nodes import CONVERTERS, Found, Node, Unknown
from edgelearn.layers import GRU, LSTM, Activation, AnyLayer, Dense, Flatten, SimpleRNN, to_config
from edgelearn.modelfile import Model

_SILENT = ("Identity", "Dropout")
"""Nodes that do nothing outside training."""


_KNOWN = {*CONVERTERS, *_SILENT, "Constant", "Add"}


@dataclass
class _Reading:
    """What is known of a net while its nodes are read: constants and shapes of samples by name, layers with their
    weights, what is wrong, and the order of the features at hand, where a map was flattened."""

    constants: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int, ...]]
    found: list[Found] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    order: NDArray[np.int64] | None = None


def net_of(model: ModelProto, name: str) -> Model:
    """The net of an ONNX model: a classifier where it ends with a softmax, else a regression with its very outputs.

    Raises:
        ModelError: inputs of unknown shape, or nodes that are not known, all of them named.
    """
    body = shape_inference.infer_shapes(model).graph
    constants = {t.name: numpy_helper.to_array(t) for t in body.initializer}
    raw = _input_shape(body, constants, name)
    known = {v.name: _sides(v)[1:] for v in (*body.input, *body.value_info, *body.output)}
    reading = _Reading(constants, known)
    _walk(body, reading)
    if reading.order is not None and (np.diff(reading.order) != 1).any():
        reading.unknown.append("an output that is a flattened map")
    if reading.unknown:
        raise ModelError(
            f"{name} holds what edgelearn has no layer for: {'; '.join(reading.unknown)}: keep the file frozen and "
            f"learn behind it, edgelearn adapt {name} DATA -o adapted.onnx, or leave these out before it is exported"
        )
    return _model(reading, raw, name)


def _input_shape(body: GraphProto, constants: Mapping[str, NDArray[Any]], name: str) -> tuple[int, ...]:
    """Of one sample."""
    inputs = [i for i in body.input if i.name not in constants]
    if len(inputs) != 1 or len(body.output) != 1:
        raise ModelError(
            f"{name} has {len(inputs)} inputs and {len(body.output)} outputs: export a net with one of each"
        )
    sides = _sides(inputs[0])
    if len(sides) < 2 or 0 in sides[1:]:
        open_sides = f"{name} leaves a side of its samples open, {sides[1:]}"
        raise ModelError(f"{open_sides}: export it with every side but the batch")
    return sides[1:]


def _sides(value: ValueInfoProto) -> tuple[int, ...]:
    """Of a batch; 0 where a side is open."""
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


def _walk(body: GraphProto, reading: _Reading) -> None:
    """Read node after node along the one line from input to output."""
    value = next(i.name for i in body.input if i.name not in reading.constants)
    rest = list(body.node)
    while rest:
        node = rest.pop(0)
        if node.op_type == "Constant":
            reading.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif value not in node.input or not _alone(value, node, rest):
            reading.unknown.append(f"{_named(node)} (a branch or a join)")
            reading.unknown += [_named(other) for other in rest if other.op_type not in _KNOWN]
            return
        else:
            value = _step(node, rest, reading)


def _alone(value: str, node: NodeProto, rest: Sequence[NodeProto]) -> bool:
    """Whether nothing else reads a value."""
    return not any(value in other.input for other in rest) and list(node.input).count(value) == 1


def _step(node: NodeProto, rest: list[NodeProto], reading: _Reading) -> str:
    """Read one node, and one after it that belongs to it; the name of what they give."""
    if node.op_type in _SILENT:
        return str(node.output[0])
    if sequences.starts(node, rest):
        return _sequence(node, rest, reading)
    converter = CONVERTERS.get(node.op_type)
    if converter is None:
        reading.unknown.append(_named(node))
        return str(node.output[0])
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    arrays = [reading.constants.get(n) for n in node.input[1:] if n]
    following = rest[0] if rest and node.output[0] in rest[0].input else None
    term = None if following is None else _term(following, reading)
    shape = reading.shapes.get(node.input[0], ())
    try:
        found = converter(Node(node.op_type, attributes, arrays, shape, term, reading.order))
    except Unknown as error:
        reading.unknown.append(f"{_named(node)} ({error})")
        return str(node.output[0])
    reading.found.append(found)
    reading.order = found.order
    return str(rest.pop(0).output[0]) if found.takes_term else str(node.output[0])


def _sequence(node: NodeProto, rest: list[NodeProto], reading: _Reading) -> str:
    """Read a recurrent node with what turns sequences before and behind it."""
    cell = rest[0]
    try:
        found, value = sequences.take(node, rest, reading.constants)
    except Unknown as error:
        reading.unknown.append(f"{_named(cell)} ({error})")
        return str(cell.output[0])
    reading.found.append(found)
    return value


def _term(node: NodeProto, reading: _Reading) -> NDArray[Any] | None:
    """The constant that the node adds, if it is a sum."""
    constants = [reading.constants[n] for n in node.input if n in reading.constants]
    return constants[0] if node.op_type == "Add" and len(constants) == 1 else None


def _named(node: NodeProto) -> str:
    return f"{node.op_type} '{node.name or node.output[0]}'"


def _model(reading: _Reading, raw: tuple[int, ...], name: str) -> Model:
    layers = _without_flatten([found.layer for found in reading.found])
    is_classifier = bool(layers) and isinstance(layers[-1], Activation) and layers[-1].activation == "softmax"
    layers = layers[:-1] if is_classifier else layers
    turned = len(raw) > 1 and not isinstance(layers[0] if layers else None, GRU | LSTM | SimpleRNN)
    shape = (*raw[1:], raw[0]) if turned else raw
    try:
        built = graph.build(layers, shape, rescale=1, softmax=is_classifier)
    except ModelError as error:
        raise ModelError(f"{name} does not form a net here: {error}") from error
    flat = _weights(built, [found.weights for found in reading.found if found.weights])
    source = {"shape": list(raw), "layout": "channels_first" if turned else "channels_last", "scale": 1.0}
    loss = "cross_entropy" if is_classifier else "mse"
    return Model(_configs(layers), built, flat, source, loss=loss, provenance={"imported": name})


def _without_flatten(layers: list[AnyLayer]) -> list[AnyLayer]:
    """Dense flattens by itself, and a net begins with weights."""
    after = [*layers[1:], None]
    return [a for a, b in zip(layers, after, strict=True) if not (isinstance(a, Flatten) and isinstance(b, Dense))]


def _configs(layers: Sequence[AnyLayer]) -> list[dict[str, Any]]:
    return [to_config(layer) for layer in layers]


def _weights(built: Graph, given: list[dict[str, NDArray[Any]]]) -> NDArray[np.float32]:
    """The flat vector; parameters come layer by layer in the order of the nodes, behind a scaling that does nothing."""
    flat = np.zeros(built.size, np.float32)
    arrays = [np.ones(1), np.zeros(1), *(array for weights in given for array in weights.values())]
    for parameter, array in zip(built.parameters, arrays, strict=True):
        if math.prod(parameter.shape) != array.size:
            raise ModelError(f"the weights of '{parameter.name}' have shape {array.shape}: export the net again")
        parameter.view(flat)[...] = array.reshape(parameter.shape)
    return flat

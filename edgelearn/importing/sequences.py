# SPDX-License-Identifier: Apache-2.0
"""Recurrent nodes of ONNX, with the transpositions around them by which other tools bring time to the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edgelearn.importing.nodes import Found, Unknown
from edgelearn.layers import GRU, LSTM, SimpleRNN

Constants = Mapping[str, NDArray[Any]]

_TIME_FIRST = [1, 0, 2]

_GATES = {"GRU": (0, 1, 2), "LSTM": (0, 2, 3, 1), "RNN": (0,)}
"""The gates of ONNX (z, r, h; i, o, f, c) in our order (z, r, n; i, f, g, o)."""


def starts(node: NodeProto, rest: list[NodeProto]) -> bool:
    """Whether the node turns sequences for a recurrent node that follows."""
    return node.op_type == "Transpose" and bool(rest) and rest[0].op_type in _GATES


def take(node: NodeProto, rest: list[NodeProto], constants: Constants) -> tuple[Found, str]:
    """The layer that a transposition, a recurrent node and what turns its output back are, and the name of what they
    give; they are taken from `rest`.

    Raises:
        Unknown: one of them has another form than that of PyTorch's exporter.
    """
    cell = rest.pop(0)
    if _attribute(node, "perm") != _TIME_FIRST:
        raise Unknown("sequences that are not (batch, steps, features)")
    every, value = _turned_back(cell, rest, constants)
    weights = _weights(cell, constants)
    units = weights["recurrent"].shape[0]
    layer = _LAYERS[cell.op_type](units, "bias" in weights, every, cell)
    return Found(layer, (0, units) if every else (units,), weights), value


def _turned_back(cell: NodeProto, rest: list[NodeProto], constants: Constants) -> tuple[bool, str]:
    """Whether every step is handed on, and as what. (steps, 1, batch, units) becomes (batch, steps, units)."""
    kinds = [n.op_type for n in rest[:4]]
    if kinds[:2] == ["Squeeze", "Transpose"]:
        nodes = [rest.pop(0) for _ in range(2)]
    elif kinds[:3] == ["Transpose", "Reshape", "Transpose"] and _attribute(rest[0], "perm") == [0, 2, 1, 3]:
        nodes = [rest.pop(0) for _ in range(3)]
    else:
        raise Unknown(f"what follows is {', '.join(kinds) or 'nothing'}")
    if nodes[0].input[0] != cell.output[0] or _attribute(nodes[-1], "perm") != _TIME_FIRST:
        raise Unknown("its output is not turned back to (batch, steps, units)")
    value = str(nodes[-1].output[0])
    if rest and rest[0].op_type == "Gather" and rest[0].input[0] == value and _attribute(rest[0], "axis") == 1:
        index = constants.get(rest[0].input[1])
        if index is None or index.size != 1 or int(index.reshape(-1)[0]) != -1:
            raise Unknown("a step other than the last is taken")
        return False, str(rest.pop(0).output[0])
    return True, value


def _weights(cell: NodeProto, constants: Constants) -> dict[str, NDArray[Any]]:
    """W, V and the biases, in the order of our gates."""
    _check(cell, constants)
    order = _GATES[cell.op_type]

    def ours(array: NDArray[Any]) -> NDArray[Any]:
        """(1, gates units, ...) as (..., gates units)"""
        parts = np.split(array[0], len(order), axis=0)
        return np.moveaxis(np.concatenate([parts[gate] for gate in order]), 0, -1)

    weights = {"weight": ours(constants[cell.input[1]]), "recurrent": ours(constants[cell.input[2]])}
    if len(cell.input) > 3 and cell.input[3]:
        outer, inner = (ours(part) for part in np.split(constants[cell.input[3]], 2, axis=1))
        is_gru = cell.op_type == "GRU"
        weights |= {"bias": outer, "recurrent bias": inner} if is_gru else {"bias": outer + inner}
    return weights


def _check(cell: NodeProto, constants: Constants) -> None:
    """Whether all that a layer here has no word for is as it expects it."""
    if any(name not in constants for name in cell.input[1:3]):
        raise Unknown("its weights are no constants")
    if _attribute(cell, "direction") not in (None, b"forward"):
        raise Unknown(f"direction {_attribute(cell, 'direction').decode()}")
    if cell.op_type == "GRU" and _attribute(cell, "linear_before_reset") != 1:
        raise Unknown("linear_before_reset 0")
    if _attribute(cell, "activations") not in (None, [b"Relu"], [b"Tanh"]) or _attribute(cell, "layout"):
        raise Unknown("other activations or layout than the usual")
    for name in cell.input[5:]:
        if name and (name not in constants or constants[name].any()):
            raise Unknown("it starts from a state that is not zero")


def _attribute(node: NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _rnn(units: int, use_bias: bool, every: bool, cell: NodeProto) -> SimpleRNN:
    activation = "relu" if _attribute(cell, "activations") == [b"Relu"] else "tanh"
    return SimpleRNN(units, activation, use_bias=use_bias, return_sequences=every)


_LAYERS: dict[str, Callable[[int, bool, bool, NodeProto], GRU | LSTM | SimpleRNN]] = {
    "GRU": lambda units, use_bias, every, cell: GRU(units, use_bias, every),
    "LSTM": lambda units, use_bias, every, cell: LSTM(units, use_bias, every),
    "RNN": _rnn,
}

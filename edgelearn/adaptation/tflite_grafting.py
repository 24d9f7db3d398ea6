# SPDX-License-Identifier: Apache-2.0
"""Puts an adaptation into the TFLite file that it was made for: all behind the features becomes one float layer, with
two more before it where an adapter is not linear."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.adaptation import verifying
from edgelearn.adaptation.adapted import Adapted
from edgelearn.adapters import Adapter, Bottleneck
from edgelearn.backbone.tflite import (
    DEQUANTIZE,
    FLOAT32,
    FULLY_CONNECTED,
    SOFTMAX,
    TfliteBackbone,
    packed,
    parsed,
    schema,
)
from edgelearn.errors import ModelError
from edgelearn.export.tflite_metadata import with_labels

FloatArray = NDArray[np.float32]

ADD = 0


def write(path: str | Path, adapted: Adapted, samples: NDArray[Any]) -> float:
    """Write the grafted file and return the largest difference of its answers on `samples`, as the data holds them.

    Raises:
        ModelError: another backbone than a TFLite file.
        VerificationError: the runtime gives other answers; nothing was written.
        OutputError: the file cannot be written.
    """
    backbone = adapted.backbone
    if not isinstance(backbone, TfliteBackbone):
        raise ModelError(f"{backbone.name} is no TFLite file: only those take this graft")
    return verifying.write(path, grafted(adapted), adapted, samples, backbone.softmax)


def grafted(adapted: Adapted) -> bytes:
    """The original file with what was learned behind its features."""
    backbone = adapted.backbone
    assert isinstance(backbone, TfliteBackbone)
    model = parsed(backbone.data, backbone.name)
    graph = model.subgraphs[0]
    del graph.operators[backbone.first + 1 :]
    graft = _Graft(model)
    tensor = backbone.source
    if backbone.quantised:
        tensor = graft.operator(DEQUANTIZE, [tensor], [1, *graph.tensors[tensor].shape[1:]], "features.float")
    graph.outputs = [_answered(graft, adapted, tensor, backbone.softmax)]
    graft.drop_unread()
    for signature in model.signatureDefs or []:
        signature.outputs[0].tensorIndex = graph.outputs[0]
    named = {} if adapted.class_names is None else {"classes": json.dumps(adapted.class_names)}
    graft.describe({**named, "edgelearn_adapted": json.dumps(adapted.about)})
    return with_labels(packed(model), named)


def _answered(graft: _Graft, adapted: Adapted, tensor: int, is_softmax: bool) -> int:
    """From the features in floats to the answers: a linear adapter is a part of the head."""
    weight, bias = adapted.output.weight.T, adapted.output.bias
    adapter = adapted.adapters.get("features")
    if adapter is not None and adapter.linear:
        weight = weight @ adapter.matrix()  # type: ignore[attr-defined]
    elif adapter is not None:
        tensor = _bottleneck(graft, adapter, tensor)
    tensor = graft.dense(tensor, weight, bias, "head")
    if is_softmax:
        tensor = graft.operator(SOFTMAX, [tensor], [1, len(bias)], "probabilities", "SoftmaxOptions", beta=1.0)
    return tensor


def _bottleneck(graft: _Graft, adapter: Adapter, tensor: int) -> int:
    if not isinstance(adapter, Bottleneck):
        raise ModelError(f"an adapter of kind {adapter.kind} has no place in a TFLite graph: save it as .safetensors")
    weights = adapter.weights
    inner = graft.dense(tensor, weights["down"], weights["bias"], "down", activation=1)
    up = graft.dense(inner, weights["up"], np.zeros(adapter.channels, np.float32), "up")
    return graft.operator(ADD, [tensor, up], [1, adapter.channels], "adapted", "AddOptions", fusedActivationFunction=0)


class _Graft:
    """Appends operators to the end of a graph."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph, self.tables = model, model.subgraphs[0], schema()

    def dense(self, tensor: int, weight: FloatArray, bias: FloatArray, name: str, activation: int = 0) -> int:
        """weight (units, inputs) x + bias."""
        inputs = [tensor, self.constant(weight, f"{name}.weight"), self.constant(bias, f"{name}.bias")]
        shape = [1, len(bias)]
        return self.operator(
            FULLY_CONNECTED, inputs, shape, name, "FullyConnectedOptions", fusedActivationFunction=activation
        )

    def constant(self, array: FloatArray, name: str) -> int:
        return self.tensor(array.shape, name, self._buffer(np.ascontiguousarray(array, "<f4").tobytes()))

    def tensor(self, shape: Any, name: str, buffer: int = 0) -> int:
        made = self.tables.TensorT()
        made.shape, made.type, made.buffer = [int(side) for side in shape], FLOAT32, buffer
        made.name = f"edgelearn.{name}"
        if not buffer:
            made.shapeSignature = [-1, *made.shape[1:]]
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operator(self, code: int, inputs: list[int], shape: Any, name: str, options: str = "", **fields: Any) -> int:
        """Append an operator; the index of its output."""
        made = self.tables.OperatorT()
        out = self.tensor(shape, name)
        made.opcodeIndex, made.inputs, made.outputs = self._code(code), inputs, [out]
        if options:
            made.builtinOptionsType = getattr(self.tables.BuiltinOptions, options)
            made.builtinOptions = getattr(self.tables, f"{options}T")()
            for field, value in fields.items():
                setattr(made.builtinOptions, field, value)
        self.graph.operators.append(made)
        return out

    def drop_unread(self) -> None:
        """Take out operators, as those that read the old head's float16 weights, and empty constants that nothing reads
        any more; tensors keep their places."""
        wanted, kept = {int(tensor) for tensor in self.graph.outputs}, []
        for each in reversed(self.graph.operators):
            if wanted.intersection(int(tensor) for tensor in each.outputs):
                wanted.update(int(tensor) for tensor in each.inputs)
                kept.append(each)
        self.graph.operators = kept[::-1]
        shared = {int(tensor.buffer) for place, tensor in enumerate(self.graph.tensors) if place in wanted}
        for place, tensor in enumerate(self.graph.tensors):
            if place not in wanted and tensor.buffer not in shared:
                self.model.buffers[tensor.buffer].data = None

    def describe(self, entries: Mapping[str, str]) -> None:
        """Put text into the metadata; names of classes that the old head had are gone."""
        kept = [each for each in self.model.metadata or [] if each.name.decode() not in ("classes", *entries)]
        for name, text in entries.items():
            made = self.tables.MetadataT()
            made.name, made.buffer = name, self._buffer(text.encode())
            kept.append(made)
        self.model.metadata = kept

    def _buffer(self, content: bytes) -> int:
        made = self.tables.BufferT()
        made.data = np.frombuffer(content, np.uint8)
        self.model.buffers.append(made)
        return len(self.model.buffers) - 1

    def _code(self, code: int) -> int:
        for index, known in enumerate(self.model.operatorCodes):
            if max(int(known.builtinCode), int(known.deprecatedBuiltinCode)) == code and int(known.version) == 1:
                return index
        made = self.tables.OperatorCodeT()
        made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), 1
        self.model.operatorCodes.append(made)
        return len(self.model.operatorCodes) - 1

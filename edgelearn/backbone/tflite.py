# SPDX-License-Identifier: Apache-2.0
"""Any TFLite file as a backbone: one tap, at what the linear head reads. LiteRT cannot be entered in the middle of a
graph, so that adapters and head behind the last tap are all there is to learn."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.backbone.taps import (
    Backbone,
    FloatArray,
    Head,
    Statistics,
    Tap,
    arranged,
    described,
    entered,
    sha256,
)
from edgelearn.errors import ModelError
from edgelearn.export.int8 import Affine
from edgelearn.export.tflite_schema import FILE_IDENTIFIER, read_metadata

FULLY_CONNECTED, SOFTMAX, DEQUANTIZE, QUANTIZE, RESHAPE = 9, 25, 6, 114, 22
"""Operators, as the schema numbers them."""

FLOAT32, FLOAT16, INT8, UINT8 = 0, 1, 9, 3
_TYPES: dict[int, Any] = {FLOAT32: np.float32, FLOAT16: np.float16, INT8: np.int8, UINT8: np.uint8, 2: np.int32}

BATCH = 16


def schema() -> Any:
    """The tables of the format as Python objects, which LiteRT brings along.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise ModelError("a .tflite backbone needs LiteRT: pip install 'edgelearn[tflite]'") from error


def parsed(data: bytes, name: str) -> Any:
    """A file as objects.

    Raises:
        ModelError: no TFLite file, a damaged one, or one of several inputs or outputs.
    """
    tables = schema()
    try:
        if data[4:8] != FILE_IDENTIFIER:
            raise ValueError("no mark of the format")
        model = tables.ModelT.InitFromObj(tables.Model.GetRootAs(data, 0))
        graph = model.subgraphs[0]
        whole = graph.operators and len(graph.inputs) == len(graph.outputs) == 1
    except Exception as error:  # flatbuffers raises whatever a bad offset leads to
        raise ModelError(f"{name} is damaged or no TFLite file: export it again") from error
    if not whole:
        raise ModelError(f"{name} has more than one input and one output: export it so")
    return model


def packed(model: Any) -> bytes:
    """Objects as a file."""
    builder = import_module("flatbuffers").Builder(1024)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


class TfliteBackbone:
    """See `Backbone`.

    Raises:
        ModelError: a file that does not end in a fully connected layer with constant weights, that has nothing before
            it, or that LiteRT cannot run.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.name, self.digest, self.data = name, sha256(data), data
        model = parsed(data, name)
        graph = model.subgraphs[0]
        self.source, self.softmax, head = self._find_head(model)
        self.head: Head | None = head
        self.first = next((i for i, each in enumerate(graph.operators) if self.source in each.outputs), -1)
        if self.first < 0:
            raise ModelError(f"{name} is a head alone, with nothing before it that could stay as it is: train it anew")
        del graph.operators[self.first + 1 :]
        graph.outputs, model.signatureDefs = [self.source], None
        self._part = packed(model)
        self._interpreter: Any = None
        self._shape: tuple[int, ...] = ()
        source = graph.tensors[self.source]
        self.taps: tuple[Tap, ...] = (Tap("features", (1, 1), head.weight.shape[0]),)
        self.quantised = int(source.type) != FLOAT32
        self._in, self._out = self._details()
        self.file_shape = tuple(int(side) for side in self._in["shape"][1:])
        self.input, self.classes = described(read_metadata(data), self.file_shape, name)

    def _find_head(self, model: Any) -> tuple[int, bool, Head]:
        graph, softmax = model.subgraphs[0], False
        producers = {int(out): each for each in graph.operators for out in each.outputs}
        tensor = int(graph.outputs[0])
        while tensor in producers:
            each = producers[tensor]
            code = operator_code(model, each)
            if code == FULLY_CONNECTED:
                return int(each.inputs[0]), softmax, _weights(model, each, self.name)
            if code not in (SOFTMAX, DEQUANTIZE, QUANTIZE, RESHAPE):
                break
            softmax |= code == SOFTMAX
            tensor = int(each.inputs[0])
        raise ModelError(
            f"{self.name} does not end in a fully connected layer: there is no head to adapt; use its .onnx"
        )

    def _details(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self._open()
        return self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]

    def _open(self) -> None:
        if self._interpreter is not None:
            return
        interpreter = import_module("ai_edge_litert.interpreter").Interpreter  # as the schema, so it is there
        try:
            self._interpreter = interpreter(model_content=self._part)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            line = str(error).splitlines()[0]
            raise ModelError(f"LiteRT cannot run {self.name} ({line}): export it again") from error
        self._shape = ()

    def prepare(self, x: NDArray[Any]) -> NDArray[Any]:
        """Samples of the file's shape and type; a side of 1 may be missing, or all of them be flat."""
        scale, zero = self._in["quantization"]
        affine = Affine(float(scale), int(zero)) if scale else None
        return entered(arranged(x, self.file_shape, self.name), self._in["dtype"], affine, self.name)

    def stage(self, index: int, h: NDArray[Any]) -> FloatArray:
        """The graph up to the features, by LiteRT; behind them only the shape changes."""
        if index == 1:
            return np.ascontiguousarray(h).reshape(len(h), -1)
        self._open()
        found = [self._run(h[start : start + BATCH]) for start in range(0, len(h), BATCH)]
        values = np.concatenate(found).reshape(len(h), 1, -1)
        scale, zero = self._out["quantization"]
        if self.quantised:
            values = (values.astype(np.float32) - zero) * np.float32(scale)
        return values.astype(np.float32)

    def _run(self, chunk: NDArray[Any]) -> NDArray[Any]:
        if self._shape != chunk.shape:
            self._interpreter.resize_tensor_input(self._in["index"], chunk.shape)
            self._interpreter.allocate_tensors()
            self._shape = chunk.shape
        self._interpreter.set_tensor(self._in["index"], chunk)
        self._interpreter.invoke()
        out: NDArray[Any] = self._interpreter.get_tensor(self._out["index"])
        return out

    def statistics(self, x: NDArray[Any]) -> Statistics:
        """None: converters fold normalisations into the weights."""
        return {}

    def restated(self, statistics: Statistics) -> Backbone:
        """Itself, without any.

        Raises:
            ModelError: there are some.
        """
        if statistics:
            raise ModelError(f"{self.name} has no statistics of its own: adapt it again")
        return self

    def release(self) -> None:
        """End the interpreter."""
        self._interpreter = None


def operator_code(model: Any, operator: Any) -> int:
    """Number of an operator; old files have it in one byte."""
    code = model.operatorCodes[operator.opcodeIndex]
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def _weights(model: Any, operator: Any, name: str) -> Head:
    tensors, buffers = model.subgraphs[0].tensors, model.buffers
    arrays = [_constant(tensors[_stored(model, i)], buffers) for i in operator.inputs[1:] if i >= 0]
    if not arrays or any(array is None for array in arrays):
        raise ModelError(f"the weights of the last layer of {name} are no constants: there is no head to adapt")
    weight = np.ascontiguousarray(np.asarray(arrays[0], np.float32).T)
    bias = np.asarray(arrays[1], np.float32) if len(arrays) > 1 else np.zeros(weight.shape[1], np.float32)
    return Head(weight, bias)


def _stored(model: Any, tensor: int) -> int:
    """The constant that a DEQUANTIZE makes a tensor of, as in files of float16 weights; or the tensor itself."""
    for each in model.subgraphs[0].operators:
        if tensor in each.outputs and operator_code(model, each) == DEQUANTIZE:
            return int(each.inputs[0])
    return tensor


def _constant(tensor: Any, buffers: Any) -> NDArray[Any] | None:
    """A constant tensor as floats, dequantised per tensor or along its first axis."""
    data = buffers[tensor.buffer].data
    if data is None or len(data) == 0 or int(tensor.type) not in _TYPES:
        return None
    values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), _TYPES[int(tensor.type)]).reshape(tensor.shape)
    if int(tensor.type) in (FLOAT32, FLOAT16):
        return values
    quantisation = tensor.quantization
    if quantisation is None or quantisation.scale is None:
        return None
    scale = np.asarray(quantisation.scale, np.float32).reshape(-1, *(1 for _ in values.shape[1:]))
    zero = np.asarray(quantisation.zeroPoint, np.float32).reshape(scale.shape)
    out: NDArray[Any] = (values.astype(np.float32) - zero) * scale
    return out

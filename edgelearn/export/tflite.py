# SPDX-License-Identifier: Apache-2.0
"""A program as a TFLite file, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.export import tflite_metadata
from edgelearn.export.int8 import Affine
from edgelearn.export.operators import CHANNEL_AXIS, DEQUANTIZE, FULLY_CONNECTED, Operator, Shape
from edgelearn.export.passes import fold_batchnorm, simplify
from edgelearn.export.primitives import Program
from edgelearn.export.quantize import Quantized, rounded, unquantized
from edgelearn.export.tflite_ops import Placed, place
from edgelearn.export.tflite_schema import TENSOR_TYPES, Writer

OPTIONS = {
    "Conv2DOptions": 1,
    "DepthwiseConv2DOptions": 2,
    "Pool2DOptions": 5,
    "FullyConnectedOptions": 8,
    "SoftmaxOptions": 9,
    "AddOptions": 11,
    "MulOptions": 21,
    "ReducerOptions": 27,
    "SubOptions": 28,
    "GatherOptions": 23,
    "CastOptions": 37,
    "LeakyReluOptions": 75,
    "BatchMatMulOptions": 101,
    "ConcatenationOptions": 10,
    "StridedSliceOptions": 32,
    "GeluOptions": 116,
}
"""Numbers of the options tables in BuiltinOptions of the schema."""

SCHEMA_VERSION = 3
HALF_DEQUANTIZE, CHANNEL_DEQUANTIZE = 3, 2
"""The versions of DEQUANTIZE that take float16, and int8 with a scale for each unit."""


def prepare(program: Program) -> Program:
    """The program as TFLite has it: normalisation folded."""
    return simplify(fold_batchnorm(program))


def encode(net: Program | Quantized, metadata: Mapping[str, str], version: str, half: bool = False) -> bytes:
    """A TFLite file from 'input' (1, *input_shape) to 'output' (1, outputs), signature 'serving_default';
    resize_tensor_input gives it any batch. What is quantized must be prepared. With `half` the file holds weights as
    float16, which runtimes turn into float32 when they load it. Equal arguments give equal bytes; `version` is that
    of edgelearn.

    Raises:
        ModelError: weights beyond float16.
    """
    whole = net if isinstance(net, Quantized) else unquantized(prepare(net))
    description = f"edgelearn {version}"
    model, about = _Model(whole, half), tflite_metadata.table(whole.program.input_shape, metadata, description)
    model.entry(tflite_metadata.ENTRY, about)
    return tflite_metadata.with_labels(model.finish(metadata, description), metadata)


def constants(program: Program) -> dict[str, NDArray[Any]]:
    """The constants that a float32 file of the program holds, by name; normalisation must be folded. What several
    operators share is held once, under the name that the first one gives it."""
    placed = place(simplify(program))
    named, written = zip(_names(placed), placed, strict=True), set()
    found: dict[str, NDArray[Any]] = {}
    for name, each in named:
        for index, array in enumerate(each.operator.constants):
            if id(array) not in written:
                found[f"{name}.{index}"] = array
            written.add(id(array))
    return found


def _names(placed: Sequence[Placed]) -> list[str]:
    """Of what the operators give."""
    return [*(f"value_{index}" for index in range(1, len(placed))), "output"]


class _Model:
    """The lists of a TFLite file while it is written; tensors, buffers and codes are known by their index."""

    def __init__(self, net: Quantized, half: bool = False) -> None:
        self.write = Writer()
        self.half, self.is_int8 = half, any(net.values)
        # By rule of the schema buffer 0 is empty and stands for tensors that are no constants.
        self.buffers = [self.write.table("Buffer")]
        self.tensors: list[int] = []
        self.codes: dict[tuple[int, int], int] = {}
        self.operators: list[int] = []
        self.entries: list[int] = []
        placed = place(net)
        # Constants that several operators have, by identity: `placed` keeps them all alive.
        self.shared: dict[int, int] = {}
        # What flows: the input, then the output of each operator.
        self.values = [self._value("input", net.program.input_shape, net.values[0] if net.io == "int8" else None)]
        for each, name in zip(placed, _names(placed), strict=True):
            self._append(each, name)

    def _append(self, placed: Placed, name: str) -> None:
        operator = placed.operator
        constants = [self._constant(operator, place, f"{name}.{place}") for place in range(len(operator.constants))]
        data = [self.values[read] for read in placed.reads]
        inputs = self.write.integers([*constants, *data] if operator.picks else [*data, *constants])
        self.values.append(self._value(name, placed.shape, placed.affine, operator.kind))
        children = {"inputs": inputs, "outputs": self.write.integers(self.values[-1:])}
        if operator.options:
            children["options"] = self.write.table(operator.options, **operator.fields)
            children["options_type"] = OPTIONS[operator.options]
        index = self.codes.setdefault((operator.code, operator.version), len(self.codes))
        self.operators.append(self.write.table("Operator", code_index=index, **children))

    def _constant(self, operator: Operator, place: int, name: str) -> int:
        array = operator.constants[place]
        if id(array) not in self.shared:
            self.shared[id(array)] = self._written(operator, place, name)
        return self.shared[id(array)]

    def _written(self, operator: Operator, place: int, name: str) -> int:
        array = operator.constants[place]
        if self.half and array.dtype == np.float32 and array.ndim > 1:
            return self._halved(array, name)
        if self.is_int8 and array.dtype == np.float32 and operator.code == FULLY_CONNECTED and array.ndim > 1:
            return self._rounded(array, name)
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        children = {"shape": self.write.integers(array.shape)}
        if operator.scales:
            axis = CHANNEL_AXIS[operator.code] if array.ndim > 1 else 0
            scales = operator.scales[place]
            children["quantization"] = self._quantization(scales, np.zeros(len(scales), np.int64), axis)
        return self._tensor(name, array.dtype.name, self._buffer(little.tobytes()), **children)

    def _halved(self, array: NDArray[Any], name: str) -> int:
        """A weight as float16, and the operator that makes it float32 again."""
        with np.errstate(over="ignore"):
            stored = array.astype("<f2")
        if not np.isfinite(stored).all():
            raise ModelError("the net has weights beyond the range of float16: export it as float32")
        shape = self.write.integers(array.shape)
        source = self._tensor(name, "float16", self._buffer(np.ascontiguousarray(stored).tobytes()), shape=shape)
        return self._as_float(source, name, shape, HALF_DEQUANTIZE)

    def _rounded(self, array: NDArray[Any], name: str) -> int:
        """A weight (units, inputs) of a float32 product as int8, and the operator that makes it float32 again."""
        values, scale = rounded(array.T)
        stored, shape = np.ascontiguousarray(values.T), self.write.integers(array.shape)
        numbers = self._quantization(scale, np.zeros(len(scale), np.int64), 0)
        source = self._tensor(name, "int8", self._buffer(stored.tobytes()), shape=shape, quantization=numbers)
        return self._as_float(source, name, shape, CHANNEL_DEQUANTIZE)

    def _as_float(self, source: int, name: str, shape: int, version: int) -> int:
        result = self._tensor(f"{name}.float32", "float32", 0, shape=shape)
        ends = {"inputs": self.write.integers([source]), "outputs": self.write.integers([result])}
        index = self.codes.setdefault((DEQUANTIZE, version), len(self.codes))
        self.operators.append(self.write.table("Operator", code_index=index, **ends))
        return result

    def _value(self, name: str, shape: Shape, affine: Affine | None, kind: str = "float32") -> int:
        """What flows between operators: batch 1 as stored, open (-1) to those who resize."""
        children = {
            "shape": self.write.integers([1, *shape]),
            "shape_signature": self.write.integers([-1, *shape]),
        }
        if affine is None:
            return self._tensor(name, kind, 0, **children)
        scale, zero_point = np.array([affine.scale], np.float32), np.array([affine.zero_point], np.int64)
        return self._tensor(name, "int8", 0, quantization=self._quantization(scale, zero_point, 0), **children)

    def _quantization(self, scale: NDArray[np.float32], zero_point: NDArray[np.int64], axis: int) -> int:
        numbers = {"scale": self.write.numbers(scale), "zero_point": self.write.numbers(zero_point)}
        return self.write.table("QuantizationParameters", axis=axis, **numbers)

    def _tensor(self, name: str, kind: str, buffer: int, **children: int) -> int:
        label = self.write.text(name)
        table = self.write.table("Tensor", type=TENSOR_TYPES[kind], buffer=buffer, name=label, **children)
        return _add(self.tensors, table)

    def _buffer(self, data: bytes) -> int:
        return _add(self.buffers, self.write.table("Buffer", data=self.write.data(data)))

    def finish(self, metadata: Mapping[str, str], description: str) -> bytes:
        for name, value in metadata.items():
            self.entry(name, value.encode())
        children = {
            "operator_codes": self.write.vector([self._code(*code) for code in self.codes]),
            "subgraphs": self.write.vector([self._subgraph()]),
            "description": self.write.text(description),
            "buffers": self.write.vector(self.buffers),
            "metadata": self.write.vector(self.entries),
            "signature_defs": self.write.vector([self._signature()]),
        }
        return self.write.finish(self.write.table("Model", version=SCHEMA_VERSION, **children))

    def entry(self, name: str, value: bytes) -> None:
        """Add to the metadata."""
        buffer = self._buffer(value)
        self.entries.append(self.write.table("Metadata", name=self.write.text(name), buffer=buffer))

    def _code(self, code: int, version: int) -> int:
        # The first readers of the format know only the one-byte code.
        return self.write.table("OperatorCode", short_code=min(code, 127), version=version, code=code)

    def _subgraph(self) -> int:
        return self.write.table(
            "SubGraph",
            tensors=self.write.vector(self.tensors),
            inputs=self.write.integers(self.values[:1]),
            outputs=self.write.integers(self.values[-1:]),
            operators=self.write.vector(self.operators),
        )

    def _signature(self) -> int:
        return self.write.table(
            "SignatureDef",
            inputs=self._ends([("input", self.values[0])]),
            outputs=self._ends([("output", self.values[-1])]),
            key=self.write.text("serving_default"),
        )

    def _ends(self, tensors: Iterable[tuple[str, int]]) -> int:
        maps = [self.write.table("TensorMap", name=self.write.text(n), tensor=t) for n, t in tensors]
        return self.write.vector(maps)


def _add(items: list[int], item: int) -> int:
    items.append(item)
    return len(items) - 1

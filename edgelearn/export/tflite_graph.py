# SPDX-License-Identifier: Apache-2.0
"""The graphs of a TFLite file while it is written: tensors and operators, and what all graphs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.export.int8 import Affine
from edgelearn.export.operators import CHANNEL_AXIS, DEQUANTIZE, FULLY_CONNECTED, LESS, Loop, Operator, Shape
from edgelearn.export.quantize import rounded
from edgelearn.export.tflite_placing import Placed
from edgelearn.export.tflite_schema import TENSOR_TYPES, Writer

OPTIONS = {
    "Conv2DOptions": 1,
    "DepthwiseConv2DOptions": 2,
    "Pool2DOptions": 5,
    "FullyConnectedOptions": 8,
    "SoftmaxOptions": 9,
    "ConcatenationOptions": 10,
    "AddOptions": 11,
    "MulOptions": 21,
    "GatherOptions": 23,
    "ReducerOptions": 27,
    "SubOptions": 28,
    "StridedSliceOptions": 32,
    "CastOptions": 37,
    "LessOptions": 41,
    "LeakyReluOptions": 75,
    "WhileOptions": 93,
    "BatchMatMulOptions": 101,
    "GeluOptions": 116,
}
"""Numbers of the options tables in BuiltinOptions of the schema."""

ENDS = ("input", "output")
"""Names of what goes in and what comes out."""

HALF_DEQUANTIZE, CHANNEL_DEQUANTIZE = 3, 2
"""The versions of DEQUANTIZE that take float16, and int8 with a scale for each unit."""


class File:
    """What the graphs of a file share; buffers, codes and graphs are known by their index. Weights are held as
    float16 with `half`; in an `is_int8` file nothing but the ends has a name, which is a tenth of a small one."""

    def __init__(self, half: bool, is_int8: bool) -> None:
        self.write = Writer()
        self.half, self.is_int8 = half, is_int8
        # By rule of the schema buffer 0 is empty and stands for tensors that are no constants.
        self.buffers = [self.write.table("Buffer")]
        self.codes: dict[tuple[int, int], int] = {}
        self.graphs = [0]  # the first one is finished last

    def buffer(self, data: bytes) -> int:
        """Append constant data."""
        return add(self.buffers, self.write.table("Buffer", data=self.write.data(data)))

    def code(self, operator: int, version: int) -> int:
        """An operator code in that version."""
        return self.codes.setdefault((operator, version), len(self.codes))


class Part:
    """One graph. `values` are the tensors of what flows: inputs, then the output of each operator."""

    def __init__(self, file: File) -> None:
        self.file, self.write = file, file.write
        self.tensors: list[int] = []
        self.operators: list[int] = []
        self.values: list[int] = []
        self._constants: dict[Any, int] = {}
        self._alive: list[Operator] = []  # constants are known by identity

    def append(self, placed: Placed, name: str) -> None:
        """An operator, its constants and its output of that name."""
        operator = placed.operator
        self._alive.append(operator)
        constants = [self._constant(operator, place, f"{name}.{place}") for place in range(len(operator.constants))]
        data = [self.values[read] for read in placed.reads]
        inputs = [*constants, *data] if operator.picks else [*data, *constants]
        if operator.loop is None:
            self.values.append(self.flow(name, placed.shape, operator.kind, placed.affine))
            self._operator(operator, inputs, self.values[-1:], operator.fields)
        else:
            condition, body = _graphs(self.file, operator.loop, name)
            outputs = _carried(self, operator.loop)
            self.values.append(outputs[operator.loop.result])
            self._operator(operator, inputs, outputs, {"condition": condition, "body": body})

    def _operator(self, operator: Operator, inputs: list[int], outputs: list[int], fields: dict[str, float]) -> None:
        children = {"inputs": self.write.integers(inputs), "outputs": self.write.integers(outputs)}
        if operator.options:
            children["options"] = self.write.table(operator.options, **fields)
            children["options_type"] = OPTIONS[operator.options]
        index = self.file.code(operator.code, operator.version)
        self.operators.append(self.write.table("Operator", code_index=index, **children))

    def flow(self, name: str, shape: Shape | None, kind: str = "float32", affine: Affine | None = None) -> int:
        """What flows between operators: batch 1 as stored. Without a shape it is one number."""
        children = {"shape": self.write.integers([] if shape is None else [1, *shape])}
        if name in ENDS and shape is not None:  # open to those who resize
            children["shape_signature"] = self.write.integers([-1, *shape])
        if affine is None:
            return self._tensor(name, kind, 0, **children)
        scale, zero_point = np.array([affine.scale], np.float32), np.array([affine.zero_point], np.int64)
        return self._tensor(name, "int8", 0, quantization=self._quantization(scale, zero_point, 0), **children)

    def _constant(self, operator: Operator, place: int, name: str) -> int:
        """Weights that several operators read are written once, whole numbers wherever they are equal."""
        array = operator.constants[place]
        key = (array.shape, array.tobytes()) if array.dtype == np.int32 else id(array)
        if key not in self._constants:
            self._constants[key] = self._written(operator, place, name)
        return self._constants[key]

    def _written(self, operator: Operator, place: int, name: str) -> int:
        array = operator.constants[place]
        if self.file.half and array.dtype == np.float32 and array.ndim > 1:
            return self._halved(array, name)
        if self.file.is_int8 and array.dtype == np.float32 and operator.code == FULLY_CONNECTED and array.ndim > 1:
            return self._rounded(array, name)
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        children = {"shape": self.write.integers(array.shape)}
        if operator.scales:
            axis = CHANNEL_AXIS.get(operator.code, 0) if array.ndim > 1 else 0
            scales = operator.scales[place]
            children["quantization"] = self._quantization(scales, np.zeros(len(scales), np.int64), axis)
        return self._tensor(name, array.dtype.name, self.file.buffer(little.tobytes()), **children)

    def _halved(self, array: NDArray[Any], name: str) -> int:
        """A weight as float16, and the operator that makes it float32 again."""
        with np.errstate(over="ignore"):
            stored = array.astype("<f2")
        if not np.isfinite(stored).all():
            raise ModelError("the net has weights beyond the range of float16: export it as float32")
        shape, data = self.write.integers(array.shape), np.ascontiguousarray(stored).tobytes()
        source = self._tensor(name, "float16", self.file.buffer(data), shape=shape)
        return self._as_float(source, name, shape, HALF_DEQUANTIZE)

    def _rounded(self, array: NDArray[Any], name: str) -> int:
        """A weight (units, inputs) of a float32 product as int8, and the operator that makes it float32 again."""
        values, scale = rounded(array.T)
        stored, shape = np.ascontiguousarray(values.T), self.write.integers(array.shape)
        numbers = self._quantization(scale, np.zeros(len(scale), np.int64), 0)
        source = self._tensor(name, "int8", self.file.buffer(stored.tobytes()), shape=shape, quantization=numbers)
        return self._as_float(source, name, shape, CHANNEL_DEQUANTIZE)

    def _as_float(self, source: int, name: str, shape: int, version: int) -> int:
        result = self._tensor(f"{name}.float32", "float32", 0, shape=shape)
        self._operator(Operator(DEQUANTIZE, version=version), [source], [result], {})
        return result

    def _quantization(self, scale: NDArray[np.float32], zero_point: NDArray[np.int64], axis: int) -> int:
        numbers = {"scale": self.write.numbers(scale), "zero_point": self.write.numbers(zero_point)}
        return self.write.table("QuantizationParameters", axis=axis, **numbers)

    def _tensor(self, name: str, kind: str, buffer: int, **children: int) -> int:
        if name in ENDS or not self.file.is_int8:
            children["name"] = self.write.text(name)
        return add(self.tensors, self.write.table("Tensor", type=TENSOR_TYPES[kind], buffer=buffer, **children))

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        """The graph between those tensors."""
        return self.write.table(
            "SubGraph",
            tensors=self.write.vector(self.tensors),
            inputs=self.write.integers(inputs),
            outputs=self.write.integers(outputs),
            operators=self.write.vector(self.operators),
        )


def _graphs(file: File, loop: Loop, name: str) -> tuple[int, int]:
    """Append whether a loop goes on, and what it does; their places among the graphs."""
    goes_on, body = Part(file), Part(file)
    goes_on.values += _carried(goes_on, loop)
    less = Operator(LESS, (np.array(loop.count, np.int32),), "LessOptions", kind="bool")
    goes_on.append(Placed(less, (0,), None), f"{name}.goes_on")
    ends = goes_on.values[:-1], goes_on.values[-1:]
    condition = add(file.graphs, goes_on.finish(*ends))
    body.values += _carried(body, loop)
    count = len(body.values)
    for index, operator in enumerate(loop.body):
        body.append(Placed(operator, operator.reads, operator.shape), step_name(name, index))
    return condition, add(file.graphs, body.finish(body.values[:count], [body.values[g] for g in loop.gives]))


def _carried(part: Part, loop: Loop) -> list[int]:
    """Tensors for what a loop hands on to itself."""
    return [part.flow("counter", None, "int32"), *(part.flow("carried", shape) for shape in loop.shapes)]


def step_name(name: str, index: int) -> str:
    """Of what an operator in the loop of that name gives."""
    return f"{name}.step.{index}"


def add(items: list[int], item: int) -> int:
    """Append, and say where."""
    items.append(item)
    return len(items) - 1

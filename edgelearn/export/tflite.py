# SPDX-License-Identifier: Apache-2.0
"""Primitives as a TFLite model, without TensorFlow: one table entry per primitive.

Every operator is written as its version 1, which all runtimes know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.export import primitives
from edgelearn.export.primitives import Program, fold_batchnorm
from edgelearn.tflite_schema import Writer

Shape = tuple[int, ...]

ADD, FULLY_CONNECTED, LOGISTIC, MUL, RELU = 0, 9, 14, 18, 19
RESHAPE, SOFTMAX, TANH, TRANSPOSE, LEAKY_RELU = 22, 25, 28, 39, 98
"""Operator codes: BuiltinOperator of the schema."""

OPTIONS = {
    "FullyConnectedOptions": 8,
    "SoftmaxOptions": 9,
    "AddOptions": 11,
    "MulOptions": 21,
    "LeakyReluOptions": 75,
}
"""Numbers of the options tables in BuiltinOptions of the schema."""

TENSOR_TYPES = {"float32": 0, "int32": 2}
SCHEMA_VERSION = 3
FUSED = "fused_activation"
FUSED_NONE, FUSED_RELU = 0, 1


@dataclass(frozen=True)
class _Operator:
    """A TFLite operator: code, constants that follow the data among its inputs, options table and fields."""

    code: int
    constants: tuple[NDArray[Any], ...] = ()
    options: str = ""
    fields: dict[str, float] = field(default_factory=dict)


def _reshape(step: primitives.Reshape) -> _Operator:
    return _Operator(RESHAPE, (np.array([-1, *step.shape], np.int32),))


def _matmul(step: primitives.MatMul) -> _Operator:
    # Version 1 knows no product without a bias.
    bias = np.zeros(step.weight.shape[1], np.float32) if step.bias is None else step.bias
    return _Operator(FULLY_CONNECTED, (step.weight.T, bias), "FullyConnectedOptions", {FUSED: FUSED_NONE})


_OPERATORS: dict[type, Callable[[Any], _Operator]] = {
    primitives.Reshape: _reshape,
    primitives.Transpose: lambda step: _Operator(TRANSPOSE, (np.array([0, *(a + 1 for a in step.order)], np.int32),)),
    primitives.Mul: lambda step: _Operator(MUL, (step.factor,), "MulOptions", {FUSED: FUSED_NONE}),
    primitives.Add: lambda step: _Operator(ADD, (step.term,), "AddOptions", {FUSED: FUSED_NONE}),
    primitives.MatMul: _matmul,
    primitives.Relu: lambda step: _Operator(RELU),
    primitives.LeakyRelu: lambda step: _Operator(LEAKY_RELU, (), "LeakyReluOptions", {"alpha": step.slope}),
    primitives.Tanh: lambda step: _Operator(TANH),
    primitives.Sigmoid: lambda step: _Operator(LOGISTIC),
    primitives.Softmax: lambda step: _Operator(SOFTMAX, (), "SoftmaxOptions", {"beta": 1.0}),
}


def encode(program: Program, metadata: Mapping[str, str], version: str) -> bytes:
    """A TFLite file from 'input' (1, *input_shape) to 'output' (1, outputs), float32, signature
    'serving_default'; resize_tensor_input gives it any batch. Equal arguments give equal bytes; `version` is
    that of edgelearn."""
    return _Model(fold_batchnorm(program)).finish(metadata, f"edgelearn {version}")


def _placed(program: Program) -> list[tuple[_Operator, Shape]]:
    """Operators with the shape of their outputs; a relu becomes a field of the one before it where it can."""
    placed: list[tuple[_Operator, Shape]] = []
    for step, shape in zip(program.steps, program.shapes[1:], strict=True):
        operator = _OPERATORS[type(step)](step)
        if operator.code == RELU and placed and FUSED in placed[-1][0].fields:
            operator = replace(placed.pop()[0], fields={FUSED: FUSED_RELU})
        placed.append((operator, shape))
    return placed


class _Model:
    """The lists of a TFLite file while it is written; tensors, buffers and codes are known by their index."""

    def __init__(self, program: Program) -> None:
        self.write = Writer()
        # By rule of the schema buffer 0 is empty and stands for tensors that are no constants.
        self.buffers = [self.write.table("Buffer")]
        self.tensors: list[int] = []
        self.codes: dict[int, int] = {}
        self.operators: list[int] = []
        placed = _placed(program)
        self.output = self._value("input", program.input_shape)
        for index, (operator, shape) in enumerate(placed):
            name = "output" if index == len(placed) - 1 else f"value_{index + 1}"
            self._append(operator, shape, name)

    def _append(self, operator: _Operator, shape: Shape, name: str) -> None:
        constants = [self._constant(f"{name}.{i}", a) for i, a in enumerate(operator.constants)]
        inputs = self.write.integers([self.output, *constants])
        self.output = self._value(name, shape)
        children = {"inputs": inputs, "outputs": self.write.integers([self.output])}
        if operator.options:
            children["options"] = self.write.table(operator.options, **operator.fields)
            children["options_type"] = OPTIONS[operator.options]
        index = self.codes.setdefault(operator.code, len(self.codes))
        self.operators.append(self.write.table("Operator", code_index=index, **children))

    def _constant(self, name: str, array: NDArray[Any]) -> int:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        shape = self.write.integers(array.shape)
        return self._tensor(name, array.dtype.name, self._buffer(little.tobytes()), shape=shape)

    def _value(self, name: str, shape: Shape) -> int:
        """What flows between operators: batch 1 as stored, open (-1) to those who resize."""
        shapes = {
            "shape": self.write.integers([1, *shape]),
            "shape_signature": self.write.integers([-1, *shape]),
        }
        return self._tensor(name, "float32", 0, **shapes)

    def _tensor(self, name: str, kind: str, buffer: int, **shapes: int) -> int:
        label = self.write.text(name)
        table = self.write.table("Tensor", type=TENSOR_TYPES[kind], buffer=buffer, name=label, **shapes)
        return _add(self.tensors, table)

    def _buffer(self, data: bytes) -> int:
        return _add(self.buffers, self.write.table("Buffer", data=self.write.data(data)))

    def finish(self, metadata: Mapping[str, str], description: str) -> bytes:
        entries = [self._entry(name, value) for name, value in metadata.items()]
        children = {
            "operator_codes": self.write.vector([self._code(code) for code in self.codes]),
            "subgraphs": self.write.vector([self._subgraph()]),
            "description": self.write.text(description),
            "buffers": self.write.vector(self.buffers),
            "metadata": self.write.vector(entries),
            "signature_defs": self.write.vector([self._signature()]),
        }
        return self.write.finish(self.write.table("Model", version=SCHEMA_VERSION, **children))

    def _entry(self, name: str, value: str) -> int:
        buffer = self._buffer(value.encode())
        return self.write.table("Metadata", name=self.write.text(name), buffer=buffer)

    def _code(self, code: int) -> int:
        # The first readers of the format know only the one-byte code.
        return self.write.table("OperatorCode", short_code=min(code, 127), version=1, code=code)

    def _subgraph(self) -> int:
        return self.write.table(
            "SubGraph",
            tensors=self.write.vector(self.tensors),
            inputs=self.write.integers([0]),
            outputs=self.write.integers([self.output]),
            operators=self.write.vector(self.operators),
        )

    def _signature(self) -> int:
        return self.write.table(
            "SignatureDef",
            inputs=self._ends([("input", 0)]),
            outputs=self._ends([("output", self.output)]),
            key=self.write.text("serving_default"),
        )

    def _ends(self, tensors: Iterable[tuple[str, int]]) -> int:
        maps = [self.write.table("TensorMap", name=self.write.text(n), tensor=t) for n, t in tensors]
        return self.write.vector(maps)


def _add(items: list[int], item: int) -> int:
    items.append(item)
    return len(items) - 1

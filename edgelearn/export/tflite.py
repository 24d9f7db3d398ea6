# SPDX-License-Identifier: Apache-2.0
"""A program as a TFLite file, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgelearn.export import tflite_metadata
from edgelearn.export.operators import Operator
from edgelearn.export.passes import fold_batchnorm, simplify
from edgelearn.export.primitives import Program
from edgelearn.export.quantize import Quantized, unquantized
from edgelearn.export.tflite_graph import File, Part, step_name
from edgelearn.export.tflite_placing import Placed, place

SCHEMA_VERSION = 3


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
    found: dict[str, NDArray[Any]] = {}
    written = set()
    for name, operator in _named(zip(_names(placed), (each.operator for each in placed), strict=True)):
        for index, array in enumerate(operator.constants):
            if id(array) not in written:
                found[f"{name}.{index}"] = array
            written.add(id(array))
    return found


def _named(operators: Iterable[tuple[str, Operator]]) -> Iterator[tuple[str, Operator]]:
    """Those in loops as well."""
    for name, operator in operators:
        yield name, operator
        if operator.loop is not None:
            yield from ((step_name(name, index), inner) for index, inner in enumerate(operator.loop.body))


def _names(placed: Sequence[Placed]) -> list[str]:
    """Of what the operators give."""
    return [*(f"value_{index}" for index in range(1, len(placed))), "output"]


class _Model:
    """The lists of a TFLite file while it is written."""

    def __init__(self, net: Quantized, half: bool = False) -> None:
        self.file = File(half, any(net.values))
        self.write = self.file.write
        self.entries: list[int] = []
        placed, part = place(net), Part(self.file)
        first = net.values[0] if net.io == "int8" else None
        part.values.append(part.flow("input", net.program.input_shape, affine=first))
        for each, name in zip(placed, _names(placed), strict=True):
            part.append(each, name)
        self.inputs, self.outputs = part.values[:1], part.values[-1:]
        self.file.graphs[0] = part.finish(self.inputs, self.outputs)

    def finish(self, metadata: Mapping[str, str], description: str) -> bytes:
        for name, value in metadata.items():
            self.entry(name, value.encode())
        children = {
            "operator_codes": self.write.vector([self._code(*code) for code in self.file.codes]),
            "subgraphs": self.write.vector(self.file.graphs),
            "description": self.write.text(description),
            "buffers": self.write.vector(self.file.buffers),
            "metadata": self.write.vector(self.entries),
            "signature_defs": self.write.vector([self._signature()]),
        }
        return self.write.finish(self.write.table("Model", version=SCHEMA_VERSION, **children))

    def entry(self, name: str, value: bytes) -> None:
        """Add to the metadata."""
        buffer = self.file.buffer(value)
        self.entries.append(self.write.table("Metadata", name=self.write.text(name), buffer=buffer))

    def _code(self, code: int, version: int) -> int:
        # The first readers of the format know only the one-byte code.
        return self.write.table("OperatorCode", short_code=min(code, 127), version=version, code=code)

    def _signature(self) -> int:
        return self.write.table(
            "SignatureDef",
            inputs=self._ends([("input", self.inputs[0])]),
            outputs=self._ends([("output", self.outputs[0])]),
            key=self.write.text("serving_default"),
        )

    def _ends(self, tensors: Iterable[tuple[str, int]]) -> int:
        maps = [self.write.table("TensorMap", name=self.write.text(n), tensor=t) for n, t in tensors]
        return self.write.vector(maps)

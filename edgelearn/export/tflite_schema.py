# SPDX-License-Identifier: Apache-2.0
"""The part of the TFLite schema (version 3) that is written and read here, and tables of it as flatbuffers.

Writing needs the flatbuffers package, reading nothing: a board with only a TFLite runtime can read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHILD = "UOffsetTRelative"

LAYOUTS: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {
        "version": (0, "Uint32"),
        "operator_codes": (1, _CHILD),
        "subgraphs": (2, _CHILD),
        "description": (3, _CHILD),
        "buffers": (4, _CHILD),
        "metadata": (6, _CHILD),
        "signature_defs": (7, _CHILD),
    },
    "OperatorCode": {"short_code": (0, "Int8"), "version": (2, "Int32"), "code": (3, "Int32")},
    "SubGraph": {
        "tensors": (0, _CHILD),
        "inputs": (1, _CHILD),
        "outputs": (2, _CHILD),
        "operators": (3, _CHILD),
    },
    "Tensor": {
        "shape": (0, _CHILD),
        "type": (1, "Int8"),
        "buffer": (2, "Uint32"),
        "name": (3, _CHILD),
        "quantization": (4, _CHILD),
        "shape_signature": (7, _CHILD),
    },
    "QuantizationParameters": {"scale": (2, _CHILD), "zero_point": (3, _CHILD), "axis": (6, "Int32")},
    "Operator": {
        "code_index": (0, "Uint32"),
        "inputs": (1, _CHILD),
        "outputs": (2, _CHILD),
        "options_type": (3, "Uint8"),
        "options": (4, _CHILD),
    },
    "Buffer": {"data": (0, _CHILD)},
    "Metadata": {"name": (0, _CHILD), "buffer": (1, "Uint32")},
    "SignatureDef": {"inputs": (0, _CHILD), "outputs": (1, _CHILD), "key": (2, _CHILD)},
    "TensorMap": {"name": (0, _CHILD), "tensor": (1, "Uint32")},
    "Conv2DOptions": {
        "padding": (0, "Int8"),
        "stride_w": (1, "Int32"),
        "stride_h": (2, "Int32"),
        "fused_activation": (3, "Int8"),
    },
    "DepthwiseConv2DOptions": {
        "padding": (0, "Int8"),
        "stride_w": (1, "Int32"),
        "stride_h": (2, "Int32"),
        "depth_multiplier": (3, "Int32"),
        "fused_activation": (4, "Int8"),
    },
    "Pool2DOptions": {
        "padding": (0, "Int8"),
        "stride_w": (1, "Int32"),
        "stride_h": (2, "Int32"),
        "filter_width": (3, "Int32"),
        "filter_height": (4, "Int32"),
        "fused_activation": (5, "Int8"),
    },
    "FullyConnectedOptions": {"fused_activation": (0, "Int8"), "keep_num_dims": (2, "Bool")},
    "ConcatenationOptions": {"axis": (0, "Int32"), "fused_activation": (1, "Int8")},
    "StridedSliceOptions": {
        "begin_mask": (0, "Int32"),
        "end_mask": (1, "Int32"),
        "shrink_axis_mask": (4, "Int32"),
    },
    "SoftmaxOptions": {"beta": (0, "Float32")},
    "AddOptions": {"fused_activation": (0, "Int8")},
    "SubOptions": {"fused_activation": (0, "Int8")},
    "MulOptions": {"fused_activation": (0, "Int8")},
    "ReducerOptions": {"keep_dims": (0, "Bool")},
    "GeluOptions": {"approximate": (0, "Bool")},
    "LessOptions": {},
    "WhileOptions": {"condition": (0, "Int32"), "body": (1, "Int32")},
    "LeakyReluOptions": {"alpha": (0, "Float32")},
    "GatherOptions": {"axis": (0, "Int32")},
    "CastOptions": {"from_type": (0, "Int8"), "to_type": (1, "Int8")},
    "BatchMatMulOptions": {"adj_x": (0, "Bool"), "adj_y": (1, "Bool")},
    "ModelMetadata": {
        "name": (0, _CHILD),
        "description": (1, _CHILD),
        "subgraphs": (3, _CHILD),
        "min_parser_version": (7, _CHILD),
    },
    "SubGraphMetadata": {"inputs": (2, _CHILD), "outputs": (3, _CHILD)},
    "TensorMetadata": {
        "name": (0, _CHILD),
        "content": (3, _CHILD),
        "process_units": (4, _CHILD),
        "associated_files": (6, _CHILD),
    },
    "Content": {"properties_type": (0, "Uint8"), "properties": (1, _CHILD)},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": (0, "Int8")},
    "ProcessUnit": {"options_type": (0, "Uint8"), "options": (1, _CHILD)},
    "NormalizationOptions": {"mean": (0, _CHILD), "std": (1, _CHILD)},
    "AssociatedFile": {"name": (0, _CHILD), "type": (2, "Int8")},
}
"""Tables of the schema, and of the one for metadata: field -> (slot, type)."""

TENSOR_TYPES = {"float32": 0, "float16": 1, "int32": 2, "bool": 6, "int8": 9}
"""Numbers of TensorType of the schema."""

FILE_IDENTIFIER, METADATA_IDENTIFIER = b"TFL3", b"M001"
ALIGNMENT = 16
"""Of constants, in bytes: runtimes map the file and read them in place."""


class Writer:
    """Flatbuffers are built from the inside out: every method writes one thing and returns its offset. Equal things
    are written once: what reads them cannot tell."""

    def __init__(self) -> None:
        import flatbuffers

        self._builder = flatbuffers.Builder(1024)
        self._written: dict[Any, int] = {}

    def table(self, name: str, /, **values: float) -> int:
        """A table of LAYOUTS; children are given as their offsets. Zero is what readers find in a field left out."""
        return self._once((name, *values.items()), lambda: self._table(name, values))

    def _once(self, key: Hashable, write: Callable[[], int]) -> int:
        if key not in self._written:
            self._written[key] = int(write())
        return self._written[key]

    def _table(self, name: str, values: dict[str, float]) -> int:
        layout = LAYOUTS[name]
        self._builder.StartObject(1 + max((slot for slot, _ in layout.values()), default=-1))
        for key, value in values.items():
            slot, kind = layout[key]
            getattr(self._builder, f"Prepend{kind}Slot")(slot, value, 0)
        return int(self._builder.EndObject())

    def integers(self, values: Sequence[int]) -> int:
        """A vector of int32."""
        return self.numbers(np.array(values, np.int32))

    def numbers(self, values: NDArray[Any]) -> int:
        """A vector of the array's type."""
        little = values.astype(values.dtype.newbyteorder("<"))
        return self._once((little.dtype.str, little.tobytes()), lambda: self._builder.CreateNumpyVector(little))

    def text(self, value: str) -> int:
        """A string."""
        return self._once(value, lambda: self._builder.CreateString(value))

    def data(self, value: bytes) -> int:
        """A vector of bytes that begins at a multiple of ALIGNMENT in the file."""
        self._builder.Prep(ALIGNMENT, len(value))
        return int(self._builder.CreateByteVector(value))

    def vector(self, children: Sequence[int]) -> int:
        """A vector of tables."""
        self._builder.StartVector(4, len(children), 4)
        for child in reversed(children):
            self._builder.PrependUOffsetTRelative(child)
        return int(self._builder.EndVector())

    def finish(self, root: int, identifier: bytes = FILE_IDENTIFIER) -> bytes:
        """The file whose root is the table at that offset."""
        self._builder.Finish(root, identifier)
        return bytes(self._builder.Output())


def read_metadata(file: bytes) -> dict[str, str]:
    """The metadata entries of a TFLite file that are UTF-8 text, and no table themselves: name -> text.

    Raises:
        ValueError: no TFLite file, or one whose offsets lead out of it.
    """
    if file[4:8] != FILE_IDENTIFIER:
        raise ValueError(f"no {FILE_IDENTIFIER.decode()} mark")
    try:
        return dict(_entries(file))
    except (struct.error, IndexError) as error:
        raise ValueError("offsets lead out of the file") from error


def _entries(file: bytes) -> Iterator[tuple[str, str]]:
    model = _follow(file, 0)
    buffers = _tables(file, model, "Model", "buffers")
    for entry in _tables(file, model, "Model", "metadata"):
        name = _bytes(file, _place(file, entry, "Metadata", "name"))
        index = _uint32(file, _place(file, entry, "Metadata", "buffer"))
        value = _bytes(file, _place(file, buffers[index], "Buffer", "data"))
        if value[4:8] == METADATA_IDENTIFIER:
            continue
        with suppress(UnicodeDecodeError):  # other tools keep binary blobs here
            yield name.decode(), value.decode()


def read_constants(file: bytes) -> dict[str, NDArray[Any]]:
    """The constant tensors of a TFLite file of known number types: name, or where it lies -> array in its shape.

    Raises:
        ValueError: no TFLite file, or one whose offsets lead out of it.
    """
    if file[4:8] != FILE_IDENTIFIER:
        raise ValueError(f"no {FILE_IDENTIFIER.decode()} mark")
    try:
        return dict(_constants(file))
    except (struct.error, IndexError) as error:
        raise ValueError("offsets lead out of the file") from error


def _constants(file: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    model, kinds = _follow(file, 0), {number: name for name, number in TENSOR_TYPES.items()}
    buffers = _tables(file, model, "Model", "buffers")
    for part in _tables(file, model, "Model", "subgraphs"):
        for tensor in _tables(file, part, "SubGraph", "tensors"):
            data = _bytes(file, _place(file, buffers[_number(file, tensor, "Tensor", "buffer")], "Buffer", "data"))
            place = _place(file, tensor, "Tensor", "type")
            kind = kinds.get(file[place] if place else 0)
            if data and kind:
                shape = np.frombuffer(_bytes(file, _place(file, tensor, "Tensor", "shape"), 4), "<i4")
                array = np.frombuffer(data, np.dtype(kind).newbyteorder("<")).reshape(shape)
                name = _bytes(file, _place(file, tensor, "Tensor", "name")).decode()
                yield name or f"tensor {tensor}", array


def _number(file: bytes, table: int, name: str, key: str) -> int:
    return _uint32(file, _place(file, table, name, key))


def _uint32(file: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", file, at)[0]) if at else 0


def _follow(file: bytes, at: int) -> int:
    """Where the offset stored at `at` leads."""
    return at + int(struct.unpack_from("<I", file, at)[0])


def _place(file: bytes, table: int, name: str, key: str) -> int:
    """Where a field's value or offset is stored, 0 if the table goes without."""
    vtable = table - int(struct.unpack_from("<i", file, table)[0])
    entry = 4 + 2 * LAYOUTS[name][key][0]
    if entry >= struct.unpack_from("<H", file, vtable)[0]:
        return 0
    step = int(struct.unpack_from("<H", file, vtable + entry)[0])
    return table + step if step else 0


def _tables(file: bytes, table: int, name: str, key: str) -> list[int]:
    place = _place(file, table, name, key)
    if not place:
        return []
    start = _follow(file, place)
    return [_follow(file, start + 4 + 4 * i) for i in range(_uint32(file, start))]


def _bytes(file: bytes, place: int, each: int = 1) -> bytes:
    """A vector of items of that many bytes."""
    if not place:
        return b""
    start = _follow(file, place)
    return file[start + 4 : start + 4 + each * _uint32(file, start)]

# SPDX-License-Identifier: Apache-2.0
"""Tensors as the Open Inference Protocol v2 writes them: JSON, and raw bytes after it by its binary tensor extension.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and its extension
`binary_tensor_data`. The same encoding carries samples and their labels.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from edgelearn.daemon.http import HttpError, Response, parsed

HEADER = "inference-header-content-length"
OCTETS = "application/octet-stream"

DATATYPES = {
    "BOOL": "?",
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
"""Names of the protocol and of numpy; BYTES is text beside them."""

_MOST_AXES = 8


@dataclass(frozen=True)
class Tensor:
    """A named array: numbers, or str of any length as object."""

    name: str
    values: NDArray[Any]

    @property
    def datatype(self) -> str:
        """Its name in the protocol."""
        if self.values.dtype.kind in "OU":
            return "BYTES"
        found = {np.dtype(code): name for name, code in DATATYPES.items()}
        return found[self.values.dtype]


@dataclass(frozen=True)
class Message:
    """A request or response: what its JSON says, and its tensors."""

    about: dict[str, Any]
    tensors: dict[str, Tensor]


def decode(content: bytes, headers: Mapping[str, str], key: str = "inputs") -> Message:
    """A message whose tensors are under `key`.

    Raises:
        HttpError: 400, it is none; the sentence names what is wrong.
    """
    length = headers.get(HEADER)
    if length is not None and not (length.isdigit() and len(length) < 10 and int(length) <= len(content)):
        raise HttpError(400, f"Inference-Header-Content-Length {length[:40]} does not fit the body: correct it")
    cut = len(content) if length is None else int(length)
    about = parsed(content[:cut])
    listed = about.get(key) if isinstance(about, dict) else None
    if not isinstance(listed, list) or not listed:
        raise HttpError(400, f"the body must be a JSON object with a list '{key}' of tensors: send that")
    tensors, rest = {}, memoryview(content)[cut:]
    for item in listed:
        tensor, rest = _decoded(item, rest)
        if tensor.name in tensors:
            raise HttpError(400, f"two tensors are called {tensor.name}: name each once")
        tensors[tensor.name] = tensor
    if len(rest):
        raise HttpError(400, f"{len(rest)} bytes follow the last tensor: correct the sizes")
    return Message(about, tensors)


def _decoded(item: Any, rest: memoryview) -> tuple[Tensor, memoryview]:
    """One tensor, and the bytes after it."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise HttpError(400, "each tensor must be an object with name, datatype, shape and data: send that")
    name, datatype, shape = item["name"][:80], item.get("datatype"), item.get("shape")
    if datatype not in (*DATATYPES, "BYTES"):
        raise HttpError(400, f"tensor {name} has datatype {str(datatype)[:40]}: use {', '.join(DATATYPES)} or BYTES")
    if not _is_shape(shape):
        raise HttpError(400, f"tensor {name} has no shape of whole numbers: give one, as [1, 784]")
    parameters = item.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    count = math.prod(shape)
    if size is None:
        return Tensor(name, _listed(name, datatype, item.get("data"), count).reshape(shape)), rest
    if type(size) is not int or not 0 <= size <= len(rest):
        raise HttpError(400, f"tensor {name} wants {str(size)[:40]} bytes, {len(rest)} are left: correct its size")
    values = _texts(name, rest[:size]) if datatype == "BYTES" else _raw(name, datatype, rest[:size])
    return Tensor(name, _counted(name, values, count).reshape(shape)), rest[size:]


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    if not isinstance(shape, list) or not 0 < len(shape) <= _MOST_AXES:
        return False
    return all(type(side) is int and 0 <= side < 1 << 40 for side in shape) and math.prod(shape) < 1 << 40


def _counted(name: str, values: NDArray[Any], count: int) -> NDArray[Any]:
    if values.size != count:
        raise HttpError(400, f"tensor {name} has {values.size} values, its shape {count}: correct one of them")
    return values


def _raw(name: str, datatype: str, content: memoryview) -> NDArray[Any]:
    dtype = np.dtype(DATATYPES[datatype])
    if len(content) % dtype.itemsize:
        raise HttpError(400, f"tensor {name} has {len(content)} bytes, no multiple of {dtype.itemsize}: correct it")
    return np.frombuffer(content, dtype)


def _texts(name: str, content: memoryview) -> NDArray[Any]:
    """Elements of four bytes of length and UTF-8."""
    found, place = [], 0
    while place < len(content):
        (length,) = struct.unpack("<I", bytes(content[place : place + 4]).ljust(4, b"\xff"))
        place += 4 + length
        if place > len(content):
            raise HttpError(400, f"tensor {name} ends within a text: give each four bytes of length, then UTF-8")
        found.append(_text(name, bytes(content[place - length : place])))
    return np.array(found, object)


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise HttpError(400, f"tensor {name} holds text that is not UTF-8: encode it so") from error


def _listed(name: str, datatype: str, data: Any, count: int) -> NDArray[Any]:
    """Values from JSON, nested or flat."""
    if not isinstance(data, list):
        raise HttpError(400, f"tensor {name} has no list of data: give one, or parameters.binary_data_size")
    flat = _flat(name, data)
    if datatype == "BYTES":
        if not all(isinstance(value, str) for value in flat):
            raise HttpError(400, f"tensor {name} of BYTES must hold text: send strings")
        return _counted(name, np.array(flat, object), count)
    is_float = datatype.startswith("FP")
    if not all(isinstance(value, (int, float) if is_float else int) for value in flat):
        kind = "numbers" if is_float else "whole numbers"
        raise HttpError(400, f"tensor {name} of {datatype} must hold {kind}: send them, or use another datatype")
    _counted(name, np.empty(len(flat), np.bool_), count)
    try:
        with np.errstate(over="raise"):
            return np.array(flat, DATATYPES[datatype])
    except (OverflowError, ValueError, FloatingPointError) as error:
        raise HttpError(400, f"tensor {name} holds values beyond {datatype}: use a wider datatype") from error


def _flat(name: str, data: list[Any]) -> list[Any]:
    for _ in range(_MOST_AXES):
        if not any(isinstance(item, list) for item in data):
            return data
        if not all(isinstance(item, list) for item in data):
            raise HttpError(400, f"tensor {name} mixes lists and values: nest all of its data alike")
        data = [value for item in data for value in item]
    raise HttpError(400, f"tensor {name} is nested deeper than {_MOST_AXES} lists: flatten it")


def encode(about: Mapping[str, Any], tensors: list[Tensor], binary: set[str], key: str = "outputs") -> Response:
    """A message as a response; tensors named in `binary` follow the JSON as raw bytes."""
    listed, parts = [], []
    for tensor in tensors:
        item: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.values.shape)}
        if tensor.name in binary:
            parts.append(_bytes(tensor.values))
            item["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            item["data"] = tensor.values.reshape(-1).tolist()
        listed.append(item)
    head = json.dumps({**about, key: listed}, allow_nan=False, separators=(",", ":")).encode()
    if not parts:
        return Response(content=head)
    return Response(content=b"".join([head, *parts]), kind=OCTETS, headers={HEADER.title(): str(len(head))})


def _bytes(values: NDArray[Any]) -> bytes:
    if values.dtype.kind not in "OU":
        return np.ascontiguousarray(values).tobytes()
    texts = [str(value).encode() for value in values.reshape(-1)]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)

# SPDX-License-Identifier: Apache-2.0
"""Arrays as the client sends and reads them: by the binary tensor extension of the Open Inference Protocol."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgelearn.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def encoded(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any] | None = None) -> tuple[bytes, list[bytes]]:
    """A message of the Open Inference Protocol with its binary tensor extension."""
    listed, parts = [], []
    for name, values in tensors.items():
        datatype, content = _bytes(name, values)
        parts.append(content)
        parameters = {"binary_data_size": len(content)}
        listed.append({"name": name, "datatype": datatype, "shape": list(values.shape), "parameters": parameters})
    return json.dumps({**(about or {}), "inputs": listed}).encode(), parts


def _bytes(name: str, values: NDArray[Any]) -> tuple[str, bytes]:
    """The datatype and the bytes of an array."""
    kind, bits = values.dtype.kind, 8 * values.dtype.itemsize
    if kind in "OU":
        texts = [str(value).encode() for value in values.reshape(-1).tolist()]
        return "BYTES", b"".join(struct.pack("<I", len(text)) + text for text in texts)
    names = {"b": "BOOL", "u": f"UINT{bits}", "i": f"INT{bits}", "f": f"FP{bits}"}
    if kind not in names or bits > 64:
        raise DataError(f"{name} holds {values.dtype}: turn it into numbers or text")
    return names[kind], values.astype(values.dtype.newbyteorder("<")).tobytes()


def decoded(listed: list[dict[str, Any]], rest: bytes) -> dict[str, Any]:
    """Arrays by name, of tensors whose bytes follow."""
    import numpy as np

    found, place = {}, 0
    for item in listed:
        content = rest[place : place + item["parameters"]["binary_data_size"]]
        place += len(content)
        found[item["name"]] = _texts(content) if item["datatype"] == "BYTES" else np.frombuffer(content, "<f4")
        found[item["name"]] = found[item["name"]].reshape(item["shape"])
    return found


def _texts(content: bytes) -> NDArray[Any]:
    import numpy as np

    texts, place = [], 0
    while place < len(content):
        (length,) = struct.unpack_from("<I", content, place)
        texts.append(content[place + 4 : place + 4 + length].decode())
        place += 4 + length
    return np.array(texts, object)

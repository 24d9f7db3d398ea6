# SPDX-License-Identifier: Apache-2.0
"""Named float32 arrays and text in one plain safetensors file, as other tools read it: adapters, read-outs.

Models of edgelearn are written by modelfile.py, which holds more and checks more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.durable import replacing, write_through
from edgelearn.errors import ModelError

FloatArray = NDArray[np.float32]

_ALIGN = 8
"""The header is padded with blanks to a multiple of it, so that readers can map the data in place."""


def write(path: str | Path, tensors: Mapping[str, FloatArray], metadata: Mapping[str, str]) -> None:
    """Write the arrays, in their order, and the text entries; the name appears when all is on disk.

    Raises:
        ModelError: an array that is not finite.
        OutputError: it cannot be written; an older file is untouched.
    """
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise ModelError(f"'{name}' is not finite, so it is not worth keeping: adapt again at a lower rate")
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + 4 * array.size
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGN)
    parts = [np.ascontiguousarray(array, "<f4").tobytes() for array in tensors.values()]
    with replacing(Path(path)) as partial:
        write_through(partial, [len(text).to_bytes(8, "little"), text, *parts])


def read(path: str | Path) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """The arrays, as writable copies, and the text entries.

    Raises:
        ModelError: no such file, damaged, or arrays that are not finite float32.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a path may hold a zero
        why = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} cannot be read ({why}): check the path") from error
    try:
        return _parsed(content)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(f"{path} is no safetensors file of float32 arrays or is damaged: fetch it again") from error


def _parsed(content: bytes) -> tuple[dict[str, FloatArray], dict[str, str]]:
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:start].decode("utf-8"))
    metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
    return {name: _tensor(content, start, about) for name, about in header.items()}, metadata


def _tensor(content: bytes, start: int, about: dict[str, Any]) -> FloatArray:
    first, last = about["data_offsets"]
    if about["dtype"] != "F32" or not 0 <= first <= last <= len(content) - start:
        raise ValueError("no float32, or it leads out of the file")
    values = np.frombuffer(content, "<f4", (last - first) // 4, start + first)
    if not np.isfinite(values).all():
        raise ValueError("not finite")
    return values.reshape(about["shape"]).astype(np.float32)

# SPDX-License-Identifier: Apache-2.0
"""ONNX files in onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.export.int8 import Affine
from edgelearn.export.runtimes.runtime import BATCH, Runtime, damaged, ends

QUANTIZATION = "quantization"
"""Entry of the metadata of an int8 ONNX file: JSON, "input" and "output", each with scale and zero_point."""

_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


def load(data: bytes, name: str, threads: int | None) -> list[Runtime]:
    """An ONNX file of these bytes, called `name` in errors; `threads` None: as many as onnxruntime likes.

    Raises:
        ModelError: a damaged file, one whose input is no batch of numbers, or no onnxruntime here.
    """
    try:
        runtime = import_module("onnxruntime")
    except ImportError as error:
        raise ModelError("onnxruntime is not installed: pip install 'edgelearn[onnx]', or export unverified") from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # fatal: what fails comes as an exception, not as text on stderr
    try:
        # Falling back would mean to print and try the same provider again.
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's own errors have no common class
        raise damaged(name, error) from error
    return [_runtime(session, name)]


def _runtime(session: Any, name: str) -> Runtime:
    source, output = ends(session.get_inputs(), session.get_outputs(), name)
    if source.type not in _TYPES or not source.shape:
        raise ModelError(f"{name} reads {source.type} {source.shape}: export it with batches of numbers as input")
    batch, *shape = map(_side, source.shape)

    def invoke(x: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = session.run([output.name], {source.name: x})[0]
        return result

    metadata = dict(session.get_modelmeta().custom_metadata_map)
    dtype = np.dtype(_TYPES[source.type])
    whole = {"entering": _said(metadata, "input"), "leaving": _said(metadata, "output")}
    outputs = _side(output.shape[-1]) if output.shape else -1
    return Runtime(
        "onnxruntime", tuple(shape), metadata, dtype, BATCH if batch < 1 else batch, invoke, outputs, **whole
    )


def _side(said: int | str | None) -> int:
    """Of a shape: a number, or a name or nothing where it is open."""
    return said if isinstance(said, int) else -1


def _said(metadata: Mapping[str, str], end: str) -> Affine | None:
    """What the integers of an end stand for, by the metadata: ONNX has no field for it."""
    try:
        said = json.loads(metadata.get(QUANTIZATION, "{}")).get(end)
        return None if said is None else Affine(float(said["scale"]), int(said["zero_point"]))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(f"the file's entry '{QUANTIZATION}' is damaged ({error}): export it again") from error

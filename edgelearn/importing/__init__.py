# SPDX-License-Identifier: Apache-2.0
"""Nets out of .onnx and .tflite files: our own with all that they know, ONNX of others where every node is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from edgelearn.errors import ModelError
from edgelearn.graph import FloatArray
from edgelearn.importing import own
from edgelearn.inputs.frontend import Input
from edgelearn.modelfile import Model
from edgelearn.net import architecture
from edgelearn.net.architecture import Architecture


def read(path: str | Path) -> Model:
    """The net in an .onnx or .tflite file, ready to go on training.

    Raises:
        ModelError: a file that cannot be read or is damaged, holds int8 weights, or nodes that no layer here stands
            for, all of them named.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}): check the path") from error
    return READERS[file.suffix.lower()](data, file.name)


def _read_onnx(data: bytes, name: str) -> Model:
    try:
        onnx = import_module("onnx")
    except ImportError as error:
        raise ModelError("reading .onnx files needs a package: pip install 'edgelearn[onnx]'") from error
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's own errors have no common class
        raise _damaged(name, error) from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if "quantization" in metadata:
        raise _is_int8(name)
    if architecture.ENTRY not in metadata:
        return import_module("edgelearn.importing.foreign").net_of(model, name)  # type: ignore[no-any-return]
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return _own(metadata, lambda about, source: _from_onnx(about, source, held))


def _from_onnx(about: Architecture, source: Input, held: own.Constants) -> FloatArray:
    from edgelearn.export import onnx

    return own.weights(about, source, onnx.constants(own.places(about, source)), held)


def _read_tflite(data: bytes, name: str) -> Model:
    from edgelearn.export.tflite_schema import read_constants, read_metadata

    try:
        metadata, held = read_metadata(data), read_constants(data)
    except ValueError as error:
        raise _damaged(name, error) from error
    if architecture.ENTRY in metadata:
        return _own(metadata, lambda about, source: _from_tflite(about, source, held))
    if any(array.dtype == "int8" for array in held.values()):
        raise _is_int8(name)
    raise ModelError(
        f"{name} is a .tflite file of another tool: read its .onnx, or keep it frozen and learn behind it, edgelearn "
        f"adapt {name} DATA -o adapted.tflite"
    )


def _from_tflite(about: Architecture, source: Input, held: own.Constants) -> FloatArray:
    from edgelearn.export import tflite

    program = own.places(about, source)
    flat = own.weights(about, source, tflite.constants(own.without_norms(program)), held)
    own.unfold(about, program, flat)
    return flat


def _own(metadata: Mapping[str, str], weights: Callable[[Architecture, Input], FloatArray]) -> Model:
    """A file of ours."""
    about = architecture.read(metadata[architecture.ENTRY])
    source = _json(metadata, "input", {})
    flat = weights(about, Input.from_config(source))
    names = _json(metadata, "classes", None)
    return Model(about.layers, about.graph, flat, source, about.train, names, about.loss)


def _json(metadata: Mapping[str, str], key: str, missing: Any) -> Any:
    try:
        return json.loads(metadata[key]) if key in metadata else missing
    except ValueError as error:
        raise ModelError(f"the file's entry '{key}' is damaged ({error}): export it again") from error


def _damaged(name: str, error: Exception) -> ModelError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ModelError(f"{name} is damaged or of an unknown version ({reason}): export it again")


def _is_int8(name: str) -> ModelError:
    return ModelError(f"{name} holds int8 weights, which cannot learn: load the model that it was exported from")


READERS: dict[str, Callable[[bytes, str], Model]] = {".onnx": _read_onnx, ".tflite": _read_tflite}
"""What reads a file, by suffix."""

# SPDX-License-Identifier: Apache-2.0
"""Runs any .onnx file in onnxruntime, any .tflite file in LiteRT or tflite-runtime, and C headers of edgelearn in the
core, on numpy samples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn import engines
from edgelearn.engines import Config
from edgelearn.errors import DataError, ModelError
from edgelearn.export import header
from edgelearn.export.int8 import Affine
from edgelearn.export.tflite_schema import read_metadata
from edgelearn.inputs.frontend import Input

BATCH = 64
"""Samples per call of a runtime: bounds the memory that maps take, at little cost in speed."""

TFLITE_PACKAGES = {"LiteRT": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
"""Runtimes of TFLite in order of preference; the second is what 32-bit Arm has."""

QUANTIZATION = "quantization"
"""Entry of the metadata of an int8 ONNX file: JSON, "input" and "output", each with scale and zero_point."""

_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


@dataclass(frozen=True)
class Runtime:
    """A loaded file. `input_shape` is that of one sample, -1 where the file leaves a side open; `metadata`
    holds the file's text entries; `invoke` runs one batch of at most `batch`; `outputs` is the last side of what it
    gives, -1 where the file leaves that open. `entering` and `leaving` say what the integers of an int8 file stand
    for."""

    name: str
    input_shape: tuple[int, ...]
    metadata: Mapping[str, str]
    dtype: np.dtype[Any]
    batch: int
    invoke: Callable[[NDArray[Any]], NDArray[Any]]
    outputs: int
    entering: Affine | None = None
    leaving: Affine | None = None

    @property
    def input(self) -> Input:
        """How files of a folder become samples for it; empty where edgelearn did not write the file.

        Raises:
            ModelError: an entry that is damaged or of a newer version.
        """
        return Input.from_config(self._entry("input", {}))

    @property
    def classes(self) -> list[str] | None:
        """Names of its outputs, None where the file has none.

        Raises:
            ModelError: an entry that is damaged.
        """
        names = self._entry("classes", None)
        return [str(name) for name in names] if isinstance(names, list) else None

    def _entry(self, key: str, missing: Any) -> Any:
        """An entry of the metadata that is JSON."""
        try:
            return json.loads(self.metadata[key]) if key in self.metadata else missing
        except ValueError as error:
            raise ModelError(f"the file's entry '{key}' is damaged ({error}): export it again") from error

    def run(self, x: NDArray[Any]) -> NDArray[Any]:
        """The file's first output for samples (n, *input_shape) or (n, features), cast to the input's type. Of an
        int8 file samples and outputs are the real numbers; samples in its own type go in as they are.

        Raises:
            DataError: no samples, samples of another shape, or fractions for an integer input.
            ModelError: the runtime refuses to run the file.
        """
        samples = self.entered(x)
        chunks = [samples[i : i + self.batch] for i in range(0, len(samples), self.batch)]
        try:
            outputs = np.concatenate([self.invoke(chunk) for chunk in chunks])
        except Exception as error:  # the runtimes' own errors have no common class
            raise ModelError(f"{self.name} cannot run this file ({_line(error)}): export it again") from error

        return outputs if self.leaving is None else self.leaving.real(outputs)

    def entered(self, x: ArrayLike) -> NDArray[Any]:
        """Samples as `invoke` takes them.

        Raises:
            DataError: as `run`.
        """
        samples = self._shaped(np.asarray(x))
        if self.entering is None or samples.dtype == self.dtype:
            return self._cast(samples)
        return self.entering.quantized(samples, self.dtype)

    def _shaped(self, x: NDArray[Any]) -> NDArray[Any]:
        if x.ndim < 2 or not len(x):
            raise DataError(f"samples of shape {x.shape} are no batch: pass (n, features), n at least 1")
        try:
            return x if -1 in self.input_shape else x.reshape(len(x), *self.input_shape)
        except ValueError as error:
            raise DataError(
                f"samples of shape {x.shape[1:]} do not fit the file's input {self.input_shape}: reshape them"
            ) from error

    def _cast(self, x: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore"):  # what does not fit is found below
            cast = np.ascontiguousarray(x).astype(self.dtype)
        if self.dtype.kind in "iu" and not np.array_equal(cast, x):
            raise DataError(f"samples do not fit the file's {self.dtype} input: pass them as {self.dtype}")
        return cast


def load(path: str | os.PathLike[str], threads: int | None = None) -> Runtime:
    """The file, ready to run in the first of its runtimes, on as many threads as that likes or on `threads`.

    Raises:
        ModelError: another suffix, no such file, a damaged file, or no runtime here.
    """
    return load_all(path, threads)[0]


def load_all(path: str | os.PathLike[str], threads: int | None = None) -> list[Runtime]:
    """The file in every runtime of its suffix that works here: one or more.

    Raises:
        ModelError: as `load`.
    """
    file = Path(path)
    if file.suffix.lower() not in LOADERS:
        raise ModelError(f"{file.name} has no runtime: pass a file that ends in {', '.join(LOADERS)}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}): check the path") from error
    return LOADERS[file.suffix.lower()](data, file.name, threads)


def _load_onnx(data: bytes, name: str, threads: int | None) -> list[Runtime]:
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
        raise _damaged(name, error) from error
    return [_onnx_runtime(session, name)]


def _onnx_runtime(session: Any, name: str) -> Runtime:
    source, output = _ends(session.get_inputs(), session.get_outputs(), name)
    if source.type not in _ONNX_TYPES or not source.shape:
        raise ModelError(f"{name} reads {source.type} {source.shape}: export it with batches of numbers as input")
    batch, *shape = map(_side, source.shape)

    def invoke(x: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = session.run([output.name], {source.name: x})[0]
        return result

    metadata = dict(session.get_modelmeta().custom_metadata_map)
    dtype = np.dtype(_ONNX_TYPES[source.type])
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


def _load_tflite(data: bytes, name: str, threads: int | None) -> list[Runtime]:
    try:
        metadata = read_metadata(data)
    except ValueError as error:
        raise _damaged(name, error) from error
    found, failures = [], []
    for label, package in TFLITE_PACKAGES.items():
        interpreter = _interpreter(package, data, name, threads)
        if isinstance(interpreter, str):
            failures.append(f"{label}: {interpreter}")
        else:
            found.append(_tflite_runtime(interpreter, label, metadata, name))
    if not found:
        reasons = "; ".join(failures)
        raise ModelError(
            f"no TFLite runtime works here ({reasons}): pip install 'edgelearn[tflite]', or export unverified"
        )
    return found


def _interpreter(package: str, data: bytes, name: str, threads: int | None) -> Any:
    """An Interpreter, or in words why there is none: beside numpy 2 tflite-runtime imports and only dies when
    one is built."""
    settings = {} if threads is None else {"num_threads": threads}
    try:
        return import_module(f"{package}.interpreter").Interpreter(model_content=data, **settings)
    except (ImportError, AttributeError, SystemError) as error:
        return _line(error)
    except (ValueError, RuntimeError) as error:
        raise _damaged(name, error) from error


def _tflite_runtime(interpreter: Any, label: str, metadata: dict[str, str], name: str) -> Runtime:
    source, output = _ends(interpreter.get_input_details(), interpreter.get_output_details(), name)
    placed: list[tuple[int, ...]] = []

    def invoke(x: NDArray[Any]) -> NDArray[Any]:
        if placed != [x.shape]:
            interpreter.resize_tensor_input(source["index"], x.shape)
            interpreter.allocate_tensors()
            placed[:] = [x.shape]
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        result: NDArray[Any] = interpreter.get_tensor(output["index"])
        return result

    shape = tuple(int(side) for side in source["shape_signature"][1:])
    dtype = np.dtype(source["dtype"])
    outputs = int(output["shape_signature"][-1])
    return Runtime(label, shape, metadata, dtype, BATCH, invoke, outputs, _stands_for(source), _stands_for(output))


def _stands_for(end: Any) -> Affine | None:
    """What the integers of an end stand for."""
    scales, zeros = end["quantization_parameters"]["scales"], end["quantization_parameters"]["zero_points"]
    return Affine(float(scales[0]), int(zeros[0])) if len(scales) == 1 else None


def _ends(inputs: list[Any], outputs: list[Any], name: str) -> tuple[Any, Any]:
    """The only input and the first output."""
    if len(inputs) != 1 or not outputs:
        raise ModelError(f"{name} has {len(inputs)} inputs and {len(outputs)} outputs: pass a model with one input")
    return inputs[0], outputs[0]


def _damaged(name: str, error: Exception) -> ModelError:
    return ModelError(f"{name} is damaged or of an unknown version ({_line(error)}): export it again")


def _line(error: Exception) -> str:
    """The first line of an error: runtimes add pages of context."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _load_header(data: bytes, name: str, threads: int | None) -> list[Runtime]:
    """A C header, on the core that is in this package."""
    try:
        records, params, metadata = header.read(data.decode())
        shape, is_turned = tuple(json.loads(metadata.pop("shape"))), json.loads(metadata.pop("turned"))
    except (ValueError, LookupError) as error:
        raise _damaged(name, error) from error
    outputs = int(records[-1]["active"])
    session = engines.load("native").open(
        records, params, Config(batch=BATCH, targets=outputs, train=False, threads=threads or 1)
    )

    def invoke(x: NDArray[Any]) -> NDArray[Any]:
        rows = np.moveaxis(x, 1, -1) if is_turned else x
        return session.forward(np.ascontiguousarray(rows.reshape(len(x), -1)))

    return [Runtime("core", shape, metadata, np.dtype(np.float32), BATCH, invoke, outputs)]


LOADERS: dict[str, Callable[[bytes, str, int | None], list[Runtime]]] = {
    ".onnx": _load_onnx,
    ".tflite": _load_tflite,
    ".h": _load_header,
}
"""What runs a file, by suffix: a new runtime is one entry."""

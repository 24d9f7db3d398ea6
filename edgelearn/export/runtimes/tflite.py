# SPDX-License-Identifier: Apache-2.0
"""TFLite files in LiteRT, tflite-runtime, or both."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.export.int8 import Affine
from edgelearn.export.runtimes.runtime import BATCH, Runtime, damaged, ends, first_line
from edgelearn.export.tflite_schema import read_metadata

PACKAGES = {"LiteRT": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
"""Runtimes of TFLite in order of preference; the second is what 32-bit Arm has."""


def load(data: bytes, name: str, threads: int | None) -> list[Runtime]:
    """A TFLite file of these bytes, called `name` in errors, in each runtime that works here; `threads` None: as many
    as that likes.

    Raises:
        ModelError: a damaged file, or no runtime here.
    """
    try:
        metadata = read_metadata(data)
    except ValueError as error:
        raise damaged(name, error) from error
    found, failures = [], []
    for label, package in PACKAGES.items():
        interpreter = _interpreter(package, data, name, threads)
        if isinstance(interpreter, str):
            failures.append(f"{label}: {interpreter}")
        else:
            found.append(_runtime(interpreter, label, metadata, name))
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
        return first_line(error)
    except (ValueError, RuntimeError) as error:
        raise damaged(name, error) from error


def _runtime(interpreter: Any, label: str, metadata: dict[str, str], name: str) -> Runtime:
    source, output = ends(interpreter.get_input_details(), interpreter.get_output_details(), name)
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

# SPDX-License-Identifier: Apache-2.0
"""Runs any .onnx file in onnxruntime, any .tflite file in LiteRT or tflite-runtime, and C headers of edgelearn in the
core, on numpy samples."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgelearn.errors import ModelError
from edgelearn.export.runtimes import core, onnx, tflite
from edgelearn.export.runtimes.onnx import QUANTIZATION as QUANTIZATION
from edgelearn.export.runtimes.runtime import BATCH as BATCH
from edgelearn.export.runtimes.runtime import Runtime as Runtime


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


LOADERS: dict[str, Callable[[bytes, str, int | None], list[Runtime]]] = {
    ".onnx": onnx.load,
    ".tflite": tflite.load,
    ".h": core.load,
}
"""What runs a file, by suffix: a new runtime is one entry."""

# SPDX-License-Identifier: Apache-2.0
"""Writes a net as a file for another runtime. A file is run beside the core before it takes its name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgelearn import __version__
from edgelearn.durable import replacing, write_through
from edgelearn.errors import ModelError
from edgelearn.export.lower import lower
from edgelearn.export.primitives import Program
from edgelearn.export.verify import Forward, Report, compare
from edgelearn.graph import FloatArray, Graph

__all__ = ["FORMATS", "Format", "Report", "write"]


@dataclass(frozen=True)
class Format:
    """A file format: the module whose `encode(program, metadata, version) -> bytes` writes it, and the extra
    of edgelearn that brings what the module needs."""

    module: str
    extra: str


FORMATS = {
    ".onnx": Format("edgelearn.export.onnx", "onnx"),
    ".tflite": Format("edgelearn.export.tflite", "tflite"),
}
"""Every format by its suffix: a new exporter is one entry."""


def write(
    path: str | os.PathLike[str],
    graph: Graph,
    flat: FloatArray,
    *,
    forward: Forward,
    samples: NDArray[Any],
    classes: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    verify: bool = True,
    channels_first: bool = False,
) -> Report | None:
    """Write the net in the format that the suffix names, and run it on `samples` (n, *input_shape) or
    (n, features) beside `forward`, the core: (n, features) float32 -> (n, outputs).

    With `channels_first` the file takes samples (n, channels, ...), as the data holds them.

    The file holds `metadata`, and `classes` as a JSON list. It gets its name when it is complete and checked;
    until then an older file of that name stays. With `verify=False` nothing is run, the file's metadata says
    `unverified`, and there is no report.

    Raises:
        ModelError: an unknown suffix, an operation without export, a missing package or runtime.
        VerificationError: the file's answers differ from the core's.
        OutputError: the file cannot be written.
    """
    target = Path(path)
    entries = dict(metadata or {})
    if classes is not None:
        entries["classes"] = json.dumps(list(classes))
    if not verify:
        entries["unverified"] = "true"
    program = lower(graph, flat, channels_first)
    data = _encode(target, program, entries)
    with replacing(target) as partial:
        write_through(partial, [data])
        return compare(partial, forward, samples, program.labelled) if verify else None


def _encode(target: Path, program: Program, entries: Mapping[str, str]) -> bytes:
    form = FORMATS.get(target.suffix.lower())
    if form is None:
        raise ModelError(f"no export writes '{target.name}': end its name in {' or '.join(FORMATS)}")
    try:
        data: bytes = import_module(form.module).encode(program, entries, __version__)
    except ImportError as error:
        raise ModelError(
            f"{target.suffix} files need a package ({error}): pip install 'edgelearn[{form.extra}]'"
        ) from error
    return data

# SPDX-License-Identifier: Apache-2.0
"""Writes a net as a file for another runtime. A file is run beside the core before it takes its name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgelearn import __version__
from edgelearn.durable import replacing, write_through
from edgelearn.errors import DataError, ModelError, UsageError
from edgelearn.export.affine import absorb_scaling
from edgelearn.export.calibration import Calibration
from edgelearn.export.layer_errors import LayerError, layer_errors
from edgelearn.export.lower import lower
from edgelearn.export.passes import fold_batchnorm
from edgelearn.export.primitives import Program
from edgelearn.export.quantize import Quantized, quantize
from edgelearn.export.verify import Forward, Report, compare
from edgelearn.graph import FloatArray, Graph
from edgelearn.records import Op

__all__ = ["DTYPES", "FORMATS", "IO", "Calibration", "Format", "Precision", "Report", "write"]

DTYPES = ("float32", "float16", "int8")
IO = ("int8", "float32")


@dataclass(frozen=True)
class Format:
    """A file format: the module that writes it, the extra of edgelearn that brings what the module needs, whether it
    folds normalisation into weights, and the number types that it has.

    The module has `prepare(program) -> program`, the layout of the format, and `encode(program or Quantized,
    metadata, version) -> bytes`, the latter with `half=True` where it has float16. One that is not `lowered` takes the
    net as it is: `encode(name, graph, parameters, metadata, version, channels_first) -> bytes`.
    """

    module: str
    extra: str = ""
    folds: bool = False
    dtypes: tuple[str, ...] = ("float32",)
    lowered: bool = True


FORMATS = {
    ".onnx": Format("edgelearn.export.onnx", "onnx", dtypes=("float32", "int8")),
    ".tflite": Format("edgelearn.export.tflite", "tflite", folds=True, dtypes=DTYPES),
    ".h": Format("edgelearn.export.header", lowered=False),
}
"""Every format by its suffix: a new exporter is one entry."""


@dataclass(frozen=True, eq=False)
class Precision:
    """In what numbers a file holds its weights: `dtype`, one of DTYPES. With float16 it still computes in float32; for
    int8 what to calibrate on, and whether the file takes and gives int8 or float32 (`io`).

    Raises:
        UsageError: an unknown type.
        DataError: int8 without samples.
    """

    dtype: str = "float32"
    calibration: Calibration | None = None
    io: str = "int8"

    def __post_init__(self) -> None:
        for name, value, known in (("dtype", self.dtype, DTYPES), ("io", self.io, IO)):
            if value not in known:
                raise UsageError(f"unknown {name} '{value}': choose {' or '.join(known)}")
        if self.dtype == "int8" and self.calibration is None:
            raise DataError("int8 needs samples to calibrate on and there are none: pass calibration samples")


@dataclass(frozen=True, eq=False)
class _Encoded:
    """A file before it is written."""

    data: bytes
    labelled: bool
    layers: list[LayerError] = field(default_factory=list)


def write(
    path: str | os.PathLike[str],
    graph: Graph,
    flat: FloatArray,
    *,
    forward: Forward,
    samples: NDArray[Any],
    labels: NDArray[Any] | None = None,
    classes: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    precision: Precision | None = None,
    verify: bool = True,
    max_disagreement: float | None = None,
    channels_first: bool = False,
) -> Report | None:
    """Write the net in the format that the suffix names, and run it on `samples` (n, *input_shape) or
    (n, features) beside `forward`, the core: (n, features) float32 -> (n, outputs). With `labels` (n,) the report
    has accuracies.

    With `channels_first` the file takes samples (n, channels, ...), as the data holds them.

    The file holds `metadata`, and `classes` as a JSON list. It gets its name when it is complete and checked: at most
    a share `max_disagreement` of the samples has another label, by default none in float32, 1 % in float16 and 5 % in
    int8. Until
    then an older file of that name stays. With `verify=False` nothing is run, the file's metadata says `unverified`,
    and there is no report.

    Raises:
        ModelError: an unknown suffix, an operation without export, a missing package or runtime.
        DataError: samples that cannot be calibrated on.
        VerificationError: the file's answers differ from the core's.
        OutputError: the file cannot be written.
    """
    target, wanted = Path(path), precision or Precision()
    entries = dict(metadata or {})
    if classes is not None:
        entries["classes"] = json.dumps(list(classes))
    if not verify:
        entries["unverified"] = "true"
    form = _format(target, wanted)
    if form.lowered:
        encoded = _lowered(target, form, lower(graph, flat, channels_first), entries, wanted)
    else:
        data = import_module(form.module).encode(target.stem, graph, flat, entries, __version__, channels_first)
        encoded = _Encoded(data, bool(graph.records[-1]["op"] == Op.SOFTMAX))
    with replacing(target) as partial:
        write_through(partial, [encoded.data])
        if not verify:
            return None
        return compare(
            partial,
            forward,
            samples,
            encoded.labelled,
            dtype=wanted.dtype,
            labels=labels,
            disagreement=max_disagreement,
            layers=encoded.layers,
        )


def _format(target: Path, precision: Precision) -> Format:
    form = FORMATS.get(target.suffix.lower())
    if form is None:
        *names, last = FORMATS
        raise ModelError(f"no export writes '{target.name}': end its name in {', '.join(names)} or {last}")
    if precision.dtype not in form.dtypes:
        raise UsageError(
            f"{target.suffix} files hold {' or '.join(form.dtypes)}, not {precision.dtype}: choose another"
        )
    return form


def _lowered(
    target: Path, form: Format, program: Program, entries: Mapping[str, str], precision: Precision
) -> _Encoded:
    """The bytes of a file whose format takes primitives."""
    try:
        module = import_module(form.module)
        net, layers = _in(precision, program, module.prepare)
        half = {"half": True} if precision.dtype == "float16" else {}
        return _Encoded(module.encode(net, entries, __version__, **half), program.labelled, layers)
    except ImportError as error:
        raise ModelError(
            f"{target.suffix} files need a package ({error}): pip install 'edgelearn[{form.extra}]'"
        ) from error


def _in(precision: Precision, program: Program, prepare: Any) -> tuple[Program | Quantized, list[LayerError]]:
    """The program in its numbers, and what that costs each layer."""
    if precision.dtype != "int8" or precision.calibration is None:
        return program, []
    net = quantize(prepare(absorb_scaling(fold_batchnorm(program))), precision.calibration, precision.io)
    return net, layer_errors(net, precision.calibration)

# SPDX-License-Identifier: Apache-2.0
"""What can be adapted in a file, node by node, and why nothing can where nothing can."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgelearn.errors import ModelError, UsageError

FROZEN = "no: frozen"
STANDS_IN = "; an adapter behind it stands in"
QUANTISED_WEIGHTS = "no: quantised weights stay as they are"


@dataclass(frozen=True)
class Row:
    """A node: its operator, output and the shape of that, its constants' values, what can be learned in it, and the tap
    behind it or why there is none."""

    operator: str
    output: str
    shape: tuple[int, ...] | None
    parameters: int
    learns: str
    adapter: str
    tap: bool


@dataclass(frozen=True)
class Listing:
    """A whole file; `format` says which version of it, `default` are the taps that get an adapter where none are
    named."""

    format: str
    input: str
    shape: tuple[int, ...]
    rows: tuple[Row, ...]
    default: tuple[str, ...]
    head: str
    statistics: str

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def __str__(self) -> str:
        widths = [max(len(str(cell)) for cell in column) for column in zip(*map(_cells, self.rows), strict=True)]
        lines = ["  ".join(str(c).ljust(w) for c, w in zip(_cells(r), widths, strict=True)).rstrip() for r in self.rows]
        others = " (others: --taps)" if sum(row.tap for row in self.rows) > len(self.default) else ""
        taps = f"{', '.join(self.default)}{others}" if self.default else "none: the graph can be cut nowhere"
        return "\n".join(
            [
                f"{self.format}, input {self.input} {_sides(self.shape)}, {len(self.rows)} nodes",
                *lines,
                f"head        {self.head}",
                f"statistics  {self.statistics}",
                f"adapters    {taps}",
            ]
        )


def listing(path: str | Path) -> Listing:
    """The nodes of an .onnx or a .tflite file.

    Raises:
        UsageError: a file of another kind.
        ModelError: it cannot be read, be a backbone or be run, or a package is missing.
    """
    suffix, name = Path(path).suffix.lower(), Path(path).name
    if suffix not in (".onnx", ".tflite"):
        raise UsageError(f"doctor lists the nodes of .onnx and .tflite files, not of '{name}': give one, or nothing")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path") from error
    try:
        if suffix == ".tflite":
            from edgelearn.backbone.tflite_listing import of_tflite

            return of_tflite(data, name)
        from edgelearn.backbone.onnx_listing import of_onnx

        return of_onnx(data, name)
    except ImportError as error:
        raise ModelError(f"reading {name} needs a package ({error}): pip install 'edgelearn[{suffix[1:]}]'") from error


def _cells(row: Row) -> tuple[str, ...]:
    shape = "shape unknown" if row.shape is None else _sides(row.shape)
    place = "adapter: yes" if row.tap else f"adapter: no, {row.adapter}"
    return (row.operator, row.output, shape, f"{row.parameters:,}", row.learns, place)


def _sides(shape: tuple[int, ...]) -> str:
    unknown = ("batch", *("?" for _ in shape[1:]))
    return " x ".join(str(side) if side >= 0 else word for side, word in zip(shape, unknown, strict=False))

# SPDX-License-Identifier: Apache-2.0
"""What a list of a file's nodes says: what can be adapted where, and why nothing can where nothing can."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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


def _cells(row: Row) -> tuple[str, ...]:
    shape = "shape unknown" if row.shape is None else _sides(row.shape)
    place = "adapter: yes" if row.tap else f"adapter: no, {row.adapter}"
    return (row.operator, row.output, shape, f"{row.parameters:,}", row.learns, place)


def _sides(shape: tuple[int, ...]) -> str:
    unknown = ("batch", *("?" for _ in shape[1:]))
    return " x ".join(str(side) if side >= 0 else word for side, word in zip(shape, unknown, strict=False))

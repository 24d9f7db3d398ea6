# SPDX-License-Identifier: Apache-2.0
"""Counters, gauges and one histogram in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

KIND = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds; a prediction of a small net takes one or two of the first."""


class Histogram:
    """How long things took."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """One of them."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, about: str) -> Iterable[str]:
        """Its family."""
        yield from _head(name, about, "histogram")
        total = 0
        for bound, count in zip((*BUCKETS, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


def family(name: str, kind: str, about: str, values: Mapping[str, float] | float, label: str = "") -> Iterable[str]:
    """A counter or gauge, one value or one per value of a label."""
    yield from _head(name, about, kind)
    if not isinstance(values, Mapping):
        yield f"{name} {values:.10g}"
        return
    for key, value in values.items():
        yield f'{name}{{{label}="{_escaped(key)}"}} {value:.10g}'


def _head(name: str, about: str, kind: str) -> Iterable[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

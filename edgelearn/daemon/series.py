# SPDX-License-Identifier: Apache-2.0
"""The last hours of a few numbers, for the page's plots."""

from __future__ import annotations

from collections import deque
from typing import Any

SECONDS = 10.0
"""Between two points."""

_POINTS = 720


class Series:
    """Temperature of the board and mean confidence of answers over the last two hours."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float | None, float | None]] = deque(maxlen=_POINTS)

    def add(self, now: float, temperature: float | None, confidence: float | None) -> None:
        """A point, unless the last one is too fresh."""
        if not self._points or abs(now - self._points[-1][0]) >= SECONDS * 0.9:
            self._points.append((now, temperature, confidence))

    def to_json(self) -> dict[str, list[Any]]:
        """Columns, oldest first; what was not measured is null."""
        columns = list(zip(*self._points, strict=True)) or [(), (), ()]
        return dict(zip(("time", "temperature", "confidence"), map(list, columns), strict=True))

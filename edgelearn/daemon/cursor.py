# SPDX-License-Identifier: Apache-2.0
"""How far training has come, in a small durable file beside what it learns from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edgelearn.durable import replacing, write_through
from edgelearn.errors import EdgelearnError
from edgelearn.store.versions import seal, unseal

_MARKS = 8


class Cursor:
    """Up to which label number samples were learned. A mark is on the disk before the checkpoint that it belongs to,
    so whichever checkpoint a learner comes back with, its mark is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks: list[list[int]] = []
        with suppress(OSError, EdgelearnError, KeyError):
            self._marks = [[int(taken), int(label)] for taken, label in unseal(path.read_bytes())["marks"]]

    def of(self, taken: int) -> int:
        """The label number that a learner was at when it had taken so many samples; 0, to begin anew, if unknown."""
        return next((label for known, label in reversed(self._marks) if known == taken), 0)

    def forget(self) -> None:
        """All of them.

        Raises:
            OutputError: it cannot be written.
        """
        self._marks = []
        self.mark(0, 0)

    def mark(self, taken: int, label: int) -> None:
        """Remember one.

        Raises:
            OutputError: it cannot be written.
        """
        self._marks = [*self._marks, [taken, label]][-_MARKS:]
        with replacing(self._path) as partial:
            write_through(partial, [seal({"marks": self._marks})])

# SPDX-License-Identifier: Apache-2.0
"""What is known of versions from trying them, on the disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from edgelearn.durable import replacing, write_through
from edgelearn.errors import EdgelearnError
from edgelearn.store.versions import seal, unseal

_REMEMBERED = 100


class Trials:
    """What is known of versions from trying them, in one small durable file. Damaged or missing it is empty: then
    versions are tried again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.proved: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.trial: dict[str, Any] = {}
        with suppress(OSError, EdgelearnError, KeyError, TypeError, ValueError):
            table = unseal(path.read_bytes())
            self.proved, self.refused = dict(table["proved"]), dict(table["refused"])
            self.trial = dict(table["trial"])

    def save(self) -> None:
        """Write it.

        Raises:
            OutputError: it cannot be written.
        """
        for known in (self.proved, self.refused):
            for name in list(known)[:-_REMEMBERED]:
                del known[name]
        table = {"proved": self.proved, "refused": self.refused, "trial": self.trial}
        with replacing(self._path) as partial:
            write_through(partial, [seal(table)])

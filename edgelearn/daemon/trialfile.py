# SPDX-License-Identifier: Apache-2.0
"""What is known of versions from trying them, on the disk."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgelearn.durable import replacing, write_through
from edgelearn.errors import EdgelearnError
from edgelearn.store.versions import seal, unseal

_REMEMBERED = 100


class Trials:
    """What is known of versions from trying them, in one small durable file. Damaged or missing it is empty: then
    versions are tried again. Any thread may save it."""

    def __init__(self, path: Path) -> None:
        self._path, self._saving = path, threading.Lock()
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
        with self._saving:  # whoever comes last writes the latest
            for known in (self.proved, self.refused):
                for name in list(known)[:-_REMEMBERED]:
                    known.pop(name, None)
            table = {"proved": dict(self.proved), "refused": dict(self.refused), "trial": dict(self.trial)}
            with replacing(self._path) as partial:
                write_through(partial, [seal(table)])

# SPDX-License-Identifier: Apache-2.0
"""One writer at a time in a folder, over threads and processes."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Lock:
    """The lock of a folder. A thread that holds it may take it again; a process that dies gives it back."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._mine = folder, threading.local()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for it, and hold it.

        Raises:
            OSError: there is no such folder.
        """
        if getattr(self._mine, "held", False):
            yield
            return
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._mine.held = True
            yield
        finally:
            self._mine.held = False
            os.close(handle)

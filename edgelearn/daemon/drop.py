# SPDX-License-Identifier: Apache-2.0
"""The drop folder: files that are put into it become samples, those in a sub-folder with its name as label. A file goes
when its sample is on the disk; one that cannot be read moves to `refused`, and an event says why."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelearn.daemon.database import Sample
from edgelearn.daemon.samples import check_label
from edgelearn.errors import DataError, OutputError, UsageError

if TYPE_CHECKING:
    from edgelearn.daemon.app import Daemon

SECONDS = 2.0
"""Between two looks; a file counts when it has not changed from one to the next."""

REFUSED = "refused"
_SUFFIXES = (".npy", ".png", ".jpg", ".jpeg", ".wav")
_AT_ONCE = 64

_About = tuple[int, int, int]


class Drop:
    """Watches a folder for a daemon."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self._daemon, self.folder = daemon, folder
        self._seen: dict[Path, _About | None] = {}

    async def watch(self) -> None:
        """Look again and again; what fails is told, and tried again."""
        while True:
            await asyncio.sleep(SECONDS)
            if self._daemon.serving.live is not None:
                with suppress(OutputError, OSError):  # no room: the files stay until there is
                    await self.look()

    async def look(self) -> int:
        """Take what is there and complete; how many samples that were.

        Raises:
            OutputError: the disk takes no more; the files stay.
        """
        found = await asyncio.to_thread(lambda: list(self._complete())[:_AT_ONCE])
        if not found:
            return 0
        self._daemon.check_room()
        taken = 0
        for path in found:
            taken += await self._take(path)
        return taken

    def _complete(self) -> Iterator[Path]:
        """Files that are as they were the last time."""
        before, self._seen = self._seen, {}
        for place in [self.folder, *self._classes()]:
            for entry in os.scandir(place) if place.is_dir() else ():
                if entry.is_file(follow_symlinks=False) and entry.name.lower().endswith(_SUFFIXES):
                    path = Path(entry.path)
                    self._seen[path] = about = _about(path)
                    if about is not None and before.get(path) == about:
                        yield path

    def _classes(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        folders = [Path(entry.path) for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)]
        return sorted(folder for folder in folders if folder.name != REFUSED and not folder.name.startswith("."))

    async def _take(self, path: Path) -> int:
        model = self._daemon.serving.ready()
        try:
            label = None if path.parent == self.folder else check_label(path.parent.name)
            if label is not None and model.loss == "cross_entropy" and label not in self._daemon.classes:
                raise UsageError(f"'{label}' is no class of the model: rename the folder, or add the class first")
            row = await asyncio.to_thread(lambda: model.rows(model.input.read(path)[None])[0])
        except (DataError, UsageError) as error:
            await asyncio.to_thread(self._put_aside, path)
            self._daemon.events.tell("dropped", f"{path.name} was not taken: {error}")
            return 0
        sample = Sample(np.ascontiguousarray(row).tobytes(), row.dtype.name, label, f"drop {path.name}"[:200])
        if not self._daemon.samples.has(sample):  # as after a cut between the two lines below
            await self._daemon.store([sample])
        await asyncio.to_thread(self._remove, path)
        return 1

    def _remove(self, path: Path) -> None:
        """It has been taken; not what somebody has put in its place since."""
        if _about(path) == self._seen.get(path):
            path.unlink(missing_ok=True)

    def _put_aside(self, path: Path) -> None:
        place = self.folder / REFUSED
        place.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # somebody took it back
            os.replace(path, place / path.name)


def _about(path: Path) -> _About | None:
    """What tells a file from another of its name; None when it has gone, as a writer's temporary name does."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None

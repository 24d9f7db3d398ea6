# SPDX-License-Identifier: Apache-2.0
"""A state of several files that is on the disk as a whole or not at all, and the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgelearn.durable import DISK, LEFTOVER, Disk, replacing, saying, write_through
from edgelearn.errors import EdgelearnError
from edgelearn.store.versions import digest, seal, unseal

Contents = Mapping[str, bytes | memoryview]


class Snapshots:
    """The newest snapshot in `folder` and the one before. Files are named by their content, so that what did not
    change is not written again, and a manifest under a digest names them. `faults` says what was found damaged."""

    def __init__(self, folder: Path, disk: Disk = DISK) -> None:
        self.folder, self._disk = folder, disk
        self.faults: list[str] = []

    def save(self, table: Mapping[str, Any], contents: Contents) -> dict[str, Path]:
        """Write a table of plain values and files, by names with a suffix; returns where they are.

        Raises:
            OutputError: they cannot be written; the newest snapshot is the one before.
        """
        named = {name: f"{digest([content])}-{name}" for name, content in contents.items()}
        with saying(self.folder):
            if not self.folder.is_dir():
                self._disk.make_folder(self.folder)
                self._disk.sync_folder(self.folder.parent)
            for name, file in named.items():
                if not self._whole(file):
                    self._write(file, contents[name])
            self._keep_previous()
            self._write("current.json", seal({"table": dict(table), "files": named}))
            self._tidy()
        return {name: self.folder / file for name, file in named.items()}

    def load(self) -> tuple[dict[str, Any], dict[str, Path]] | None:
        """Table and files of the newest snapshot that is whole, None where there is none."""
        for manifest in ("current.json", "previous.json"):
            found = self._manifest(manifest)
            if found is not None:
                return found["table"], {name: self.folder / file for name, file in found["files"].items()}
        return None

    def forget(self) -> None:
        """Delete all of it, manifests first: a cut on the way leaves a snapshot that is whole, or none.

        Raises:
            OutputError: it cannot be deleted.
        """
        with saying(self.folder):
            for path in sorted(self.folder.iterdir(), key=lambda path: path.suffix != ".json"):
                self._disk.remove(path)
            self._disk.sync_folder(self.folder)

    def _write(self, file: str, content: bytes | memoryview) -> None:
        with replacing(self.folder / file, self._disk) as partial:
            write_through(partial, [content], self._disk)

    def _keep_previous(self) -> None:
        """The manifest that is whole becomes the previous one; a damaged one must not take its place."""
        if self._manifest("current.json") is not None:
            self._write("previous.json", (self.folder / "current.json").read_bytes())

    def _manifest(self, manifest: str) -> dict[str, Any] | None:
        """What it says, None where it or a file that it names is missing or damaged."""
        try:
            found = unseal((self.folder / manifest).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (EdgelearnError, OSError) as error:
            self.faults.append(f"{manifest} cannot be used ({error}): the snapshot before it is")
            return None
        lost = [file for file in found["files"].values() if not self._whole(file)]
        if lost:
            self.faults.append(f"{lost[0]} of {manifest} is damaged: the snapshot before it is used")
            return None
        return found

    def _whole(self, file: str) -> bool:
        try:
            return digest([(self.folder / file).read_bytes()]) == file.partition("-")[0]
        except OSError:
            return False

    def _tidy(self) -> None:
        """Delete files that neither manifest names."""
        manifests = [self._manifest(name) for name in ("current.json", "previous.json")]
        named = {file for manifest in manifests if manifest for file in manifest["files"].values()}
        for path in self.folder.iterdir():
            ours = LEFTOVER.fullmatch(path.name) or (path.name[64:65] == "-" and path.name not in named)
            if ours:
                with suppress(FileNotFoundError):
                    self._disk.remove(path)

# SPDX-License-Identifier: Apache-2.0
"""The files of a store: contents under the hash of what they hold, a record for each, and a place for what is damaged.
Which of them is live is not known here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from edgelearn.durable import LEFTOVER, Disk, replacing, saying, write_through
from edgelearn.errors import DataError, EdgelearnError
from edgelearn.store.locking import Lock
from edgelearn.store.versions import Version, digest, seal, unseal

RECORDS = 1000
"""Versions whose record is kept after their content has gone: half a megabyte of history."""

CHUNK = 1 << 20
"""Bytes of a content in memory at once."""

_ID = re.compile(r"[0-9a-f]{64}")

_DAMAGE = (EdgelearnError, KeyError, TypeError, OSError)
"""What reading a damaged file raises; an OSError where a sector cannot be read."""

_T = TypeVar("_T")


def parts(content: bytes | Path) -> Iterator[bytes]:
    """A content piece by piece."""
    if not isinstance(content, Path):
        yield content
        return
    with content.open("rb") as stream:
        while part := stream.read(CHUNK):
            yield part


class Objects:
    """The files below `folder`; `note` is told each fault that is found, once.

    Who reads holds no lock. What looks damaged or lost may be what another has just mended, replaced or collected, so
    it is looked at again under the lock before anything is done about it.
    """

    def __init__(self, folder: Path, suffix: str, disk: Disk, note: Callable[[str], None]) -> None:
        self.folder, self.disk, self.lock = folder, disk, Lock(folder)
        self.versions, self.quarantined = folder / "versions", folder / "quarantine"
        self._suffix, self._note = suffix, note
        self._sound: dict[str, tuple[int, int, int]] = {}

    def path(self, version_id: str) -> Path:
        """Where a version's content lies, or would."""
        return self.versions / f"{version_id}{self._suffix}"

    def write(self, target: Path, content: Iterable[bytes | memoryview]) -> None:
        """A whole file, durably.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(target, self.disk) as partial:
            write_through(partial, content, self.disk)

    def add(self, version: Version, content: bytes | Path) -> None:
        """A content under its name.

        Raises:
            DataError: the file changed since it was hashed.
            OutputError: it cannot be written.
        """
        with replacing(self.path(version.id), self.disk) as partial:
            write_through(partial, parts(content), self.disk)
            if digest(parts(partial)) != version.id:
                raise DataError(f"{content!s:.200} changed while it was read: commit it again")

    def record(self, version: Version) -> None:
        """What is known of a version. From here on it exists.

        Raises:
            UsageError: its metrics are no finite plain values.
            OutputError: it cannot be written.
        """
        self.write(self._record(version.id), [seal(version.to_json())])

    def history(self) -> list[Version]:
        """All recorded versions in the order of their commits."""
        with suppress(FileNotFoundError, NotADirectoryError):
            names = [path.stem for path in self.versions.iterdir() if path.suffix == ".json"]
            known = [self.version(name) for name in names if _ID.fullmatch(name)]
            return sorted(filter(None, known), key=lambda version: (version.number, version.created))
        return []

    def known(self, version_id: str) -> Version | None:
        """The version of exactly this id, if it is recorded."""
        is_there = _ID.fullmatch(version_id) is not None and self._record(version_id).exists()
        return self.version(version_id) if is_there else None

    def version(self, version_id: str) -> Version | None:
        """The record of a version; where it is damaged, a new one of what its content says; None without either."""
        return self._recorded(version_id) or self._recovered(version_id)

    def _recorded(self, version_id: str) -> Version | None:
        return self.sealed(self._record(version_id), lambda table: Version(**table))

    def _recovered(self, version_id: str) -> Version | None:
        with self.lock.held():
            if found := self._recorded(version_id):
                return found
            try:
                content = self.path(version_id).stat()
            except OSError:
                return None
            bare = Version(version_id, note="its record was lost", created=content.st_mtime, size=content.st_size)
            with suppress(EdgelearnError):
                self.record(bare)
            return bare

    def sealed(self, path: Path, form: Callable[[dict[str, Any]], _T]) -> _T | None:
        """What `form` makes of a sealed file, None where there is none. A damaged one goes to quarantine."""
        with suppress(*_DAMAGE):
            return _unsealed(path, form)
        with self.lock.held():
            try:
                return _unsealed(path, form)
            except _DAMAGE as error:
                self.quarantine(path, str(error))
                return None

    def holds(self, version_id: str) -> bool:
        """Whether a content is what its name says; hashed once, and again when the file changes. If not, it goes to
        quarantine."""
        path = self.path(version_id)
        if self._is_whole(version_id):
            return True
        if path.exists():
            with self.lock.held():
                if self._is_whole(version_id):
                    return True
                if path.exists():
                    self.quarantine(path, "its content is not what was committed")
        return False

    def _is_whole(self, version_id: str) -> bool:
        path = self.path(version_id)
        try:
            found = path.stat()
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._sound.get(version_id) == mark:
                return True
            whole = digest(parts(path)) == version_id
        except OSError:  # it is not there, or a sector cannot be read
            return False
        if whole:
            self._sound[version_id] = mark
        return whole

    def quarantine(self, path: Path, reason: str) -> None:
        """Take a damaged file out of the way and keep it; on a disk that takes no writes it stays, and is not used."""
        fault = f"{path.name} went to quarantine: {reason}"
        try:
            if not self.quarantined.is_dir():
                self.disk.make_folder(self.quarantined)
            self.disk.rename(path, self.quarantined / f"{path.name}.{os.urandom(4).hex()}")
            self.disk.sync_folder(path.parent)
        except OSError as error:
            fault = f"{path.name} is damaged and cannot be moved ({error.strerror}): {reason}"
        self._note(fault)

    def collect(self, limit: int, keep: set[str]) -> int:
        """Delete what a process that died left behind, then quarantined files, then the oldest contents, until at most
        `limit` bytes are left; those in `keep` stay. Returns the bytes that went.

        Raises:
            OutputError: a file cannot be deleted.
        """
        known = self.history()
        with saying(self.folder):
            freed = sum(self._remove(path) for path in self._abandoned({v.id for v in known} | keep))
            left = sum(path.stat().st_size for path in self._files())
            for path in self._oldest(known, keep):
                if left <= limit:
                    break
                size = self._remove(path)
                left, freed = left - size, freed + size
            for version in [v for v in known if not self.path(v.id).exists()][:-RECORDS]:
                freed += self._remove(self._record(version.id))
            if freed:
                self.disk.sync_folder(self.versions)
        return freed

    def _record(self, version_id: str) -> Path:
        return self.versions / f"{version_id}.json"

    def _remove(self, path: Path) -> int:
        size = path.stat().st_size
        self.disk.remove(path)
        return size

    def _files(self) -> list[Path]:
        """Contents and quarantined files."""
        away = sorted(self.quarantined.iterdir(), key=_age) if self.quarantined.is_dir() else []
        return [*away, *(path for path in self.versions.iterdir() if path.suffix == self._suffix)]

    def _abandoned(self, named: set[str]) -> list[Path]:
        """Temporary files, and contents whose commit did not come to its record."""
        partial = [path for place in (self.folder, self.versions) for path in place.iterdir()]
        partial = [path for path in partial if LEFTOVER.fullmatch(path.name)]
        return partial + [p for p in self._files() if _ID.fullmatch(p.stem) and p.stem not in named]

    def _oldest(self, known: list[Version], keep: set[str]) -> list[Path]:
        """What may go, first first."""
        contents = [self.path(version.id) for version in known if version.id not in keep]
        away = [path for path in self._files() if path.parent == self.quarantined]
        return away + [path for path in contents if path.exists()]


def _unsealed(path: Path, form: Callable[[dict[str, Any]], _T]) -> _T | None:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return form(unseal(content))


def _age(path: Path) -> float:
    return path.stat().st_mtime

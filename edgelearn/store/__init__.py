# SPDX-License-Identifier: Apache-2.0
"""Versions of a model in a folder: named by the hash of their content, one of them live. Whatever operation the power
fails at, the live version is the older or the newer one, and what was committed is there. It knows no numpy: content
is bytes.

    current.json          which version is live, and what was live before it
    previous.json         the same as it was one step earlier, for when `current` is damaged
    versions/ID.SUFFIX    a version's content
    versions/ID.json      its parent, note and metrics; the version exists once this does
    quarantine/           what failed its hash
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgelearn.durable import DISK, Disk, saying
from edgelearn.errors import BudgetError, ModelError, UsageError
from edgelearn.store.objects import Objects, parts
from edgelearn.store.versions import Version, digest, seal

TRAIL = 8
"""How many steps back the live version is remembered."""

DAY = 86400.0
"""Seconds over which a write budget counts."""


class Store:
    """Versions of a model in `folder`, which the first commit makes. Processes and threads may share it.

    `keep_bytes` bounds the contents on the disk; the live version and the one before stay whatever it says.
    `write_budget` bounds the bytes that are committed within 24 hours, since SD cards wear. `suffix` ends the names of
    contents. `faults` says what was found damaged, and what was done about it.

    Raises:
        UsageError: a bound is no positive number.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep_bytes: int = 64 << 20,
        write_budget: int | None = None,
        suffix: str = ".safetensors",
        disk: Disk = DISK,
    ) -> None:
        for name, value in (("keep_bytes", keep_bytes), ("write_budget", write_budget)):
            if value is not None and not value > 0:
                raise UsageError(f"{name} must be above 0, not {value}: give a number of bytes")
        self.folder = Path(folder)
        self.keep_bytes, self.write_budget = keep_bytes, write_budget
        self.faults: list[str] = []
        self._objects = Objects(self.folder, suffix, disk, self._note)

    def commit(
        self,
        model: bytes | Path,
        *,
        parent: str | None = None,
        note: str = "",
        metrics: Mapping[str, Any] | None = None,
    ) -> Version:
        """Put a model, as bytes or as a file, on the disk; when this returns, no power cut loses it. It is not live
        until `activate`. The same content is the same version: it keeps what its first commit said of it.

        Raises:
            UsageError: no content, or metrics that are no finite plain values.
            DataError: the file changes while it is read.
            BudgetError: it is larger than `keep_bytes`, or too much was written today.
            OutputError: it cannot be written; nothing of it is left.
        """
        with _reading(model):
            name, size = digest(parts(model)), sum(map(len, parts(model)))
        if not size:
            raise UsageError("the model is empty: commit the bytes of a model file")
        seal({"note": note, "metrics": dict(metrics or {})})
        with self._locked():
            known = {version.id: version for version in self.history()}
            number = 1 + max((version.number for version in known.values()), default=0)
            new = Version(name, parent, note, metrics or {}, time.time(), size, number)
            version = known.get(name, new)
            if version is new or not self.holds(name):
                self._afford(size, known)
                self._collect(room=size)
                self._objects.add(version, model)
            if version is new:
                self._objects.record(version)
        return version

    def current(self) -> Version | None:
        """The live version: the last one activated whose content is what was committed; None before the first."""
        trail = self._trail()
        return self._objects.version(trail[-1]) if trail else None

    def trail(self) -> list[str]:
        """Ids that were live, oldest first, the last of them live now; what a rollback goes back along."""
        return self._trail()

    def activate(self, version_id: str) -> Version:
        """Make a version live, in one step.

        Raises:
            UsageError: no such version.
            ModelError: its content fails its hash; the live version stays.
            OutputError: the pointer cannot be written; the live version stays.
        """
        with self._locked():
            version, trail = self.find(version_id), self._trail()
            self.read(version.id)
            if trail[-1:] != [version.id]:
                self._point([*trail, version.id])
        return version

    def rollback(self, version_id: str | None = None) -> Version:
        """Make live again what was live before, or a version by its id. Later rollbacks do not come back to what was
        live in between.

        Raises:
            UsageError: there is no earlier version, or none of that id.
            ModelError: its content fails its hash; the live version stays.
            OutputError: the pointer cannot be written; the live version stays.
        """
        with self._locked():
            earlier = self._trail()[:-1]
            if version_id is None:
                earlier = self._sound(earlier)
            else:
                wanted = self.find(version_id).id
                while wanted in earlier and earlier[-1] != wanted:
                    earlier.pop()
                earlier += [] if wanted in earlier else [wanted]
            if not earlier:
                raise UsageError("no earlier version was live: name one of the history to go to")
            self.read(earlier[-1])
            self._point(earlier)
            return self.find(earlier[-1])

    def history(self) -> list[Version]:
        """All versions in the order of their commits, those too whose content was collected since."""
        return self._objects.history()

    def find(self, version_id: str) -> Version:
        """The version whose id begins so.

        Raises:
            UsageError: none does, or several.
        """
        if known := self._objects.known(version_id):
            return known
        found = [version for version in self.history() if version_id and version.id.startswith(version_id)]
        if len(found) > 1:
            raise UsageError(f"{len(found)} versions have ids that begin with {version_id!r}: write more of it")
        if not found:
            raise UsageError(f"no version has an id that begins with {version_id!r}: take one of the history")
        return found[0]

    def holds(self, version_id: str) -> bool:
        """Whether the content of a version, by its whole id, is there and is what was committed."""
        return self._objects.holds(version_id)

    def read(self, version_id: str) -> Path:
        """The file that holds a version's content, after its hash was checked.

        Raises:
            UsageError: no such version.
            ModelError: the content is not there any more, or fails its hash and is in quarantine now.
        """
        version = self.find(version_id)
        if not self.holds(version.id):
            raise ModelError(f"version {version.id[:12]} is damaged or was collected: activate another of the history")
        return self._objects.path(version.id)

    def collect(self, limit: int | None = None) -> int:
        """Delete what cut commits left behind, and the oldest contents beyond `limit` bytes (`keep_bytes`), quarantined
        ones first. Commits do this too. Returns the bytes that went.

        Raises:
            OutputError: a file cannot be deleted.
        """
        with self._locked():
            return self._collect(room=0 if limit is None else self.keep_bytes - limit)

    def _note(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, over all processes; the folders exist, and the pointer names what is there."""
        disk = self._objects.disk
        with saying(self.folder):
            if not self.folder.is_dir():
                disk.make_folder(self.folder)
            with self._objects.lock.held():
                if not self._objects.versions.is_dir():
                    disk.sync_folder(self.folder.parent)  # under the lock: who made it may not have come to that
                    disk.make_folder(self._objects.versions)
                    disk.sync_folder(self.folder)
                self._settle()
                yield

    def _settle(self) -> None:
        """A damaged version that is committed again must not become live by that: the pointer forgets it first."""
        trail = self._trail()
        if trail != self._said():
            self._point(trail)

    def _trail(self) -> list[str]:
        """Ids that were live, oldest first, up to the last one that is sound."""
        said = self._said()
        trail = self._sound(said)
        if trail == said:
            return trail
        with self._objects.lock.held():  # since it was read others may have been live, and these been collected
            said = self._said()
            trail = self._sound(said)
        for lost in said[len(trail) :]:
            self._note(f"version {lost[:12]} cannot be served: what was live before it is")
        return trail

    def _said(self) -> list[str]:
        """Ids that were live, as the pointer has them."""
        said = self._pointer(self.folder / "current.json")
        return (said if said is not None else self._pointer(self.folder / "previous.json")) or []

    def _pointer(self, path: Path) -> list[str] | None:
        return self._objects.sealed(path, lambda table: [str(name) for name in table["trail"]])

    def _sound(self, trail: list[str]) -> list[str]:
        """What is left of a trail when those at its end have gone that cannot be served."""
        end = len(trail)
        while end and not self.holds(trail[end - 1]):
            end -= 1
        return trail[:end]

    def _point(self, trail: list[str]) -> None:
        """Turn the pointer. The older one is kept beside it first, so that one damaged file never means none."""
        current = self.folder / "current.json"
        with suppress(FileNotFoundError):
            self._objects.write(self.folder / "previous.json", [current.read_bytes()])
        self._objects.write(current, [seal({"trail": trail[-TRAIL:]})])

    def _afford(self, size: int, known: Mapping[str, Version]) -> None:
        if size > self.keep_bytes:
            raise BudgetError(f"a model of {size} bytes is more than keep_bytes={self.keep_bytes}: raise keep_bytes")
        now = time.time()
        today = sum(version.size for version in known.values() if abs(now - version.created) < DAY)
        if self.write_budget is not None and today + size > self.write_budget:
            raise BudgetError(
                f"{today} of {self.write_budget} bytes were written within a day and {size} more are too many: "
                "commit later or raise write_budget"
            )

    def _collect(self, room: int) -> int:
        return self._objects.collect(self.keep_bytes - room, set(self._trail()[-2:]))


@contextmanager
def _reading(model: bytes | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read {model!s} ({error.strerror}): commit a model file") from error

# SPDX-License-Identifier: Apache-2.0
"""Transfers on their way, each under the SHA-256 of its bytes on the line, so that they survive a restart of either
side and another file of the same name is another transfer.

`ID.part` holds what arrived, `ID.json` how much of it is durable and the hash of exactly that. Bytes are synced every
MiB or two seconds; after a start the durable ones are hashed again and what lies behind them is cut off.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgelearn.durable import DISK, Disk, replacing, write_through
from edgelearn.errors import EdgelearnError, MismatchError
from edgelearn.store.versions import seal, unseal

SYNC_BYTES, SYNC_SECONDS = 1 << 20, 2.0
"""What a power cut may cost, in bytes and in time."""
PIECE = 1 << 18
"""Bytes that are read at once."""
OPEN = 8
"""Transfers that are known without asking the disk."""


class Transfer:
    """One file that arrives: `off` bytes are there, `durable` of them survive a power cut.

    `named` says that `sha256` is the hash of its bytes; without one a transfer cannot be gone on with.
    """

    def __init__(
        self, folder: Path, sha256: bytes, size: int, disk: Disk, clock: Callable[[], float], named: bool = True
    ) -> None:
        self.sha256, self.size, self.named = sha256, size, named
        self.part, self.about = folder / f"{sha256.hex()}.part", folder / f"{sha256.hex()}.json"
        self._disk, self._clock = disk, clock
        self.off = self.durable = 0
        self._hash = hashlib.sha256()
        self._restore()
        self._synced = clock()

    @property
    def sid(self) -> bytes:
        """What chunks are named by: it is the same after a restart."""
        return self.sha256[:8]

    def prefix(self) -> bytes:
        """The hash of what has arrived."""
        return self._hash.copy().digest()

    def _restore(self) -> None:
        durable, prefix = 0, ""
        with suppress(OSError, EdgelearnError, KeyError, TypeError):
            table = unseal(self.about.read_bytes())
            durable, prefix = int(table["durable"]), str(table["prefix"])
        if not self.part.is_file():
            return
        there = self.part.stat().st_size
        found = self._digest(durable)
        if durable <= min(there, self.size) and found.hexdigest() == prefix:
            self.off = self.durable = durable
            self._hash = found
        if there != self.off:
            self._disk.truncate(self.part, self.off)

    def _digest(self, count: int) -> Any:
        found = hashlib.sha256()
        with self.part.open("rb") as stream:
            while count and (piece := stream.read(min(count, PIECE))):
                found.update(piece)
                count -= len(piece)
        return found

    def add(self, data: bytes) -> None:
        """More bytes at `off`.

        Raises:
            OSError: the disk refused; `off` is where it was.
        """
        with self._open() as stream:
            try:
                self._disk.write(stream, data)
            except OSError:
                self._disk.truncate(self.part, self.off)
                raise
            self.off += len(data)
            self._hash.update(data)
            due = self.off - self.durable >= SYNC_BYTES or self._clock() - self._synced >= SYNC_SECONDS
            if due or self.off == self.size:
                self._sync(stream)

    def _open(self) -> Any:
        return self._disk.extend(self.part) if self.part.exists() else self._disk.create(self.part)

    def sync(self) -> None:
        """Make all that has arrived durable."""
        if self.durable < self.off:
            with self._open() as stream:
                self._sync(stream)

    def _sync(self, stream: Any) -> None:
        self._disk.sync(stream)
        with replacing(self.about, self._disk) as partial:
            table = {"durable": self.off, "prefix": self._hash.hexdigest(), "size": self.size}
            write_through(partial, [seal(table)], self._disk)
        self.durable, self._synced = self.off, self._clock()

    def check(self) -> None:
        """Whether all of it lies on the disk as it was sent, read back from there and not from the page cache.

        Raises:
            MismatchError: it does not; what arrived is gone.
        """
        self.sync()
        wanted = self.sha256 if self.named else self.prefix()
        if self.off != self.size or digest_of(self.part) != wanted:
            self.discard()
            raise MismatchError("what arrived is not what was announced: write it again")

    def discard(self) -> None:
        """Forget it; the next one begins at zero."""
        for path in (self.about, self.part):
            if path.exists():
                self._disk.remove(path)
        self._hash, self.off, self.durable = hashlib.sha256(), 0, 0


class Staging:
    """The transfers in a folder, by their `sid`."""

    def __init__(self, folder: Path, disk: Disk = DISK, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.disk, self._clock = folder, disk, clock
        self._open: dict[bytes, Transfer] = {}

    def begin(self, sha256: bytes, size: int, named: bool = True) -> Transfer:
        """The transfer of these bytes, where it stopped."""
        known = self._open.pop(sha256[:8], None)
        if known is None or known.sha256 != sha256 or known.size != size:
            for folder in (self.folder.parent, self.folder):
                if not folder.is_dir():
                    self.disk.make_folder(folder)
                    self.disk.sync_folder(folder.parent)
            known = Transfer(self.folder, sha256, size, self.disk, self._clock, named)
        while len(self._open) >= OPEN:
            self._open.pop(next(iter(self._open)))
        self._open[known.sid] = known
        return known

    def find(self, sid: bytes) -> Transfer | None:
        """A transfer that was begun since the start."""
        return self._open.get(sid)

    def sync(self) -> None:
        """Make durable what waits for it, when the line is idle."""
        for transfer in self._open.values():
            transfer.sync()

    def finish(self, transfer: Transfer) -> None:
        """It has been taken: remove it."""
        self._open.pop(transfer.sid, None)
        transfer.discard()

    def assemble(self, sha256: bytes, pieces: Iterable[bytes]) -> Path:
        """A payload put together as a file that the caller removes, if it is the one of that hash.

        Raises:
            MismatchError: it is another; the file is gone.
            OSError: the disk refused; the file is gone.
        """
        path, found = self.folder / f"{sha256.hex()}.raw", hashlib.sha256()
        if path.exists():
            self.disk.remove(path)
        try:
            write_through(path, _hashed(pieces, found), self.disk)
            if found.digest() != sha256:
                raise MismatchError("it unpacks to something else than was announced: make the bundle again")
        except (MismatchError, OSError):
            self.disk.remove(path)
            raise
        return path

    def clear(self) -> None:
        """Remove all transfers, those of earlier starts too."""
        self._open = {}
        self.sweep()

    def sweep(self) -> None:
        """Remove what nobody has asked for since the start."""
        kept = {transfer.sha256.hex() for transfer in self._open.values()}
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                if path.stem not in kept:
                    self.disk.remove(path)


def _hashed(pieces: Iterable[bytes], found: Any) -> Iterator[bytes]:
    for piece in pieces:
        found.update(piece)
        yield piece


def digest_of(path: Path) -> bytes:
    """SHA-256 of a file as it lies on the disk, not of what the page cache still has of it."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := stream.read(PIECE):
            found.update(piece)
    return found.digest()

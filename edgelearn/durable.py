# SPDX-License-Identifier: Apache-2.0
"""A file takes its name only when all of it is on the disk: temporary name beside it, fsync, rename, fsync of the
folder. Until then an older file of that name stays. All that changes a disk goes through `Disk`, so that tests can cut
the power at each operation."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edgelearn.errors import EdgelearnError, OutputError

LEFTOVER = re.compile(r"\.edgelearn-[0-9a-f]{16}\.\w+")
"""Temporary names, of which a process that died may have left some behind."""

_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EACCES})
"""What file systems say that cannot sync a folder; what is written there is as safe as it can be."""


class Disk:
    """The operations that change a file system, one method each."""

    def create(self, path: Path) -> BinaryIO:
        """Open a new file to write."""
        return path.open("xb", buffering=0)

    def extend(self, path: Path) -> BinaryIO:
        """Open a file to write more behind its end."""
        return path.open("ab", buffering=0)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file down to its first bytes."""
        os.truncate(path, size)

    def write(self, stream: BinaryIO, part: bytes | memoryview) -> None:
        """Hand all of `part` to the file system."""
        rest = memoryview(part).cast("B")
        while rest:
            rest = rest[stream.write(rest) :]

    def sync(self, stream: BinaryIO) -> None:
        """Wait until the file's content is on the disk."""
        os.fsync(stream.fileno())

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in one step; one that had it is gone."""
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        """Delete a file."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make a folder; one that another process has just made is as good."""
        path.mkdir(exist_ok=True)

    def sync_folder(self, path: Path) -> None:
        """Wait until names in a folder are on the disk; some file systems cannot do that."""
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise


DISK = Disk()


@contextmanager
def saying(target: Path) -> Iterator[None]:
    """What the operating system refuses becomes an OutputError about `target`."""
    try:
        yield
    except EdgelearnError:  # of the block, which says its own
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {target} ({reason}): choose a writable folder with space left") from error


@contextmanager
def replacing(target: Path, disk: Disk = DISK) -> Iterator[Path]:
    """A temporary name beside `target` with its suffix, renamed when the block succeeds and gone when it fails.

    Raises:
        OutputError: the file cannot be written.
    """
    partial = target.parent / f".edgelearn-{os.urandom(8).hex()}{target.suffix}"
    with saying(target):
        try:
            yield partial
            disk.rename(partial, target)
        except BaseException:
            with suppress(OSError, ValueError):
                disk.remove(partial)
            raise
        disk.sync_folder(target.parent)


def write_through(path: Path, parts: Iterable[bytes | memoryview], disk: Disk = DISK) -> None:
    """To the disk, not only to its cache: a name must never stand on a file that a power cut can empty."""
    with disk.create(path) as stream:
        for part in parts:
            disk.write(stream, part)
        disk.sync(stream)

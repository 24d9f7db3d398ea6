# SPDX-License-Identifier: Apache-2.0
"""A file takes its name only when all of it is on the disk: temporary name beside it, fsync, rename, fsync of the
folder. Until then an older file of that name stays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgelearn.errors import EdgelearnError, OutputError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary name beside `target` with its suffix, renamed when the block succeeds and gone when it fails.

    Raises:
        OutputError: the file cannot be written.
    """
    partial = target.parent / f".edgelearn-{os.urandom(8).hex()}{target.suffix}"
    try:
        yield partial
        os.replace(partial, target)
    except EdgelearnError:  # of the block, which says its own
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {target} ({reason}): choose a writable folder with space left") from error
    finally:
        with suppress(OSError, ValueError):
            partial.unlink()
    _sync_folder(target.parent)


def write_through(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """To the disk, not only to its cache: a name must never stand on a file that a power cut can empty."""
    with path.open("xb") as stream:
        for part in parts:
            stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name durable; some file systems cannot, and the content is safe without."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

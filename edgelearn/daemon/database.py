# SPDX-License-Identifier: Apache-2.0
"""The file of samples: its schema, how it is opened, and what is done when it is damaged: it goes to quarantine, and
every row that can still be read goes into a new one."""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelearn.durable import replacing

SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    x BLOB NOT NULL,
    dtype TEXT NOT NULL,
    label TEXT,
    source TEXT NOT NULL,
    created REAL NOT NULL,
    crc INTEGER NOT NULL,
    labelled INTEGER
);
CREATE TABLE IF NOT EXISTS classes (name TEXT PRIMARY KEY);
CREATE INDEX IF NOT EXISTS by_label ON samples (label);
CREATE INDEX IF NOT EXISTS by_source ON samples (source, crc);
CREATE INDEX IF NOT EXISTS by_labelled ON samples (labelled);
"""
"""`labelled` counts labels as they come, so that training reads what is new to it in one order."""


@dataclass(frozen=True)
class Sample:
    """One sample as it is stored: `x` in the order of the data, `dtype` uint8 or float32, `label` None where nobody
    said. `created` is in seconds since 1970 by the board's clock, which may be wrong: order is that of `id`."""

    x: bytes
    dtype: str
    label: str | None
    source: str = "api"
    created: float = 0.0
    id: int = 0

    @property
    def row(self) -> tuple[Any, ...]:
        """Its columns but the last."""
        return (self.x, self.dtype, self.label, self.source, self.created or time.time(), zlib.crc32(self.x))


COLUMNS = "x, dtype, label, source, created, id, crc"


def connect(path: Path, *, writes: bool) -> sqlite3.Connection:
    """A connection with the settings that durability needs.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    mode = "rwc" if writes else "ro"
    base = sqlite3.connect(f"file:{path}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False)
    base.execute("PRAGMA busy_timeout = 5000")
    base.execute("PRAGMA cache_size = -512")
    if writes:
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = FULL")
        base.execute("PRAGMA wal_autocheckpoint = 500")
    return base


def whole(row: tuple[Any, ...]) -> Sample | None:
    """The sample of a row of COLUMNS, None when its bytes are not what was written."""
    return Sample(*row[:6]) if isinstance(row[0], bytes) and zlib.crc32(row[0]) == row[6] else None


_ROW = "id, x, dtype, label, source, created, crc, labelled"


def repair(path: Path, note: Callable[[str, str], object]) -> None:
    """Leave a database at `path` that SQLite calls sound, or none; `note(kind, message)` is told what was done.

    Raises:
        OSError, sqlite3.Error: the disk does not take the new one.
    """
    if not path.exists() or _is_sound(path):
        return
    damaged = path.with_name(f"{path.stem}.damaged-{os.urandom(4).hex()}{path.suffix}")
    for suffix in ("", "-wal", "-shm"):  # they belong together
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{damaged}{suffix}")
    saved = _rescue(damaged, path)
    note(
        "samples_repaired",
        f"the sample database was damaged: {saved} samples were saved, the rest is in {damaged.name}",
    )


def _is_sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as base:
            return bool(base.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False


def _rescue(damaged: Path, path: Path) -> int:
    """How many rows made it."""
    saved = 0
    with replacing(path) as partial:
        with closing(sqlite3.connect(damaged)) as old, closing(sqlite3.connect(partial)) as new:
            new.executescript(SCHEMA)
            _copy_classes(old, new)
            for row in _readable(old):
                if isinstance(row[1], bytes) and zlib.crc32(row[1]) == row[6]:
                    marks = ", ".join("?" * len(row))
                    saved += new.execute(f"INSERT OR IGNORE INTO samples ({_ROW}) VALUES ({marks})", row).rowcount
            new.commit()
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
    return saved


def _copy_classes(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    with suppress(sqlite3.DatabaseError):
        new.executemany("INSERT INTO classes VALUES (?)", old.execute("SELECT name FROM classes").fetchall())


def _readable(base: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Every row that can be read, walking from both ends of a gap: the ids are dense, so each is asked for."""
    try:
        last = _last(base)
    except sqlite3.DatabaseError:
        return
    for sample_id in range(last, 0, -1):
        with suppress(sqlite3.DatabaseError):
            yield from base.execute(f"SELECT {_ROW} FROM samples WHERE id = ?", (sample_id,)).fetchall()


def _last(base: sqlite3.Connection) -> int:
    """The highest id there ever was."""
    with suppress(sqlite3.DatabaseError):
        row = base.execute("SELECT seq FROM sqlite_sequence WHERE name = 'samples'").fetchone()
        if row:
            return int(row[0])
    return int(base.execute("SELECT coalesce(max(id), 0) FROM samples").fetchone()[0])

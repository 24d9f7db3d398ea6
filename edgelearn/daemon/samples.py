# SPDX-License-Identifier: Apache-2.0
"""Samples on the disk: SQLite in WAL mode with synchronous FULL, written by one thread that commits for many at once.

A sample is acknowledged after the fsync of its transaction and never before. The oldest go when there is no room.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgelearn.daemon.database import COLUMNS, SCHEMA, Sample, connect, repair, whole
from edgelearn.errors import OutputError, UsageError

_GROUP = 64
"""Requests that share one fsync at most: under load the wait for it is theirs together."""

_QUEUE = 1024
"""Requests that wait for the writer; more are refused."""


class Samples:
    """The store. `limit` bounds the bytes of samples; `note(kind, message)` is told what a person should know.

    Raises:
        OutputError: it cannot be opened; what was damaged stays beside it.
    """

    def __init__(self, path: Path, limit: int, note: Callable[[str, str], object]) -> None:
        self.path, self.limit = path, limit
        self._queue: queue.Queue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.Queue(_QUEUE)
        self.refusal: str | None = None
        try:
            repair(path, note)
            self._base = connect(path, writes=True)
            self._base.executescript(SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise OutputError(f"cannot open {path} ({error}): choose another --data-dir, or free space") from error
        self._reader = connect(path, writes=False)
        self.bytes = int(self._one("SELECT coalesce(sum(length(x)), 0) FROM samples"))
        self.counts: dict[str | None, int] = dict(
            self._reader.execute("SELECT label, count(*) FROM samples GROUP BY label").fetchall()
        )
        self.classes = [row[0] for row in self._reader.execute("SELECT name FROM classes ORDER BY rowid")]
        self._next_label = 1 + int(self._one("SELECT coalesce(max(labelled), 0) FROM samples"))
        self._thread = threading.Thread(target=self._write, name="samples", daemon=True)
        self._thread.start()

    def _one(self, sql: str, *values: Any) -> Any:
        return self._reader.execute(sql, values).fetchone()[0]

    # Writing

    async def add(self, samples: Iterable[Sample]) -> list[int]:
        """Store samples; their ids, once they are on the disk.

        Raises:
            OutputError: the disk takes no more; none of them is kept.
        """
        rows = list(samples)
        return list(await self._ask(lambda: [self._insert(row) for row in rows]))

    async def label(self, sample_id: int, label: str | None) -> bool:
        """Say what a sample is, or that it is nothing; whether there is such a sample."""
        return bool(await self._ask(lambda: self._relabel(sample_id, label)))

    async def remove(self, sample_id: int) -> bool:
        """Forget a sample; whether there was one."""
        return bool(await self._ask(lambda: self._delete([sample_id])))

    async def add_class(self, name: str) -> None:
        """Let samples be of a class that no model knows yet; training adds it to the next one.

        Raises:
            OutputError: the disk takes no more.
        """
        sql = "INSERT OR IGNORE INTO classes VALUES (?)"
        await self._ask(lambda: self._base.execute(sql, (name,)).rowcount)
        if name not in self.classes:
            self.classes.append(name)

    async def probe(self) -> None:
        """Return when the writer answers, which a stuck one does not."""
        await self._ask(lambda: None)

    async def _ask(self, job: Callable[[], Any]) -> Any:
        if self.refusal:
            raise OutputError(self.refusal)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((job, future))
        except queue.Full as error:
            raise OutputError("the disk is slower than samples come: send them again later") from error
        return await future

    def close(self) -> None:
        """Finish what waits, then close."""
        self._queue.put(None)
        self._thread.join()
        self._reader.close()
        self._base.close()

    def _write(self) -> None:
        """The writer thread: whatever waits goes into one transaction."""
        ends = False
        while not ends:
            group = [self._queue.get()]
            while len(group) < _GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            ends = None in group
            asked = [item for item in group if item is not None]
            if asked:
                self._commit(asked)

    def _commit(self, asked: list[tuple[Callable[[], Any], asyncio.Future[Any]]]) -> None:
        before = (self.bytes, dict(self.counts), self._next_label)
        try:
            self._base.execute("BEGIN IMMEDIATE")
            answers: list[Any] = [job() for job, _ in asked]
            self._evict()
            self._base.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self.bytes, self.counts, self._next_label = before
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
            answers = [OutputError(f"cannot store samples ({error}): free space on the disk")] * len(asked)
        for (_, future), answer in zip(asked, answers, strict=True):
            future.get_loop().call_soon_threadsafe(_settle, future, answer)

    def _insert(self, sample: Sample) -> int:
        labelled = self._count(sample.label) if sample.label is not None else None
        sql = "INSERT INTO samples (x, dtype, label, source, created, crc, labelled) VALUES (?, ?, ?, ?, ?, ?, ?)"
        cursor = self._base.execute(sql, (*sample.row, labelled))
        self.counts[sample.label] = self.counts.get(sample.label, 0) + 1
        self.bytes += len(sample.x)
        return cursor.lastrowid or 0

    def _count(self, label: str | None) -> int | None:
        self._next_label += 1
        return self._next_label - 1 if label is not None else None

    def _relabel(self, sample_id: int, label: str | None) -> bool:
        row = self._base.execute("SELECT label FROM samples WHERE id = ?", (sample_id,)).fetchone()
        if row is None:
            return False
        sql = "UPDATE samples SET label = ?, labelled = ? WHERE id = ?"
        self._base.execute(sql, (label, self._count(label), sample_id))
        self._uncount(row[0])
        self.counts[label] = self.counts.get(label, 0) + 1
        return True

    def _uncount(self, label: str | None) -> None:
        self.counts[label] -= 1
        if not self.counts[label]:
            del self.counts[label]

    def _evict(self) -> None:
        """The oldest go, a twentieth at a time, so that this is rare."""
        if self.bytes <= self.limit:
            return
        oldest, over = [], self.bytes - self.limit + self.limit // 20
        for sample_id, size in self._base.execute("SELECT id, length(x) FROM samples ORDER BY id"):
            if over <= 0:
                break
            oldest.append(sample_id)
            over -= size
        self._delete(oldest)

    def _delete(self, ids: list[int]) -> int:
        gone = 0
        for sample_id in ids:
            sql = "DELETE FROM samples WHERE id = ? RETURNING label, length(x)"
            for label, size in self._base.execute(sql, (sample_id,)).fetchall():
                self._uncount(label)
                self.bytes -= size
                gone += 1
        return gone

    # Reading

    def get(self, sample_id: int) -> Sample | None:
        """One sample, None where there is none or its bytes are damaged."""
        row = self._reader.execute(f"SELECT {COLUMNS} FROM samples WHERE id = ?", (sample_id,)).fetchone()
        return row and whole(row)

    def has(self, sample: Sample) -> bool:
        """Whether the same bytes came from the same source before."""
        sql = "SELECT count(*) FROM samples WHERE source = ? AND crc = ?"
        return bool(self._one(sql, sample.source, sample.row[-1]))

    def latest(self, count: int, label: str | None = None, before: int | None = None) -> list[Sample]:
        """The newest samples, newest first: of one label (an empty one: without any), older than the id `before`."""
        where, values = ["1"], []
        if label is not None:
            where.append("label IS ?")
            values.append(label or None)
        if before is not None:
            where.append("id < ?")
            values.append(str(before))
        sql = f"SELECT {COLUMNS} FROM samples WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
        found = (whole(row) for row in self._reader.execute(sql, (*values, count)))
        return [sample for sample in found if sample]

    @property
    def labelled(self) -> int:
        """The number of the last label that was given."""
        return self._next_label - 1


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():  # its request was cancelled
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def check_label(label: Any) -> str | None:
    """A label as it is stored, None for none.

    Raises:
        UsageError: it is no text of 1 to 100 characters that can be printed.
    """
    if label is None or label == "":
        return None
    if not isinstance(label, str) or len(label) > 100 or not label.isprintable():
        raise UsageError("a label is text of at most 100 characters that can be printed: send such a text")
    return label

# SPDX-License-Identifier: Apache-2.0
"""What a group hands to the next, of all samples, on disk: bytes or halves with a scale and a shift per channel.

Rows lie one behind the other, without a header, and are read through a memory map, so that they take no memory that
the system cannot have back.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.durable import replacing, write_through
from edgelearn.engines import Entry, Session
from edgelearn.errors import DataError, LearningError, OutputError

KINDS = ("uint8", "float16")

_STEPS = 255
"""Steps of a byte between the least and the most of a channel."""

_LARGEST_EXPONENT = 127
"""Of two, in float32."""

_PART = 1 << 10
"""Rows that are summed in one go."""

_SAID = ("TMPDIR", "TEMP", "TMP")


@dataclass(frozen=True)
class Cached:
    """A file of n rows of `features` values that enter at `group` as value * scale + shift, a pair per channel."""

    name: str
    kind: str
    group: int
    n: int
    features: int
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    crc: int

    def to_json(self) -> dict[str, Any]:
        """As a manifest holds it; floats come back to the bit."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Cached:
        """The opposite of `to_json`."""
        return cls(**{**table, "scale": tuple(table["scale"]), "shift": tuple(table["shift"])})

    @property
    def entry(self) -> Entry:
        """Where the rows enter a net, and by which numbers."""
        return Entry(self.group, np.array(self.scale, np.float32), np.array(self.shift, np.float32))

    def open(self, folder: Path) -> NDArray[Any]:
        """The rows (n, features), mapped and read-only.

        Raises:
            DataError: the file is gone or too short.
        """
        path = folder / self.name
        try:
            return np.asarray(np.memmap(path, self.kind, "r", shape=(self.n, self.features)))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}): empty the folder to begin again") from error

    def verify(self, folder: Path) -> None:
        """Read the file once.

        Raises:
            DataError: it is gone or not as it was written.
        """
        rows, crc = self.open(folder), 0
        for start in range(0, self.n, _PART):
            crc = zlib.crc32(rows[start : start + _PART].data, crc)
        if crc != self.crc:
            raise DataError(f"{folder / self.name} is damaged: empty the folder to begin again")


@dataclass(frozen=True)
class Cache:
    """Where outputs of groups are kept, as `kind` of KINDS. `channels` are those of what enters a group, by its
    number; `part` samples go through the net at once."""

    folder: Path
    kind: str
    channels: dict[int, int]
    part: int

    def write(self, session: Session, x: NDArray[Any], entry: Entry, last: int) -> Cached:
        """Put on disk what the group after `last` reads of samples x (n, features) that enter at `entry`.

        Two passes over the samples: the first looks for the range of each channel.

        Raises:
            LearningError: outputs that are not finite.
            OutputError: no space left, or a folder that cannot be written.
        """
        group = last + 1
        channels = self.channels[group]
        scale, shift = _pairs(self.kind, *self._range(session, x, entry, last))
        name, crc, features = f"outputs-{group}.{self.kind}", 0, 0

        def parts() -> Iterator[memoryview]:
            nonlocal crc, features
            for rows in self._outputs(session, x, entry, last):
                features = rows.shape[1]
                stored = _stored(self.kind, rows.reshape(-1, channels), scale, shift)
                crc = zlib.crc32(stored.data, crc)
                yield stored.data.cast("B")

        with replacing(self.folder / name) as partial:
            write_through(partial, parts())
        return Cached(name, self.kind, group, len(x), features, tuple(scale.tolist()), tuple(shift.tolist()), crc)

    def _outputs(self, session: Session, x: NDArray[Any], entry: Entry, last: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(x), self.part):
            yield session.outputs(x[start : start + self.part], last, entry)

    def _range(
        self, session: Session, x: NDArray[Any], entry: Entry, last: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Least and most of each channel."""
        channels = self.channels[last + 1]
        low, high = np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32)
        for rows in self._outputs(session, x, entry, last):
            values = rows.reshape(-1, channels)
            np.minimum(low, values.min(axis=0), out=low)
            np.maximum(high, values.max(axis=0), out=high)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise LearningError(f"the outputs of block {last + 1} are not finite: lower the learning rate")
        return low, high

    def require_space(self, needed: int) -> None:
        """Refuse a run whose files do not fit.

        Raises:
            OutputError: fewer than `needed` bytes free; says what to do.
        """
        old = sum(path.stat().st_size for path in self.folder.glob("outputs-*"))
        free = shutil.disk_usage(self.folder).free + old
        if needed > free:
            raise OutputError(
                f"the outputs of blocks need {needed:,} bytes in {self.folder}, where {free:,} are free: give another "
                "folder as cache_dir, or set cache to uint8 or none"
            )

    def remove(self, cached: Cached) -> None:
        """Delete a file that is no longer needed; a map of it stays valid until it is let go of."""
        (self.folder / cached.name).unlink(missing_ok=True)


def _pairs(
    kind: str, low: NDArray[np.float32], high: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and shift of channels from `low` to `high`. Halves are scaled by a power of two, which rounds nothing."""
    if kind == "uint8":
        step = ((high.astype(np.float64) - low) / _STEPS).astype(np.float32)
        return np.where(step > 0, step, np.float32(1)), low
    _, exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))
    return np.ldexp(np.float32(1), np.minimum(exponent, _LARGEST_EXPONENT)), np.zeros_like(low)


def _stored(
    kind: str, values: NDArray[np.float32], scale: NDArray[np.float32], shift: NDArray[np.float32]
) -> NDArray[Any]:
    """values (n, channels), which are overwritten, as they lie on disk."""
    values -= shift
    values /= scale
    if kind == "uint8":
        np.clip(np.rint(values, out=values), 0, _STEPS, out=values)
    return values.astype(kind)


def most_bytes(features: Sequence[int], kind: str) -> int:
    """Most bytes on disk at once, per sample: a file is written while the one before it is read."""
    at_once = [*features[:1], *(sum(pair) for pair in pairwise(features))]
    return max(at_once, default=0) * np.dtype(kind).itemsize


def temporary_parent() -> str | None:
    """Where a temporary folder for files larger than memory belongs: what the environment says, else /var/tmp, since
    on many systems /tmp is memory; None: Python's own choice."""
    said = any(os.environ.get(name) for name in _SAID)
    return None if said or not os.access("/var/tmp", os.W_OK) else "/var/tmp"

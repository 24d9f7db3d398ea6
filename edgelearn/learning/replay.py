# SPDX-License-Identifier: Apache-2.0
"""Samples kept of a stream: as many of each class as it allows, within a number of bytes, memory-mapped."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import BudgetError, DataError, ModelError
from edgelearn.philox import STREAM_REPLAY, philox

Rows = NDArray[Any]
Labels = NDArray[np.int32]

_HALF_MOST = 65504.0
"""The largest float16; beyond it a sample would come back as infinity."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """How samples (n, features) are stored: uint8 as they are, all others as halves of x * weight + bias, pair i mod
    pairs for feature i, so that numbers such as pressures in pascals keep their digits."""

    features: int
    dtype: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def of(cls, rows: Rows, pairs: tuple[NDArray[np.float32], NDArray[np.float32]] | None) -> Encoding:
        """For samples like these, of a net whose input is scaled by `pairs`."""
        features = rows.shape[1]
        weight, bias = pairs or (np.ones(1, np.float32), np.zeros(1, np.float32))
        whole = (np.resize(weight, features), np.resize(bias, features))
        return cls(features, "uint8" if rows.dtype == np.uint8 else "float16", *whole)

    @property
    def bytes(self) -> int:
        """Of one sample."""
        return self.features * np.dtype(self.dtype).itemsize

    def encode(self, rows: Rows) -> Rows:
        """Samples as they are stored.

        Raises:
            DataError: of another kind than before, or values beyond float16.
        """
        if (rows.dtype == np.uint8) != (self.dtype == "uint8"):
            raise DataError(f"samples are {rows.dtype} now and were {self.dtype}: give them as before")
        if self.dtype == "uint8":
            return rows
        scaled = rows * self.weight + self.bias
        if np.abs(scaled).max() > _HALF_MOST:
            raise DataError("scaled samples beyond 65504 cannot be kept as float16: declare [input] scale")
        return scaled.astype(np.float16)

    def decode(self, stored: Rows) -> Rows:
        """Samples as they came, float32 or uint8, writable."""
        if self.dtype == "uint8":
            return np.array(stored)
        return (stored.astype(np.float32) - self.bias) / self.weight


def mark(rows: Rows) -> NDArray[np.uint32]:
    """A fingerprint of each sample's content (n,)."""
    return np.array([zlib.crc32(row.tobytes()) for row in rows], np.uint32)


class Reservoir:
    """At most `capacity` samples of a stream: CBRS (Chrysakis and Moens 2020, Online continual learning from
    imbalanced data, algorithm 1). While there is room all are kept; then a sample of a class that is not the largest
    takes the place of one that is, and one of the largest is kept as reservoir sampling would.

    A sample whose content is there already only corrects its label. Choices are a function of the seed and of how many
    samples came before.

    Raises:
        BudgetError: not even one sample fits.
    """

    def __init__(self, encoding: Encoding, limit: int, seed: int = 0) -> None:
        self.encoding, self.seed = encoding, seed
        self.capacity = limit // (encoding.bytes + 8)
        if self.capacity < 1:
            raise BudgetError(f"{limit} bytes hold no sample of {encoding.bytes} bytes: give replay more")
        self.size = self.drawn = 0
        self.seen: dict[int, int] = {}
        self._lay(mmap.mmap(-1, self.bytes))

    @property
    def bytes(self) -> int:
        """Of samples, labels and fingerprints."""
        return self.capacity * (self.encoding.bytes + 8)

    @property
    def labels(self) -> Labels:
        """Of the samples that are kept (size,)."""
        return self._labels[: self.size]

    def counts(self) -> dict[int, int]:
        """Samples that are kept, by class."""
        classes, counts = np.unique(self.labels, return_counts=True)
        return dict(zip(classes.tolist(), counts.tolist(), strict=True))

    def add(self, rows: Rows, labels: Labels) -> None:
        """Offer samples (n, features) and labels (n,).

        Raises:
            DataError: as `Encoding.encode`.
        """
        stored, marks, chances = self.encoding.encode(rows), mark(rows), self._words(len(rows), 2)
        for row, label, name, words in zip(stored, labels.tolist(), marks, chances, strict=True):
            self.seen[label] = self.seen.get(label, 0) + 1
            known = np.flatnonzero(self._marks[: self.size] == name)
            if len(known):
                self._labels[known] = label
                continue
            place = self._place(label, words)
            if place is not None:
                self._samples[place], self._labels[place], self._marks[place] = row, label, name

    def _place(self, label: int, words: NDArray[np.uint32]) -> int | None:
        """Where a new sample goes, None if nowhere."""
        if self.size < self.capacity:
            self.size += 1
            return self.size - 1
        counts = self.counts()
        own, most = counts.get(label, 0), max(counts.values())
        if own < most:
            largest = [c for c, count in counts.items() if count == most]
            loser = largest[int(words[0]) % len(largest)]
        elif int(words[0]) * self.seen[label] < own << 32:
            loser = label
        else:
            return None
        candidates = np.flatnonzero(self.labels == loser)
        return int(candidates[int(words[1]) % len(candidates)])

    def draw(self, n: int) -> tuple[Rows, Labels]:
        """n samples at random, with repetition, and their labels; (0, features) while it is empty."""
        n = n if self.size else 0
        places = self._words(n, 1)[:, 0].astype(np.int64) * self.size >> 32
        return self.encoding.decode(self._samples[places]), self._labels[places]

    def parts(self, n: int = 256) -> Iterator[tuple[Rows, Labels]]:
        """All of them, n at a time."""
        for start in range(0, self.size, n):
            end = min(start + n, self.size)
            yield self.encoding.decode(self._samples[start:end]), self._labels[start:end].copy()

    def renew(self) -> None:
        """The stream has changed: what comes now is kept as if only what is kept had come before."""
        self.seen = self.counts()

    def contents(self) -> memoryview:
        """All bytes, as `restore` maps them."""
        return memoryview(self._memory)

    def to_json(self) -> dict[str, Any]:
        """Counts that go with the bytes."""
        table = {"features": self.encoding.features, "dtype": self.encoding.dtype, "capacity": self.capacity}
        return {**table, "size": self.size, "drawn": self.drawn, "seen": {str(k): n for k, n in self.seen.items()}}

    def restore(self, table: Mapping[str, Any], path: Path) -> None:
        """Go on from a file of `contents` and its counts. The file is mapped, never written to: what changes lies in
        memory until the next file.

        Raises:
            ModelError: they are of other samples or another size.
        """
        own = self.to_json()
        for name in ("features", "dtype", "capacity"):
            if table[name] != own[name]:
                raise ModelError(
                    f"the kept samples have {name} {table[name]}, not {own[name]}: go on as before, or empty the folder"
                )
        self.size, self.drawn = int(table["size"]), int(table["drawn"])
        self.seen = {int(k): int(n) for k, n in table["seen"].items()}
        self.remap(path)

    def remap(self, path: Path) -> None:
        """Let go of the memory, and read a file with the same content instead."""
        with path.open("rb") as stream:
            self._lay(mmap.mmap(stream.fileno(), self.bytes, access=mmap.ACCESS_COPY))

    def _lay(self, memory: mmap.mmap) -> None:
        n, width = self.capacity, self.encoding.features
        kind = np.dtype(self.encoding.dtype)
        self._memory = memory
        self._labels = np.frombuffer(memory, np.int32, n)
        self._marks = np.frombuffer(memory, np.uint32, n, 4 * n)
        self._samples = np.frombuffer(memory, kind, n * width, 8 * n).reshape(n, width)

    def _words(self, n: int, each: int) -> NDArray[np.uint32]:
        """Random words (n, each), never given out before."""
        counters = np.arange(self.drawn, self.drawn + n, dtype=np.uint64)
        high, self.drawn = self.drawn >> 32, self.drawn + n
        return philox(self.seed, counters, high, 0, STREAM_REPLAY)[:, :each]

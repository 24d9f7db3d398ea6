# SPDX-License-Identifier: Apache-2.0
"""What a learner keeps of its stream: samples to learn again, and samples held out, of which none is ever both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.inputs.frontend import Input
from edgelearn.learning.gate import Gate
from edgelearn.learning.replay import Encoding, Labels, Reservoir, Rows, mark

NAMES = ("replay", "holdout")
FILES = ("replay.bin", "holdout.bin")

_SPREAD = 2654435761
"""2^32 over the golden ratio (Knuth 1998, The art of computer programming 3, 6.4): fingerprints that are close are
spread out by it."""


class Memory:
    """Two reservoirs. What a sample holds decides where it goes, so that one that comes again goes the same way."""

    def __init__(self, replay_bytes: int, gate: Gate, input: Input, seed: int) -> None:
        self._bytes, self._gate, self._input, self._seed = replay_bytes, gate, input, seed
        self._pair: tuple[Reservoir, Reservoir] | None = None

    @property
    def replay(self) -> Reservoir | None:
        """What is learned again; None before the first sample."""
        return self._pair[0] if self._pair else None

    @property
    def holdout(self) -> Reservoir | None:
        """What is never learned; None before the first sample."""
        return self._pair[1] if self._pair else None

    @property
    def sizes(self) -> dict[str, int]:
        """How many samples are learned again, and how many are held out."""
        return {name: kept.size for name, kept in zip(NAMES, self._pair or (), strict=False)} or dict.fromkeys(NAMES, 0)

    @property
    def bytes(self) -> int:
        """Of both."""
        return sum(kept.bytes for kept in self._pair or ())

    def add(self, rows: Rows, labels: Labels) -> NDArray[np.bool_]:
        """Take samples (n, features); which of them are held out.

        Raises:
            DataError: samples of another kind than before.
            BudgetError: not even one fits.
        """
        replay, holdout = self.open(rows)
        spread = mark(rows).astype(np.uint64) * np.uint64(_SPREAD) & np.uint64(0xFFFFFFFF)
        held: NDArray[np.bool_] = spread < self._gate.holdout * 2.0**32
        for kept, own in ((replay, ~held), (holdout, held)):
            if own.any():
                kept.add(rows[own], labels[own])
        return held

    def open(self, rows: Rows) -> tuple[Reservoir, Reservoir]:
        """Both reservoirs, for samples like these if they are the first."""
        if self._pair is None:
            self._pair = self._made(Encoding.of(rows, self._input.pairs()))
        return self._pair

    def renew(self) -> None:
        """The stream has changed: make room for what it is now."""
        for kept in self._pair or ():
            kept.renew()

    def to_json(self) -> dict[str, Any]:
        """Counts that go with `contents`."""
        return {name: kept.to_json() for name, kept in zip(NAMES, self._pair or (), strict=False)}

    def contents(self) -> dict[str, memoryview]:
        """Their bytes, by file names."""
        return {name: kept.contents() for name, kept in zip(FILES, self._pair or (), strict=False)}

    def restore(self, table: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        """Go on from counts and files.

        Raises:
            ModelError: they are of another net or of other bounds.
        """
        if not table:
            return
        kind = np.uint8 if table["replay"]["dtype"] == "uint8" else np.float32
        kept = self.open(np.zeros((1, self._input.features), kind))
        for name, file, each in zip(NAMES, FILES, kept, strict=True):
            each.restore(table[name], files[file])

    def remap(self, files: Mapping[str, Path]) -> None:
        """Read files with the same content instead of holding memory."""
        for file, kept in zip(FILES, self._pair or (), strict=False):
            kept.remap(files[file])

    def _made(self, encoding: Encoding) -> tuple[Reservoir, Reservoir]:
        most = self._gate.max_samples * (encoding.bytes + 8)
        return Reservoir(encoding, self._bytes, self._seed), Reservoir(encoding, most, self._seed + 1)

# SPDX-License-Identifier: Apache-2.0
"""Features of frozen layers on disk: computed once for a backbone and its samples, read a few at a time.

A file is named by a digest of both, so that another model or other samples never find it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.backbone.taps import Backbone, FloatArray, Statistics, sha256
from edgelearn.durable import replacing
from edgelearn.errors import OutputError

CHUNK = 4
"""Samples whose maps are in memory at once."""


class FeatureCache:
    """Features at the first tap. With a folder they stay for the next run; without, they are gone after this one.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._temporary = None
        if folder is None:
            place = None if os.environ.get("TMPDIR") or not os.path.isdir("/var/tmp") else "/var/tmp"
            self._temporary = tempfile.TemporaryDirectory(prefix="edgelearn-features-", dir=place)
        self.folder = Path(self._temporary.name if self._temporary else folder or ".")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make folder {self.folder} ({error.strerror}): choose another") from error

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary:
            self._temporary.cleanup()

    def first(self, backbone: Backbone, rows: NDArray[Any], statistics: Statistics) -> FloatArray:
        """Features (n, positions, channels) of prepared samples at the first tap, mapped from the file, not loaded.
        `backbone` is already on the statistics.

        Raises:
            OutputError: there is no space.
        """
        parts = [array.tobytes() for _, array in sorted(statistics.items())]
        about = f"{backbone.digest} {backbone.taps[0].name} {rows.shape} {rows.dtype}".encode()
        path = self.folder / f"{sha256(about, *parts, np.ascontiguousarray(rows).tobytes())}.npy"
        if not path.is_file():
            self._write(path, backbone, rows)
        found: FloatArray = np.load(path, mmap_mode="r")
        return found

    def _write(self, path: Path, backbone: Backbone, rows: NDArray[Any]) -> None:
        tap = backbone.taps[0]
        with replacing(path) as partial:
            shape = (len(rows), tap.positions, tap.channels)
            file = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            for start in range(0, len(rows), CHUNK):
                file[start : start + CHUNK] = backbone.stage(0, rows[start : start + CHUNK])
            file.flush()
            del file

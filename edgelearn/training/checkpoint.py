# SPDX-License-Identifier: Apache-2.0
"""A run that trains block by block, on disk: which blocks are done, the weights after them, and of which data, net and
recipe it is a run. Whatever moment a process dies in, the manifest names files that are whole."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.durable import replacing, write_through
from edgelearn.errors import DataError, OutputError, UsageError
from edgelearn.training.cache import Cached
from edgelearn.training.history import History, Moment

MANIFEST = "run.json"
FORMAT = 1

_OURS = re.compile(r"outputs-\d+\.\w+|weights-\d+\.npz|\.edgelearn-[0-9a-f]{16}\.\w+")
"""Names of files that a process which died may have left behind."""

Identity = dict[str, Any]
"""What a run is a function of: digests of its arrays, and its recipe."""


def identity(arrays: Mapping[str, NDArray[Any]], recipe: Mapping[str, Any]) -> Identity:
    """The identity of a run of a recipe on arrays, as JSON gives it back."""
    digests = {name: _digest(array) for name, array in arrays.items()}
    said: Identity = json.loads(json.dumps({**digests, "recipe": recipe}))
    return said


def _digest(array: NDArray[Any]) -> str:
    import hashlib  # five megabytes, which only resumable runs need

    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()


class Checkpoints:
    """Checkpoints of the run called `identity` in a folder.

    Raises:
        UsageError: the folder holds another run.
        DataError: its manifest is damaged.
        OutputError: it cannot be read or written.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder = folder
        self._table: dict[str, Any] = {"format": FORMAT, "run": identity, "finished": 0, "history": None}
        self._table.update(weights=None, outputs=None)
        found = self._read()
        if found is None:
            self._write()
            return
        self._refuse(found, identity)
        self._table = found
        self._tidy()

    @property
    def finished(self) -> int:
        """Stages that are done."""
        return int(self._table["finished"])

    @property
    def outputs(self) -> Cached | None:
        """The file of outputs that the next stage reads, or makes its own from."""
        table = self._table["outputs"]
        return Cached.from_json(table) if table else None

    def restore(self, params: NDArray[np.float32]) -> History:
        """Bring back the weights after the finished stages, and what happened in them.

        Raises:
            DataError: the file of weights is gone, or it or the manifest is damaged.
        """
        if not self.finished:
            return History()
        path = self._folder / self._table["weights"]
        try:
            with path.open("rb") as stream, np.load(stream) as stored:
                params[...] = stored["params"]
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise DataError(f"{path} cannot be read ({error}): empty the folder to begin again") from error
        table = self._table["history"]
        try:
            epochs = [Moment(**moment) for moment in table["epochs"]]
            return History(epochs, len(epochs), samples=table["samples"], seconds=table["seconds"])
        except (TypeError, KeyError) as error:
            raise DataError(f"{self._folder} is damaged ({error}): empty the folder to begin again") from error

    def save(self, finished: int, params: NDArray[np.float32], history: History) -> None:
        """Take note that so many stages are done. The manifest turns from the older weights to these in one step.

        Raises:
            OutputError: they cannot be written; what was noted before stays.
        """
        older, name = self._table["weights"], f"weights-{finished}.npz"
        with replacing(self._folder / name) as partial:
            with partial.open("xb") as stream:
                np.savez(stream, params=params)
            _sync(partial)
        told = {"samples": history.samples, "seconds": history.seconds, "epochs": [asdict(m) for m in history.epochs]}
        self._table.update(finished=finished, weights=name, history=told)
        self._write()
        if older:
            (self._folder / older).unlink(missing_ok=True)

    def hand_on(self, outputs: Cached) -> None:
        """Take note of the file of outputs that is read from now on.

        Raises:
            OutputError: it cannot be written.
        """
        self._table["outputs"] = outputs.to_json()
        self._write()

    def _read(self) -> dict[str, Any] | None:
        path = self._folder / MANIFEST
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {path} ({error.strerror}): give another folder as cache_dir") from error
        except ValueError as error:
            raise DataError(f"{path} is damaged ({error}): empty the folder to begin again") from error
        if not isinstance(found, dict) or set(found) != set(self._table) or found["format"] != FORMAT:
            raise DataError(f"{path} is no manifest of this version: empty the folder, or give another as cache_dir")
        return found

    def _refuse(self, found: dict[str, Any], identity: Identity) -> None:
        """Raise UsageError that names what another run differs in."""
        old, new = found["run"], identity
        differs = [name for name in new if name != "recipe" and old.get(name) != new[name]]
        before, now = old.get("recipe", {}), new["recipe"]
        differs += [f"{k} {before.get(k)!r} (now {now.get(k)!r})" for k in now if before.get(k) != now.get(k)]
        if differs:
            raise UsageError(
                f"{self._folder} holds a run of other settings: {', '.join(differs)}; give another folder as "
                "cache_dir, or empty this one to begin again"
            )

    def _tidy(self) -> None:
        """Delete what an earlier process wrote and the manifest does not name."""
        named = (self._table["weights"], (self._table["outputs"] or {}).get("name"))
        for path in self._folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in named:
                path.unlink(missing_ok=True)

    def _write(self) -> None:
        text = json.dumps(self._table, separators=(",", ":")).encode()
        with replacing(self._folder / MANIFEST) as partial:
            write_through(partial, [text])


def _sync(path: Path) -> None:
    """A zip file is written to and fro, so it cannot be written through."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())

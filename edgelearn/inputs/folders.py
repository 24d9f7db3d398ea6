# SPDX-License-Identifier: Apache-2.0
"""Folders with one sub-folder per class: which files they hold, which of them train, and their samples as one array.

Files are looked at twice: once at their headers, so that one array of the final size is made, and once to fill it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import BrokenFileError, DataError
from edgelearn.inputs import windows
from edgelearn.inputs.images import Image
from edgelearn.inputs.sounds import Sound
from edgelearn.inputs.windows import Window

FrontEnd = Image | Sound | Window
"""How a file becomes a sample. Each kind has `survey` (what a header says), `settled` (what is unset, from the surveys
of the training files), `shape`, `dtype`, and `read` (a sample)."""

KINDS: tuple[type[Image] | type[Sound] | type[Window], ...] = (Window, Image, Sound)
KIND_OF = {suffix: kind for kind in KINDS for suffix in kind.suffixes}

HOLD_OUT = 5
"""Every fifth file of a class is held out when a folder has no train/ and test/."""

Tick = Callable[[str, int, int], None]
"""Told what has happened to how many of how many files."""

Classes = dict[str, list[Path]]


@dataclass(frozen=True)
class Listing:
    """The files of a folder by class, all of one kind, and the .npy files beside the classes by name."""

    train: Classes
    test: Classes
    kind: type[Image] | type[Sound] | type[Window]
    arrays: dict[str, Path]


@dataclass(frozen=True, eq=False)
class Part:
    """Samples (n, *shape), the class name of each, and what was wrong with the files that were skipped."""

    x: NDArray[Any]
    names: list[str]
    skipped: list[str]


def listing(root: Path) -> Listing:
    """What a folder holds; hidden entries do not count.

    Raises:
        DataError: no class folders, empty ones, files of several kinds or of a kind that is not known.
    """
    if (root / "train").is_dir() and (root / "test").is_dir():
        fit, held = _classes(root / "train"), _classes(root / "test")
    else:
        _check_halves(root)
        files = _classes(root)
        fit = {name: [f for i, f in enumerate(fs, 1) if i % HOLD_OUT] for name, fs in files.items()}
        held = {name: fs[HOLD_OUT - 1 :: HOLD_OUT] for name, fs in files.items()}
    if not any(held.values()):
        raise DataError(f"{root} leaves nothing to test on: give a class {HOLD_OUT} files, or add train/ and test/")
    arrays = {path.stem: path for path in sorted(root.glob("*.npy")) if path.is_file()}
    return Listing(fit, held, _kind([*_flat(fit), *_flat(held)]), arrays)


def settle(front: FrontEnd, classes: Classes, skip_broken: bool, tick: Tick) -> FrontEnd:
    """The front end with everything that is unset taken from the training files.

    Raises:
        BrokenFileError: a file that cannot be read, unless they are skipped.
        DataError: files that differ where they must not, or none that can be read.
    """
    files = _flat(classes)
    skipped: list[str] | None = [] if skip_broken else None
    settled = front.settled(_facts(front, files, skipped, tick))
    if settled.shape is None:
        raise DataError(f"none of {len(files)} {front.what} to train on can be read ({(skipped or [''])[-1]})")
    return settled


def read(front: FrontEnd, classes: Classes, skip_broken: bool, tick: Tick) -> Part:
    """All samples of a settled front end.

    Raises:
        BrokenFileError: a file that cannot be read, unless they are skipped.
        DataError: a file that does not fit, no file that can be read, or more samples than memory.
    """
    files = [(name, file) for name, fs in classes.items() for file in fs]
    part = Part(_room(len(files), front), [], [])
    for done, (name, file) in enumerate(files, 1):
        with _skipping(part.skipped if skip_broken else None), opened(file) as stream:
            part.x[len(part.names)] = front.read(stream, str(file))
            part.names.append(name)
        tick("read", done, len(files))
    if not part.names:
        raise DataError(f"none of {len(files)} {front.what} can be read ({part.skipped[-1]})")
    return replace(part, x=part.x[: len(part.names)])


def read_arrays(listed: Listing) -> dict[str, NDArray[Any]]:
    """The .npy files beside the classes."""
    found = {}
    for name, path in listed.arrays.items():
        with opened(path) as stream:
            found[name] = windows.load(stream, str(path))
    return found


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, open.

    Raises:
        BrokenFileError: it cannot be opened or read.
    """
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise BrokenFileError(f"cannot read {path} ({error.strerror or error}): check the file") from error


@contextmanager
def _skipping(skipped: list[str] | None) -> Iterator[None]:
    """What is wrong with a file goes on the list, if there is one."""
    try:
        yield
    except BrokenFileError as error:
        if skipped is None:
            raise
        skipped.append(str(error))


def _facts(front: FrontEnd, files: Sequence[Path], skipped: list[str] | None, tick: Tick) -> Iterator[tuple[str, Any]]:
    """Name and survey of each file."""
    for done, file in enumerate(files, 1):
        with _skipping(skipped), opened(file) as stream:
            yield str(file), front.survey(stream, str(file))
        tick("looked at", done, len(files))


def _room(count: int, front: FrontEnd) -> NDArray[Any]:
    """Room for all samples."""
    shape = (count, *(front.shape or ()))
    size = int(np.prod([float(side) for side in shape])) * front.dtype.itemsize
    if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise DataError(
            f"{count:,} {front} take {size / 2**30:,.1f} GB, more than this machine has: make the samples smaller in "
            "[input], or give fewer"
        )
    return np.empty(shape, front.dtype)


def _check_halves(root: Path) -> None:
    """train/ without test/ is a mistake, unless it is a class of that name, with files in it."""
    for half, other in (("train", "test"), ("test", "train")):
        if (root / half).is_dir() and all(entry.is_dir() for entry in _visible(root / half)):
            raise DataError(f"{root} has {half}/ and no {other}/: add it, or put the class folders into {root} itself")


def _classes(root: Path) -> Classes:
    """Sample files by class, sorted by name; files beside the classes do not count."""
    folders = [entry for entry in _visible(root) if entry.is_dir()]
    if not folders:
        raise DataError(f"{root} has no class folders: make one sub-folder per class and put its samples there")
    return {folder.name: _files(folder) for folder in folders}


def _files(folder: Path) -> list[Path]:
    files = _visible(folder)
    if not files:
        raise DataError(f"class folder {folder} is empty: add samples or remove it")
    for file in files:
        if file.is_dir():
            raise DataError(f"class folder {folder} has the folder {file.name}/ in it: put samples there, no folders")
        if file.suffix.lower() not in KIND_OF or not file.is_file():
            raise DataError(f"{file} is not a sample: convert it to {', '.join(KIND_OF)}, or remove it")
    return files


def _visible(folder: Path) -> list[Path]:
    try:
        return [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot list {folder} ({error.strerror}): check its permissions") from error


def _flat(classes: Classes) -> list[Path]:
    return [file for files in classes.values() for file in files]


def _kind(files: Sequence[Path]) -> type[Image] | type[Sound] | type[Window]:
    kind = KIND_OF[files[0].suffix.lower()]
    for file in files:
        if KIND_OF[file.suffix.lower()] is not kind:
            raise DataError(f"{files[0]} and {file} are of different kinds: keep {kind.what} and others apart")
    return kind

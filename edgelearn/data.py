# SPDX-License-Identifier: Apache-2.0
"""Samples and labels from an .npz file, a folder with one sub-folder per class, or the name `digits`.

Samples keep the type they have on disk; scaling is the front end's. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from edgelearn import labels
from edgelearn.errors import DataError

Array = NDArray[Any]

SPLITS = ("x_train", "y_train", "x_test", "y_test")
NAME_ARRAYS = ("label_names", "classes")
HOLD_OUT = 5
"""Every fifth file of a class is held out when a folder has no train/ and test/."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and held-out samples.

    x is (n, *shape) as on disk. y is (n,) int32 indices into `classes` for classification and (n, targets)
    float32 for regression. `classes` is None where labels are just 0 .. C-1. `arrays` holds what else the
    file has.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: list[str] | None = None
    task: Literal["classification", "regression"] = "classification"
    arrays: dict[str, Array] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Number of classes, or of values in a target."""
        if self.task == "regression":
            return int(self.y_train.shape[1])
        return len(self.classes) if self.classes else int(self.y_train.max()) + 1


def load(path: str | Path) -> Dataset:
    """The data at a path, or the built-in set of that name (`digits`) where no such path exists.

    Raises:
        DataError: nothing there, unreadable, or not fit for learning; the message names array or file.
    """
    place = Path(path)
    if place.is_dir():
        return _from_folder(place)
    if place.is_file():
        return _from_npz(place)
    if str(path) in BUILT_IN:
        return BUILT_IN[str(path)]()
    raise DataError(
        f"no data at '{path}': give an .npz file, a folder with one sub-folder per class, "
        f"or one of the names {', '.join(BUILT_IN)}"
    )


def digits() -> Dataset:
    """Scikit-learn's 1797 handwritten digits: 64 floats from 0 to 16, held out where index % 4 is 3.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        datasets = import_module("sklearn.datasets")
    except ImportError as error:
        raise DataError("the digits come with scikit-learn: pip install 'edgelearn[sklearn]'") from error
    x, y = datasets.load_digits(return_X_y=True)
    held = np.arange(len(x)) % 4 == 3
    x = x.astype(np.float32)
    return _dataset("digits", {"x_train": x[~held], "y_train": y[~held], "x_test": x[held], "y_test": y[held]})


BUILT_IN: dict[str, Callable[[], Dataset]] = {"digits": digits}


def _from_npz(path: Path) -> Dataset:
    arrays = _read_npz(path)
    missing = [name for name in SPLITS if name not in arrays]
    if missing:
        raise DataError(f"{path} has no array {', '.join(missing)}: save it with {', '.join(SPLITS)}")
    names = next((arrays.pop(name) for name in NAME_ARRAYS if name in arrays), None)
    return _dataset(str(path), arrays, names)


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        # Opened here, because numpy leaves its own handle open when the archive is broken.
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, NpzFile):
                return {name: loaded[name] for name in loaded.files}
    except Exception as error:  # damaged archives raise whatever zipfile, zlib and numpy's parser can
        raise DataError(f"cannot read {path} ({error}): save plain arrays with numpy.savez") from error
    raise DataError(f"{path} is a single array: save {', '.join(SPLITS)} together with numpy.savez")


def _read_npy(path: Path) -> Array:
    try:
        with path.open("rb") as stream:
            sample: Array = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # as above: a damaged header can raise anything
        raise DataError(f"cannot read {path} ({error}): save one plain array with numpy.save") from error
    return sample


READERS: dict[str, Callable[[Path], Array]] = {".npy": _read_npy}
"""How a file of a class folder becomes one sample, by suffix."""


def _from_folder(root: Path) -> Dataset:
    if (root / "train").is_dir() and (root / "test").is_dir():
        fit, held = _class_files(root / "train"), _class_files(root / "test")
    else:
        files = _class_files(root)
        fit = {name: [f for i, f in enumerate(fs, 1) if i % HOLD_OUT] for name, fs in files.items()}
        held = {name: fs[HOLD_OUT - 1 :: HOLD_OUT] for name, fs in files.items()}
    if not any(held.values()):
        raise DataError(f"{root} leaves nothing to test on: give a class {HOLD_OUT} files, or add train/ and test/")
    x = _stack([f for files in (fit, held) for fs in files.values() for f in fs])
    y_train, y_test = (np.array([name for name, fs in files.items() for _ in fs]) for files in (fit, held))
    count = len(y_train)
    splits = {"x_train": x[:count], "y_train": y_train, "x_test": x[count:], "y_test": y_test}
    return _dataset(str(root), splits, np.array(list(fit)))


def _class_files(root: Path) -> dict[str, list[Path]]:
    """Sample files by class, sorted by name; hidden entries and files beside the classes do not count."""
    folders = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    if not folders:
        raise DataError(f"{root} has no class folders: make one sub-folder per class and put its samples there")
    return {folder.name: _sample_files(folder) for folder in folders}


def _sample_files(folder: Path) -> list[Path]:
    files = [f for f in sorted(folder.iterdir()) if not f.name.startswith(".")]
    if not files:
        raise DataError(f"class folder {folder} is empty: add samples or remove it")
    for file in files:
        if file.suffix.lower() not in READERS or not file.is_file():
            raise DataError(f"{file} is not a sample: convert it to {' or '.join(READERS)}, or remove it")
    return files


def _stack(files: Sequence[Path]) -> Array:
    first = READERS[files[0].suffix.lower()](files[0])
    x = np.empty((len(files), *first.shape), first.dtype)
    for row, file in enumerate(files):
        sample = READERS[file.suffix.lower()](file)
        if (sample.shape, sample.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"{file} holds {sample.dtype} of shape {sample.shape}, {files[0]} {first.dtype} of shape "
                f"{first.shape}: give all samples one shape and type"
            )
        _check_samples(str(file), sample[None])
        x[row] = sample
    return x


def _dataset(source: str, arrays: dict[str, Array], names: Array | None = None) -> Dataset:
    """Check the four arrays and bring the labels into one form."""
    for split in ("train", "test"):
        _check_samples(f"x_{split} of {source}", arrays[f"x_{split}"])
        _check_lengths(source, split, arrays[f"x_{split}"], arrays[f"y_{split}"])
    x_train, y_train, x_test, y_test = (arrays.pop(name) for name in SPLITS)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{source} has x_train of shape {x_train.shape[1:]} and x_test of {x_test.shape[1:]}: give both one shape"
        )
    if x_train.ndim == 1:
        x_train, x_test = x_train[:, None], x_test[:, None]
    if y_train.dtype.kind == "f":
        y_train, y_test = labels.targets(source, y_train, y_test)
        return Dataset(x_train, y_train, x_test, y_test, None, "regression", arrays)
    y_train, y_test, classes = labels.encode(source, y_train, y_test, names)
    return Dataset(x_train, y_train, x_test, y_test, classes, "classification", arrays)


def _check_samples(where: str, x: Array) -> None:
    if x.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {x.dtype}, not numbers: turn its samples into integers or floats first")
    if x.ndim == 0 or x.size == 0:
        raise DataError(f"{where} is empty (shape {x.shape}): put at least one sample into it")
    labels.check_finite(where, x)


def _check_lengths(source: str, split: str, x: Array, y: Array) -> None:
    count = len(y) if y.ndim else 1
    if len(x) != count:
        raise DataError(f"{source} has {len(x)} x_{split} but {count} y_{split}: give each sample one label")

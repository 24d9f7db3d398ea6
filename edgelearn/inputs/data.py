# SPDX-License-Identifier: Apache-2.0
"""Samples and labels from an .npz file, a folder with one sub-folder per class, or the name `digits`.

Samples keep the type they have on disk; scaling is the front end's. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from edgelearn.errors import DataError
from edgelearn.inputs import folders, labels
from edgelearn.inputs.folders import FrontEnd
from edgelearn.inputs.frontend import Input

Array = NDArray[Any]

SPLITS = ("x_train", "y_train", "x_test", "y_test")
NAME_ARRAYS = ("label_names", "classes")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and held-out samples.

    x is (n, *shape) as on disk. y is (n,) int32 indices into `classes` for classification and (n, targets)
    float32 for regression. `classes` is None where labels are just 0 .. C-1. `arrays` holds what else the
    file has. `front` says how files of a folder became samples, `skipped` what was wrong with those that did not.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: list[str] | None = None
    task: Literal["classification", "regression"] = "classification"
    arrays: dict[str, Array] = field(default_factory=dict)
    front: FrontEnd | None = None
    skipped: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> int:
        """Number of classes, or of values in a target."""
        if self.task == "regression":
            return int(self.y_train.shape[1])
        return len(self.classes) if self.classes else int(self.y_train.max()) + 1


def load(
    path: str | Path,
    input: Input | None = None,
    *,
    held_out: bool = False,
    skip_broken: bool = False,
    trained: Sequence[str] = (),
    tick: folders.Tick = lambda verb, done, total: None,
) -> Dataset:
    """The data at a path, or the built-in set of that name (`digits`) where no such path exists.

    `input` says how files of a folder become samples; what it leaves open comes from the training files. With
    `held_out` only the test files of a folder are decoded, and x_train is empty (0, *shape). With `skip_broken`
    files that cannot be read are left out and listed in `skipped`. `trained` are the classes of the net that the data
    is for: of those an .npz may have some in y_test alone. `tick` is told what has happened to how many of how many
    files.

    Raises:
        DataError: nothing there, unreadable, or not fit for learning; the message names array or file.
        BrokenFileError: a file of a folder that cannot be read.
    """
    place = Path(path)
    if place.is_dir():
        return _from_folder(place, input or Input(), held_out, skip_broken, tick)
    if place.is_file():
        return _from_npz(place, trained)
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


def _from_npz(path: Path, trained: Sequence[str]) -> Dataset:
    arrays = _read_npz(path)
    missing = [name for name in SPLITS if name not in arrays]
    if missing:
        raise DataError(f"{path} has no array {', '.join(missing)}: save it with {', '.join(SPLITS)}")
    names = next((arrays.pop(name) for name in NAME_ARRAYS if name in arrays), None)
    return _dataset(str(path), arrays, names, trained)


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        # Opened here, because numpy leaves its own handle open when the archive is broken.
        with path.open("rb") as stream:
            start = stream.read(len(np.lib.format.MAGIC_PREFIX))
            stream.seek(0)
            if start[:2] != b"PK" and start != np.lib.format.MAGIC_PREFIX:
                raise ValueError("it is no .npz archive")
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, NpzFile):
                return {name: loaded[name] for name in loaded.files}
    except Exception as error:  # damaged archives raise whatever zipfile, zlib and numpy's parser can
        raise DataError(f"cannot read {path} ({error}): save plain arrays with numpy.savez") from error
    raise DataError(f"{path} is a single array: save {', '.join(SPLITS)} together with numpy.savez")


def _from_folder(root: Path, input: Input, held_out: bool, skip_broken: bool, tick: folders.Tick) -> Dataset:
    listed = folders.listing(root)
    front = folders.settle(input.front(listed.kind), listed.train, skip_broken, tick)
    if input.shape is not None:
        front.fitted(input.shape)  # before minutes are spent on reading
    test = folders.read(front, listed.test, skip_broken, tick)
    if held_out:
        names = list(listed.test)
        y = np.array([names.index(name) for name in test.names], np.int32)
        return Dataset(test.x[:0], y[:0], test.x, y, names, front=front, skipped=test.skipped)
    train = folders.read(front, listed.train, skip_broken, tick)
    for name in listed.train:
        if name not in train.names:
            raise DataError(f"no file of class '{name}' to train on can be read: replace them or remove the class")
    splits = {"x_train": train.x, "y_train": np.array(train.names), "x_test": test.x, "y_test": np.array(test.names)}
    arrays = folders.read_arrays(listed)
    whole = _dataset(str(root), {**arrays, **splits}, np.array(list(listed.train)))
    return replace(whole, front=front, skipped=train.skipped + test.skipped)


def _dataset(source: str, arrays: dict[str, Array], names: Array | None = None, trained: Sequence[str] = ()) -> Dataset:
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
    y_train, y_test, classes = labels.encode(source, y_train, y_test, names, trained)
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

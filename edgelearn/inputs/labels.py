# SPDX-License-Identifier: Apache-2.0
"""Labels as they come, text or any integers, turned into indices 0 .. C-1; regression targets into float32.

Class names are kept, and whatever cannot be learned is refused by name of its array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.errors import DataError

Array = NDArray[Any]

CHUNK = 1 << 16
"""Values looked at in one go, so that checking a big set takes some hundred kilobytes and not another set."""


def one_array(samples: ArrayLike) -> Array:
    """Samples as one array of numbers (n, *shape).

    Raises:
        DataError: samples of several shapes, sequences of several lengths, or no numbers.
    """
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise DataError(
            f"samples must form one array ({error}): give all of them one shape; pad or cut sequences to one length, "
            "or begin the net with a Masking"
        ) from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"samples hold {array.dtype}, not real numbers: turn them into integers or floats")
    return array


def check_finite(where: str, values: Array) -> None:
    """Refuse NaN, infinity and what becomes infinite as float32.

    Raises:
        DataError: naming `where` and the first sample at fault.
    """
    if values.dtype.kind != "f":
        return
    rows = max(1, CHUNK * len(values) // max(values.size, 1))
    for start in range(0, len(values), rows):
        with np.errstate(over="ignore"):
            chunk = values[start : start + rows].astype(np.float32, copy=False)
        fine = np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1)
        if not fine.all():
            first = start + int(fine.argmin())
            raise DataError(f"sample {first} of {where} holds NaN or infinity: repair or remove it")


def encode(
    source: str, y_train: Array, y_test: Array, names: Array | None = None, trained: Sequence[str] = ()
) -> tuple[NDArray[np.int32], NDArray[np.int32], list[str] | None]:
    """Indices of both splits and the class names, None where labels are 0 .. C-1 and nothing names them.

    Integer labels index `names` if given, text labels are looked up in it. Without it, classes are the labels
    of the training set in sorted order. `trained` are the classes of a net that knows them already: where it knows
    all that y_train holds, y_test may have others of them; numbers that are none of their names count them.

    Raises:
        DataError: labels of another kind, one class only, a label that only the test set has, or one
            without a name.
    """
    y_train, y_test = _column(source, "y_train", y_train), _column(source, "y_test", y_test)
    if (y_train.dtype.kind == "U") != (y_test.dtype.kind == "U"):
        raise DataError(f"{source} mixes text and numbers as labels: use one kind in y_train and y_test")
    known = np.unique(y_train).tolist()
    if len(known) < 2:
        raise DataError(f"all labels in y_train of {source} are {known[0]!r}: give samples of at least two classes")
    tested = np.unique(y_test).tolist()
    if names is None and _are_places(known + tested, trained):
        names = np.array(trained)
    known += _trained_on(known, tested, names, trained)
    index, classes = _index(source, sorted(known), names)
    for label in tested:
        if label not in known:
            raise DataError(f"label {label!r} in y_test of {source} never occurs in y_train: add samples of it")
    return _mapped(y_train, index), _mapped(y_test, index), classes


def _trained_on(known: list[Any], tested: list[Any], names: Array | None, trained: Sequence[str]) -> list[Any]:
    """Labels that only the test set has, but the net knows, if it knows those of the training set as well."""

    def is_trained(label: Any) -> bool:
        is_place = names is not None and not isinstance(label, str) and 0 <= label < len(names)
        return str(names[label] if names is not None and is_place else label) in trained

    if not all(map(is_trained, known)):
        return []
    return [label for label in tested if label not in known and is_trained(label)]


def _are_places(labels: list[Any], trained: Sequence[str]) -> bool:
    """Whether labels are numbers that name none of the trained classes, but count them."""
    if any(isinstance(label, str) for label in labels) or {str(label) for label in labels} <= set(trained):
        return False
    return bool(min(labels) >= 0 and max(labels) < len(trained))


def _column(source: str, name: str, y: Array) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "biuU":
        raise DataError(f"{name} of {source} holds {y.dtype}: use integers or text, and floats in both for regression")
    if y.ndim != 1:
        raise DataError(f"{name} of {source} has shape {y.shape}: give one label per sample, not one-hot rows")
    return y


def _index(source: str, known: list[Any], names: Array | None) -> tuple[dict[Any, int], list[str] | None]:
    """Position of each label, and the names of the positions."""
    if names is None:
        counted = known == list(range(len(known)))
        return {label: i for i, label in enumerate(known)}, None if counted else [str(k) for k in known]
    classes = _names(source, names)
    labels = classes if isinstance(known[0], str) else range(len(classes))
    index = {label: i for i, label in enumerate(labels)}
    for label in known:
        if label not in index:
            raise DataError(f"label {label!r} in y_train of {source} is not among its {len(classes)} names: add it")
    return index, classes


def renumbered(y: Array, names: list[str], known: list[str]) -> NDArray[np.int32]:
    """Indices into `names` as indices into `known`, the classes of a trained net.

    Raises:
        DataError: a label whose name the net does not know.
    """
    place = {name: i for i, name in enumerate(known)}
    for label in np.unique(y).tolist():
        if names[label] not in place:
            raise DataError(f"the net knows no class '{names[label]}': it was trained on {', '.join(known)}")
    return np.array([place.get(name, 0) for name in names], np.int32)[y]


def _names(source: str, names: Array) -> list[str]:
    classes = [str(name) for name in names.ravel().tolist()]
    if names.ndim != 1 or names.dtype.kind not in "biuU" or len(set(classes)) < len(classes):
        raise DataError(f"the label names of {source} are not a plain list of different names: save an array of text")
    return classes


def _mapped(y: Array, index: dict[Any, int]) -> NDArray[np.int32]:
    labels, places = np.unique(y, return_inverse=True)
    table = np.array([index[label] for label in labels.tolist()], np.int32)
    return np.asarray(table[places.reshape(-1)], np.int32)


def targets(source: str, y_train: Array, y_test: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Regression targets of both splits as (n, targets) float32.

    Raises:
        DataError: not numbers, NaN or infinity, or splits of different width.
    """
    train, test = (_rows(source, name, y) for name, y in (("y_train", y_train), ("y_test", y_test)))
    if train.shape[1] != test.shape[1]:
        raise DataError(
            f"{source} has {train.shape[1]} targets per sample in y_train, {test.shape[1]} in y_test: "
            "give both the same"
        )
    return train, test


def _rows(source: str, name: str, y: Array) -> NDArray[np.float32]:
    if y.dtype.kind not in "iuf" or y.ndim > 2 or y.size == 0:
        raise DataError(f"{name} of {source} is {y.dtype} of shape {y.shape}: give one row of floats per sample")
    check_finite(f"{name} of {source}", y)
    return y.astype(np.float32).reshape(len(y), -1)


CLASS_WEIGHTS = ("none", "balanced")
"""Names that stand for class weights: all 1, or such that every class counts as much as any other."""


def are_class_weights(value: Any) -> bool:
    """Whether value is one of those names, or a list of positive numbers."""
    if isinstance(value, str):
        return value in CLASS_WEIGHTS
    if not isinstance(value, (list, tuple)) or not value:
        return False
    numbers = (int, float, np.integer, np.floating)
    return all(isinstance(v, numbers) and not isinstance(v, bool) and 0 < v < float("inf") for v in value)


def class_weights(said: str | Sequence[float], y: Array, outputs: int) -> tuple[float, ...] | None:
    """One factor per output for the losses of labels y (n,), None where all are 1. `balanced` is n / (classes count),
    as in scikit-learn; a class that never occurs has 1.

    Raises:
        DataError: a list of another length than outputs.
    """
    if said == "none":
        return None
    if said == "balanced":
        counts = np.bincount(y, minlength=outputs)
        each = len(y) / np.count_nonzero(counts) / np.maximum(counts, 1)
        return tuple(np.where(counts > 0, each, 1.0).tolist())
    if len(said) != outputs:
        raise DataError(f"{len(said)} class weights given, the net has {outputs} outputs: give one for each")
    return tuple(float(weight) for weight in said)

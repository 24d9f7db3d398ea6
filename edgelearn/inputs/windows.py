# SPDX-License-Identifier: Apache-2.0
"""Sensor windows and other arrays, one .npy file each. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import BrokenFileError, DataError
from edgelearn.inputs.labels import check_finite

Array = NDArray[Any]


FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Window:
    """Arrays as they are: shape and type are those of the first file, `first` its name."""

    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] = FLOAT32
    first: str = ""

    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    what: ClassVar[str] = "arrays"

    def __str__(self) -> str:
        return f"arrays of {self.dtype} and shape {self.shape}"

    def fitted(self, shape: tuple[int, ...]) -> Window:
        """Itself: the front end compares the shapes, since it knows the layout."""
        return self

    def survey(self, stream: BinaryIO, name: str) -> Array:
        """The array of a file.

        Raises:
            BrokenFileError: it cannot be read.
            DataError: it holds no finite numbers.
        """
        array = load(stream, name)
        if array.dtype.kind not in "biuf":
            raise DataError(f"{name} holds {array.dtype}, not numbers: turn it into integers or floats first")
        if array.size == 0:
            raise DataError(f"{name} is empty (shape {array.shape}): remove it")
        check_finite(name, array[None])
        return array

    def settled(self, facts: Iterator[tuple[str, Array]]) -> Window:
        """Shape and type of the first file."""
        for name, array in facts:
            return Window(array.shape, array.dtype, name)
        return self

    def read(self, stream: BinaryIO, name: str) -> Array:
        """The array of a file.

        Raises:
            BrokenFileError: it cannot be read.
            DataError: another shape or type than the first file has, or not finite numbers.
        """
        array = self.survey(stream, name)
        if self.shape is not None and (array.shape, array.dtype) != (self.shape, self.dtype):
            raise DataError(
                f"{name} holds {array.dtype} of shape {array.shape}, {self.first} {self.dtype} of shape "
                f"{self.shape}: give all samples one shape and type"
            )
        return array


def load(stream: BinaryIO, name: str) -> Array:
    """The one plain array of a .npy file.

    Raises:
        BrokenFileError: it cannot be read.
    """
    stream.seek(0)
    try:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # a damaged header can raise anything
        raise BrokenFileError(f"cannot read {name} ({error}): save one plain array with numpy.save") from error
    return array

# SPDX-License-Identifier: Apache-2.0
"""A loaded file that answers samples, whatever runs it, and what all loaders say of files that they cannot take."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.errors import DataError, ModelError
from edgelearn.export.int8 import Affine
from edgelearn.inputs.frontend import Input

BATCH = 64
"""Samples per call of a runtime: bounds the memory that maps take, at little cost in speed."""


@dataclass(frozen=True)
class Runtime:
    """A loaded file. `input_shape` is that of one sample, -1 where the file leaves a side open; `metadata`
    holds the file's text entries; `invoke` runs one batch of at most `batch`; `outputs` is the last side of what it
    gives, -1 where the file leaves that open. `entering` and `leaving` say what the integers of an int8 file stand
    for."""

    name: str
    input_shape: tuple[int, ...]
    metadata: Mapping[str, str]
    dtype: np.dtype[Any]
    batch: int
    invoke: Callable[[NDArray[Any]], NDArray[Any]]
    outputs: int
    entering: Affine | None = None
    leaving: Affine | None = None

    @property
    def input(self) -> Input:
        """How files of a folder become samples for it; empty where edgelearn did not write the file.

        Raises:
            ModelError: an entry that is damaged or of a newer version.
        """
        return Input.from_config(self._entry("input", {}))

    @property
    def classes(self) -> list[str] | None:
        """Names of its outputs, None where the file has none.

        Raises:
            ModelError: an entry that is damaged.
        """
        names = self._entry("classes", None)
        return [str(name) for name in names] if isinstance(names, list) else None

    def _entry(self, key: str, missing: Any) -> Any:
        """An entry of the metadata that is JSON."""
        try:
            return json.loads(self.metadata[key]) if key in self.metadata else missing
        except ValueError as error:
            raise ModelError(f"the file's entry '{key}' is damaged ({error}): export it again") from error

    def run(self, x: NDArray[Any]) -> NDArray[Any]:
        """The file's first output for samples (n, *input_shape) or (n, features), cast to the input's type. Of an
        int8 file samples and outputs are the real numbers; samples in its own type go in as they are.

        Raises:
            DataError: no samples, samples of another shape, or fractions for an integer input.
            ModelError: the runtime refuses to run the file.
        """
        samples = self.entered(x)
        chunks = [samples[i : i + self.batch] for i in range(0, len(samples), self.batch)]
        try:
            outputs = np.concatenate([self.invoke(chunk) for chunk in chunks])
        except Exception as error:  # the runtimes' own errors have no common class
            raise ModelError(f"{self.name} cannot run this file ({first_line(error)}): export it again") from error

        return outputs if self.leaving is None else self.leaving.real(outputs)

    def entered(self, x: ArrayLike) -> NDArray[Any]:
        """Samples as `invoke` takes them.

        Raises:
            DataError: as `run`.
        """
        samples = self._shaped(np.asarray(x))
        if self.entering is None or samples.dtype == self.dtype:
            return self._cast(samples)
        return self.entering.quantized(samples, self.dtype)

    def _shaped(self, x: NDArray[Any]) -> NDArray[Any]:
        if x.ndim < 2 or not len(x):
            raise DataError(f"samples of shape {x.shape} are no batch: pass (n, features), n at least 1")
        try:
            return x if -1 in self.input_shape else x.reshape(len(x), *self.input_shape)
        except ValueError as error:
            raise DataError(
                f"samples of shape {x.shape[1:]} do not fit the file's input {self.input_shape}: reshape them"
            ) from error

    def _cast(self, x: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore"):  # what does not fit is found below
            cast = np.ascontiguousarray(x).astype(self.dtype)
        if self.dtype.kind in "iu" and not np.array_equal(cast, x):
            raise DataError(f"samples do not fit the file's {self.dtype} input: pass them as {self.dtype}")
        return cast


def ends(inputs: list[Any], outputs: list[Any], name: str) -> tuple[Any, Any]:
    """The only input and the first output of the file `name`.

    Raises:
        ModelError: it has several inputs, or no output.
    """
    if len(inputs) != 1 or not outputs:
        raise ModelError(f"{name} has {len(inputs)} inputs and {len(outputs)} outputs: pass a model with one input")
    return inputs[0], outputs[0]


def damaged(name: str, error: Exception) -> ModelError:
    """What is said of a file that its runtime, or our reader, could not take in."""
    return ModelError(f"{name} is damaged or of an unknown version ({first_line(error)}): export it again")


def first_line(error: Exception) -> str:
    """The first line of an error: runtimes add pages of context."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

# SPDX-License-Identifier: Apache-2.0
"""Streams: a recurrent net that answers, and learns, piece by piece of sequences without end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.engines import Stats
from edgelearn.errors import DataError, LearningError, UsageError
from edgelearn.inputs.labels import one_array
from edgelearn.net.planning import config_of
from edgelearn.net.structure import Structure
from edgelearn.training.recipe import Recipe

_STEPWISE_TYPES = (np.uint8, np.float16, np.float32)


class Stream:
    """`batch` streams through a net, each with a state of its own that is kept from call to call.

    Pieces are (batch, steps, features): raw values as the data holds them, channels last, features as the first
    recurrent layer reads them. However a sequence is cut, the answers behind it are those of the whole one. The net's
    weights are shared: what a stream learns, the net knows at once.

    Raises:
        ModelError: a net that does not begin with recurrent layers, or hands on all of their steps.
        UsageError: settings that streams have no use for.
    """

    def __init__(self, net: Structure, run: Recipe, batch: int = 1) -> None:
        from edgelearn.engines.native.streams import NativeStreams  # the core is loaded when it is needed

        if run.backend != "native":
            raise UsageError("streams run on the native backend: leave out backend")
        if run.micro or run.schedule != "interleaved":
            raise UsageError("streams learn all blocks of a piece at once: leave out micro and the sequential schedule")
        self.batch, self._run = batch, run
        self._session = NativeStreams(net.graph.records, net.flat, config_of(net, run, batch))

    def forward(self, x: ArrayLike) -> NDArray[np.float32]:
        """Raw outputs (batch, outputs) behind the next piece of each stream.

        Raises:
            DataError: pieces of another shape, or with NaN or infinity; no state has changed.
        """
        return self._session.stream(_piece(x))

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """Indices (batch,) of the classes behind the next piece."""
        found: NDArray[np.int64] = self.forward(x).argmax(axis=1)
        return found

    def learn(self, x: ArrayLike, y: ArrayLike, lr: float | None = None) -> Stats:
        """One update by the next piece of each stream and what it is: labels (batch,) or targets (batch, k). States,
        and traces where the rule has them, go on; with a window, errors go back within the piece.

        Raises:
            DataError: pieces or answers that do not fit; nothing has changed.
            LearningError: a loss that is not finite, after which the streams begin anew.
        """
        try:
            return self._session.learn(_piece(x), np.asarray(y), self._run.lr if lr is None else lr)
        except LearningError:
            self.reset()
            raise

    def reset(self, streams: int | Iterable[int] | None = None) -> None:
        """Take one stream, some, or all of them back to their beginning.

        Raises:
            UsageError: there is no such stream.
        """
        chosen = range(self.batch) if streams is None else [streams] if isinstance(streams, int) else streams
        for stream in chosen:
            if not 0 <= stream < self.batch:
                raise UsageError(f"there is no stream {stream}: choose one of 0 to {self.batch - 1}")
            self._session.reset(stream)


def _piece(x: ArrayLike) -> NDArray[Any]:
    array = one_array(x)
    if array.ndim != 3:
        raise DataError(f"a piece of shape {array.shape} given: pass (batch, steps, features)")
    kind = array.dtype if array.dtype in _STEPWISE_TYPES else np.float32
    return np.ascontiguousarray(array, kind)

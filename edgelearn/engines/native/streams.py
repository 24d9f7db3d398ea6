# SPDX-License-Identifier: Apache-2.0
"""Sessions of the C core that are fed sequences in pieces, and go on from where the last piece ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config, Stats
from edgelearn.engines.native.core import check, ffi, lib
from edgelearn.engines.native.session import NativeSession, first_bad
from edgelearn.engines.native.structs import SAMPLE_TYPES
from edgelearn.errors import DataError, ModelError
from edgelearn.records import FLAG_SEQUENCES, RECURRENT, Op
from edgelearn.sequences import section_of


class NativeStreams(NativeSession):
    """A net of which `config.batch` streams are read, each from its own state.

    Raises:
        ModelError: a net that does not begin with recurrent layers, or hands on all of their steps.
    """

    def __init__(self, records: NDArray[np.void], params: NDArray[np.float32], config: Config) -> None:
        section = section_of(records)
        if not section or any(record["op"] != Op.RESCALE for record in records[: section[0]]):
            raise ModelError("only nets that begin with recurrent layers take streams: use forward for whole samples")
        cells = [record for record in records[section[0] : section[-1] + 1] if record["op"] in RECURRENT]
        if cells[-1]["flags"] & FLAG_SEQUENCES:
            raise ModelError("a stream has no end: set return_sequences of the last recurrent layer to false")
        self.step_features = int(records[section[0]]["fan_in"])
        if section[0] and self.step_features % (int(records[0]["params"]) // 2):
            raise ModelError("input scales of single steps do not fit streams: standardise per feature")
        super().__init__(records, params, replace(config, streams=True))
        for stream in range(config.batch):
            self.reset(stream)  # memory comes as it was left

    def stream(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs (batch, outputs) behind the next steps x (batch, steps, features) of each stream."""
        out = np.empty((self.config.batch, self._features[-1]), np.float32)
        _keep = self._point_steps(x)
        c_out = ffi.from_buffer("float[]", out, require_writable=True)
        status = lib.el_net_stream(self._net, self._c_samples, x.shape[1], c_out)
        check(status, lambda: first_bad(x, "stream"))
        return out

    def learn(self, x: NDArray[Any], y: NDArray[Any], lr: float) -> Stats:
        """One update by the next steps x (batch, steps, features) and what they are, y as in `step`."""
        _keep = [*self._point_steps(x), *self._point_answers(len(x), y)]
        c_stats = ffi.new("el_stats *")
        self._learned(lib.el_net_stream_step(self._net, self._c_samples, x.shape[1], lr, c_stats), x, y)
        return Stats(c_stats.loss, c_stats.samples, c_stats.correct)

    def reset(self, stream: int) -> None:
        """Take one stream back to its beginning."""
        check(lib.el_net_reset(self._net, stream))

    def _point_steps(self, x: NDArray[Any]) -> list[Any]:
        """Point the C samples at pieces of the streams."""
        if x.ndim != 3 or (len(x), x.shape[2]) != (self.config.batch, self.step_features) or not x.shape[1]:
            expected = f"({self.config.batch}, steps, {self.step_features})"
            raise DataError(f"pieces of shape {x.shape} given: pass at least one step of each stream, {expected}")
        samples, keep = self._c_samples, [ffi.from_buffer(x)]
        samples.x, samples.x_type, samples.n = keep[0], SAMPLE_TYPES[x.dtype], len(x)
        samples.group, samples.pairs = 0, 0
        return keep

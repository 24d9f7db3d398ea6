# SPDX-License-Identifier: Apache-2.0
"""A net of our own as a backbone: every block is a stage, run by the core on its frozen weights."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import engines
from edgelearn.backbone.taps import Backbone, FloatArray, Head, Statistics, Tap, sha256
from edgelearn.engines import Config, Entry, Session
from edgelearn.errors import ModelError
from edgelearn.net.structure import Structure
from edgelearn.records import FLAG_BIAS, Op, sides_after

BATCH = 64
"""Samples that go through a stage at once: those of `Net.forward`, so that the arena is that of inference."""

CHUNK = 4
"""Samples whose maps before a normalisation are in memory at once."""


class OwnBackbone:
    """See `Backbone`; taps are called after the first layer of their block."""

    def __init__(self, net: Structure, name: str, flat: FloatArray | None = None, batch: int = BATCH) -> None:
        self.net, self.name, self.batch = net, name, batch
        self.flat = net.flat if flat is None else flat
        self.input, self.classes = net.input, net.classes
        self._checksum = zlib.crc32(net.flat.data)
        self.digest = sha256(net.graph.records.tobytes(), net.flat.tobytes())
        self.taps = tuple(self._tap(block) for block in range(net.graph.blocks - 1))
        if not self.taps:
            raise ModelError("a net of one layer has no features to adapt: train it instead")
        self.head: Head | None = self._head()
        self._session: Session | None = None

    def _tap(self, block: int) -> Tap:
        records = self.net.graph.records
        last = records[records["block"] == block][-1]
        sides = sides_after(last)
        return Tap(self.layer(block), (sides.height, sides.width), int(last["units"]))

    def layer(self, block: int) -> str:
        """Name of the first layer of a block that has weights."""
        records = self.net.graph.records
        opener = next(r for r in records if r["block"] == block and r["params"] and r["op"] != Op.RESCALE)
        name = next(p.name for p in self.net.graph.parameters if p.offset == opener["offset"])
        return name.rpartition(".")[0]

    def _head(self) -> Head:
        records = self.net.graph.records
        last = records[records["block"] == self.net.graph.blocks - 1]
        if [op for op in last["op"] if op != Op.SOFTMAX] != [Op.DENSE]:
            raise ModelError("the output block is more than a Dense layer: only plain heads can be adapted")
        first, inputs, units = (int(last[0][key]) for key in ("offset", "fan_in", "units"))
        end = first + inputs * units
        weight = self.flat[first:end].reshape(inputs, units)
        bias = self.flat[end : end + units] if last[0]["flags"] & FLAG_BIAS else np.zeros(units, np.float32)
        return Head(weight.copy(), bias.copy())

    def prepare(self, x: NDArray[Any]) -> NDArray[Any]:
        """As `Input.prepare`.

        Raises:
            ModelError: the net has other weights than when it was frozen.
        """
        if zlib.crc32(self.net.flat.data) != self._checksum:
            raise ModelError("the net's weights are no longer those that were frozen: detach what was merged into it")
        return self.input.prepare(x)

    def config(self, batch: int | None = None) -> Config:
        """Of a session that only answers."""
        return Config(batch=batch or self.batch, targets=self.net.graph.outputs, train=False)

    @property
    def arena_bytes(self) -> int:
        """The core's memory while it answers, weights excluded."""
        return engines.load("native").sizes(self.net.graph.records, self.config()).arena

    def stage(self, index: int, h: NDArray[Any]) -> FloatArray:
        """Block `index` by the core; behind the last tap only the shape changes."""
        if index == len(self.taps):
            return np.ascontiguousarray(h).reshape(len(h), -1)
        if self._session is None:
            self._session = engines.load("native").open(self.net.graph.records, self.flat, self.config())
        flat = np.ascontiguousarray(h).reshape(len(h), -1)
        tap = self.taps[index]
        return self._session.outputs(flat, index, Entry(index)).reshape(len(h), tap.positions, tap.channels)

    def statistics(self, x: NDArray[Any]) -> Statistics:
        """Each normalisation sees what the ones before it, already on new statistics, hand on: the core runs the
        records up to it, so that this takes no more memory than inference."""
        records, flat, found = self.net.graph.records, self.flat.copy(), Statistics()
        for index in np.flatnonzero(records["op"] == Op.BATCHNORM):
            first, units = int(records[index]["offset"]), int(records[index]["units"])
            mean, variance = self._moments(records[:index], flat, x, units)
            flat[first + 2 * units : first + 3 * units] = mean
            flat[first + 3 * units : first + 4 * units] = variance
            name = next(p.name for p in self.net.graph.parameters if p.offset == first).rpartition(".")[0]
            found |= {f"{name}.mean": mean, f"{name}.variance": variance}
        return found

    def _moments(
        self, records: NDArray[np.void], flat: FloatArray, x: NDArray[Any], channels: int
    ) -> tuple[FloatArray, FloatArray]:
        """Mean and variance per channel of what a chain of records gives, summed in slices of the samples."""
        outputs = int(records[-1]["units"]) * sides_after(records[-1]).positions
        session = engines.load("native").open(records, flat, Config(batch=CHUNK, targets=outputs, train=False))
        total, squares, count = np.zeros(channels), np.zeros(channels), 0
        for start in range(0, len(x), CHUNK):
            rows = session.forward(x[start : start + CHUNK]).reshape(-1, channels)
            total += rows.sum(axis=0, dtype=np.float64)
            squares += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
            count += len(rows)
        session.close()
        mean = total / count
        return mean.astype(np.float32), np.maximum(squares / count - mean * mean, 0).astype(np.float32)

    def restated(self, statistics: Statistics) -> Backbone:
        """On a copy of the weights."""
        known = {p.name: p for p in self.net.graph.parameters if not p.trainable}
        flat = self.flat.copy()
        for name, values in statistics.items():
            if name not in known or known[name].shape != values.shape:
                raise ModelError(f"this net has no statistics '{name}' of that size: adapt it again")
            known[name].view(flat)[...] = values
        return OwnBackbone(self.net, self.name, flat, self.batch)

    def release(self) -> None:
        """Give the arena back."""
        if self._session is not None:
            self._session.close()
            self._session = None

# SPDX-License-Identifier: Apache-2.0
"""The Numba engine: the learning of the C core in Python loops that are compiled on first use, for machines
without a wheel and for rules under trial. It runs on one thread; `threads` is accepted and ignored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config, Run, Sizes, Stats
from edgelearn.engines.numba import kernels
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.layers import Layers, view
from edgelearn.engines.numba.learning import Learning
from edgelearn.engines.numba.plan import allocate, groups_of
from edgelearn.engines.numba.random import codes_into, order_into
from edgelearn.engines.numba.records import check
from edgelearn.errors import DataError, ModelError, UsageError
from edgelearn.graph import Op
from edgelearn.rules import Loss, Rule


def codes(rule: Rule, seed: int, block: int, target: int, units: int, targets: int) -> FloatArray:
    """The code of one class for the first `units` units of a block: shape (units,).

    Raises:
        UsageError: a target outside 0 .. targets - 1.
    """
    if not 0 <= target < targets:
        raise UsageError(f"target {target} is outside 0 .. {targets - 1}: ask for one of these")
    out = np.empty(units, np.float32)
    codes_into(rule.codes, rule.scale, seed, block, out.reshape(1, units), first=target)
    return out


def shuffle(seed: int, epoch: int, n: int, position: int) -> int:
    """Where sample `position` of an epoch stands in the data."""
    return int(ENGINE.order(seed, epoch, n, position, 1)[0])


class NumbaSession:
    """A net in numpy arrays; see `Session`."""

    def __init__(self, records: NDArray[np.void], params: FloatArray, config: Config) -> None:
        check(records, config)
        _check_params(records, params)
        plan, state = groups_of(records, config)
        self.config = config
        self.groups = len(plan)
        self._memory = allocate(records, params.size, plan, state, config)
        self._layers = Layers(config, params, self._memory, plan)
        self._learning = Learning(self._layers)
        self._features = int(records[0]["fan_in_active"])
        self._normalises = bool((records["op"] == Op.BATCHNORM).any())

    @property
    def sizes(self) -> Sizes:
        """The bytes of this session's arrays."""
        return self._memory.sizes()

    @property
    def state(self) -> NDArray[np.uint8]:
        """Read-outs, moments and counts, writable."""
        return self._memory.state

    def forward(self, x: NDArray[Any]) -> FloatArray:
        """Outputs (n, outputs) of any number of samples.

        Raises:
            DataError: samples of another shape or type, NaN or infinity in them.
        """
        self._check_samples(x)
        plan = self._layers.groups
        out = np.empty((len(x), plan[-1].nodes[-1].active), np.float32)
        for start in range(0, len(x), self.config.batch):
            rows = x[start : start + self.config.batch]
            self._layers.entry(plan[0], len(rows))[...] = rows
            out[start : start + len(rows)] = self._infer(len(plan), len(rows))
        return out

    def step(self, x: NDArray[Any], y: NDArray[Any], lr: float) -> Stats:
        """One update on at most `batch` samples.

        Raises:
            DataError: bad samples, labels or targets, or one sample for a net with batch normalisation.
            LearningError: a loss or gradient is not finite; that group and those behind it are as they were.
        """
        self._check_training(x, y)
        if len(x) > self.config.batch:
            raise DataError(f"a step takes 1 to {self.config.batch} samples, not {len(x)}: pass fewer")
        if len(x) == 1 and self._normalises:
            raise DataError("batch normalisation cannot learn from 1 sample: pass at least 2")
        stats = Stats()
        self._load(x, y, np.arange(len(x)))
        self._learn(len(x), lr, 0, self.groups - 1, stats)
        return stats

    def fit(self, x: NDArray[Any], y: NDArray[Any], run: Run, stats: Stats) -> None:
        """`run.steps` updates over shuffled mini-batches; `stats` is added to.

        Raises:
            UsageError: a batch larger than the session's, or groups that the net does not have.
            DataError, LearningError: as in `step`; all samples are checked before the first update.
        """
        last = min(run.last_group, self.groups - 1)
        if not 1 <= run.batch <= self.config.batch or not 0 <= run.first_group <= last:
            raise UsageError(f"batch {run.batch} or group {run.first_group} is not of this session: set them lower")
        self._check_training(x, y)
        for step in range(run.first, run.first + run.steps):
            batch = self._load(x, y, self._order(len(x), run, step))
            if batch > 1 or not self._normalises:
                self._learn(batch, run.schedule.rate(step), run.first_group, last, stats)

    def keep(self) -> None:
        """Copy the parameters aside.

        Raises:
            UsageError: the session was opened without `Config.keep`.
        """
        self._kept()[...] = self._layers.params

    def revert(self) -> None:
        """Bring the kept parameters back.

        Raises:
            UsageError: the session was opened without `Config.keep`.
        """
        self._layers.params[...] = self._kept()

    def close(self) -> None:
        """Nothing to end: the arrays go with the session."""

    def _kept(self) -> FloatArray:
        if not self.config.keep:
            raise UsageError("this session keeps no copy of the parameters: open it with keep=True")
        return self._memory.kept

    def _infer(self, groups: int, batch: int) -> FloatArray:
        """Run the first groups on the entry of the first, in inference."""
        for group in self._layers.groups[:groups]:
            out = self._layers.forward(group, batch, training=False)
            self._layers.hand_over(group, out)
        return out

    def _learn(self, batch: int, lr: float, first: int, last: int, stats: Stats) -> None:
        if first:
            self._infer(first, batch)
        done = Stats(samples=batch)
        for group in self._layers.groups[first : last + 1]:
            self._learning.learn(group, batch, lr, done)
        stats.loss += done.loss
        stats.samples += done.samples
        stats.correct += done.correct

    def _order(self, n: int, run: Run, step: int) -> NDArray[np.int64]:
        """Places in the data of a step's samples."""
        epoch, index = divmod(step, -(-n // run.batch))
        start = index * run.batch
        rows = self._memory.rows[: min(run.batch, n - start)]
        if run.shuffle:
            order_into(run.seed, epoch, n, start, rows)
        else:
            rows[...] = np.arange(start, start + len(rows))
        return rows

    def _load(self, x: NDArray[Any], y: NDArray[Any], rows: NDArray[np.int64]) -> int:
        """Gather samples and answers into the session's memory: their number."""
        kernels.gather(x, rows, self._layers.entry(self._layers.groups[0], len(rows)))
        if self.config.loss is Loss.CROSS_ENTROPY:
            self._memory.labels[: len(rows)] = y[rows]
        else:
            kernels.gather(y, rows, view(self._memory.targets, len(rows), self.config.targets))
        return len(rows)

    def _check_samples(self, x: NDArray[Any]) -> None:
        if x.ndim != 2 or x.shape[1] != self._features:
            raise DataError(f"samples of shape {x.shape[1:]} given: the net takes ({self._features},)")
        if x.dtype not in (np.float32, np.uint8) or not x.flags.c_contiguous:
            raise DataError(f"samples are {x.dtype}: pass contiguous float32 or uint8")
        _check_finite(x)

    def _check_training(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        if not self.config.train:
            raise UsageError("this session only runs forward: open it with train=True")
        self._check_samples(x)
        if not len(x):
            raise DataError("there are no samples to learn from: pass at least 1")
        labelled = self.config.loss is Loss.CROSS_ENTROPY
        expected = (len(x),) if labelled else (len(x), self.config.targets)
        if y.shape != expected or y.dtype.kind not in ("iu" if labelled else "f"):
            kind = "whole numbers" if labelled else "float32"
            raise DataError(f"answers are {y.dtype} of shape {y.shape}: pass {kind} of shape {expected}")
        if labelled:
            _check_labels(y, self.config.targets)
        else:
            _check_finite(y)


def _check_params(records: NDArray[np.void], params: FloatArray) -> None:
    if params.dtype != np.float32 or params.ndim != 1 or not params.flags.c_contiguous:
        raise ModelError("parameters must be one contiguous float32 vector: take them from Graph.initial")
    used = int((records["offset"].astype(np.int64) + records["params"]).max())
    if used > params.size:
        raise ModelError(f"the records use {used} parameters of {params.size}: take them from the same model")


def _check_finite(values: NDArray[Any]) -> None:
    if values.dtype == np.uint8:
        return
    bad = kernels.first_not_finite(np.ascontiguousarray(values, np.float32).view(np.uint32))
    if bad >= 0:
        raise DataError(f"sample {bad} holds NaN or infinity: remove or repair it")


def _check_labels(y: NDArray[Any], classes: int) -> None:
    bad = np.flatnonzero((y < 0) | (y >= classes))
    if bad.size:
        raise DataError(
            f"label {y[bad[0]]} of sample {bad[0]} is outside 0 .. {classes - 1}: "
            "correct it or give the last layer more units"
        )


class NumbaEngine:
    """Numba; see `Engine`."""

    name = "numba"
    isa = "numba"

    def sizes(self, records: NDArray[np.void], config: Config) -> Sizes:
        """The memory of a session: its arrays, never touched, are given back at once."""
        check(records, config)
        plan, state = groups_of(records, config)
        params = int((records["offset"].astype(np.int64) + records["params"]).max())
        return allocate(records, params, plan, state, config).sizes()

    def order(self, seed: int, epoch: int, n: int, first: int, count: int) -> NDArray[np.int64]:
        """Places in the data of `count` positions of an epoch, from position `first` on."""
        out = np.empty(count, np.int64)
        order_into(seed, epoch, n, first, out)
        return out

    def open(self, records: NDArray[np.void], params: FloatArray, config: Config) -> NumbaSession:
        """A session that reads and writes `params` in place."""
        return NumbaSession(records, params, config)


ENGINE = NumbaEngine()

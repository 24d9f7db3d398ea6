# SPDX-License-Identifier: Apache-2.0
"""A net in numpy arrays that runs and learns; see `Session`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import ENTRY, Config, Entry, Run, Sizes, Stats
from edgelearn.engines.numba import intake, samples
from edgelearn.engines.numba.course import Course
from edgelearn.engines.numba.intake import Batch
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.layers import Layers
from edgelearn.engines.numba.learning import Learning
from edgelearn.engines.numba.memory import allocate, slice_size
from edgelearn.engines.numba.nesting import Mix, Nest
from edgelearn.engines.numba.objectives import Objectives
from edgelearn.engines.numba.plan import groups_of
from edgelearn.engines.numba.settings import check, check_params
from edgelearn.engines.numba.steps import Feed
from edgelearn.errors import DataError, UsageError

_MIXES = 64
"""So many mixes of widths have their plans kept."""


class NumbaSession:
    """A net in numpy arrays; see `Session`."""

    def __init__(self, records: NDArray[np.void], params: FloatArray, config: Config) -> None:
        check(records, config)
        check_params(records, params)
        plan, state = groups_of(records, config)
        self.config = config
        self.groups = len(plan)
        self._memory = allocate(records, params.size, plan, state, config)
        self._nest = Nest(self._memory.records, config, plan, config.nest) if config.nest else None
        self._whole = Layers(config, params, self._memory, plan)
        self._at = lru_cache(_MIXES)(self._layers_at)
        self._use(None)

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
        return self.outputs(x, self.groups - 1)

    def outputs(self, x: NDArray[Any], last: int, entry: Entry = ENTRY) -> FloatArray:
        """What the group after `last` reads, (n, features), in inference, of any number of samples.

        Raises:
            UsageError: groups that the net does not have, or scales that do not fit.
            DataError: samples of another shape or type, NaN or infinity in them.
        """
        intake.check_samples(self._layers, x, entry)
        if not entry.group <= last < self.groups:
            raise UsageError(f"group {last} is not behind group {entry.group} of {self.groups}: choose another one")
        intake.check_values(self._layers, x, entry)
        out = np.empty((len(x), self._layers.groups[last].outputs), np.float32)
        for start in range(0, len(x), self.config.batch):
            rows = np.arange(start, min(start + self.config.batch, len(x)))
            feed = intake.take(self._layers, x, rows, entry)
            self._layers.infer(entry.group, last, len(rows), out[start : start + len(rows)], feed)
        return out

    def resize(self, levels: Sequence[int] | None) -> None:
        """Answer as the submodel with those levels, one per block, until the next training; None: as opened.

        Raises:
            UsageError: levels that the net does not have.
        """
        if levels is not None and self._nest is None:
            raise UsageError(f"{len(levels)} levels for 0 nested blocks: open the session with levels")
        self._use(self._nest.mix(levels) if self._nest and levels is not None else None)

    def step(self, x: NDArray[Any], y: NDArray[Any], lr: float) -> Stats:
        """One update on at most `batch` samples.

        Raises:
            DataError: bad samples, labels or targets, or a slice of one for batch normalisation of single values.
            LearningError: a loss or gradient is not finite; that group and those behind it are as they were.
        """
        self._check_training(x, y, ENTRY)
        if len(x) > self.config.batch:
            raise DataError(f"a step takes 1 to {self.config.batch} samples, not {len(x)}: pass fewer")
        self._refuse_lonely(len(x))
        batch, stats = Batch(x, y, np.arange(len(x)), ENTRY), Stats()
        feed = intake.load(self._layers, batch)
        last = min(self.config.last_group, self.groups - 1)
        at = int(self._whole.counts[self.config.first_group])
        self._learn_levels(batch, feed, lr, (0, self.config.first_group, last), stats, (self.config.seed, at))
        return stats

    def fit(self, x: NDArray[Any], y: NDArray[Any], run: Run, stats: Stats, entry: Entry = ENTRY) -> None:
        """`run.steps` updates over shuffled mini-batches of samples that enter at `entry`; `stats` is added to.

        Raises:
            UsageError: a batch larger than the session's, or groups that it does not train.
            DataError, LearningError: as in `step`; all samples are checked before the first update of an epoch,
                and each batch before it is learned.
        """
        self._check_training(x, y, entry)
        first, last = run.first_group, min(run.last_group, self.groups - 1)
        fits = entry.group <= first <= last and self.config.first_group <= first and last <= self.config.last_group
        if not fits or not 1 <= run.batch <= self.config.batch or (self._nest and entry.group):
            raise UsageError(
                f"batch {run.batch}, entry {entry.group} and groups {first} to {last} do not fit this session: "
                "open one for them"
            )
        self._refuse_lonely(min(len(x), run.batch))
        for step in range(run.first, run.first + run.steps):
            if step % -(-len(x) // run.batch) == 0:
                intake.check_values(self._layers, x, entry)
                samples.check_answers(y, self.config)
            batch = Batch(x, y, intake.order(self._memory, len(x), run, step), entry)
            feed, course = intake.load(self._layers, batch), (entry.group, first, last)
            if not self._is_lonely(len(batch.rows)):
                self._learn_levels(batch, feed, run.schedule.rate(step), course, stats, (run.seed, step))

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

    def _is_lonely(self, batch: int) -> bool:
        """Whether a batch ends in a slice of one sample and a normalisation has nothing else to take statistics of."""
        size = slice_size(self.config)
        singles = (node.sides.positions == 1 for group in self._layers.groups for node in group.normalising)
        return (size == 1 or batch % size == 1) and any(singles)

    def _refuse_lonely(self, batch: int) -> None:
        if self._is_lonely(batch):
            raise DataError("batch normalisation cannot learn from 1 sample: pass at least 2 to a batch and a slice")

    def _layers_at(self, mix: Mix) -> tuple[Layers, Learning]:
        assert self._nest is not None
        layers = replace(self._whole, groups=self._nest.groups(mix))
        return layers, Learning(layers, Objectives(layers))

    def _use(self, mix: Mix | None) -> None:
        """Run at these levels; None: as opened."""
        if mix is None:
            self._layers, self._learning = self._whole, Learning(self._whole, Objectives(self._whole))
        else:
            self._layers, self._learning = self._at(mix)

    def _learn_levels(
        self,
        batch: Batch,
        feed: Feed | None,
        lr: float,
        course: tuple[int, int, int],
        stats: Stats,
        at: tuple[int, int],
    ) -> None:
        """One update at every mix of widths that learns from a loaded batch by `at`, a seed and a step; the statistics
        are those of the last."""
        mixes = self._nest.learning(*at) if self._nest else [None]
        unused = Stats()
        try:
            for done, mix in enumerate(mixes):
                if done:
                    feed = intake.load(self._layers, batch)
                self._use(mix)
                self._learn(feed, len(batch.rows), lr, course, stats if done + 1 == len(mixes) else unused)
        finally:
            self._use(None)

    def _learn(self, feed: Feed | None, batch: int, lr: float, course: tuple[int, int, int], stats: Stats) -> None:
        """One step of groups `first` .. `last` on what entered in front of group `entry`."""
        entry, first, last = course
        section = range(self.groups)[self._layers.sequence.span]
        index = max(entry, section[0]) if first in section else first
        self._layers.infer(entry, index - 1, batch, feed=feed)
        done = Stats(samples=batch)
        while index <= last:
            if index in section:
                before, end = self._layers.groups[index:first], min(section[-1], last)
                groups = self._layers.groups[max(index, first) : end + 1]
                own = feed if feed is not None and index == entry else self._layers.feed(index, batch)
                Course(self._learning, before, groups, batch).run(own, lr, done)
                index = end
            else:
                self._learning.learn(self._layers.groups[index], batch, lr, done)
            index += 1
        stats.loss += done.loss
        stats.samples += done.samples
        stats.correct += done.correct

    def _check_training(self, x: NDArray[Any], y: NDArray[Any], entry: Entry) -> None:
        if not self.config.train:
            raise UsageError("this session only runs forward: open it with train=True")
        intake.check_samples(self._layers, x, entry)
        samples.check_answers_shape(y, len(x), self.config)

# SPDX-License-Identifier: Apache-2.0
"""The fit loop: stages, epochs, history, and the promise that training never ends worse than its last good epoch.

It refuses what looks like success and is not: weights that never moved, losses that are not finite, and runs that
end no better than guessing.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Run, Stats
from edgelearn.errors import LearningError
from edgelearn.optim import Schedule
from edgelearn.rules import Loss
from edgelearn.training.history import Callback, History, Moment
from edgelearn.training.stages import Stage, Stages
from edgelearn.training.validation import Best

SCHEDULES = ("interleaved", "sequential")
"""interleaved: each batch updates every block; sequential: block by block, earlier ones frozen."""

_HOPELESS = 10.0
"""A final loss this many times that of a constant guess is a run that diverged without a NaN."""

_PATIENCE = 200
"""Steps after which a run must be better than a constant guess."""

_FIRST_STEPS = 16
"""Steps of the first call, before its speed is known."""

_PROGRESS = 0.99
"""A loss above this share of the first batches' is no progress."""

_SLICE = 1 << 16
"""Weights looked at in one go, so that a fingerprint takes no second copy of them."""

_CALL_SECONDS = 0.25
"""Aimed length of one call into the engine: progress moves and Ctrl-C answers this often."""


@dataclass
class Trainer:
    """A run over fixed data: `fit` drives the sessions of `stages` and keeps the last finished epoch inside them, or
    the best one on held-out samples where there is `patience` to wait for a better one."""

    stages: Stages
    params: NDArray[np.float32]
    schedule: Schedule
    loss: Loss
    epochs: int
    batch: int
    seed: int
    callbacks: tuple[Callback, ...] = ()
    patience: int = 0
    class_weights: tuple[float, ...] | None = None

    def fit(self) -> History:
        """Train; on Ctrl-C the weights are those of the last finished epoch.

        Raises:
            LearningError: diverged or learned nothing; the weights are those of the last good epoch, or the first.
            OutputError: what goes from stage to stage cannot be written; the weights are those of the stage before.
        """
        before = self._print()
        history = self.stages.begin(self.params)
        start = time.perf_counter() - history.seconds
        try:
            for index in range(self.stages.finished, self._count):
                self._stage(self.stages.open(index), history, start)
                history.seconds = time.perf_counter() - start
                self.stages.finish(index, self.params, history)
        except KeyboardInterrupt:
            self.stages.revert()
            history.interrupted = True
        except LearningError as error:
            self.stages.revert()
            raise LearningError(f"{error}; the weights are those after epoch {history.kept}") from error
        except BaseException:
            self.stages.revert()
            raise
        if self.patience and history.kept:
            self.stages.revert()
        history.seconds = time.perf_counter() - start
        self._judge(history, before)
        return history

    @property
    def _steps(self) -> int:
        return -(-len(self.stages.feed.answers) // self.batch)

    @property
    def _count(self) -> int:
        return len(self.stages.groups)

    def _stage(self, stage: Stage, history: History, start: float) -> None:
        schedule, best = self.schedule.spanning(self.epochs * self._steps), Best(self.patience)
        for epoch in range(self.epochs):
            for step, stats in self._epoch(epoch, stage, schedule, history):
                moment = self._moment(stage.index, epoch, step, stats, schedule, history, start)
                is_over = moment.finished and stage.index == moment.stages - 1
                if stage.validation and is_over and self._is_sane(moment):
                    score = best.after(stage.validation.measure(stage.session))
                    moment = replace(moment, validation=score, stops=best.is_over)
                if epoch == 0 and step <= _FIRST_STEPS:
                    history.first_loss = moment.loss
                stop = [callback(moment) for callback in self.callbacks]
            history.epochs.append(moment)
            if self._is_sane(moment) and best.is_now:
                stage.session.keep()
                history.kept = len(history.epochs)
            if moment.stops or any(answer is True for answer in stop):
                return

    def _epoch(self, epoch: int, stage: Stage, schedule: Schedule, history: History) -> Iterator[tuple[int, Stats]]:
        """Calls of about a quarter second each; yields the steps done in the epoch and its sums so far."""
        stats, step, chunk = Stats(), 0, _FIRST_STEPS
        while step < self._steps:
            count = min(chunk, self._steps - step)
            first = epoch * self._steps + step
            run = Run(schedule, self.batch, count, first, self.seed, True, *stage.groups)
            begun, seen = time.perf_counter(), stats.samples
            stage.feed.fit(stage.session, run, stats)
            spent = max(time.perf_counter() - begun, 1e-6)
            history.samples += stats.samples - seen
            chunk = max(1, min(int(count * _CALL_SECONDS / spent), 4 * count))
            step += count
            yield step, stats

    def _moment(
        self,
        stage: int,
        epoch: int,
        step: int,
        stats: Stats,
        schedule: Schedule,
        history: History,
        start: float,
    ) -> Moment:
        stages, seconds = self._count, time.perf_counter() - start
        counted = self.loss is Loss.CROSS_ENTROPY and stage == stages - 1
        return Moment(
            stage=stage,
            stages=stages,
            epoch=epoch,
            epochs=self.epochs,
            done=(stage * self.epochs + epoch + step / self._steps) / (stages * self.epochs),
            loss=stats.mean_loss,
            accuracy=stats.accuracy if counted else None,
            lr=schedule.rate(epoch * self._steps + step - 1),
            samples_per_s=history.samples / seconds,
            seconds=seconds,
            finished=step == self._steps,
        )

    def _judge(self, history: History, before: int) -> None:
        """Refuse a run that changed nothing or ended no better than a constant guess."""
        if not history.epochs:
            return
        if self._print() == before:
            raise LearningError("training changed no weight: raise the learning rate or add epochs")
        last, guess = self._shown(history), self._guess
        if last.stage != last.stages - 1 or not guess:
            return
        is_long = len(history.epochs) * self._steps >= _PATIENCE
        if not self._is_sane(last) and (is_long or last.loss >= history.first_loss):
            self.stages.revert()
            raise LearningError(
                f"training diverged: loss {last.loss:.3g}, a constant guess has {guess:.3g}; lower the learning rate"
            )
        if is_long and not history.interrupted and last.loss >= max(guess, _PROGRESS * history.first_loss):
            raise LearningError(
                f"training learned nothing: loss {last.loss:.3g} is no better than the {guess:.3g} of a "
                "constant guess; try another learning rate, or check that samples and labels belong together"
            )

    def _shown(self, history: History) -> Moment:
        """The epoch that a run is judged by: its last, or the one that patience brought back."""
        last, kept = history.epochs[-1], history.epochs[max(history.kept - 1, 0)]
        return kept if self.patience and kept.stage == last.stage and self._is_sane(kept) else last

    def _print(self) -> int:
        """A fingerprint of the weights in half precision: changes below 1 in 2000 everywhere are no learning."""
        fingerprint = 0
        for start in range(0, len(self.params), _SLICE):
            with np.errstate(over="ignore"):
                half = self.params[start : start + _SLICE].astype(np.float16) + np.float16(0)  # -0 becomes 0
            fingerprint = zlib.crc32(half.data, fingerprint)
        return fingerprint

    def _is_sane(self, moment: Moment) -> bool:
        """Hidden blocks' own losses have no such bound; only the output's is held against a constant guess."""
        return moment.stage != moment.stages - 1 or not self._guess or moment.loss <= _HOPELESS * self._guess

    @cached_property
    def _guess(self) -> float:
        """Loss of the best answer that ignores the sample: entropy of the weighted classes, or half the variance."""
        y = self.stages.feed.answers
        if self.loss is Loss.CROSS_ENTROPY:
            counts = np.bincount(y)
            weighted = (counts * (self.class_weights or np.ones(counts.size))[: counts.size])[counts > 0] / len(y)
            return float(-(weighted * np.log(weighted / weighted.sum())).sum())
        return float(0.5 * y.var(axis=0, dtype=np.float64).sum()) if self.loss is Loss.MSE else 0.0

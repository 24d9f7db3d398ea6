# SPDX-License-Identifier: Apache-2.0
"""`python -m edgelearn.daemon.train`: the training process. It gives way to everything else, may be stopped or killed
at any moment, and goes on from its last checkpoint to the same bits.

One JSON object on standard input says what to do; lines of JSON on standard output say what happens. It never turns
the pointer of what is live: it puts a version on the disk, with the gate's verdict, and the daemon decides.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgelearn.daemon.cursor import Cursor
from edgelearn.daemon.database import COLUMNS, Sample, connect, whole
from edgelearn.daemon.task import DONE, INTERRUPTED, REFUSED, Task
from edgelearn.errors import DataError, EdgelearnError, ModelError
from edgelearn.learner import Learner
from edgelearn.learning.gate import Gate
from edgelearn.learning.snapshots import Snapshots
from edgelearn.loading import load
from edgelearn.store import Store
from edgelearn.store.locking import Lock

PORTION = 256
"""Samples that are learned between two looks at whether to stop; a multiple of what a learner takes at once, so that a
checkpoint between two of them changes nothing."""

_PR_SET_PDEATHSIG = 1
"""Of prctl(2): a signal for when the parent ends."""

_SAY_SECONDS = 0.5


class Training:
    """One run. `asked_to_stop` is looked at between portions."""

    def __init__(self, task: Task) -> None:
        self.task, self.asked_to_stop = task, False
        self._folder = Path(task.folder)
        self._cursor = Cursor(self._folder / "cursor")
        self._place = 0
        self._said = 0.0
        self._others = 0

    def run(self) -> int:
        """Learn, then commit; the exit code.

        Raises:
            EdgelearnError: it cannot be done.
        """
        with self._learner() as learner:
            try:
                return self._run(learner)
            except EdgelearnError:  # the learner's end is a checkpoint, too
                with suppress(EdgelearnError):
                    self._cursor.mark(learner.samples, self._place)
                raise

    def _run(self, learner: Learner) -> int:
        self._place = self._cursor.of(learner.samples)
        for name in self.task.classes:
            if name not in (learner.candidate.classes or []):
                learner.add_class(name)
        if not self._learn(learner):
            return INTERRUPTED
        if self._others:
            text = f"{self._others:,} samples have another shape than the model takes: they are left out"
            say("event", what="refused", message=text)
        self._place = self.task.until
        self._save(learner)  # so that whatever hits the commit, it is made again, of the same content
        say("validating", samples=learner.samples)
        before = learner.version.id
        version = learner.commit(self.task.note)
        if version.id == before:
            say("nothing", reason="no new sample changed the model: give it labelled samples")
        else:
            say("committed", version=version.id, parent=before, **dict(version.metrics))
        return DONE

    def _learner(self) -> Learner:
        """One that goes on, or begins anew where what it kept is of another shape or size than it may keep now: the
        samples are all in the data base."""
        kept = Snapshots(self._folder / "models" / "learning")
        try:
            return self._made()
        except ModelError as error:
            if kept.load() is None:
                raise
            say("event", what="anew", message=f"learning begins anew, for {str(error).partition(':')[0]}")
        self._cursor.forget()
        kept.forget()
        return self._made()

    def _made(self) -> Learner:
        task, models = self.task, self._folder / "models"
        store = Store(models, keep_bytes=task.keep_bytes)
        current = store.current()
        if current is None:
            raise DataError("no model is live, so there is nothing to go on from: push one first")
        gate = Gate(min_samples=task.min_samples, max_drop=task.max_drop, policy="manual")
        return Learner(
            load(store.read(current.id)),
            replay=task.replay,
            gate=gate,
            folder=models,
            keep_bytes=task.keep_bytes,
            write_budget=task.write_budget or None,
            lr=task.lr or None,
            rehearsals=task.rehearsals,
            on_event=lambda event: say("event", what=event.kind, message=event.message),
        )

    def _learn(self, learner: Learner) -> bool:
        """Portion by portion; False when it was asked to stop first."""
        begun = self._place
        saved = time.monotonic()
        with closing(connect(self._folder / "samples.db", writes=False)) as base:
            for label, portion in _portions(base, begun, self.task.until):
                loss = self._portion(learner, portion)
                self._place = label
                self._tell(learner.samples, (label - begun) / max(1, self.task.until - begun), loss)
                ends = self.asked_to_stop or _is_orphan()
                if ends or time.monotonic() - saved > self.task.checkpoint_seconds:
                    self._save(learner)
                    saved = time.monotonic()
                if ends:
                    return False
        return True

    def _portion(self, learner: Learner, portion: list[Sample]) -> float | None:
        """Samples of another model's shape, and labels that are no class any more, are refused, not the run."""
        names = learner.candidate.classes
        features = learner.net.input.features
        fine = [s for s in portion if len(s.x) == features * np.dtype(s.dtype).itemsize]
        self._others += len(portion) - len(fine)
        loss = None
        for dtype in sorted({sample.dtype for sample in fine}):
            some = [sample for sample in fine if sample.dtype == dtype]
            x = np.stack([np.frombuffer(sample.x, dtype) for sample in some])
            labels = [sample.label or "" for sample in some]
            y = np.array(labels if names else [int(label) for label in labels])
            with suppress(DataError):  # the learner's event says why
                loss = learner.partial_fit(x, y).loss
        return loss

    def _save(self, learner: Learner) -> None:
        learner.flush()
        self._cursor.mark(learner.samples, self._place)
        learner.checkpoint()
        say("checkpoint", samples=learner.samples)

    def _tell(self, samples: int, done: float, loss: float | None) -> None:
        if time.monotonic() - self._said > _SAY_SECONDS:
            self._said = time.monotonic()
            say("progress", samples=samples, done=round(done, 4), loss=loss)


def _portions(base: Any, place: int, until: int) -> Iterator[tuple[int, list[Sample]]]:
    """Labelled samples in the order of their labels, and the number of the last label of each portion."""
    sql = f"SELECT {COLUMNS}, labelled FROM samples WHERE labelled > ? AND labelled <= ? ORDER BY labelled LIMIT ?"
    while rows := base.execute(sql, (place, until, PORTION)).fetchall():
        place = rows[-1][-1]
        found = (whole(row) for row in rows)
        yield place, [sample for sample in found if sample is not None]


def say(kind: str, **fields: Any) -> None:
    """One line for the daemon."""
    print(json.dumps({"kind": kind, **fields}), flush=True)


def _is_orphan() -> bool:
    """Whether the daemon has gone: its end of standard input is closed."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _give_way(priority: str) -> None:
    """The lowest priority, and the first to go when memory is short; what the system does not allow is left."""
    if priority != "normal":
        with suppress(OSError):
            os.nice(19)
    if priority == "idle":
        with suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")


def _end_with_the_daemon() -> None:
    """Have the kernel end this process when the daemon is killed, also while it stands still."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Read the task, do it once no other process trains in its folder; the exit code."""
    _end_with_the_daemon()
    task = Task(**json.loads(sys.stdin.readline()))
    _give_way(task.priority)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon gets it too, and decides
    with Lock(Path(task.folder)).held():  # a trainer of a daemon that was killed may not have ended yet
        return _trained(Training(task))


def _trained(training: Training) -> int:
    def stop(*_: object) -> None:
        training.asked_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    try:
        return training.run()
    except EdgelearnError as error:
        say("failed", reason=str(error))
        return REFUSED


if __name__ == "__main__":
    sys.exit(main())

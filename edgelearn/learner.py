# SPDX-License-Identifier: Apache-2.0
"""el.Learner: a net that serves while a copy of it learns, and that only something better replaces."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.costs.budget import Budget
from edgelearn.durable import DISK, Disk
from edgelearn.errors import DataError, UsageError
from edgelearn.inputs import arrays
from edgelearn.learning.drift import Adwin, Detector
from edgelearn.learning.events import Event, Events
from edgelearn.learning.gate import Gate, Verdict
from edgelearn.learning.policy import Policy
from edgelearn.learning.prediction import Prediction, predictions
from edgelearn.learning.rehearsal import check_learnable, with_class
from edgelearn.learning.serving import Serving
from edgelearn.learning.snapshots import Snapshots
from edgelearn.learning.step import Learning, Settings, Step
from edgelearn.loading import load
from edgelearn.net import Net
from edgelearn.store import Store
from edgelearn.store.versions import Version


class Learner:
    """Learns sample by sample beside a net that serves.

    Args:
        net: a classifier whose input is known; serves as the first version. Where `folder` holds versions already, its
            live one serves instead.
        replay: bytes for samples that are learned again, such as "2MB".
        gate: what a net must show before it serves.
        folder: where versions and checkpoints are kept; None is a temporary folder that ends with the learner.
        keep_bytes, write_budget: of versions in the folder, and of those that may be committed within a day.
        drift: makes the two detectors, of errors and of the serving net's confidence.
        lr: constant rate, the recipe's where it is None.
        rehearsals: steps for each portion of 32 new samples, each with other kept samples.
        seed: of what is kept and drawn.
        on_event: told each event as it happens.

    Raises:
        UsageError: a setting that cannot be meant, or a regression net.
        ModelError: the input is not known yet, or kept samples are of another net.
    """

    def __init__(
        self,
        net: Net,
        *,
        replay: int | str = "2MB",
        gate: Gate | None = None,
        folder: str | os.PathLike[str] | None = None,
        keep_bytes: int = 64 << 20,
        write_budget: int | None = None,
        drift: Callable[[], Detector] = Adwin,
        lr: float | None = None,
        rehearsals: int = 6,
        seed: int = 0,
        on_event: Callable[[Event], None] | None = None,
        disk: Disk = DISK,
    ) -> None:
        if not isinstance(net, Net):
            raise UsageError(f"a learner is made of a net, not of {type(net).__name__}: load one with el.load")
        if gate is not None and not isinstance(gate, Gate):
            raise UsageError(f"gate must be an el.Gate, not {gate!r}: write el.Gate(max_drop=0.01)")
        check_learnable(net)
        self.folder = Path(tempfile.mkdtemp(prefix="edgelearn-") if folder is None else folder)
        own = folder is None
        self._is_closed = False
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True) if own else None
        self.gate, self.events = gate or Gate(), Events(on_event)
        settings = Settings(self.gate, int(Budget(ram=replay).ram or 0), drift, lr, rehearsals, seed)
        self.store = Store(self.folder, keep_bytes=keep_bytes, write_budget=write_budget, disk=disk)
        self._snapshots = Snapshots(self.folder / "learning", disk)
        self._serving = Serving(self.store, net, self.events.note)
        self._latest = self.version
        self._learning = Learning(self._serving.answers, settings, self.events.note)
        self._policy = Policy(self.gate, self._serving, self._learning, self.events.note)
        self._resume()

    # Answering

    @property
    def version(self) -> Version:
        """The version that serves."""
        return self._serving.version

    @property
    def net(self) -> Net:
        """The net that serves."""
        return self._serving.net

    @property
    def candidate(self) -> Net:
        """A copy of what has been learned so far."""
        return self._learning.rehearsal.result()

    @property
    def samples(self) -> int:
        """Samples that were taken, held-out ones included, refused ones not."""
        return self._learning.samples

    @property
    def kept(self) -> dict[str, int]:
        """Samples that are learned again, and samples held out."""
        return self._learning.memory.sizes

    def predict(self, x: ArrayLike) -> Prediction | list[Prediction]:
        """The serving net's answer to one sample, or a list of answers to samples (n, *shape).

        Raises:
            DataError: samples of another shape, or with NaN or infinity.
        """
        return predictions(self.net, self.version.id, x)

    # Learning

    def learn_one(self, x: ArrayLike, y: int | str, *, trust: bool = False) -> Step:
        """Take one sample of shape *shape and its label; portions of 32 are learned together.

        Raises:
            DataError: NaN, another shape or an unknown label; the reason is kept in `events`.
        """
        return self.partial_fit(np.asarray(x)[None], [y], trust=trust)

    def partial_fit(self, x: ArrayLike, y: ArrayLike, *, trust: bool = False) -> Step:
        """Take samples (n, *shape) and their labels (n,), which may be of one class.

        Samples whose sensor seems dead or stuck, and portions whose labels neighbours contradict, are refused unless
        you `trust` them.

        Raises:
            DataError: NaN, another shape or unknown labels; nothing was learned, the reason is kept in `events`.
            LearningError: training diverged.
            UsageError: the learner is closed.
        """
        self._check_open()
        rows, labels = self._checked(x, y)
        step = self._learning.take(rows, labels, trust)
        self.events.sample = self.samples
        self._policy.end_trial()
        return step

    def flush(self) -> Step:
        """Learn what waits for a whole portion, as a commit and a checkpoint do.

        Raises:
            LearningError: training diverged.
        """
        return self._learning.flush()

    def add_class(self, name: str | None = None) -> int:
        """Teach the learning copy one more class, and return its index. The serving net knows it after a commit that
        the gate accepts. A net without class names gets them with the first name.

        Raises:
            ModelError: the name is taken, or the net does not end with a Dense layer.
        """
        self._check_open()
        self._learning.flush()
        self._learning.begin(self._serving.answers, with_class(self.candidate, name))
        return self._learning.rehearsal.net.graph.outputs - 1

    # Versions

    def commit(self, note: str = "") -> Version:
        """Put what was learned on the disk, with the gate's verdict as its metrics; what serves changes as the gate's
        policy says. Where nothing was learned since the last commit, it is that one's version.

        Raises:
            OutputError: it cannot be written; what serves stays.
            BudgetError: the store's limits do not allow it.
        """
        self._check_open()
        self._learning.flush()
        if not self._learning.changed:
            return self._latest
        verdict, net = self.judge(), self.candidate
        metrics = {**verdict.to_json(), "samples_seen": self.samples, "policy": self.gate.policy}
        version = self.store.commit(net.to_bytes(), parent=self.version.id, note=note, metrics=metrics)
        self._policy.decide(version, verdict, net)
        self._latest = version
        self._learning.settle()
        return version

    def judge(self) -> Verdict:
        """What the gate says of what was learned so far, on the samples held out."""
        self._learning.flush()
        return self._policy.judge(self.candidate)

    def promote(self, version_id: str) -> Version:
        """Have a version serve, whatever the gate said; learning goes on from it.

        Raises:
            UsageError: no such version.
            ModelError: it is damaged, no model, or one for other samples; what serves stays.
        """
        self._latest = self._policy.adopt(self._serving.promote(version_id), "promoted")
        return self._latest

    def rollback(self, version_id: str | None = None) -> Version:
        """Have the version serve that served before, or the one of an id; learning goes on from it.

        Raises:
            UsageError: no such version.
            ModelError: it is damaged or no model; what serves stays.
        """
        self._latest = self._policy.adopt(self._serving.rollback(version_id), "rolled back")
        return self._latest

    def history(self) -> list[Version]:
        """All versions, oldest first."""
        return self.store.history()

    def checkpoint(self) -> None:
        """Put the state of learning on the disk: weights, optimizer, kept samples. A learner that is made again for
        the folder goes on to the bit.

        Raises:
            OutputError: it cannot be written; the one before stays.
        """
        table, contents = self._learning.snapshot()
        table = {**table, "live": self.version.id, "attempt": self._policy.attempt}
        self._learning.memory.remap(self._snapshots.save(table, contents))

    def close(self) -> None:
        """Checkpoint where there is a folder, and let go of memory and temporary files. It answers still, and learns no
        more."""
        if self._is_closed:
            return
        if self._remove is None:
            self.checkpoint()
        self._learning.rehearsal.close()
        self._serving.answers.close()
        if self._remove is not None:
            self._remove()
        self._is_closed = True

    def __enter__(self) -> Learner:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    # Inside

    def _check_open(self) -> None:
        """What a closed learner would learn could not be kept."""
        if self._is_closed:
            raise UsageError("this learner is closed: make another for its folder")

    def _checked(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Rows and labels as engines take them; what is refused is noted."""
        net = self._learning.rehearsal.net
        try:
            data = arrays.classification(x, y, net.classes, net.graph.outputs, several=False)
            if data.classes != net.classes:
                raise DataError("the net has no class names: give labels as whole numbers from 0 up")
            return net.input.prepare(data.x_train), data.y_train
        except DataError as error:
            self.events.note("refused", str(error))
            raise

    def _resume(self) -> None:
        found = self._snapshots.load()
        for fault in (*self.store.faults, *self._snapshots.faults):
            self.events.note("damage", fault)
        if found is None:
            return
        table, files = found
        self._learning.restore(table, files)
        self.events.sample = self.samples
        if table["live"] != self.version.id:
            self._learning.begin(self._serving.answers, like=load(files["candidate.safetensors"]))
            self.events.note("resumed", "another version serves than when learning stopped: it goes on from that one")
            return
        self._learning.resume(table, files)
        self._policy.attempt = table["attempt"]
        if table["trial"] is not None:
            self._policy.shade(table["trial"]["version"]).restore(table["trial"]["seen"])
        self.events.note("resumed", f"learning goes on after {self.samples} samples")

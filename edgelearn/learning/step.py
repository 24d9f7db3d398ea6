# SPDX-License-Identifier: Apache-2.0
"""A stream of samples on its way: screened, watched for change, held out or kept, and rehearsed. Everything that it
knows goes into a snapshot, and comes back to the bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import UsageError
from edgelearn.learning.drift import Detector
from edgelearn.learning.gate import Gate, Trial
from edgelearn.learning.memory import Memory
from edgelearn.learning.rehearsal import Answers, Rehearsal, with_classes
from edgelearn.learning.replay import Labels, Rows
from edgelearn.learning.screen import Screen
from edgelearn.loading import load
from edgelearn.net import Net

PORTION = 32
"""New samples that are learned together; fewer wait."""

PIECE = 256
"""Samples that are looked at together."""

ADAPTING = 1024
"""Samples after a change of the stream during which portions are learned EFFORT times as often."""

EFFORT = 4

Note = Callable[[str, str], None]
"""Told the kind of an event, and what happened."""


@dataclass(frozen=True)
class Step:
    """What became of samples: how many were learned, held out, refused (`reason` says why) or wait for more; the mean
    loss; and `drift`, "inputs" or "errors" where the stream has changed."""

    learned: int = 0
    held_out: int = 0
    refused: int = 0
    waiting: int = 0
    loss: float | None = None
    drift: str | None = None
    reason: str | None = None

    def __add__(self, other: Step) -> Step:
        """Both, one after the other."""
        learned = self.learned + other.learned
        known = [(step.loss, step.learned) for step in (self, other) if step.loss is not None]
        loss = sum(loss * n for loss, n in known) / max(1, sum(n for _, n in known)) if known else None
        held_out, refused = self.held_out + other.held_out, self.refused + other.refused
        drift, reason = self.drift or other.drift, self.reason or other.reason
        return Step(learned, held_out, refused, self.waiting + other.waiting, loss, drift, reason)


@dataclass(frozen=True)
class Settings:
    """What does not change while a learner lives; see `Learner`.

    Raises:
        UsageError: no rehearsals.
    """

    gate: Gate
    replay_bytes: int
    drift: Callable[[], Detector]
    lr: float | None
    rehearsals: int
    seed: int

    def __post_init__(self) -> None:
        if not self.rehearsals >= 1:
            raise UsageError(f"rehearsals must be at least 1, not {self.rehearsals}: each is a step")


class Learning:
    """Learns from `live`'s weights on, beside it; `note` is told what happens."""

    def __init__(self, live: Answers, settings: Settings, note: Note) -> None:
        self._settings, self._note = settings, note
        self.memory = Memory(settings.replay_bytes, settings.gate, live.net.input, settings.seed)
        self.samples = self.adapting = 0
        self._screen = Screen()
        self._waiting: list[tuple[Rows, Labels]] = []
        self._trusted = True
        self.rehearsal = Rehearsal(live.net, settings.lr, settings.rehearsals)
        self.settle()
        self.serve(live)

    def begin(self, live: Answers, net: Net | None = None, like: Net | None = None) -> None:
        """Another net serves; learning goes on from its weights, or from `net`'s. Classes that `like` has, or what was
        learned so far, are not forgotten."""
        known = like or self.rehearsal.net
        self.rehearsal.close()
        start = with_classes(net or live.net, known)
        self.rehearsal = Rehearsal(start, self._settings.lr, self._settings.rehearsals)
        self.settle()
        if net is not None:
            self._settled = (-1, 0)
        self.serve(live)

    def serve(self, live: Answers) -> None:
        """Another net serves; what was learned stays. Its errors and its confidence are watched from now on."""
        self.live: Answers = live
        self.trial: Trial | None = None
        self._detectors = {"errors": self._settings.drift(), "inputs": self._settings.drift()}

    def settle(self) -> None:
        """What was learned so far was committed, or is nothing."""
        self._settled = (self.rehearsal.taken, self.rehearsal.net.graph.outputs)

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return self._settled != (self.rehearsal.taken, self.rehearsal.net.graph.outputs)

    def take(self, rows: Rows, labels: Labels, trust: bool) -> Step:
        """Take samples (n, features) and labels (n,)."""
        self._waiting.append((rows, labels))
        self._trusted &= trust
        count = sum(len(labels) for _, labels in self._waiting)
        return self.flush() if count >= PORTION else Step(waiting=count)

    def flush(self) -> Step:
        """Learn what waits."""
        if not self._waiting:
            return Step()
        rows = np.concatenate([rows for rows, _ in self._waiting])
        labels = np.concatenate([labels for _, labels in self._waiting])
        trust, self._waiting, self._trusted = self._trusted, [], True
        step = Step()
        for start in range(0, len(rows), PIECE):
            step += self._piece(rows[start : start + PIECE], labels[start : start + PIECE], trust)
        return step

    def _piece(self, rows: Rows, labels: Labels, trust: bool) -> Step:
        outputs = self.live.probabilities(rows)
        fine: NDArray[np.bool_] = np.ones(len(rows), np.bool_)
        reasons: list[str] = []
        if not trust:
            fine, reasons = self._screen.check(rows, labels, outputs.argmax(axis=1))
        for reason in reasons:
            self._note("refused", reason)
        refused = Step(refused=int((~fine).sum()), reason=reasons[0] if reasons else None)
        return refused + self._learn(rows[fine], labels[fine], outputs[fine]) if fine.any() else refused

    def _learn(self, rows: Rows, labels: Labels, outputs: NDArray[np.float32]) -> Step:
        answers = outputs.argmax(axis=1)
        drift = self._watch(answers != labels, outputs.max(axis=1))
        if self.trial is not None:
            self.trial.add(labels, answers, rows)
        held = self.memory.add(rows, labels)
        self.samples += len(rows)
        self.adapting = max(0, self.adapting - len(rows))
        step = Step(int((~held).sum()), int(held.sum()), drift=drift)
        return replace(step, loss=self._rehearse(rows[~held], labels[~held]))

    def _rehearse(self, rows: Rows, labels: Labels) -> float | None:
        replay, losses = self.memory.open(rows)[0], []
        for start in range(0, len(rows), PORTION):
            part = slice(start, start + PORTION)
            losses.append(self.rehearsal.learn(rows[part], labels[part], replay, EFFORT if self.adapting else 1))
        known = [loss for loss in losses if loss is not None]
        return sum(known) / len(known) if known else None

    def _watch(self, wrong: NDArray[np.bool_], confidence: NDArray[np.float32]) -> str | None:
        """Which of the two changed: errors to more of them, or the confidence that tells of the inputs."""
        found = None
        for missed, sure in zip(wrong.tolist(), confidence.tolist(), strict=True):
            errors, inputs = self._detectors["errors"], self._detectors["inputs"]
            risen = errors.update(float(missed)) and errors.increased
            moved = inputs.update(float(sure))
            if risen or moved:
                found = found or ("errors" if risen else "inputs")
                self._detectors = {name: self._settings.drift() for name in self._detectors}
        if found:
            self._note("drift", f"the stream has changed in its {found}: kept samples make room for what it is now")
            self.memory.renew()
            self.adapting = ADAPTING
        return found

    # Snapshots

    def snapshot(self) -> tuple[dict[str, Any], dict[str, bytes | memoryview]]:
        """Plain values, and contents by file name. Nothing waits afterwards."""
        self.flush()
        table = {
            "samples": self.samples,
            "adapting": self.adapting,
            "taken": self.rehearsal.taken,
            "memory": self.memory.to_json(),
            "screen": self._screen.to_json(),
            "detectors": {name: detector.to_json() for name, detector in self._detectors.items()},
            "trial": self.trial.to_json() if self.trial else None,
        }
        contents: dict[str, bytes | memoryview] = {
            "candidate.safetensors": self.rehearsal.net.to_bytes(),
            "average.bin": self.rehearsal.average.tobytes(),
            "state.bin": self.rehearsal.state.tobytes(),
            "window.bin": self._screen.contents(),
        }
        return table, {**contents, **self.memory.contents()}

    def restore(self, table: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        """Go on from a snapshot.

        Raises:
            ModelError: it is of another net or of other bounds.
        """
        self.memory.restore(table["memory"], files)
        self.samples, self.adapting = table["samples"], table["adapting"]
        self._screen.restore(table["screen"], files["window.bin"].read_bytes())

    def resume(self, table: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        """Go on with the weights of a snapshot too, which began from the net that serves."""
        self.rehearsal.close()
        self.rehearsal = Rehearsal(load(files["candidate.safetensors"]), self._settings.lr, self._settings.rehearsals)
        self.rehearsal.taken = table["taken"]
        self.rehearsal.average[...] = np.frombuffer(files["average.bin"].read_bytes(), np.float32)
        self.rehearsal.state[...] = np.frombuffer(files["state.bin"].read_bytes(), np.uint8)
        made = self._settings.drift
        self._detectors = {name: type(made()).from_json(state) for name, state in table["detectors"].items()}

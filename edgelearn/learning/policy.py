# SPDX-License-Identifier: Apache-2.0
"""What becomes of a version that was committed: it serves, waits for a person, answers in shadow first, or is left."""

from __future__ import annotations

import numpy as np

from edgelearn.learning.gate import Gate, Trial, Verdict
from edgelearn.learning.rehearsal import Answers
from edgelearn.learning.serving import Serving
from edgelearn.learning.step import Learning, Note
from edgelearn.net import Net
from edgelearn.store.versions import Version


class Policy:
    """Judges what was learned, and acts on it as `gate.policy` says. `attempt` counts judgements against the version
    that serves. `note` is told what happens."""

    def __init__(self, gate: Gate, serving: Serving, learning: Learning, note: Note) -> None:
        self.gate, self.attempt = gate, 1
        self._serving, self._learning, self._note = serving, learning, note

    def judge(self, net: Net) -> Verdict:
        """What the gate says of a net beside the one that serves, on the samples held out."""
        kept, live, candidate = self._learning.memory.holdout, self._serving.answers, Answers(net)
        parts = kept.parts() if kept else ()
        found = [(labels, live.labels(rows), candidate.labels(rows)) for rows, labels in parts]
        candidate.close()
        columns = [np.concatenate(column) for column in zip(*found, strict=True)] or [np.zeros(0, np.int64)] * 3
        return self.gate.judge(columns[0], columns[1], columns[2], self.attempt, net.classes)

    def decide(self, version: Version, verdict: Verdict, net: Net) -> None:
        """Act on the verdict on a version and its net.

        Raises:
            OutputError: the pointer cannot be written; what serves stays.
        """
        if not verdict.accepted:
            self._leave(version, "", verdict)
            if verdict.harmful:
                self._learning.begin(self._serving.answers)
                self._note("reset", "it is worse beyond doubt: learning starts again from the version that serves")
        elif self.gate.policy == "auto":
            self._serve(version, Answers(net))
        elif self.gate.policy == "shadow":
            self.shade(version.id)
            self._note("shadow", f"version {version.number} answers in shadow for {self.gate.shadow} samples")
        else:
            how = f"promote({version.id[:12]!r}) has it serve"
            self._note("kept", f"version {version.number} passed the gate: {how}")

    def shade(self, version_id: str) -> Trial:
        """Have a version answer in shadow."""
        answers = self._serving.of(self._serving.store.find(version_id))
        self._learning.trial = Trial(version_id, answers.labels, self.gate.shadow)
        return self._learning.trial

    def end_trial(self) -> None:
        """Judge a net in shadow once it has seen enough."""
        trial = self._learning.trial
        if trial is None or not trial.over:
            return
        self._learning.trial = None
        version = self._serving.store.find(trial.version_id)
        verdict = trial.judge(self.gate, self.attempt, self._learning.rehearsal.net.classes)
        if verdict.accepted:
            self._serve(version, self._serving.of(version))
        else:
            self._leave(version, " after its time in shadow", verdict)

    def adopt(self, version: Version, what: str) -> Version:
        """Learn on from a version that serves by now."""
        self.attempt = 1
        self._learning.begin(self._serving.answers)
        self._note(what, f"version {version.number} serves")
        return version

    def _leave(self, version: Version, when: str, verdict: Verdict) -> None:
        self.attempt += 1
        self._note("kept", f"version {version.number} does not serve{when}: {verdict.reason}")

    def _serve(self, version: Version, answers: Answers) -> None:
        """Turn the pointer, then answer by that version; learning goes on from where it is."""
        self._serving.take(self._serving.store.activate(version.id), answers)
        self.attempt = 1
        self._learning.serve(answers)
        self._note("promoted", f"version {version.number} serves")

# SPDX-License-Identifier: Apache-2.0
"""What happened in a run: a Moment at a time, and the History of its epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgelearn.training.validation import Score


@dataclass(frozen=True)
class Moment:
    """Where training is: what a progress display or callback gets, during an epoch and at its end.

    `stage` counts blocks under the sequential schedule. `loss` and `accuracy` are means over the epoch so far, of
    samples before their update; accuracy is None when no output was trained. Seconds are those of the whole run.
    `validation` is the score on held-out samples, at the end of an epoch that trained the output; `stops` says that
    patience with it has run out.
    """

    stage: int
    stages: int
    epoch: int
    epochs: int
    done: float
    loss: float
    accuracy: float | None
    lr: float
    samples_per_s: float
    seconds: float
    finished: bool
    validation: Score | None = None
    stops: bool = False

    @property
    def eta(self) -> float:
        """Seconds to go at the pace so far."""
        return self.seconds * (1 - self.done) / self.done if self.done else math.inf


Callback = Callable[[Moment], Any]
"""Called several times a second and at each end of an epoch; one that returns True at an epoch's end stops the run."""


@dataclass
class History:
    """One Moment per finished epoch; the weights are those after the first `kept` of them. `interrupted` when Ctrl-C
    ended the run early; `first_loss` is that of the first batches of the last stage."""

    epochs: list[Moment] = field(default_factory=list)
    kept: int = 0
    interrupted: bool = False
    first_loss: float = math.inf
    samples: int = 0
    seconds: float = 0.0

    @property
    def samples_per_s(self) -> float:
        """Training samples per second over the run."""
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def validation(self) -> Score | None:
        """What the weights score on the held-out samples."""
        return self.epochs[self.kept - 1].validation if self.kept else None

# SPDX-License-Identifier: Apache-2.0
"""The seam between Python and what computes: an Engine opens a Session on a graph and its flat parameters.

Sessions check every sample, label and shape before a weight changes and raise the errors named below, so that
callers need no checks of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError, UsageError
from edgelearn.nested import Levels
from edgelearn.optim import Optimizer, Schedule
from edgelearn.rules import RULES, Loss, Rule

ALL_GROUPS = 1 << 30
"""As the last group: as many as there are."""

BACKENDS = ("native", "numba")


@dataclass(frozen=True)
class Config:
    """How a session runs: fields as `el_config` and `el_rule` of edgelearn.h.

    `rates` are factors of the learning rate, one per block; `class_weights` weigh the losses of classes; `clip`
    limits the norm of a group's gradient (0: no limit); `micro` samples go through a group at once (0: the batch).
    Only groups first_group .. last_group are trained. An error goes back through at most `window` steps of recurrent
    blocks (1: it stays in its step; all steps: backpropagation through time). With `nest`, every step draws its widths.
    With `streams`, traces are kept from piece to piece.
    """

    rule: Rule = RULES["tp-ce"]
    loss: Loss = Loss.CROSS_ENTROPY
    optimizer: Optimizer = field(default_factory=Optimizer)
    batch: int = 64
    targets: int = 1
    group: int = 1
    seed: int = 0
    train: bool = True
    keep: bool = False
    threads: int = 1
    clip: float = 0.0
    micro: int = 0
    first_group: int = 0
    last_group: int = ALL_GROUPS
    rates: tuple[float, ...] | None = None
    class_weights: tuple[float, ...] | None = None
    nest: Levels | None = None
    window: int = 1
    streams: bool = False


@dataclass(frozen=True)
class Sizes:
    """Bytes of a session's memory by use; `arena` is all of it, parameters excluded."""

    arena: int
    handle: int
    activations: int
    state: int
    scratch: int


@dataclass(frozen=True)
class Run:
    """A stretch of mini-batch steps, `first` counted from the start of the run; see `el_run`."""

    schedule: Schedule
    batch: int
    steps: int
    first: int = 0
    seed: int = 0
    shuffle: bool = True
    first_group: int = 0
    last_group: int = ALL_GROUPS


@dataclass
class Stats:
    """Sums over samples: of the last trained objective before the update, and of right answers."""

    loss: float = 0.0
    samples: int = 0
    correct: int = 0

    @property
    def mean_loss(self) -> float:
        """Loss per sample."""
        return self.loss / max(self.samples, 1)

    @property
    def accuracy(self) -> float:
        """Share of right answers among the trained samples."""
        return self.correct / max(self.samples, 1)


@dataclass(frozen=True)
class Entry:
    """Where samples enter a net: in front of `group`, as x * scale + shift, pair i mod pairs for feature i."""

    group: int = 0
    scale: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None


ENTRY = Entry()
"""The net's own input."""


class Session(Protocol):
    """A graph with memory. x is (n, features) float32, float16 or uint8, C-contiguous; y is (n,) int32 labels or
    (n, targets) float32. Errors: DataError for bad samples, LearningError for non-finite losses."""

    groups: int
    sizes: Sizes

    def forward(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs (n, outputs) of any number of samples."""

    def outputs(self, x: NDArray[Any], last: int, entry: Entry = ENTRY) -> NDArray[np.float32]:
        """What the group after `last` reads, (n, features), of samples that enter at `entry`."""

    def step(self, x: NDArray[Any], y: NDArray[Any], lr: float) -> Stats:
        """One update on at most `batch` samples."""

    def fit(self, x: NDArray[Any], y: NDArray[Any], run: Run, stats: Stats, entry: Entry = ENTRY) -> None:
        """`run.steps` updates over shuffled mini-batches; `stats` is added to."""

    def resize(self, levels: Sequence[int] | None) -> None:
        """Answer as the submodel with those levels of `Config.nest`, one per block, until the next training or
        resizing; None: as opened."""

    def keep(self) -> None:
        """Copy the parameters aside; needs `Config.keep`."""

    def revert(self) -> None:
        """Bring the kept parameters back."""

    @property
    def state(self) -> NDArray[np.uint8]:
        """Read-outs, moments and counts, writable: with the parameters, all that is needed to go on to the bit."""

    def close(self) -> None:
        """End threads and let go of the memory."""


class Engine(Protocol):
    """A backend."""

    name: str
    isa: str

    def sizes(self, records: NDArray[np.void], config: Config) -> Sizes:
        """The memory of a session, without making one.

        Raises:
            ModelError: a record or a combination that this engine cannot run.
        """

    def order(self, seed: int, epoch: int, n: int, first: int, count: int) -> NDArray[np.int64]:
        """Places in the data of `count` positions of an epoch of n samples, from position `first` on, as `Session.fit`
        shuffles them."""

    def open(self, records: NDArray[np.void], params: NDArray[np.float32], config: Config) -> Session:
        """A session that reads and writes `params` in place."""


def load(name: str = "native") -> Engine:
    """The engine called `native` (C core) or `numba`; never another one silently.

    Raises:
        UsageError: another name.
        ModelError: the engine cannot be loaded here, and why.
    """
    if name not in BACKENDS:
        raise UsageError(f"unknown backend '{name}': choose one of {', '.join(BACKENDS)}")
    try:
        module = import_module(f"edgelearn.engines.{name}")
    except ImportError as error:
        hint = "pip install 'edgelearn[numba]'" if name == "numba" else "pip install edgelearn builds it"
        raise ModelError(f"backend {name} cannot be loaded ({error}): {hint}") from error
    engine: Engine = module.ENGINE
    return engine

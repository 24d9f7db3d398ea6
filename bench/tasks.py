# SPDX-License-Identifier: Apache-2.0
"""What `bench.accuracy` measures, as records: rows (who trains), groups of rows, promises, tasks (data and net)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench.process import ROOT

REFERENCE = "torch"
LOCAL_ONLY = ("rule", "seed", "block", "schedule")
"""Keys of a model's [train] that say nothing to backpropagation."""


@dataclass(frozen=True)
class Row:
    """Who trains the net: a rule under a block size (None: one group of all blocks), or PyTorch where there is none.

    `groups` are the contests that it enters.
    """

    name: str
    title: str
    rule: str | None
    block: int | None = 1
    groups: tuple[str, ...] = ()


TARGET, LOCAL, PAIRS = "best tp-*", "best local rule", "best rule, block 2"
GROUPS = (TARGET, LOCAL, PAIRS)
"""Contests, each won by the row that does best with the seeds that a task compares its rows by."""

ROWS = {
    row.name: row
    for row in (
        Row(REFERENCE, "backprop (PyTorch)", None, None),
        # All blocks in one group see only the output's own loss, so the rule has no say; it is one without settings.
        Row("backprop", "backprop (edgelearn, one group of all blocks)", "drtp", None),
        *(Row(name, name, name, 1, (TARGET, LOCAL)) for name in ("tp-l2", "tp-l1", "tp-huber", "tp-ce", "tp-ce+sim")),
        Row("drtp", "drtp", "drtp"),
        *(Row(name, name, name, 1, (LOCAL,)) for name in ("readout", "readout+sim")),
        *(Row(f"{name}/2", f"{name}, block 2", name, 2, (PAIRS,)) for name in ("tp-ce+sim", "readout", "readout+sim")),
        Row("untrained", "untrained features", "untrained"),
    )
}
CONVOLUTIONAL = tuple(name for name in ROWS if name not in ("tp-l1", "tp-huber", "drtp"))
"""Rows of nets whose plainest rules are told apart on the dense one."""


@dataclass(frozen=True)
class Task:
    """A net on a data set.

    `train` is laid over [train] of the model for all rows alike, PyTorch included; `settings` over that, for one row
    of ours. `promises` are points below backpropagation in PyTorch, by row or by group; None is reported only.
    `seconds` is what one run takes at first guess, until one has been measured. Rows are compared by their first
    `screened` seeds: one where training takes long, more where it is quick and the seeds differ much.
    """

    data: str
    model: str
    seconds: float
    rows: tuple[str, ...] = CONVOLUTIONAL
    promises: Mapping[str, float | None] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    screened: int = 1

    @property
    def name(self) -> str:
        """As `--task` and the ledger have it."""
        return f"{self.data}/{self.model}"

    @property
    def definition(self) -> Path:
        """The model's .toml."""
        return ROOT / "models" / f"{self.model}.toml"

    def recipe(self) -> dict[str, Any]:
        """What all rows share: optimizer, rate, schedule, epochs, batch, augmentation."""
        shared = {k: v for k, v in parsed(self.definition)["train"].items() if k not in LOCAL_ONLY}
        return shared | dict(self.train)

    def settings_of(self, row: Row) -> dict[str, Any]:
        """What `fit` is told for a row of ours. Whatever a rule sets for itself in the model, only its rate may differ
        from the recipe that all share; backpropagation keeps that too. Block 0 is one group of all blocks."""
        own = () if row.block is None else ("lr",)
        shared = {k: v for k, v in self.recipe().items() if k not in own}
        return shared | dict(self.settings.get(row.name, {})) | {"rule": row.rule, "block": row.block or 0}


@cache
def parsed(path: Path) -> dict[str, Any]:
    """A .toml as tables."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(path.read_text("utf-8"))


def data_file(name: str) -> Path:
    """The .npz of a data set: in EDGELEARN_DATA, or in ../shared/data beside the checkout.

    Raises:
        SystemExit: it is not there.
    """
    folder = Path(os.environ.get("EDGELEARN_DATA", ROOT.parent / "shared" / "data"))
    path = (folder / f"{name}.npz").resolve()
    if not path.is_file():
        sys.exit(f"no data set {name}: set EDGELEARN_DATA to the folder that holds {name}.npz")
    return path


def promises(target: float | None, local: float, pairs: float | None) -> dict[str, float | None]:
    """What is promised of the three groups, in points."""
    return {TARGET: target, LOCAL: local, PAIRS: pairs}


DENSE = tuple(ROWS)
_IMAGES = promises(1.5, 0.7, 0.4)
_MIRRORED = {"shift": 2, "flip": True}

TASKS = {
    task.name: task
    for task in (
        Task("fashion_mnist", "mlp", 60, DENSE, {"tp-l2": 5.0, "tp-ce": 1.5, "readout": 0.5}, screened=3),
        Task("mnist", "mlp", 60, DENSE, {"tp-l2": 4.5, "tp-ce": 0.8, "readout": 0.4}, screened=3),
        Task("fashion_mnist", "cnn-small", 100, promises=_IMAGES, train={"epochs": 2, "augment": _MIRRORED}),
        Task("mnist", "cnn-small", 100, promises=_IMAGES, train={"epochs": 2}),
        Task(
            "cifar10_16k",
            "cnn-small",
            100,
            promises=promises(5.0, 1.5, 0.5),
            train={"epochs": 8, "augment": _MIRRORED},
        ),
        Task("cifar10_16k", "vgg8", 500, promises=promises(None, 3.0, 1.0), train={"epochs": 5}),
        Task("har_hapt", "har-conv1d", 30, promises=promises(2.0, 0.7, None), screened=3),
        Task("fsdd_logmel", "kws-conv1d", 30, promises=promises(5.0, 1.5, None), screened=3),
    )
}
"""In the order of the page."""

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
from bench.texts import as_bytes

REFERENCE = "torch"
LOCAL_ONLY = ("rule", "seed", "block", "window", "schedule")
"""Keys of a model's [train] that say nothing to backpropagation."""


@dataclass(frozen=True)
class Row:
    """Who trains the net: a rule under a block size (None: one group of all blocks), or PyTorch where there is none.

    `groups` are the contests that it enters. In recurrent layers errors go back through one step, through at most a
    `quarter` of the steps, or through `all`; with `traces`, gates carry what earlier steps did.
    """

    name: str
    title: str
    rule: str | None
    block: int | None = 1
    groups: tuple[str, ...] = ()
    window: str = "step"
    traces: bool = False


TARGET, LOCAL, PAIRS = "best tp-*", "best local rule", "best rule, block 2"
WINDOWS = "best rule, window of a quarter"
GROUPS = (TARGET, LOCAL, PAIRS, WINDOWS)
"""Contests, each won by the row that does best with the seeds that a task compares its rows by."""

ROWS = {
    row.name: row
    for row in (
        Row(REFERENCE, "backprop (PyTorch)", None, None),
        # All blocks in one group see only the output's own loss, so the rule has no say; it is one without settings.
        Row("backprop", "backprop (edgelearn, one group of all blocks)", "drtp", None, window="all"),
        *(Row(name, name, name, 1, (TARGET, LOCAL)) for name in ("tp-l2", "tp-l1", "tp-huber", "tp-ce", "tp-ce+sim")),
        Row("drtp", "drtp", "drtp"),
        *(Row(name, name, name, 1, (LOCAL,)) for name in ("readout", "readout+sim")),
        *(Row(f"{name}/2", f"{name}, block 2", name, 2, (PAIRS,)) for name in ("tp-ce+sim", "readout", "readout+sim")),
        *(
            Row(f"{name}+traces", f"{name}, traces", name, 1, (TARGET, LOCAL)[name == "readout" :], traces=True)
            for name in ("tp-ce", "readout")
        ),
        *(
            Row(f"{name}/window", f"{name}, window of a quarter of the steps", name, 1, (WINDOWS,), window="quarter")
            for name in ("tp-ce", "readout")
        ),
        Row("untrained", "untrained features", "untrained"),
    )
}
OVER_TIME = tuple(name for name, row in ROWS.items() if row.traces or row.window == "quarter")
UNITS = (REFERENCE, "tp-l2", "tp-ce", "readout", "untrained")
"""Rows of nets whose units are blocks already, and take long to train."""
DENSE = tuple(name for name in ROWS if name not in OVER_TIME)

DEEP = ("torch", "tp-l2", "tp-ce+sim", "readout+sim", "readout+sim/2", "untrained")
"""Rows of nets that take long to train: those that do best on shallower ones, and the controls."""

CONVOLUTIONAL = tuple(name for name in DENSE if name not in ("tp-l1", "tp-huber", "drtp"))
"""Rows of nets whose plainest rules are told apart on the dense one."""
RECURRENT = (*(name for name in CONVOLUTIONAL if not name.endswith("/2")), *OVER_TIME)
WIDE = ("untrained", "readout", "tp-ce+traces", "readout+traces", "readout/window")
"""Rows of a recurrent net that takes long: the best of each kind on the narrower one, and the control."""


@dataclass(frozen=True)
class Task:
    """A net on a data set.

    `train` is laid over [train] of the model for all rows alike, PyTorch included; `settings` over that, for one row
    of ours. `promises` are points below backpropagation in PyTorch, by row or by group; None is reported only.
    `seconds` is what one run takes at first guess, until one has been measured. Rows are compared by their first
    `screened` seeds: one where training takes long, more where it is quick and the seeds differ much. A recurrent net
    reads `steps` steps. The reference is that of the task `beside`, where that is another one.
    """

    data: str
    model: str
    seconds: float
    rows: tuple[str, ...] = CONVOLUTIONAL
    promises: Mapping[str, float | None] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    screened: int = 1
    steps: int = 0
    beside: str = ""

    @property
    def name(self) -> str:
        """As `--task` and the ledger have it."""
        return f"{self.data}/{self.model}"

    @property
    def definition(self) -> Path:
        """The model's .toml: one that ships, or one that is only measured."""
        shipped = ROOT / "models" / f"{self.model}.toml"
        return shipped if shipped.is_file() else ROOT / "bench" / "nets" / f"{self.model}.toml"

    def recipe(self) -> dict[str, Any]:
        """What all rows share: optimizer, rate, schedule, epochs, batch, augmentation."""
        shared = {k: v for k, v in parsed(self.definition)["train"].items() if k not in LOCAL_ONLY}
        return shared | dict(self.train)

    def settings_of(self, row: Row) -> dict[str, Any]:
        """What `fit` is told for a row of ours. Whatever a rule sets for itself in the model, only its rate may differ
        from the recipe that all share; backpropagation keeps that too. Block 0 is one group of all blocks."""
        own = () if row.block is None else ("lr",)
        shared = {k: v for k, v in self.recipe().items() if k not in own}
        reach = {"rule": row.rule, "block": row.block or 0} | self.over_time(row)
        return shared | dict(self.settings.get(row.name, {})) | reach

    def over_time(self, row: Row) -> dict[str, Any]:
        """What a row's `fit` is told of windows and traces, where there are steps."""
        if not self.steps:
            return {}
        window = {"step": 1, "quarter": self.steps // 4, "all": self.steps}[row.window]
        return {"window": window, "traces": row.traces}


@cache
def parsed(path: Path) -> dict[str, Any]:
    """A .toml as tables."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(path.read_text("utf-8"))


def data_file(name: str) -> Path:
    """The .npz of a data set: in EDGELEARN_DATA, or in ../shared/data beside the checkout; NAME_bytes is that of NAME
    with the bytes of its texts.

    Raises:
        SystemExit: it is not there.
    """
    if name.endswith("_bytes"):
        return as_bytes(data_file(name.removesuffix("_bytes")), ROOT / "build" / "bench" / f"{name}.npz")
    folder = Path(os.environ.get("EDGELEARN_DATA", ROOT.parent / "shared" / "data"))
    path = (folder / f"{name}.npz").resolve()
    if not path.is_file():
        sys.exit(f"no data set {name}: set EDGELEARN_DATA to the folder that holds {name}.npz")
    return path


def promises(target: float | None, local: float, pairs: float | None) -> dict[str, float | None]:
    """What is promised of the three groups, in points."""
    return {TARGET: target, LOCAL: local, PAIRS: pairs}


def over_time(target: float | None, local: float, windows: float | None) -> dict[str, float | None]:
    """The same of recurrent nets."""
    return {TARGET: target, LOCAL: local, WINDOWS: windows}


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
        Task("cifar10_16k", "vgg8", 400, DEEP, promises(None, 3.0, 1.0), {"epochs": 4}),
        Task("har_hapt", "har-conv1d", 30, promises=promises(2.0, 0.7, None), screened=3),
        Task("fashion_mnist", "vit-tiny", 120, UNITS, {TARGET: None, LOCAL: 1.5}, {"epochs": 3}),
        Task("banking77_bytes", "text-tiny", 120, UNITS, {TARGET: None, LOCAL: None}),
        Task("fsdd_logmel", "kws-conv1d", 30, promises=promises(5.0, 1.5, None), screened=3),
        Task("har_hapt", "har-gru", 40, RECURRENT, over_time(1.5, 0.5, None), screened=3, steps=32),
        Task("fsdd_logmel", "kws-gru", 30, RECURRENT, over_time(5.0, 1.5, 1.0), screened=3, steps=49),
        Task("fashion_mnist", "rows-gru", 240, RECURRENT, over_time(5.0, 3.0, 1.5), steps=28),
        Task(
            "fashion_mnist",
            "rows-gru-wide",
            600,
            WIDE,
            {LOCAL: 0.5},
            steps=28,
            beside="fashion_mnist/rows-gru",
        ),
    )
}
"""In the order of the page."""

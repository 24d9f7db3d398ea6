# SPDX-License-Identifier: Apache-2.0
"""The ways to adapt that are tried, the settings of a run, and how samples are dealt out to judge a way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelearn import adapters
from edgelearn.adapters import lowrank
from edgelearn.adapters.local import Labels, Training, cells, slice_of
from edgelearn.backbone.cache import CHUNK
from edgelearn.backbone.own import OwnBackbone
from edgelearn.backbone.taps import Backbone, Tap
from edgelearn.errors import DataError, UsageError

ADAPTER_RULES = ("readout", "tp-ce", "tp-l2")
"""Rules that adapters learn by."""

RANK = 8
"""Of adapters, where none is given; halved until it fits a tap, so that prefixes nest alike."""

RATES = (3e-3, 1e-2)
"""Peak rates of adapters that are tried: which one is right depends on how far the domain has moved."""


@dataclass(frozen=True)
class Way:
    """One way to adapt: what is changed, and the adapters' peak rate. `ridge` makes a new head of the samples alone,
    where `head` trains the backbone's own on."""

    statistics: bool = False
    adapters: bool = False
    head: bool = False
    ridge: bool = False
    lr: float = 0.0

    @property
    def name(self) -> str:
        """In words: none, head, statistics+adapters+head."""
        parts = [part for part in ("statistics", "adapters", "head", "ridge") if getattr(self, part)]
        return "+".join(parts) or "none"


@dataclass(frozen=True)
class Settings:
    """How to adapt.

    `kind` and `rank` of adapters (left out: 8, halved until it fits a tap), `rule` they learn by, `taps` that get one
    (default: all), `ways` to choose from by name (default: all that the backbone allows), `folds` of the choice,
    `margin` of accuracy by which a way must beat the backbone as it is, `optimizer` of lowrank.py. With `nested` the
    first quarter and half of a LoRA's ranks are adapters of their own.
    """

    kind: str = "lora"
    rank: int | None = None
    rule: str = "readout"
    taps: tuple[str, ...] = ()
    ways: tuple[str, ...] = ()
    folds: int = 5
    margin: float = 0.0
    steps: int = 100
    optimizer: str = "adam"
    seed: int = 0
    nested: bool = False

    def __post_init__(self) -> None:
        for name in ("taps", "ways"):
            if isinstance(getattr(self, name), str):  # joined by commas, as on the command line
                object.__setattr__(self, name, tuple(getattr(self, name).split(",")))
        adapters.kind_of(self.kind)
        lowrank.optimizer(self.optimizer)
        if self.rule not in ADAPTER_RULES:
            raise UsageError(f"adapters do not learn by rule '{self.rule}': choose one of {', '.join(ADAPTER_RULES)}")
        unknown = set(self.ways) - {way.name for way in all_ways()}
        if unknown:
            known = ", ".join(dict.fromkeys(way.name for way in all_ways()))
            raise UsageError(f"unknown way {', '.join(sorted(unknown))}: choose from {known}")
        if self.nested and self.kind != "lora":
            raise UsageError(f"ranks of adapters of kind {self.kind} do not nest: use lora")
        if self.folds < 2 or not 0 <= self.margin < 1 or self.steps < 1:
            raise UsageError("folds are 2 or more, the margin is from 0 up to 1, steps 1 or more: correct them")

    def fresh(self, tap: Tap) -> adapters.Adapter:
        """An adapter for a tap, before it learns.

        Raises:
            UsageError: a rank that does not fit the tap.
        """
        rank = min(RANK, 1 << tap.channels.bit_length() - 1) if self.rank is None else self.rank
        return adapters.fresh(self.kind, tap.channels, rank, self.seed, f"tap {tap}")


def all_ways() -> Iterator[Way]:
    """By how much they change, what needs no labels first: of equals the first is taken."""
    for head in (False, True):
        for statistics in (False, True):
            yield Way(statistics=statistics, head=head)
    for statistics in (False, True):
        yield Way(statistics=statistics, ridge=True)
    for statistics in (False, True):
        for lr in RATES:
            yield Way(statistics=statistics, adapters=True, head=True, lr=lr)


@dataclass(frozen=True)
class Judged:
    """A way with what it reached on samples that it did not see."""

    way: Way
    accuracy: float
    loss: float


def folds(y: Labels, count: int, seed: int = 0) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places to learn from and places to judge by, `count` times; classes are dealt out alike.

    Raises:
        DataError: fewer samples than folds.
    """
    if len(y) < 2 * count:
        raise DataError(f"{len(y)} samples are too few to choose a way by {count} folds: give more, or fewer folds")
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    for number in range(count):
        held = np.zeros(len(y), bool)
        held[order[number::count]] = True
        yield np.flatnonzero(~held), np.flatnonzero(held)


def plan(backbone: Backbone, samples: int, classes: int, settings: Settings) -> dict[str, int]:
    """Bytes that training one adapter after the other takes, at its largest tap: `adapter_training_bytes` on top
    of `inference_arena_bytes`, the core's memory while a net of ours answers (0 for other runtimes, whose own memory is
    theirs to say). Parts: `averages_bytes` of all samples, or the maps themselves where the adapter is not linear;
    `working_bytes` of a slice and of the maps of CHUNK samples; `adapter_bytes` with the kept copy and gradients;
    `optimizer_bytes`.

    Raises:
        UsageError: a rank that does not fit a tap.
    """
    optimizer, most = lowrank.optimizer(settings.optimizer), dict[str, int]()
    for index, tap in enumerate(backbone.taps):
        if settings.taps and tap.name not in settings.taps:
            continue
        adapter = settings.fresh(tap)
        shapes = [array.shape for array in adapter.weights.values()]
        row = 4 * (len(cells(tap.sides)) if adapter.linear else tap.positions) * tap.channels
        earlier = backbone.taps[max(index - 1, 0)]
        maps = 4 * CHUNK * (2 * tap.positions * tap.channels + earlier.positions * earlier.channels)
        found = {
            "averages_bytes": samples * row,
            "working_bytes": max(maps, 4 * slice_of(row) * row),
            "adapter_bytes": 3 * sum(array.nbytes for array in adapter.weights.values()),
            "optimizer_bytes": optimizer.bytes_of(shapes, Training().state_rank),
        }
        most = max(most, found, key=lambda each: sum(each.values()))
    arena = backbone.arena_bytes if isinstance(backbone, OwnBackbone) else 0
    return {"inference_arena_bytes": arena, "adapter_training_bytes": sum(most.values()), **most}

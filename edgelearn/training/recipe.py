# SPDX-License-Identifier: Apache-2.0
"""How a net is trained: the `[train]` section of a model, with what the caller says over it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from edgelearn import augment, optim, rules
from edgelearn.definition import under_rule
from edgelearn.errors import UsageError
from edgelearn.inputs.labels import CLASS_WEIGHTS, are_class_weights
from edgelearn.optim import Optimizer, Schedule
from edgelearn.rules import Rule
from edgelearn.training import cache
from edgelearn.training.trainer import SCHEDULES

CACHES = ("auto", "none", *cache.KINDS)
"""How outputs of earlier blocks are kept on disk; auto is AUTO, or none where augment changes samples every epoch."""

AUTO = "uint8"
"""Half the bytes of halves; what it costs in accuracy, and where that is not settled: docs/decisions.md."""

_ANY = 2**63
_COUNTS = (
    *(("epochs", 1, _ANY), ("batch", 1, 2**31), ("block", 1, 2**31), ("threads", 1, 16)),
    *(("warmup", 0, _ANY), ("seed", -_ANY, 2 * _ANY), ("patience", 0, _ANY), ("micro", 0, 2**31)),
    ("window", 1, 2**16),
)
"""Whole numbers of a recipe with their least and most; 16 threads are the most that the core starts."""


_OF_THE_MACHINE = ("threads", "backend", "cache_dir", "settings")


def _range(least: int, most: int) -> str:
    return f"from {least} up" if most >= 2**31 else f"from {least} to {most}"


def _is_amount(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf


@dataclass(frozen=True)
class Recipe:
    """Settings of a run; names as in `[train]` and in `Net.fit`.

    `block` consecutive blocks share one objective (1: backprop-free; all of them: backpropagation). An error goes back
    through at most `window` steps of recurrent blocks (1: backprop-free; all steps: backpropagation through time).
    `augment` is a
    table of augment.AUGMENTATIONS. A share `validation` of the samples is held out; `patience` epochs in which they
    are not answered better end the run with the weights of the best (0: never). `class_weights` are one number per
    class, or "balanced". `micro` samples go through a block at once, their gradients added up to one update of the
    batch (0: all of it); batch statistics are then those of the slice. `clip` is the most that the norm of a block's
    gradient may be (0: no limit), `rates` holds a factor of the learning rate for each block.

    The sequential schedule keeps what earlier blocks hand on as `cache`, one of CACHES, in a temporary folder or in
    `cache_dir`, where a run that was ended goes on at the block that it was in.

    Raises:
        UsageError: a value out of range.
        ModelError: an unknown rule.
    """

    rule: str = "tp-ce"
    optimizer: str = "adam"
    lr: float = 1e-3
    lr_schedule: str = "cosine"
    warmup: int = 0
    schedule: str = "interleaved"
    block: int = 1
    window: int = 1
    epochs: int = 10
    batch: int = 64
    seed: int = 0
    augment: Mapping[str, Any] = field(default_factory=dict)
    validation: float = 0.0
    patience: int = 0
    class_weights: str | tuple[float, ...] = "none"
    micro: int = 0
    clip: float = 0.0
    rates: tuple[float, ...] = ()
    cache: str = "auto"
    cache_dir: str | None = None
    threads: int = 1
    backend: str = "native"
    settings: Mapping[str, rules.Setting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least, most in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or not least <= int(value) <= most:
                raise UsageError(f"{name} must be a whole number {_range(least, most)}, not {value!r}")
            object.__setattr__(self, name, int(value))
        if not isinstance(self.lr, Real):
            raise UsageError(f"the learning rate must be a number, not {self.lr!r}")
        object.__setattr__(self, "lr", float(self.lr))
        if self.schedule not in SCHEDULES:
            raise UsageError(f"unknown schedule '{self.schedule}': choose one of {', '.join(SCHEDULES)}")
        object.__setattr__(self, "augment", augment.parse(self.augment).table())
        self._check_validation()
        self._check_class_weights()
        self._check_gradients()
        self._check_cache()
        self.local_rule()
        self.rate_schedule()
        self.optimizer_record()

    def _check_validation(self) -> None:
        share = self.validation
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 <= share < 1:
            raise UsageError(f"validation must be a share of the samples, from 0 to below 1, not {share!r}")
        object.__setattr__(self, "validation", float(share))
        if self.patience and not share:
            raise UsageError("patience waits for held-out samples to do better: set validation = 0.1 as well")

    def _check_class_weights(self) -> None:
        weights = self.class_weights
        weights = weights.tolist() if isinstance(weights, np.ndarray) else weights
        if not are_class_weights(weights):
            names = " or ".join(CLASS_WEIGHTS)
            raise UsageError(f"class_weights must be {names}, or a list of positive numbers, not {weights!r}")
        if not isinstance(weights, str):
            object.__setattr__(self, "class_weights", tuple(float(weight) for weight in weights))

    def _check_gradients(self) -> None:
        if not _is_amount(self.clip):
            raise UsageError(f"clip must be the most that a gradient's norm may be, 0 or more, not {self.clip!r}")
        if not isinstance(self.rates, (list, tuple)) or not all(_is_amount(rate) for rate in self.rates):
            raise UsageError(f"rates must be a list of factors, 0 or more, one for each block, not {self.rates!r}")
        object.__setattr__(self, "clip", float(self.clip))
        object.__setattr__(self, "rates", tuple(float(rate) for rate in self.rates))

    def _check_cache(self) -> None:
        if self.cache not in CACHES:
            raise UsageError(f"unknown cache '{self.cache}': choose one of {', '.join(CACHES)}")
        if self.cache in cache.KINDS and self.augment:
            raise UsageError(
                f"cache {self.cache} holds what blocks make of samples as they are, and augment changes them every "
                "epoch: leave out one of them"
            )
        if self.cache_dir is not None:
            object.__setattr__(self, "cache_dir", os.fspath(self.cache_dir))
            if self.schedule != "sequential":
                raise UsageError("cache_dir is for blocks that are trained one by one: set schedule to sequential")

    @property
    def cached(self) -> str:
        """As what outputs of earlier blocks are kept on disk: none, or one of cache.KINDS."""
        if self.schedule != "sequential":
            return "none"
        return self.cache if self.cache != "auto" else "none" if self.augment else AUTO

    def uncached(self, why: str) -> Recipe:
        """The same without outputs of earlier blocks on disk, which these samples would not be the same for again.

        Raises:
            UsageError: they were asked for; `why` not.
        """
        if self.cache in cache.KINDS:
            raise UsageError(f"{why}, and cache {self.cache} holds what blocks make of samples once: set cache to none")
        return replace(self, cache="none")

    def to_table(self) -> dict[str, Any]:
        """As a `[train]` table, for the model file; what belongs to the machine (threads, backend, cache_dir) stays
        out."""
        table = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _OF_THE_MACHINE}
        return {**table, **self.settings}

    def local_rule(self) -> Rule:
        """The rule with its settings."""
        return rules.get(self.rule, **self.settings)

    def optimizer_record(self) -> Optimizer:
        """The optimizer."""
        return optim.optimizer(self.optimizer)

    def rate_schedule(self) -> Schedule:
        """The learning-rate schedule, not yet spread over a number of steps."""
        return optim.schedule(self.lr_schedule, self.lr, self.warmup)


def recipe(train: Mapping[str, Any], regression: bool = False, **said: Any) -> Recipe:
    """The recipe of a `[train]` table under the rule that is said, or its own, with every argument that is not None
    laid over it. Where neither names a rule, it is tp-ce, in regression tp-l2. Traces that only the table asks for give
    way to a window or to blocks that are said: these see what traces stand for.

    Raises:
        UsageError: a key that no recipe has.
    """
    merged = {**under_rule(train, said.get("rule")), **{k: v for k, v in said.items() if v is not None}}
    merged.pop("loss", None)
    if regression:
        merged.setdefault("rule", "tp-l2")
    known = {f.name for f in fields(Recipe)}
    settings = {k: merged.pop(k) for k in rules.SETTINGS if k in merged}
    if said.get("traces") is None and max(said.get("window") or 1, said.get("block") or 1) > 1:
        settings.pop("traces", None)
    for key in merged:
        if key not in known:
            raise UsageError(f"training has no setting '{key}': it takes {', '.join(sorted(known))}")
    return Recipe(**merged, settings=settings)

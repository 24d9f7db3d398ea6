# SPDX-License-Identifier: Apache-2.0
"""Optimizers and learning-rate schedules as plain records; the engines carry them out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

from edgelearn.errors import UsageError


class OptimizerKind(IntEnum):
    """Numbers as in edgelearn.h."""

    SGD = 0
    MOMENTUM = 1
    ADAM = 2


@dataclass(frozen=True)
class Optimizer:
    """SGD (no stored state), momentum (one moment) or Adam (two; Kingma & Ba 2015, algorithm 1)."""

    kind: OptimizerKind = OptimizerKind.ADAM
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    @property
    def moments(self) -> int:
        """Stored floats per trained weight."""
        return int(self.kind)


def optimizer(name: str) -> Optimizer:
    """The optimizer called `sgd`, `momentum` or `adam`.

    Raises:
        UsageError: another name.
    """
    if name.upper() not in OptimizerKind.__members__:
        known = ", ".join(k.name.lower() for k in OptimizerKind)
        raise UsageError(f"unknown optimizer '{name}': choose one of {known}")
    return Optimizer(OptimizerKind[name.upper()])


class ScheduleKind(IntEnum):
    """Numbers as in edgelearn.h."""

    CONSTANT = 0
    COSINE = 1
    STEP = 2


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the steps of a run: `warmup` linear steps, then constant, cosine to `floor`, or
    `gamma` every `every` steps."""

    kind: ScheduleKind = ScheduleKind.COSINE
    lr: float = 1e-3
    floor: float = 0.0
    gamma: float = 0.1
    warmup: int = 0
    total: int = 1
    every: int = 1

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.kind is ScheduleKind.COSINE:
            span = max(self.total - self.warmup, 1)
            progress = min((step - self.warmup) / span, 1.0)
            return self.floor + (self.lr - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
        if self.kind is ScheduleKind.STEP:
            return self.lr * self.gamma ** ((step - self.warmup) // max(self.every, 1))
        return self.lr

    def spanning(self, total: int) -> Schedule:
        """The same schedule for a run of `total` steps; a step schedule without `every` gets three drops."""
        every = self.every if self.every > 1 else max(math.ceil(total / 3), 1)
        return replace(self, total=total, every=every, warmup=min(self.warmup, max(total - 1, 0)))


def schedule(name: str, lr: float, warmup: int = 0) -> Schedule:
    """The schedule called `constant`, `cosine` or `step`, at peak rate `lr`.

    Raises:
        UsageError: another name, or a rate that is not positive and finite.
    """
    if name.upper() not in ScheduleKind.__members__:
        known = ", ".join(k.name.lower() for k in ScheduleKind)
        raise UsageError(f"unknown learning-rate schedule '{name}': choose one of {known}")
    if not 0 < lr < math.inf:
        raise UsageError(f"the learning rate must be a positive number, not {lr}")
    return Schedule(ScheduleKind[name.upper()], lr=lr, warmup=warmup)

# SPDX-License-Identifier: Apache-2.0
"""What every engine refuses before it opens a session: settings that do not fit a table of records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config, Entry
from edgelearn.errors import DataError, ModelError
from edgelearn.records import Op, sides_after
from edgelearn.rules import Loss, Objective
from edgelearn.sequences import check_learning, padding_of

_COMPARING = (Objective.READOUT_SIM, Objective.TP_CE_SIM)

_FOR_CLASSES = (Objective.TP_CE, *_COMPARING)


def check_config(records: NDArray[np.void], config: Config) -> None:
    """Raise ModelError for settings out of range, or for another number of blocks or classes."""
    if config.batch < 1 or config.group < 1:
        raise ModelError("batch and group count samples and blocks: set both to at least 1")
    if config.micro < 0 or not 0 <= config.clip < math.inf:
        raise ModelError("micro and clip are limits: set both to 0 for none, or above")
    if config.train:
        blocks = int(records[-1]["block"]) + 1
        _check_objectives(records[-1], config)
        if padding_of(records) is not None and config.rule.objective in _COMPARING:
            raise ModelError(
                f"rule {config.rule.name} compares samples step by step, and those of several lengths have none in "
                "common: choose readout or tp-ce, or leave out Masking"
            )
        check_learning(records, config.group, config.window, config.rule.traces)
        _check_groups(-(-blocks // config.group), config)
        _check_factors(config.rates, blocks, "rates", "block")
        _check_factors(config.class_weights, config.targets, "class_weights", "class")


def check_entry(entry: Entry, features: int) -> None:
    """Raise DataError for scales that do not fit the features of the group that samples enter."""
    scale, shift = entry.scale, entry.shift
    if scale is None and shift is None:
        return
    if scale is None or shift is None or scale.shape != shift.shape or not scale.size or features % scale.size:
        raise DataError(f"scale and shift go together: pass as many of each, of which {features} is a multiple")
    if scale.dtype != np.float32 or shift.dtype != np.float32:
        raise DataError(f"scale and shift are {scale.dtype} and {shift.dtype}: pass float32")


def _check_objectives(last: Any, config: Config) -> None:
    classifies, outputs = config.loss is Loss.CROSS_ENTROPY, int(last["active"])
    if sides_after(last).positions > 1:
        raise ModelError("the net ends in a map, which no loss takes: end it with GlobalAvgPool or Dense")
    if config.targets != outputs:
        raise ModelError(f"the net has {outputs} outputs for {config.targets} targets: make the last layer so wide")
    if classifies:
        return
    if last["op"] == Op.SOFTMAX:
        raise ModelError("a softmax output learns by cross-entropy only: drop it for a regression loss")
    if config.rule.objective in _FOR_CLASSES:
        raise ModelError(f"rule {config.rule.name} needs classes: choose tp-l2 or readout for regression")
    if config.class_weights is not None:
        raise ModelError("class_weights weigh classes: leave them out for a regression loss")


def _check_groups(groups: int, config: Config) -> None:
    if not 0 <= config.first_group <= min(config.last_group, groups - 1):
        raise ModelError(
            f"groups {config.first_group} to {config.last_group} are to be trained: choose some of 0 to {groups - 1}"
        )


def _check_factors(factors: tuple[float, ...] | None, count: int, name: str, what: str) -> None:
    if factors is None:
        return
    if len(factors) != count or not all(0 <= factor < math.inf for factor in factors):
        raise ModelError(f"{name} need one factor of at least 0 per {what}: pass {count} of them")

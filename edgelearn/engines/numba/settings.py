# SPDX-License-Identifier: Apache-2.0
"""Which settings fit a table of records; what lies behind may rely on them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.nodes import COMPARING
from edgelearn.engines.numba.records import check_table, floats_used
from edgelearn.errors import ModelError
from edgelearn.graph import Op, sides_after
from edgelearn.rules import Loss, Objective


def check(records: NDArray[np.void], config: Config) -> None:
    """Raise ModelError for a table or a combination that this engine cannot run."""
    check_table(records)
    if config.batch < 1 or config.group < 1:
        raise ModelError("batch and group count samples and blocks: set both to at least 1")
    if config.micro < 0 or not 0 <= config.clip < math.inf:
        raise ModelError("micro and clip are limits: set both to 0 for none, or above")
    if config.train:
        blocks = int(records[-1]["block"]) + 1
        _check_objectives(records[-1], config)
        _check_groups(-(-blocks // config.group), config)
        _check_factors(config.rates, blocks, "rates", "block")
        _check_factors(config.class_weights, config.targets, "class_weights", "class")


def check_params(records: NDArray[np.void], params: FloatArray) -> None:
    """Raise ModelError for a parameter vector that the records do not fit."""
    if params.dtype != np.float32 or params.ndim != 1 or not params.flags.c_contiguous:
        raise ModelError("parameters must be one contiguous float32 vector: take them from Graph.initial")
    used = floats_used(records)
    if used > params.size:
        raise ModelError(f"the records use {used} parameters of {params.size}: take them from the same model")


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
    if config.rule.objective in (Objective.TP_CE, *COMPARING):
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

# SPDX-License-Identifier: Apache-2.0
"""Which tables of records and which settings the Numba engine runs; what lies behind may rely on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.errors import ModelError
from edgelearn.graph import FLAG_BIAS, RECORD, Op
from edgelearn.rules import Loss, Objective


def check(records: NDArray[np.void], config: Config) -> None:
    """Raise ModelError for a table or a combination that this engine cannot run."""
    if records.dtype != RECORD or records.ndim != 1 or not records.size:
        raise ModelError("the record table is empty or of another type: build it with edgelearn.graph.build")
    for index, record in enumerate(records):
        fault = _fault(records, index, record)
        if fault:
            raise ModelError(f"record {index} {fault}: build the table with edgelearn.graph.build")
    if not np.isin(records["op"], Op.DENSE).any():
        raise ModelError("the net has no weights to learn: add a Dense layer")
    if config.batch < 1 or config.group < 1:
        raise ModelError("batch and group count samples and blocks: set both to at least 1")
    if config.train:
        _check_training(records[-1], config)


def _fault(records: NDArray[np.void], index: int, record: Any) -> str:
    if not Op.RESCALE <= record["op"] <= Op.SOFTMAX:
        return f"has the unknown operation {record['op']}"
    if record["params"] != _expected_params(record):
        return f"has {record['params']} parameters where its shape needs another number"
    if not _arguments_fit(record):
        return "has an argument out of range"
    if not _is_chained(records, index, record):
        return "is out of place"
    return "" if _shapes_join(records, index, record) else "does not fit the shape before it"


def _expected_params(record: Any) -> int:
    units, stride = int(record["units"]), int(record["stride"])
    if record["op"] == Op.DENSE:
        return stride * (int(record["fan_in"]) + int(bool(record["flags"] & FLAG_BIAS)))
    if record["op"] == Op.RESCALE:
        pairs = int(record["params"]) // 2
        return 2 * pairs if pairs and units % pairs == 0 else -1
    return 4 * units if record["op"] == Op.BATCHNORM else 0


def _arguments_fit(record: Any) -> bool:
    first, second = (float(a) for a in record["arg"])
    if record["op"] == Op.DROPOUT:
        return 0 <= first < 1
    return bool(record["op"] != Op.BATCHNORM) or (first > 0 and 0 <= second < 1)


def _is_chained(records: NDArray[np.void], index: int, record: Any) -> bool:
    """A chain in which every block begins with its one Dense; rescaling comes first, softmax last."""
    if tuple(record["input"]) != (index - 1, -1):
        return False
    if (record["op"] == Op.RESCALE and index) or (record["op"] == Op.SOFTMAX and index + 1 != records.size):
        return False
    opens = record["op"] == Op.DENSE
    if index == 0 or records[index - 1]["op"] == Op.RESCALE:
        return bool(record["block"] == 0 and (opens or record["op"] == Op.RESCALE))
    return bool(record["block"] == records[index - 1]["block"] + opens)


def _shapes_join(records: NDArray[np.void], index: int, record: Any) -> bool:
    units, active, fan_in, used = (int(record[k]) for k in ("units", "active", "fan_in", "fan_in_active"))
    if not 0 < active <= units <= record["stride"] or not 0 < used <= fan_in:
        return False
    if index and (fan_in, used) != (records[index - 1]["units"], records[index - 1]["active"]):
        return False
    return bool(record["op"] == Op.DENSE) or (units, active) == (fan_in, used)


def _check_training(last: Any, config: Config) -> None:
    classifies = config.loss is Loss.CROSS_ENTROPY
    if config.targets != last["active"]:
        raise ModelError(
            f"the net has {last['active']} outputs for {config.targets} targets: make the last layer so wide"
        )
    if not classifies and last["op"] == Op.SOFTMAX:
        raise ModelError("a softmax output learns by cross-entropy only: drop it for a regression loss")
    if not classifies and config.rule.objective is Objective.TP_CE:
        raise ModelError("rule tp-ce needs classes: choose tp-l2 or readout for regression")

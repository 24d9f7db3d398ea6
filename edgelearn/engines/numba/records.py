# SPDX-License-Identifier: Apache-2.0
"""Which tables of records the Numba engine runs; what lies behind may rely on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.geometry import sides_of
from edgelearn.graph import FLAG_BIAS, FLAG_NESTED, RECORD, Op, groups_of_record, sides_after, window_of_record

OPENING = (Op.DENSE, Op.CONV)
"""Operations that begin a block."""

SLIDING = (Op.CONV, Op.MAXPOOL, Op.AVGPOOL)
"""Operations with a window."""

_FLAT = (Op.RESCALE, Op.DENSE, Op.SOFTMAX)

_FLAGGED = (*OPENING, Op.MAXPOOL, Op.AVGPOOL)


def check_table(records: NDArray[np.void]) -> None:
    """Raise ModelError for a table that this engine cannot run."""
    if records.dtype != RECORD or records.ndim != 1 or not records.size:
        raise ModelError("the record table is empty or of another type: build it with edgelearn.graph.build")
    if (records[np.isin(records["op"], OPENING)]["flags"] & FLAG_NESTED).any():
        raise ModelError(
            "nested nets run on the native backend only: choose it, or take submodel(...).compact(), which is plain"
        )
    for index, record in enumerate(records):
        fault = _fault(records, index, record)
        if fault:
            raise ModelError(f"record {index} {fault}: build the table with edgelearn.graph.build")
    if not np.isin(records["op"], OPENING).any():
        raise ModelError("the net has no weights to learn: add a Dense layer")


def floats_used(records: NDArray[np.void]) -> int:
    """Length of the parameter vector that the records need."""
    return int((records["offset"].astype(np.int64) + records["params"]).max())


def features_after(record: Any, units: str = "active") -> int:
    """Values of one sample behind a record; `units` names the field that counts them per position."""
    return sides_after(record).positions * int(record[units])


def _features_before(record: Any, fan_in: str) -> int:
    return sides_of(int(record["size"])).positions * int(record[fan_in])


def _fault(records: NDArray[np.void], index: int, record: Any) -> str:
    if not Op.RESCALE <= record["op"] <= Op.GELU:
        return f"has the unknown operation {record['op']}"
    if not _map_fits(record):
        return "has a window that does not fit its map"
    if record["params"] != _expected_params(record):
        return f"has {record['params']} parameters where its shape needs another number"
    if not _arguments_fit(record):
        return "has an argument out of range"
    if not _is_chained(records, index, record):
        return "is out of place"
    if not _shape_is_sound(record) or (index and not _joins(records[index - 1], record)):
        return "does not fit the shape before it"
    return ""


def _map_fits(record: Any) -> bool:
    """Whether sides, kernel and strides are at least 1, and so are the sides behind it; nothing of it elsewhere."""
    op, window = record["op"], window_of_record(record)
    if (op not in _FLAGGED and record["flags"]) or (op not in SLIDING and record["window"]):
        return False
    if op in _FLAT:
        return not record["size"]
    if not sides_of(int(record["size"])).positions:
        return False
    if op in SLIDING:
        slides = min(*window.kernel, *window.strides) > 0
        return bool(record["size"]) and slides and min(sides_after(record)) > 0
    return bool(record["size"]) or op != Op.GLOBAL_AVGPOOL


def _expected_params(record: Any) -> int:
    units, stride, fan_in = (int(record[name]) for name in ("units", "stride", "fan_in"))
    biases = int(bool(record["flags"] & FLAG_BIAS))
    if record["op"] == Op.DENSE:
        return stride * (fan_in + biases)
    if record["op"] == Op.CONV:
        kernel = window_of_record(record).kernel
        return stride * (kernel[0] * kernel[1] * (fan_in // groups_of_record(record)) + biases)
    if record["op"] == Op.RESCALE:
        pairs = int(record["params"]) // 2
        return 2 * pairs if pairs and units % pairs == 0 else -1
    return {Op.BATCHNORM: 4 * units, Op.LAYERNORM: 2 * units}.get(record["op"], 0)


def _arguments_fit(record: Any) -> bool:
    first, second = (float(a) for a in record["arg"])
    if record["op"] == Op.DROPOUT:
        return 0 <= first < 1
    if record["op"] == Op.LAYERNORM:
        return first > 0
    return bool(record["op"] != Op.BATCHNORM) or (first > 0 and 0 <= second < 1)


def _is_chained(records: NDArray[np.void], index: int, record: Any) -> bool:
    """A chain in which every block begins with its one Dense or convolution; rescaling comes first, softmax last."""
    if tuple(record["input"]) != (index - 1, -1):
        return False
    if (record["op"] == Op.RESCALE and index) or (record["op"] == Op.SOFTMAX and index + 1 != records.size):
        return False
    opens = record["op"] in OPENING
    if index == 0 or records[index - 1]["op"] == Op.RESCALE:
        return bool(record["block"] == 0 and (opens or record["op"] == Op.RESCALE))
    return bool(record["block"] == records[index - 1]["block"] + opens)


def _shape_is_sound(record: Any) -> bool:
    units, active, fan_in, used = (int(record[k]) for k in ("units", "active", "fan_in", "fan_in_active"))
    if not 0 < active <= units <= record["stride"] or not 0 < used <= fan_in:
        return False
    if record["op"] == Op.CONV:
        groups = groups_of_record(record)
        return (units, fan_in) == (active, used) and fan_in % groups == 0 and units % groups == 0
    return bool(record["op"] == Op.DENSE) or (units, active) == (fan_in, used)


def _joins(before: Any, record: Any) -> bool:
    """Whether a record reads what the one before it leaves: the same map, or all of it as one vector."""
    left, read = sides_after(before), sides_of(int(record["size"]))
    if before["op"] != Op.RESCALE and record["size"] and left != read:
        return False
    stored = features_after(before, "units") == _features_before(record, "fan_in")
    return stored and features_after(before) == _features_before(record, "fan_in_active")

# SPDX-License-Identifier: Apache-2.0
"""Which tables of records the Numba engine runs; what lies behind may rely on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.geometry import LARGEST_SIDE, sides_of
from edgelearn.records import (
    FLAG_BIAS,
    FLAG_NESTED,
    RECORD,
    RECURRENT,
    Op,
    groups_of_record,
    sides_after,
    window_of_record,
)
from edgelearn.sequences import check_order

OPENING = (Op.DENSE, Op.CONV, Op.EMBEDDING, *RECURRENT)
"""Operations of which a block has at least one."""

_WIDENING = (*OPENING, Op.ATTENTION)
"""Operations that leave another number of features than they read."""

SLIDING = (Op.CONV, Op.MAXPOOL, Op.AVGPOOL)
"""Operations with a window."""

_FLAT = (Op.RESCALE, Op.DENSE, Op.SOFTMAX)

_FLAGGED = (Op.DENSE, Op.CONV, Op.ATTENTION, Op.MAXPOOL, Op.AVGPOOL, *RECURRENT)


def check_table(records: NDArray[np.void]) -> None:
    """Raise ModelError for a table that this engine cannot run."""
    if records.dtype != RECORD or records.ndim != 1 or not records.size:
        raise ModelError("the record table is empty or of another type: build it with edgelearn.graph.build")
    opening = records[np.isin(records["op"], OPENING)]
    if (opening["flags"] & FLAG_NESTED).any() and not _nests(records, opening):
        raise ModelError(
            "of nested nets this backend runs those of dense layers: choose native, or take submodel(...).compact(), "
            "which is plain"
        )
    for index, record in enumerate(records):
        fault = _fault(records, index, record)
        if fault:
            raise ModelError(f"record {index} {fault}: build the table with edgelearn.graph.build")
    weighty = set(records["block"][np.isin(records["op"], OPENING)])
    if weighty != set(records["block"]):
        raise ModelError("a block of the net has no weights to learn: add a Dense layer")
    check_order(records)


def _nests(records: NDArray[np.void], opening: NDArray[np.void]) -> bool:
    """Whether a net is dense layers alone, each a block of its own, and what works on their outputs."""
    is_dense = (opening["op"] == Op.DENSE).all() and len(opening) == int(records["block"][-1]) + 1
    return bool(is_dense and not np.isin(records["op"], (Op.ADD, Op.ATTENTION)).any() and not records["size"].any())


def floats_used(records: NDArray[np.void]) -> int:
    """Length of the parameter vector that the records need."""
    return int((records["offset"].astype(np.int64) + records["params"]).max())


def features_after(record: Any, units: str = "active") -> int:
    """Values of one sample behind a record; `units` names the field that counts them per position."""
    return sides_after(record).positions * int(record[units])


def features_before(record: Any, fan_in: str) -> int:
    """Values of one sample in front of a record; `fan_in` names the field that counts them per position."""
    return sides_of(int(record["size"])).positions * int(record[fan_in])


def _fault(records: NDArray[np.void], index: int, record: Any) -> str:
    if record["op"] not in set(Op):
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
    if (op not in _FLAGGED and record["flags"]) or (op not in (*SLIDING, Op.BATCHNORM) and record["window"]):
        return False
    if op in _FLAT:
        return not record["size"]
    if not sides_of(int(record["size"])).positions:
        return False
    if op in SLIDING:
        slides = min(*window.kernel, *window.strides) > 0
        return bool(record["size"]) and slides and min(sides_after(record)) > 0
    if op == Op.EMBEDDING or op in RECURRENT:
        return sides_of(int(record["size"])).height == 1 and bool(record["size"])
    return bool(record["size"]) or op not in (Op.GLOBAL_AVGPOOL, Op.ATTENTION)


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
    if record["op"] == Op.EMBEDDING:
        return max(int(record["params"]) // stride, 1) * stride
    if record["op"] in RECURRENT:
        columns = RECURRENT[Op(int(record["op"]))] * units
        return columns * (fan_in + units + biases * (2 if record["op"] == Op.GRU else 1))
    if record["op"] == Op.BATCHNORM:  # gamma and beta, then mean and variance once or more, of which `window` is in use
        pairs = max(int(record["params"]) // (2 * units), int(record["window"]) + 2)
        return 2 * units * pairs
    sheet = sides_of(int(record["size"])).positions * units
    return {Op.LAYERNORM: 2 * units, Op.POSITIONS: sheet}.get(record["op"], 0)


def _arguments_fit(record: Any) -> bool:
    first, second = (float(a) for a in record["arg"])
    if record["op"] == Op.DROPOUT:
        return 0 <= first < 1
    if record["op"] == Op.LAYERNORM:
        return first > 0
    return bool(record["op"] != Op.BATCHNORM) or (first > 0 and 0 <= second < 1)


def _is_chained(records: NDArray[np.void], index: int, record: Any) -> bool:
    """A chain, but for additions; rescaling comes first, tokens next, softmax last."""
    if record["input"][0] != index - 1 or not _addition_fits(records, index, record):
        return False
    if record["op"] == Op.EMBEDDING and index and records[index - 1]["op"] != Op.RESCALE:
        return False
    if (record["op"] == Op.RESCALE and index) or (record["op"] == Op.SOFTMAX and index + 1 != records.size):
        return False
    if index == 0 or records[index - 1]["op"] == Op.RESCALE:
        return bool(record["block"] == 0)
    return int(record["block"]) - int(records[index - 1]["block"]) in (0, 1)


def _addition_fits(records: NDArray[np.void], index: int, record: Any) -> bool:
    """Whether an addition reads what its own block or a record inside it reads, with no other addition between."""
    source = int(record["input"][1])
    if record["op"] != Op.ADD:
        return source == -1
    branch = records[source + 1 : index]
    if source < -1 or not len(branch) or np.isin(branch["op"], (Op.ADD, Op.RESCALE)).any():
        return False
    same = branch[0]["block"] == record["block"]
    return bool(same and features_before(branch[0], "fan_in_active") == features_after(record))


def _shape_is_sound(record: Any) -> bool:
    units, active, fan_in, used = (int(record[k]) for k in ("units", "active", "fan_in", "fan_in_active"))
    if not 0 < active <= units <= record["stride"] or not 0 < used <= fan_in:
        return False
    if record["op"] == Op.CONV:
        groups = groups_of_record(record)
        return (units, fan_in) == (active, used) and fan_in % groups == 0 and units % groups == 0
    if record["op"] == Op.ATTENTION:
        heads = groups_of_record(record)
        whole = units % heads == 0 and active % (units // heads) == 0
        short = sides_of(int(record["size"])).positions <= LARGEST_SIDE
        return short and whole and (fan_in, used) == (3 * units, 3 * active)
    if record["op"] == Op.EMBEDDING:
        return fan_in == 1
    if record["op"] in RECURRENT:
        return (units, fan_in) == (active, used)
    return record["op"] in _WIDENING or (units, active) == (fan_in, used)


def _joins(before: Any, record: Any) -> bool:
    """Whether a record reads what the one before it leaves: the same map, as a sequence, or all of it as one vector."""
    left, read = sides_after(before), sides_of(int(record["size"]))
    is_sequence = read.height == 1 and read.positions == left.positions and record["fan_in"] == before["units"]
    if before["op"] != Op.RESCALE and record["size"] and left != read and not is_sequence:
        return False
    stored = features_after(before, "units") == features_before(record, "fan_in")
    return stored and features_after(before) == features_before(record, "fan_in_active")

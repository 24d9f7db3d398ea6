# SPDX-License-Identifier: Apache-2.0
"""Which records of a net run step by step, and what they refuse: the same on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import ModelError
from edgelearn.geometry import sides_of
from edgelearn.records import FLAG_PADDED, FLAG_SEQUENCES, RECURRENT, Op

STEPWISE = (*RECURRENT, Op.RELU, Op.LEAKY_RELU, Op.TANH, Op.SIGMOID, Op.GELU, Op.LAYERNORM, Op.DROPOUT)
"""Operations that need no other step than the one at hand."""


def section_of(records: NDArray[np.void]) -> range:
    """Indices of the records that run step by step: from the first recurrent one on, as far as records are stepwise."""
    places = np.flatnonzero(np.isin(records["op"], list(RECURRENT)))
    if not places.size:
        return range(0)
    last = int(places[0])
    while last + 1 < len(records) and _stays(records[last], records[last + 1]):
        last += 1
    return range(int(places[0]), last + 1)


def _stays(before: Any, record: Any) -> bool:
    """Whether a record is recurrent or stays in a block with one and is stepwise."""
    is_stepwise = record["op"] in STEPWISE and record["block"] == before["block"]
    return bool(record["op"] in RECURRENT or is_stepwise)


def steps_of(records: NDArray[np.void]) -> int:
    """Steps of the sequences that recurrent layers read; 0 without such layers."""
    section = section_of(records)
    return sides_of(int(records[section[0]]["size"])).width if section else 0


def padding_of(records: NDArray[np.void]) -> float | None:
    """Value of the steps in front of and behind sequences that are none of theirs; None without such."""
    section = section_of(records)
    is_padded = bool(section) and bool(records[section[0]]["flags"] & FLAG_PADDED)
    return float(records[section[0]]["arg"][1]) if is_padded else None


def check_padding(records: NDArray[np.void]) -> None:
    """Raise ModelError for padding that no recurrent layer would see, or that would be handed on."""
    section = section_of(records)
    if padding_of(records) is None:
        return
    if any(record["op"] != Op.RESCALE for record in records[: section[0]]):
        raise ModelError("Masking is for nets that begin with recurrent layers: move the layers between to their end")
    cells = records[section[0] : section[-1] + 1]
    if cells[np.isin(cells["op"], list(RECURRENT))]["flags"][-1] & FLAG_SEQUENCES:
        raise ModelError(
            "sequences of several lengths have their last step in common only: set return_sequences of the last "
            "recurrent layer to false, or leave out Masking"
        )


def check_order(records: NDArray[np.void]) -> None:
    """Raise ModelError for recurrent layers apart from each other, or with what needs all steps in their block."""
    section = section_of(records)
    if not section:
        return
    check_padding(records)
    rest = records[section[-1] + 1 :]
    if np.isin(rest["op"], list(RECURRENT)).any():
        raise ModelError("recurrent layers follow each other: move the layers between them to the front or to the end")
    same = rest[(rest["block"] == records["block"][section[-1]]) & (rest["op"] != Op.SOFTMAX)]
    if same.size:
        raise ModelError(
            f"{Op(int(same['op'][0])).name.lower()} behind a recurrent layer needs all steps at once: use "
            "LayerNormalization, or let the layer hand on its last step only"
        )


def check_learning(records: NDArray[np.void], group: int, window: int, traces: bool) -> None:
    """Raise ModelError for a window, traces or groups of blocks that these recurrent layers cannot learn by."""
    section, steps = section_of(records), steps_of(records)
    if window < 1 or (window > 1 and window > steps):
        have = f"the sequences have {steps} steps" if steps else "the net has no recurrent layers"
        raise ModelError(f"window {window} is out of range: {have}, set it from 1 to {max(steps, 1)}")
    if traces and window > 1:
        raise ModelError("traces reach back without a window: set window to 1, or leave out traces")
    if section:
        _check_groups(records, section, group, traces)


def _check_groups(records: NDArray[np.void], section: range, group: int, traces: bool) -> None:
    inside = records[section[0] : section[-1] + 1]
    cells = inside[np.isin(inside["op"], list(RECURRENT))]
    owners = cells["block"] // group
    if traces and len(set(owners.tolist())) < len(owners):
        raise ModelError("traces are of one recurrent layer at a time: set block to 1, or use a window of steps")
    if _ends_later(records, section, group) and cells["flags"][-1] & FLAG_SEQUENCES:
        raise ModelError(
            "an objective behind the recurrent layers sees their last step only: set return_sequences of the last one "
            "to false, or block so that it ends with it"
        )
    before = records[: section[0]]
    if (before[before["op"] != Op.RESCALE]["block"] // group == owners[0]).any():
        raise ModelError(
            "recurrent layers share no objective with layers before them: set block so that one ends in front of them"
        )


def _ends_later(records: NDArray[np.void], section: range, group: int) -> Any:
    """Whether the group of the last stepwise record has others behind it, with weights or more."""
    rest = records[section[-1] + 1 :]
    return ((rest["block"] // group == records["block"][section[-1]] // group) & (rest["op"] != Op.SOFTMAX)).any()

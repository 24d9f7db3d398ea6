# SPDX-License-Identifier: Apache-2.0
"""What the core is told, as its structs: settings, records, types of samples."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import ALL_GROUPS, Config
from edgelearn.engines.native.core import chosen_isa, ffi, lib
from edgelearn.nested import Levels
from edgelearn.rules import Rule

SAMPLE_TYPES = {
    np.dtype(np.float32): lib.EL_FLOAT32,
    np.dtype(np.uint8): lib.EL_UINT8,
    np.dtype(np.float16): lib.EL_FLOAT16,
}
"""Types of samples that the core reads."""


def c_rule_of(rule: Rule, config: Config) -> Any:
    """Fields of an el_rule: the rule, and what else of the settings the core wants there."""
    return {
        "objective": int(rule.objective),
        "codes": int(rule.codes),
        "loss": int(config.loss),
        "group": config.group,
        "targets": config.targets,
        "scale": rule.scale,
        "temperature": rule.temperature,
        "huber": rule.huber,
        "grid": rule.grid,
        "frozen": int(rule.frozen),
        "similarity": rule.similarity,
        "clip": config.clip,
        "timing": int(rule.timing),
        "window": config.window,
        "traces": int(rule.traces),
        "seed": config.seed & 0xFFFFFFFFFFFFFFFF,
    }


def c_config_of(config: Config) -> tuple[Any, list[Any]]:
    """An el_config *, and the arrays that it points at, which must live as long."""
    arrays = [
        ffi.new("float[]", list(values)) if values else ffi.NULL for values in (config.rates, config.class_weights)
    ]
    nest = _c_nest(config.nest)
    fields = {
        "rule": c_rule_of(config.rule, config),
        "optimizer": asdict(config.optimizer),
        "batch": config.batch,
        "train": int(config.train),
        "streams": int(config.streams),
        "keep": int(config.keep),
        "threads": config.threads,
        "isa": chosen_isa(),
        "micro": config.micro,
        "first_group": config.first_group,
        "n_groups": 0 if config.last_group >= ALL_GROUPS else config.last_group - config.first_group + 1,
        "n_rates": len(config.rates or ()),
        "rates": arrays[0],
        "weights": arrays[1],
        "nest": nest,
    }
    return ffi.new("el_config *", fields), [*arrays, nest]


def _c_nest(nest: Levels | None) -> dict[str, Any]:
    if nest is None:
        return {"n_levels": 0}
    return {
        "n_levels": len(nest.units),
        "sampling": nest.sampling,
        "statistics": nest.statistics,
        "units": ffi.new("uint32_t[]", [units for level in nest.units for units in level]),
        "chances": ffi.new("float[]", list(nest.chances)),
    }


def c_records_of(records: NDArray[np.void]) -> Any:
    """An el_record[] over the records themselves, where they are contiguous."""
    return ffi.from_buffer("el_record[]", np.ascontiguousarray(records))

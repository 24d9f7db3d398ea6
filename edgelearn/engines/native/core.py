# SPDX-License-Identifier: Apache-2.0
"""The C core, loaded: the only importer of the extension, its choice of an instruction set, and the only place where a
status becomes an exception."""

from __future__ import annotations

import os
from collections.abc import Callable

from edgelearn._ffi import ffi as ffi
from edgelearn._ffi import lib as lib
from edgelearn.errors import DataError, EdgelearnError, LearningError, ModelError, UsageError


def chosen_isa() -> int:
    """EL_ISA_*, by EDGELEARN_ISA: scalar, avx2, avx512 or neon; EL_ISA_AUTO where it is unset.

    Raises:
        UsageError: it names none that this machine has.
    """
    name = os.environ.get("EDGELEARN_ISA", "auto")
    for isa in range(lib.EL_ISA_NEON + 1):
        if ffi.string(lib.el_isa_name(isa)).decode() == name and lib.el_isa_available(isa):
            return isa
    raise UsageError(f"EDGELEARN_ISA={name} is not an instruction set of this machine: unset it")


def check(
    status: int,
    blame: Callable[[], str | None] | None = None,
    diverged: str = "the outputs are not finite: load other weights",
) -> None:
    """Nothing where all went well. `blame` says in words which sample holds what is not finite, `diverged` what it
    means that none does.

    Raises:
        DataError: a sample that is not finite, or a batch too small for its statistics.
        LearningError: results that are not finite.
        ModelError: records or settings that the core refuses.
        EdgelearnError: the core failed.
    """
    if status == lib.EL_OK:
        return
    reason = ffi.string(lib.el_status_text(status)).decode()
    if status == lib.EL_ENONFINITE:
        named = blame() if blame else None
        raise DataError(named) if named else LearningError(diverged)
    if status == lib.EL_EBATCH:
        raise DataError(f"{reason}: use a batch of at least 2")
    if status == lib.EL_EINVAL:
        raise ModelError(f"the core refused: {reason}; check the layers, the rule and the batch")
    raise EdgelearnError(f"the core failed: {reason}")

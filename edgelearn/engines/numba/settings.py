# SPDX-License-Identifier: Apache-2.0
"""Which tables, settings and parameters a session takes; what lies behind may rely on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.records import check_table, floats_used
from edgelearn.engines.settings import check_config
from edgelearn.errors import ModelError


def check(records: NDArray[np.void], config: Config) -> None:
    """Raise ModelError for a table or a combination that this engine cannot run."""
    check_table(records)
    check_config(records, config)


def check_params(records: NDArray[np.void], params: FloatArray) -> None:
    """Raise ModelError for a parameter vector that the records do not fit."""
    if params.dtype != np.float32 or params.ndim != 1 or not params.flags.c_contiguous:
        raise ModelError("parameters must be one contiguous float32 vector: take them from Graph.initial")
    used = floats_used(records)
    if used > params.size:
        raise ModelError(f"the records use {used} parameters of {params.size}: take them from the same model")

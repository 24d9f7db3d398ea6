# SPDX-License-Identifier: Apache-2.0
"""C headers of edgelearn in the core that is in this package."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import engines
from edgelearn.engines import Config
from edgelearn.export import header
from edgelearn.export.runtimes.runtime import BATCH, Runtime, damaged


def load(data: bytes, name: str, threads: int | None) -> list[Runtime]:
    """A header of these bytes, called `name` in errors; `threads` None: one.

    Raises:
        ModelError: a damaged file, or one that edgelearn did not write.
    """
    try:
        records, params, metadata = header.read(data.decode())
        shape, is_turned = tuple(json.loads(metadata.pop("shape"))), json.loads(metadata.pop("turned"))
    except (ValueError, LookupError) as error:
        raise damaged(name, error) from error
    outputs = int(records[-1]["active"])
    session = engines.load("native").open(
        records, params, Config(batch=BATCH, targets=outputs, train=False, threads=threads or 1)
    )

    def invoke(x: NDArray[Any]) -> NDArray[Any]:
        rows = np.moveaxis(x, 1, -1) if is_turned else x
        return session.forward(np.ascontiguousarray(rows.reshape(len(x), -1)))

    return [Runtime("core", shape, metadata, np.dtype(np.float32), BATCH, invoke, outputs)]

# SPDX-License-Identifier: Apache-2.0
"""The Numba engine: the learning of the C core in Python loops that are compiled on first use, for machines
without a wheel and for rules under trial. It runs on one thread; `threads` is accepted and ignored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config, Sizes
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.memory import allocate
from edgelearn.engines.numba.plan import groups_of
from edgelearn.engines.numba.random import codes_into, order_into
from edgelearn.engines.numba.records import floats_used
from edgelearn.engines.numba.session import NumbaSession
from edgelearn.engines.numba.settings import check
from edgelearn.errors import UsageError
from edgelearn.rules import Rule


def codes(rule: Rule, seed: int, block: int, target: int, units: int, targets: int) -> FloatArray:
    """The code of one class for the first `units` units of a block: shape (units,).

    Raises:
        UsageError: a target outside 0 .. targets - 1.
    """
    if not 0 <= target < targets:
        raise UsageError(f"target {target} is outside 0 .. {targets - 1}: ask for one of these")
    out = np.empty(units, np.float32)
    codes_into(rule.codes, rule.scale, seed, block, out.reshape(1, units), first=target)
    return out


def shuffle(seed: int, epoch: int, n: int, position: int) -> int:
    """Where sample `position` of an epoch stands in the data."""
    return int(ENGINE.order(seed, epoch, n, position, 1)[0])


class NumbaEngine:
    """Numba; see `Engine`."""

    name = "numba"
    isa = "numba"

    def sizes(self, records: NDArray[np.void], config: Config) -> Sizes:
        """The memory of a session: its arrays, never touched, are given back at once."""
        check(records, config)
        plan, state = groups_of(records, config)
        return allocate(records, floats_used(records), plan, state, config).sizes()

    def order(self, seed: int, epoch: int, n: int, first: int, count: int) -> NDArray[np.int64]:
        """Places in the data of `count` positions of an epoch, from position `first` on."""
        out = np.empty(count, np.int64)
        order_into(seed, epoch, n, first, out)
        return out

    def open(self, records: NDArray[np.void], params: FloatArray, config: Config) -> NumbaSession:
        """A session that reads and writes `params` in place."""
        return NumbaSession(records, params, config)


ENGINE = NumbaEngine()

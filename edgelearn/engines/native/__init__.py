# SPDX-License-Identifier: Apache-2.0
"""The C core as an Engine. All memory is numpy's; the core allocates nothing."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config, Sizes
from edgelearn.engines.native.core import chosen_isa, ffi, lib
from edgelearn.engines.native.session import NativeSession, sizes_of
from edgelearn.engines.native.structs import c_rule_of
from edgelearn.optim import Schedule
from edgelearn.rules import Rule


def schedule_rate(schedule: Schedule, step: int) -> float:
    """Learning rate of a step, as the core computes it."""
    return float(lib.el_schedule_rate(ffi.new("el_schedule *", asdict(schedule)), step))


def codes(rule: Rule, seed: int, block: int, target: int, units: int, targets: int) -> NDArray[np.float32]:
    """The code of one class for the first `units` units of a block: shape (units,)."""
    out = np.empty(units, np.float32)
    c_rule = ffi.new("el_rule *", c_rule_of(rule, Config(rule=rule, seed=seed, targets=targets)))
    lib.el_codes(c_rule, block, target, units, ffi.from_buffer("float[]", out, require_writable=True))
    return out


def shuffle(seed: int, epoch: int, n: int, position: int) -> int:
    """Where sample `position` of an epoch stands in the data."""
    return int(lib.el_shuffle(seed & 0xFFFFFFFFFFFFFFFF, epoch, n, position))


def peak_flops() -> float:
    """Floating-point operations per second of one core's multiply-adds, timed for about 10 ms."""
    best, rounds = 0.0, 200_000
    for _ in range(5):
        start = time.perf_counter()
        done = lib.el_peak(chosen_isa(), rounds)
        best = max(best, done / (time.perf_counter() - start))
    return best


class NativeEngine:
    """The C core; see `Engine`."""

    name = "native"

    @property
    def isa(self) -> str:
        """The instruction set that sessions run on."""
        isa = chosen_isa() or lib.el_isa_best()
        return str(ffi.string(lib.el_isa_name(isa)).decode())

    def sizes(self, records: NDArray[np.void], config: Config) -> Sizes:
        """The memory of a session, by the core's own dry walk."""
        return sizes_of(records, config)

    def order(self, seed: int, epoch: int, n: int, first: int, count: int) -> NDArray[np.int64]:
        """Places in the data of `count` positions of an epoch, from position `first` on; a third of a microsecond
        each, which for a batch is less than the same permutation in vectors of numpy."""
        word = seed & 0xFFFFFFFFFFFFFFFF
        places = (lib.el_shuffle(word, epoch, n, position) for position in range(first, first + count))
        return np.fromiter(places, np.int64, count)

    def open(self, records: NDArray[np.void], params: NDArray[np.float32], config: Config) -> NativeSession:
        """A session that reads and writes `params` in place."""
        return NativeSession(records, params, config)


ENGINE = NativeEngine()

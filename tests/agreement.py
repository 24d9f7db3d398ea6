# SPDX-License-Identifier: Apache-2.0
"""What it means that a backend agrees with the float64 oracle.

Tolerance: 2e-5 of the value plus 5e-6: float32's 6e-8 times the 65 terms of the longest sum here and the five steps
that follow one another is 2e-5 at most; the scalar set, which rounds products before it adds, reaches 3.3e-6.
"""

from __future__ import annotations

import numpy as np
import pytest
from benches import BACKENDS
from oracle import Oracle, batches
from remembered import Remembered

from edgelearn.engines import load, native

RTOL, ATOL = 2e-5, 5e-6

SETS = [
    native.ffi.string(native.lib.el_isa_name(isa)).decode()
    for isa in range(native.lib.EL_ISA_SCALAR, native.lib.EL_ISA_NEON + 1)
    if native.lib.el_isa_available(isa)
]
SETS.remove(load("native").isa)
"""The instruction sets that this machine has beside the one that is chosen here."""

everywhere = pytest.mark.parametrize("backend", [*BACKENDS, *(f"native-{name}" for name in SETS)], indirect=True)
"""A test on every engine, and on the core once more for each of those sets."""


def oracle_of(bench):
    """An oracle that starts where a bench stands."""
    return Remembered(Oracle, bench.graph.records, bench.params, bench.config)


def agree(bench, oracle):
    np.testing.assert_allclose(bench.params, oracle.params, rtol=RTOL, atol=ATOL)


def steps_agree(bench, x, y, lr=0.03, counts=(1, 5)):
    """Outputs, losses, right answers and parameters, from the first step to the last."""
    oracle, start = oracle_of(bench), bench.params.copy()
    for count in range(1, max(counts) + 1):
        stats = bench.session.step(x, y, lr)
        loss, correct = oracle.step(x, y, lr)
        assert stats.loss == pytest.approx(loss, rel=RTOL, abs=1e-4)
        assert (stats.samples, stats.correct) == (len(x), correct)
        if count in counts:
            agree(bench, oracle)
    assert np.abs(bench.params - start).max() > 1e-3
    np.testing.assert_allclose(bench.session.forward(x), oracle.forward(x), rtol=1e-4, atol=1e-5)


def run_agrees(bench, x, y, epochs=2, seed=2**40 + 5, **settings):
    """A run over shuffled batches, which may train some of the groups only."""
    oracle, start = oracle_of(bench), bench.params.copy()
    orders = list(batches(len(x), bench.config.batch, seed, epochs))
    stats = bench.fit(x, y, len(orders), seed=seed, **settings)
    first, last = settings.get("first_group", 0), settings.get("last_group", len(oracle.groups))
    done = [oracle.step(x[rows], y[rows], 0.03, first, last) for rows in orders]
    agree(bench, oracle)
    assert np.abs(bench.params - start).max() > 1e-3
    assert stats.loss == pytest.approx(sum(loss for loss, _ in done), rel=RTOL, abs=1e-4)
    assert (stats.samples, stats.correct) == (epochs * len(x), sum(correct for _, correct in done))

# SPDX-License-Identifier: Apache-2.0
"""The oracle's recurrent cells have the gradients they state: through all steps, within windows, and by traces."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from formulas_recurrent import STEPS, sequence, simple_step
from test_gradients import agree, normal, slope

from edgelearn.records import RECURRENT, Op

N, STEPS_LONG, FEATURES, UNITS = 2, 5, 3, 4

CELLS = {
    "relu": (partial(simple_step, relu=True), 1, 1),
    **{op.name.lower(): (STEPS[op], RECURRENT[op], 2 if op is Op.GRU else 1) for op in STEPS},
}
"""A step, its gates, and how many biases it takes."""


def inputs(gates, biases):
    """x (n,T,D), W, V and biases."""
    columns = gates * UNITS
    shapes = (N, STEPS_LONG, FEATURES), (FEATURES, columns), (UNITS, columns), *[(columns,)] * biases
    return [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def frozen_outputs(step, x, weights, cut, hold):
    """Outputs (n,T,U) of a sequence that a window, or traces, let move: what the cut forbids keeps its old value.

    `cut(t)` is whether step t reads the output before it as a constant, `hold(t)` whether the state, too.
    """
    reads, states = [], []
    h = state = np.zeros((N, UNITS))
    for t in range(STEPS_LONG):
        reads.append(h)
        states.append(state)
        h, state, _ = step(x[:, t], h, state, *weights)

    def outputs():
        found = []
        h = state = np.zeros((N, UNITS))
        for t in range(STEPS_LONG):
            read, kept = (reads[t] if cut(t) else h), (states[t] if hold(t) else state)
            h, state, _ = step(x[:, t], read, kept, *weights)
            found.append(h)
        return np.stack(found, 1)

    return outputs


def holds(name, cut, hold, **settings):
    """Whether the gradients of a sequence are those of its outputs with what is cut off held still."""
    step, gates, biases = CELLS[name]
    x, *weights = inputs(gates, biases)
    outputs = frozen_outputs(step, x, weights, cut, hold)
    r = normal(N, STEPS_LONG, UNITS, seed=9)
    dx, gradients = sequence(step, x, *weights, **settings)[1](r)
    pairs = zip((dx, *gradients), (x, *weights), strict=True)
    return all(agree(gradient, slope(lambda: (outputs() * r).sum(), at)) for gradient, at in pairs)


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.parametrize("window", [1, 2, 3, STEPS_LONG])
def test_errors_go_back_as_far_as_their_window_and_no_further(name, window):
    def begins(t):
        return (STEPS_LONG - t) % window == 0

    assert holds(name, begins, begins, window=window)


@pytest.mark.parametrize("name", list(CELLS))
def test_traces_are_the_gradient_through_what_gates_keep(name):
    assert holds(name, lambda t: True, lambda t: False, traces=True)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_traces_say_more_than_single_steps_and_less_than_all(name):
    step, gates, biases = CELLS[name]
    x, *weights = inputs(gates, biases)
    r = normal(N, STEPS_LONG, UNITS, seed=9)
    settings = {"window": 1}, {"traces": True}, {"window": STEPS_LONG}
    found = [sequence(step, x, *weights, **one)[1](r)[1][1] for one in settings]
    assert not agree(found[0], found[1])
    assert not agree(found[1], found[2])

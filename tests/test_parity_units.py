# SPDX-License-Identifier: Apache-2.0
"""Every backend computes of residual, attention and feed-forward units, embeddings and learned positions what the
float64 oracle does, under every rule, one by one and in groups."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import oracle_of, run_agrees, steps_agree
from benches import BACKENDS, OPTIMIZERS, mild, open_named, open_net, samples, samples_for, seeded
from nets import CLASSES, UNITS

from edgelearn.engines import load
from edgelearn.graph import build
from edgelearn.layers import (
    Conv1D,
    Dense,
    Embedding,
    FeedForward,
    GlobalAvgPool,
    LayerNormalization,
    MultiHeadAttention,
    PositionEmbedding,
    Residual,
)

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


@pytest.mark.parametrize("group", [2, 99])
@pytest.mark.parametrize("net", list(UNITS))
@pytest.mark.parametrize("name", ["tp-l2", "readout"])
def test_steps_agree_for_groups_of_units(backend, name, net, group):
    bench = open_named(backend, net, rule=mild(name), group=group, optimizer=OPTIMIZERS["momentum"])
    steps_agree(bench, *samples_for(net, 8), lr=0.01)


@pytest.mark.parametrize("settings", [{"micro": 4}, {"micro": 3, "clip": 0.2}, {"clip": 0.05}, {"threads": 3}])
@pytest.mark.parametrize("net", list(UNITS))
def test_slices_limits_and_threads_agree(backend, net, settings):
    for group in (1, 99):
        for optimizer in ("sgd", "adam"):
            chosen = {"group": group, "optimizer": OPTIMIZERS[optimizer], "rule": mild("readout")}
            bench = open_named(backend, net, **chosen, **settings)
            steps_agree(bench, *samples_for(net, 10), lr=0.3 if "clip" in settings else 0.03, counts=(2,))


@pytest.mark.parametrize("net", list(UNITS))
def test_a_run_over_shuffled_batches_agrees(backend, net):
    bench = open_named(backend, net, rule=mild("readout"), batch=7, optimizer=OPTIMIZERS["momentum"])
    run_agrees(bench, *samples_for(net, 18))


@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 2), (3, 3)])
@pytest.mark.parametrize("net", list(UNITS))
def test_training_some_units_agrees_behind_others_that_run_as_in_use(backend, net, first, last):
    bench = open_named(backend, net, rule=mild("tp-ce"), batch=9)
    run_agrees(bench, *samples_for(net, 18), first_group=first, last_group=last)


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
@pytest.mark.parametrize("steps", [1, 2, 5, 17, 33])
def test_attention_agrees_for_every_number_of_heads_and_steps(backend, steps, heads):
    layers = [Conv1D(6, 1), MultiHeadAttention(heads), GlobalAvgPool(), Dense(CLASSES)]
    bench = open_net(backend, layers, (steps, 2), group=99, optimizer=OPTIMIZERS["sgd"])
    steps_agree(bench, *samples(5, 2 * steps), counts=(1,))


@pytest.mark.parametrize("width", [1, 3, 8, 15, 33])
def test_units_of_awkward_widths_agree(backend, width):
    unit = [LayerNormalization(), MultiHeadAttention(1), FeedForward(2 * width + 1)]
    layers = [Embedding(7, width), PositionEmbedding(), Residual(unit), GlobalAvgPool(), Dense(CLASSES)]
    x = np.random.default_rng(width).integers(0, 7, (6, 9)).astype(np.float32)
    bench = open_net(backend, layers, (9,), group=99, optimizer=OPTIMIZERS["momentum"])
    steps_agree(bench, x, samples(6, 1)[1], counts=(1,))


def test_sharp_attention_stays_finite_and_agrees(backend):
    graph = build([Conv1D(4, 1), MultiHeadAttention(2), GlobalAvgPool(), Dense(CLASSES)], (6, 2))
    params = seeded(graph)
    graph.parameters[2].view(params)[...] *= 40
    bench = open_net(backend, graph=graph, params=params, group=99, optimizer=OPTIMIZERS["sgd"])
    x, _ = samples(5, 12)
    outputs = bench.session.forward(x)
    np.testing.assert_allclose(outputs, oracle_of(bench).forward(x.astype(np.float64)), rtol=1e-3, atol=1e-4)


def test_tokens_come_as_bytes_too_and_only_their_rows_move_under_sgd(backend):
    layers, shape = UNITS["tokens"]
    bench = open_net(backend, layers, shape, optimizer=OPTIMIZERS["sgd"])
    x = np.full((9, 7), 2, np.uint8)
    x[:, 3] = 4
    before = bench.params.copy()
    steps_agree(bench, x, samples(9, 7)[1])
    table = bench.graph.parameters[0]
    moved = (table.view(bench.params) != table.view(before)).any(axis=1)
    assert moved.tolist() == [False, False, True, False, True]


@pytest.mark.parametrize("net", list(UNITS))
def test_the_sizes_asked_for_are_those_of_the_session(backend, net):
    for optimizer in OPTIMIZERS.values():
        bench = open_named(backend, net, optimizer=optimizer, rule=mild("readout"))
        sizes = load(backend).sizes(bench.graph.records, bench.config)
        assert sizes == bench.session.sizes
        assert sizes.arena == sizes.handle + sizes.activations + sizes.state + sizes.scratch


def test_rows_of_frequent_tokens_move_by_sums_that_no_single_place_could_move_them_by(backend):
    """231 steps of 2e-5 each, in front of weights whose last bit is 1.2e-4."""
    graph = build([Embedding(3, 4), GlobalAvgPool(), Dense(CLASSES)], (7,))
    params = graph.initial(0)
    params[:12] = 1500
    settings = {"optimizer": OPTIMIZERS["sgd"], "rule": mild("drtp"), "last_group": 0, "batch": 33}
    bench = open_net(backend, graph=graph, params=params, **settings)
    oracle, start = oracle_of(bench), params.copy()
    x, y = np.ones((33, 7), np.float32), np.ones(33, np.int32)
    bench.session.step(x, y, 0.005)
    oracle.step(x, y, 0.005)
    moved = oracle.params[4:8] - start[4:8]
    assert np.abs(moved).max() > 1e-3
    np.testing.assert_allclose(bench.params[4:8], oracle.params[4:8], atol=6.2e-5)

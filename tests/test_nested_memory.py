# SPDX-License-Identifier: Apache-2.0
"""What a prefix of a nested net keeps while it learns: moments and copies of its own size, with the same result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benches import OPTIMIZERS, mild
from nested_nets import GRID, NESTS, opened, samples_of
from nets import CLASSES

import edgelearn as el
from edgelearn import engines, nested, prefixes
from edgelearn.engines import Config

DRAWN = nested.Nested(GRID.widths, (0.4, 0.6, 0.0), "same")
"""The two narrower levels and never the whole."""


def half(bench, **config):
    """Half of a net over a copy of its parameters, which draws as the whole one does."""
    small = prefixes.cut(bench.graph, [0.5] * bench.graph.blocks, [1] * bench.graph.blocks, 0.25)
    nest = replace(nested.levels(bench.graph, DRAWN, 1), chances=DRAWN.chances[:2])
    params = bench.params.copy()
    settings = Config(**{**vars(bench.config), "nest": nest, **config})
    return params, engines.load("native").open(small.records, params, settings)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("rule", ["tp-ce", "readout"])
@pytest.mark.parametrize("net", NESTS)
def test_a_prefix_learns_to_the_bit_as_inside_the_memory_of_the_whole(net, rule, optimizer):
    bench = opened(net, DRAWN, rule=mild(rule), optimizer=OPTIMIZERS[optimizer], window=1)
    (x, y), start = samples_of(net), bench.params.copy()
    params, alone = half(bench)
    for _ in range(5):
        bench.session.step(x, y, 0.02)
        alone.step(x, y, 0.02)
    assert params.tobytes() == bench.params.tobytes()
    assert np.abs(params - start).max() > 1e-3
    assert alone.sizes.state < bench.session.sizes.state


@pytest.mark.parametrize("net", NESTS)
def test_what_was_kept_comes_back_whatever_width_is_in_use(net):
    bench, (x, y) = opened(net, DRAWN, rule=mild("readout")), samples_of(net)
    params, session = half(bench, keep=True)
    blocks = bench.graph.blocks
    session.step(x, y, 0.02)
    session.resize([0] * blocks)
    session.keep()
    kept = params.copy()
    for _ in range(3):
        session.step(x, y, 0.05)
    assert np.abs(params - kept).max() > 1e-3
    session.resize([1] * blocks)
    session.revert()
    assert params.tobytes() == kept.tobytes()


def test_training_memory_follows_the_width():
    layers = [el.Dense(512, "relu"), el.Dense(512, "relu"), el.Dense(CLASSES)]
    net = el.Net(layers, input_shape=(784,), nested=True)
    arena = {width: net.submodel(width).plan(batch=1).arena_bytes for width in (0.125, 0.25, 0.5, 1.0)}
    assert arena[0.125] < arena[1.0] / 8
    assert arena[0.25] < arena[1.0] / 4
    assert arena[0.5] < arena[1.0] / 2

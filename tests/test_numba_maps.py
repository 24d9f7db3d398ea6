# SPDX-License-Identifier: Apache-2.0
"""What the Numba engine does of its own with maps: memory, refusals, samples from disk, groups left as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benches import open_net, samples, seeded
from nets import CLASSES

from edgelearn import rules
from edgelearn.engines import Config, Entry, Run, Stats, load
from edgelearn.errors import DataError, LearningError, ModelError, UsageError
from edgelearn.graph import build
from edgelearn.layers import (
    Activation,
    AvgPool,
    BatchNormalization,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
)
from edgelearn.optim import Optimizer, OptimizerKind, schedule
from edgelearn.records import GROUPS_SHIFT, Op

pytest.importorskip("numba")

SHAPE = (6, 5, 2)
LAYERS = [
    Conv2D(4, 3, padding="same", use_bias=False),
    BatchNormalization(),
    Activation("gelu"),
    MaxPool(2),
    Conv2D(6, 2, groups=2, activation="relu"),
    LayerNormalization(),
    Dropout(0.2),
    Dense(CLASSES),
]
SGD = Optimizer(OptimizerKind.SGD)


def opened(layers=LAYERS, shape=SHAPE, graph=None, **config):
    return open_net("numba", graph=graph or build(layers, shape), **config)


def data(n=9, **settings):
    return samples(n, 60, **settings)


def sizes(layers=LAYERS, shape=SHAPE, **config):
    settings = {"rule": rules.get("readout"), "targets": CLASSES, "batch": 16, **config}
    return load("numba").sizes(build(layers, shape).records, Config(**settings))


def fit(bench, x, y, steps=1, entry=None, **run):
    stats = Stats()
    settings = {"schedule": schedule("constant", 0.05), "batch": bench.config.batch, "steps": steps, **run}
    bench.session.fit(x, y, Run(**settings), stats, entry or Entry())
    return stats


def test_a_convolution_needs_no_columns():
    """What a larger kernel takes is its own gradient and nothing that grows with the map."""
    small, large = ([Conv2D(8, k, padding="same"), GlobalAvgPool(), Dense(CLASSES)] for k in (3, 7))
    one, other = (sizes(layers, (32, 32, 4), optimizer=SGD) for layers in (small, large))
    assert other.activations == one.activations
    assert other.scratch - one.scratch == 4 * 4 * 8 * (7 * 7 - 3 * 3)


def test_slices_and_single_groups_take_less_memory():
    whole = sizes()
    sliced, alone = sizes(micro=2), sizes(first_group=0, last_group=0)
    assert sliced.activations < whole.activations / 2
    assert sliced.state == whole.state
    assert alone.state < whole.state
    assert sizes(train=False).activations < alone.activations < whole.arena


def test_frozen_blocks_of_maps_have_no_memory_of_learning():
    counts = 8 * 3
    dense = 2 * 6 * CLASSES + CLASSES
    assert sizes(rule=rules.get("readout", frozen=True)).state == counts + 2 * 4 * dense


@pytest.mark.parametrize("rule", ["readout", "readout+sim", "untrained"])
@pytest.mark.parametrize("micro", [0, 4])
def test_a_group_that_diverges_is_as_it_was_running_statistics_and_all(micro, rule):
    """Only the last slice holds what cannot be learned; what it makes of the first group is not finite."""
    bench = opened(micro=micro, rule=rules.get(rule))
    x, y = data(12)
    x[10:] = 3e38
    before = bench.arrays()
    with pytest.raises(LearningError, match="block 0"):
        bench.session.step(x, y, 0.05)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, bench.arrays(), strict=True))


def test_groups_behind_the_trained_ones_are_not_run():
    bench = opened(last_group=0)
    bench.params[bench.graph.records[bench.graph.records["block"] == 1]["offset"][0] :] = np.nan
    stats = bench.session.step(*data(), 0.05)
    assert np.isfinite(stats.loss)
    assert stats.correct == 0


def test_half_precision_from_a_read_only_file_trains_like_the_floats_it_stands_for(tmp_path):
    one, other = (opened(batch=4, first_group=1) for _ in range(2))
    x, y = data(10)
    halves = one.session.outputs(x, 0).astype(np.float16)
    np.save(tmp_path / "cache.npy", halves)
    scale, shift = np.array([2, 1, 0.5, 4], np.float32), np.array([0, 1, -1, 0.25], np.float32)
    fit(one, np.load(tmp_path / "cache.npy", mmap_mode="r"), y, 6, Entry(1, scale, shift), first_group=1)
    floats = halves.astype(np.float32) * np.tile(scale, halves.shape[1] // 4) + np.tile(shift, halves.shape[1] // 4)
    fit(other, floats, y, 6, Entry(1), first_group=1)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one.arrays(), other.arrays(), strict=True))


def test_what_went_bad_since_the_start_of_an_epoch_is_named_by_its_place():
    bench = opened(batch=4)
    x, y = data(12)
    fit(bench, x, y, 2, shuffle=False)
    x[9, 3] = np.nan
    before = bench.arrays()
    with pytest.raises(DataError, match="sample 9 "):
        fit(bench, x, y, 1, first=2, shuffle=False)
    x[9, 3], y[10] = 0, CLASSES
    with pytest.raises(DataError, match=f"label {CLASSES} of sample 10 "):
        fit(bench, x, y, 1, first=2, shuffle=False)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, bench.arrays(), strict=True))


@pytest.mark.parametrize(
    ("entry", "run"),
    [
        (Entry(3), {}),
        (Entry(-1), {}),
        (Entry(1, np.ones(3, np.float32)), {"first_group": 1}),
        (Entry(1, np.ones(3, np.float32), np.ones(2, np.float32)), {"first_group": 1}),
        (Entry(2), {"first_group": 1}),
        (Entry(), {"first_group": 2, "last_group": 1}),
        (Entry(), {"first_group": 3}),
        (Entry(), {"batch": 34}),
    ],
)
def test_entries_and_groups_that_do_not_fit_are_refused(entry, run):
    bench, (x, y) = opened(), data()
    last = max(min(entry.group - 1, 2), 0)
    x = bench.session.outputs(x, last) if entry.group > 0 else x
    before = bench.arrays()
    with pytest.raises(UsageError if entry.scale is None else DataError):
        fit(bench, x, y, entry=entry, **run)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, bench.arrays(), strict=True))


def test_outputs_of_groups_that_do_not_follow_the_entry_are_refused():
    bench, (x, _) = opened(), data()
    inner = bench.session.outputs(x, 0)
    for last, entry in ((0, Entry(1)), (3, Entry(1))):
        with pytest.raises(UsageError, match="choose"):
            bench.session.outputs(inner, last, entry)
    with pytest.raises(DataError, match="24"):
        bench.session.outputs(x, 1, Entry(1))


@pytest.mark.parametrize(
    "config",
    [
        {"rates": (1.0, 1.0)},
        {"rates": (1.0, -1.0, 1.0)},
        {"class_weights": (1.0,) * (CLASSES + 1)},
        {"class_weights": (1.0, 1.0, 1.0, float("nan"))},
        {"class_weights": (1.0,) * CLASSES, "loss": rules.Loss.MSE},
        {"micro": -1},
        {"clip": -1.0},
        {"clip": float("inf")},
        {"first_group": 3},
        {"first_group": 2, "last_group": 1},
        {"rule": rules.get("readout+sim"), "loss": rules.Loss.MSE},
        {"targets": 12, "layers": LAYERS[:7]},
    ],
)
def test_settings_that_do_not_fit_the_net_are_refused(config):
    settings = {"layers": LAYERS, **config}
    graph = build(settings.pop("layers"), SHAPE, softmax="loss" not in config and "layers" not in config)
    with pytest.raises(ModelError):
        opened(graph=graph, **settings)


DAMAGE = {
    "window": [
        (0, 0),
        (1, 1 << 24),
        (0, 9 << 24 | 3 << 16 | 1 << 8 | 1),
        (3, 2 << 24 | 2 << 16),
        (3, 7 << 24 | 1 << 16 | 257),
    ],
    "size": [(0, 0), (1, 5 << 16 | 6), (3, 0), (3, 6 << 16), (8, 1 << 16 | 1)],
    "units": [(0, 5), (3, 5)],
    "fan_in": [(4, 5), (8, 13)],
    "fan_in_active": [(8, 6)],
    "params": [(0, 73), (6, 11)],
    "flags": [(4, 4 << GROUPS_SHIFT | 1), (4, 3 << GROUPS_SHIFT | 1), (2, 1)],
    "active": [(0, 3), (4, 3)],
    "op": [(0, 99), (0, int(Op.MAXPOOL)), (8, int(Op.GELU))],
    "arg": [(6, (0.0, 0.0)), (1, (1e-5, 1.0))],
}


@pytest.mark.parametrize(("name", "index", "value"), [(n, i, v) for n, cases in DAMAGE.items() for i, v in cases])
def test_a_damaged_record_of_a_map_is_refused(name, index, value):
    graph = build(LAYERS, SHAPE)
    graph.records[index][name] = value
    with pytest.raises(ModelError):
        opened(graph=graph, params=seeded(graph))


@pytest.mark.parametrize("layer", [DepthwiseConv2D(3), Conv2D(2, 3), AvgPool(2), MaxPool(2), GlobalAvgPool()])
def test_a_net_runs_the_same_with_and_without_memory_of_learning(layer):
    """Sessions that only infer keep their outputs at two places by turns."""
    layers = [Conv2D(2, 1, activation="tanh"), layer, Dense(CLASSES)]
    graph = build(layers, SHAPE)
    x, _ = data()
    found = [opened(graph=graph, train=train, micro=micro).session.forward(x) for train in (0, 1) for micro in (0, 4)]
    assert all(a.tobytes() == found[0].tobytes() for a in found)


def test_a_rate_of_zero_leaves_its_block_alone():
    bench = opened(rates=(0.0, 1.0, 1.0), optimizer=SGD)
    second = int(bench.graph.records["offset"][4])
    gamma = slice(*(int(bench.graph.records["offset"][1]) + n for n in (0, 8)))
    before = bench.params.copy()
    bench.session.step(*data(), 0.05)
    assert np.array_equal(bench.params[: gamma.stop], before[: gamma.stop])
    assert not np.array_equal(bench.params[second:], before[second:])


def test_the_stages_of_a_sequential_schedule_end_where_one_session_does():
    """Sessions of one group each, the later ones fed with outputs of the earlier, against one that has them all."""
    layers = [*LAYERS[:6], LAYERS[7]]
    x, y = data(12)
    whole = opened(layers, batch=6, optimizer=SGD)
    parts = opened(layers, batch=6, optimizer=SGD)
    inner, entry = x, Entry()
    for g in range(3):
        fit(whole, x, y, 4, first_group=g, last_group=g)
        config = replace(parts.config, first_group=g, last_group=g)
        session = load("numba").open(parts.graph.records, parts.params, config)
        session.fit(inner, y, Run(schedule("constant", 0.05), 6, 4, first_group=g, last_group=g), Stats(), entry)
        inner, entry = session.outputs(inner, g, entry), Entry(g + 1)
    assert whole.params.tobytes() == parts.params.tobytes()

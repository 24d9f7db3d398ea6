# SPDX-License-Identifier: Apache-2.0
"""How a step is taken agrees with the float64 oracle too: slices of a batch, limits and factors of updates, weights
of classes, groups that are trained or entered by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import ATOL, RTOL, agree, oracle_of, run_agrees, steps_agree
from benches import BACKENDS, OPTIMIZERS, RULES, mild, open_named, samples_for
from nets import ALL_NETS, MAPS

from edgelearn.engines import Entry, load
from edgelearn.errors import DataError, EdgelearnError, ModelError
from edgelearn.rules import Loss

WEIGHTS = (0.5, 2.0, 1.0, 1.5)
RATES = (0.5, 2.0, 0.25, 1.5, 0.75)
# Batch normalisation of single positions, where slices of one sample are refused and two become 1 and -1 whatever
# they are: their gradients are rounding.
NORMED = ("batchnorm", "wide")
FEW = ["plain", "batchnorm", "dropout", "strides", "depthwise", "sequence"]

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def rates_for(net):
    blocks = sum(layer.opens_block for layer in ALL_NETS[net][0])
    return RATES[:blocks]


@pytest.mark.parametrize(
    ("net", "micro", "n"),
    [
        (net, micro, n)
        for net in ALL_NETS
        for micro, n in ((1, 5), (2, 7), (3, 9), (4, 7), (9, 9), (50, 7))
        if micro > 2 or net not in NORMED
    ],
)
def test_steps_in_slices_agree(backend, net, micro, n):
    for name, group in (("readout", 1), ("tp-l2", 2)):
        bench = open_named(backend, net, rule=mild(name), micro=micro, group=group)
        steps_agree(bench, *samples_for(net, n), counts=(1, 3))


@pytest.mark.parametrize(
    "net", [name for name in ALL_NETS if name not in (*NORMED, "norms", "depthwise", "maps in branches")]
)
def test_slices_change_a_step_by_no_more_than_rounding(backend, net):
    whole, sliced = (open_named(backend, net, micro=micro) for micro in (0, 2))
    x, y = samples_for(net, 9)
    for bench in (whole, sliced):
        bench.session.step(x, y, 0.03)
    np.testing.assert_allclose(sliced.params, whole.params, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("net", list(MAPS))
def test_slices_take_less_memory(backend, net):
    bench = open_named(backend, net, batch=32)
    sliced = open_named(backend, net, batch=32, micro=2)
    assert sliced.session.sizes.activations < bench.session.sizes.activations
    assert load(backend).sizes(sliced.graph.records, sliced.config) == sliced.session.sizes


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("clip", [0.01, 0.3, 1e6])
@pytest.mark.parametrize("net", FEW)
def test_steps_agree_under_a_limit_on_the_norm_of_gradients(backend, net, clip, optimizer):
    lr = 1.0 if clip == 0.01 else 0.03
    for group in (1, 2):
        bench = open_named(backend, net, rule=mild("readout"), clip=clip, group=group, optimizer=OPTIMIZERS[optimizer])
        steps_agree(bench, *samples_for(net, 9), lr=lr, counts=(2,))


def test_a_limit_holds_each_group_and_not_its_read_out(backend):
    """Read-outs begin at zero: hidden blocks move in the second step only, so that all read-outs are still alike."""
    settings = {"rule": mild("readout"), "optimizer": OPTIMIZERS["sgd"]}
    free, held = (open_named(backend, "strides", clip=clip, **settings) for clip in (1e6, 1e-3))
    start, (x, y) = free.params.copy(), samples_for("strides", 9)
    for bench in (free, held):
        for _ in range(2):
            bench.session.step(x, y, 1.0)
    assert free.session.state.tobytes() == held.session.state.tobytes()
    moved = [np.linalg.norm(bench.params - start) for bench in (free, held)]
    assert 1e-3 < moved[1] < 2e-3 * np.sqrt(3) * (1 + 1e-4) < moved[0]


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("net", list(ALL_NETS))
def test_steps_agree_for_a_rate_per_block(backend, net, optimizer):
    for group in (1, 2):
        settings = {"rates": rates_for(net), "group": group, "optimizer": OPTIMIZERS[optimizer]}
        steps_agree(open_named(backend, net, rule=mild("readout"), **settings), *samples_for(net, 9), counts=(2,))


@pytest.mark.parametrize("net", ["plain", "strides", "norms"])
@pytest.mark.parametrize("name", [name for name in RULES if name != "untrained"])
def test_steps_agree_for_weights_of_classes(backend, name, net):
    bench = open_named(backend, net, rule=mild(name), class_weights=WEIGHTS)
    steps_agree(bench, *samples_for(net, 9))


@pytest.mark.parametrize("net", list(ALL_NETS))
@pytest.mark.parametrize("name", ["tp-ce", "tp-huber", "readout"])
def test_runs_agree_with_all_of_it_at_once(backend, name, net):
    settings = {"micro": 3, "clip": 0.2, "rates": rates_for(net), "class_weights": WEIGHTS}
    bench = open_named(backend, net, rule=mild(name), batch=6, **settings)
    run_agrees(bench, *samples_for(net, 18))


@pytest.mark.parametrize("micro", [0, 3])
@pytest.mark.parametrize("net", ["plain", "batchnorm", "strides", "depthwise", "dropout"])
def test_a_session_that_trains_some_groups_agrees_and_leaves_the_others_alone(backend, net, micro):
    blocks = len(rates_for(net))
    for first, last in ((0, 0), (1, 1), (1, blocks - 1), (blocks - 1, blocks - 1)):
        settings = {"first_group": first, "last_group": last, "micro": micro}
        bench = open_named(backend, net, rule=mild("readout"), batch=9, **settings)
        before = bench.params.copy()
        run_agrees(bench, *samples_for(net, 18), first_group=first, last_group=last)
        for record in bench.graph.records[bench.graph.records["params"] > 0]:
            own = slice(int(record["offset"]), int(record["offset"] + record["params"]))
            assert np.array_equal(bench.params[own], before[own]) != (first <= record["block"] <= last)


@pytest.mark.parametrize("net", list(ALL_NETS))
def test_groups_that_are_not_trained_have_no_memory_of_learning(backend, net):
    engine, bench = load(backend), open_named(backend, net, rule=mild("readout"))
    whole = engine.sizes(bench.graph.records, bench.config).state
    alone = [open_named(backend, net, rule=mild("readout"), first_group=g, last_group=g) for g in range(2)]
    assert all(one.session.sizes.state < whole for one in alone)


@pytest.mark.parametrize("net", list(ALL_NETS))
def test_outputs_of_groups_agree(backend, net):
    bench = open_named(backend, net, batch=5)
    oracle, (x, _) = oracle_of(bench), samples_for(net, 13)
    last = len(oracle.groups) - 1
    for g in range(last):
        found = bench.session.outputs(x, g)
        np.testing.assert_allclose(found, oracle.outputs(x, g), rtol=RTOL, atol=ATOL)
        again = bench.session.outputs(np.ascontiguousarray(found), last - 1, Entry(g + 1)) if g < last - 1 else found
        np.testing.assert_allclose(again, oracle.outputs(x, last - 1), rtol=1e-4, atol=1e-5)


def stored(h, kind):
    """Outputs of a group as a cache holds them: bytes or halves, with a scale and a shift per channel."""
    if kind is np.float32:
        return h.astype(kind), None, None
    low, span = h.min(0), np.maximum(np.ptp(h, 0), 1e-3)
    steps = 255 if kind is np.uint8 else 1
    scale, shift = (span / steps).astype(np.float32), low.astype(np.float32)
    return np.round((h - shift) / scale, 0 if kind is np.uint8 else 3).astype(kind), scale, shift


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("net", list(ALL_NETS))
def test_samples_that_enter_behind_the_first_group_agree(backend, net, kind):
    first = {"first_group": 1, "last_group": 1}
    bench = open_named(backend, net, rule=mild("tp-ce"), batch=9, **first)
    oracle, (x, y) = oracle_of(bench), samples_for(net, 9)
    h, scale, shift = stored(oracle.outputs(x, 0), kind)
    entry = Entry(1, scale, shift)
    read = h if scale is None else h.astype(np.float64) * scale + shift
    stats = bench.fit(h, y, 3, entry=entry, shuffle=False, **first)
    losses = [oracle.step(read, y, 0.03, 1, 1, entry=1)[0] for _ in range(3)]
    agree(bench, oracle)
    assert stats.loss == pytest.approx(sum(losses), rel=RTOL, abs=1e-4)
    np.testing.assert_allclose(bench.session.outputs(h, 1, entry), oracle.outputs(read, 1, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", ["plain", "strides"])
def test_steps_agree_on_halves_and_refuse_those_that_are_not_finite(backend, net):
    bench, (x, y) = open_named(backend, net), samples_for(net, 9, kind=np.float16)
    steps_agree(bench, x, y)
    x[3, 1] = np.inf
    with pytest.raises(DataError, match="3"):
        bench.session.step(x, y, 0.03)


@pytest.mark.parametrize("net", NORMED)
def test_a_last_slice_of_one_sample_is_refused_where_statistics_need_two(backend, net):
    bench, (x, y) = open_named(backend, net, micro=4), samples_for(net, 9)
    before = bench.arrays()
    with pytest.raises(DataError):
        bench.session.step(x, y, 0.03)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, bench.arrays(), strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weights": WEIGHTS[:3]},
        {"class_weights": (*WEIGHTS, 1.0)},
        {"class_weights": (1.0, -1.0, 1.0, 1.0)},
        {"class_weights": (1.0, np.nan, 1.0, 1.0)},
        {"class_weights": WEIGHTS, "loss": Loss.MSE},
        {"rates": RATES[:2]},
        {"rates": (1.0, -1.0, 1.0)},
        {"rates": (1.0, np.inf, 1.0)},
        {"clip": -1.0},
        {"clip": np.nan},
        {"first_group": 3},
        {"first_group": 2, "last_group": 1},
    ],
)
def test_settings_without_a_meaning_are_refused(backend, settings):
    with pytest.raises(ModelError):
        open_named(backend, "strides", **settings)


@pytest.mark.parametrize("pairs", [(3, 1), (1, 3)])
def test_scales_that_do_not_fit_what_enters_are_refused(backend, pairs):
    bench = open_named(backend, "plain", first_group=1, last_group=1)
    h, y = np.ones((9, 9), np.uint8), samples_for("plain", 9)[1]
    entry = Entry(1, *(np.ones(n, np.float32) for n in pairs))
    before = bench.params.copy()
    with pytest.raises(DataError):
        bench.fit(h, y, 1, entry=entry, first_group=1, last_group=1)
    assert np.array_equal(bench.params, before)


@pytest.mark.parametrize(("entry", "first", "last"), [(1, 0, 1), (0, 0, 1), (0, 2, 2), (5, 5, 5)])
def test_runs_over_groups_that_a_session_cannot_train_are_refused(backend, entry, first, last):
    bench, (x, y) = open_named(backend, "plain", first_group=1, last_group=1), samples_for("plain", 9)
    h = np.ones((9, 9), np.float32) if entry else x
    before = bench.params.copy()
    with pytest.raises(EdgelearnError):
        bench.fit(h, y, 1, entry=Entry(entry), first_group=first, last_group=last)
    assert np.array_equal(bench.params, before)

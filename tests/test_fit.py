# SPDX-License-Identifier: Apache-2.0
"""A run of steps is those steps one by one, resumes to the bit, and bad input changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from benches import BACKENDS, OPTIMIZERS, open_named, open_net, samples, samples_for, seeded
from nets import ALL_NETS, CLASSES, NETS
from oracle import batches

from edgelearn import rules
from edgelearn.engines import load
from edgelearn.errors import DataError, LearningError, ModelError
from edgelearn.graph import build
from edgelearn.layers import Dense
from edgelearn.optim import Schedule, ScheduleKind, schedule
from edgelearn.rules import Loss

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.arrays(), other.arrays(), strict=True))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("net", list(ALL_NETS))
@pytest.mark.parametrize("targets", [None, CLASSES])
def test_a_run_is_its_steps_one_by_one(backend, net, shuffle, targets):
    settings = {"rule": rules.get("readout"), "batch": 8, "loss": Loss.MSE if targets else Loss.CROSS_ENTROPY}
    one, other = (open_named(backend, net, **settings) for _ in range(2))
    x, y = samples_for(net, 19, targets=targets)
    rate = Schedule(ScheduleKind.STEP, lr=0.0625, gamma=0.5, warmup=2, every=3)  # the same in float32
    stats = one.fit(x, y, 9, shuffle=shuffle, seed=2**40 + 5, schedule=rate)
    loss = samples_seen = 0
    for step, rows in enumerate(batches(19, 8, 2**40 + 5, 3, shuffle)):
        done = other.session.step(x[rows], y[rows], rate.rate(step))
        loss, samples_seen = loss + done.loss, samples_seen + done.samples
    assert same(one, other)
    assert stats.loss == pytest.approx(loss, rel=1e-12)
    assert stats.samples == samples_seen == 3 * 19


def test_a_run_with_bytes_is_its_steps_one_by_one(backend):
    one, other = (open_net(backend, batch=8) for _ in range(2))
    x, y = samples(19, 6, kind=np.uint8)
    one.fit(x, y, 3)
    for rows in batches(19, 8, 0, 1, True):
        other.session.step(x[rows], y[rows], 0.03)
    assert same(one, other)


def test_a_last_batch_of_one_sample_is_left_out_where_statistics_need_two(backend):
    one, other = (open_net(backend, NETS["batchnorm"], batch=8) for _ in range(2))
    x, y = samples(17, 6)
    stats = one.fit(x, y, 6, shuffle=False)
    for _ in range(2):
        for start in (0, 8):
            other.session.step(x[start : start + 8], y[start : start + 8], 0.03)
    assert same(one, other)
    assert stats.samples == 32


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("net", list(ALL_NETS))
def test_parameters_and_state_resume_a_run_to_the_bit(backend, net, optimizer):
    settings = {"rule": rules.get("readout"), "batch": 8, "optimizer": OPTIMIZERS[optimizer]}
    whole, first, second = (open_named(backend, net, **settings) for _ in range(3))
    x, y = samples_for(net, 21)
    whole.fit(x, y, 11)
    first.fit(x, y, 4)
    second.params[:], second.session.state[:] = first.arrays()
    second.fit(x, y, 7, first=4)
    assert same(whole, second)
    assert not same(first, second)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(backend):
    x, y = samples(40, 6)
    found = []
    for seed in (1, 1, 2, 2**63 + 1):
        bench = open_net(backend, NETS["dropout"], seed=seed, batch=8)
        bench.fit(x, y, 5)
        found.append(bench.params.tobytes())
    assert found[0] == found[1]
    assert len(set(found)) == 3


def refused(bench, x, y, named, error=DataError):
    """Neither step nor run touches anything; the message names what is wrong."""
    before = bench.arrays()
    for attempt in (lambda: bench.session.step(x, y, 0.03), lambda: bench.fit(x, y, 3)):
        with pytest.raises(error, match=named):
            attempt()
        assert all(a.tobytes() == b.tobytes() for a, b in zip(before, bench.arrays(), strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_named_before_anything_changes(backend, value):
    x, y = samples(30, 6)
    x[17, 2] = x[29, 5] = value
    refused(open_net(backend), x, y, "17")


def test_a_bad_sample_in_a_later_batch_stops_a_run_before_its_first_step(backend):
    bench = open_net(backend, batch=8)
    x, y = samples(30, 6)
    x[29, 0] = np.nan
    before = bench.params.copy()
    with pytest.raises(DataError, match="29"):
        bench.fit(x, y, 1, shuffle=False)
    assert np.array_equal(before, bench.params)


def test_a_target_that_is_not_finite_is_named_before_anything_changes(backend):
    x, y = samples(30, 6, targets=CLASSES)
    y[11, 3] = np.nan
    refused(open_net(backend, loss=Loss.MSE), x, y, "11")


@pytest.mark.parametrize("label", [-1, CLASSES, 2**31 - 1])
def test_a_label_outside_the_classes_is_named_before_anything_changes(backend, label):
    x, y = samples(30, 6)
    y[13] = label
    refused(open_net(backend), x, y, "13")


def test_samples_and_answers_of_another_shape_are_refused(backend):
    x, y = samples(9, 6)
    bench = open_net(backend)
    refused(bench, samples(9, 7)[0], y, "7")
    refused(bench, x[:, 0].copy(), y, "shape")
    refused(bench, x, y[:5], "shape")
    refused(bench, x, np.zeros((9, CLASSES), np.int32), "shape")
    refused(open_net(backend, loss=Loss.MSE), x, np.zeros((9, CLASSES - 1), np.float32), "shape")


def test_forward_refuses_what_training_refuses(backend):
    bench, (x, _) = open_net(backend, train=False), samples(9, 6)
    x[4, 0] = np.inf
    with pytest.raises(DataError, match="4"):
        bench.session.forward(x)
    with pytest.raises(DataError, match="7"):
        bench.session.forward(samples(9, 7)[0])


def test_more_samples_than_the_session_holds_are_refused(backend):
    bench = open_net(backend, batch=8)
    before = bench.params.copy()
    with pytest.raises(DataError, match="8"):
        bench.session.step(*samples(9, 6), 0.03)
    assert np.array_equal(before, bench.params)


def test_a_loss_that_is_not_finite_stops_learning_and_leaves_the_layer_as_it_was(backend):
    bench = open_net(backend, [Dense(CLASSES)], loss=Loss.MSE)
    bench.params[:] = 1e30
    before = bench.params.copy()
    with pytest.raises(LearningError, match="diverged"):
        bench.session.step(*samples(9, 6, targets=CLASSES), 0.03)
    assert np.array_equal(before, bench.params)


@pytest.mark.parametrize("net", ["plain", "batchnorm"])
def test_a_rate_too_high_ends_in_an_error_and_not_in_silence(backend, net):
    bench = open_net(backend, NETS[net], batch=8, optimizer=OPTIMIZERS["sgd"])
    x, y = samples(32, 6)
    with pytest.raises(LearningError, match="diverged"):
        bench.fit(x, y, 50, schedule=schedule("constant", 1e25))


@pytest.mark.parametrize("change", [("op", 77), ("fan_in", 5), ("params", 3), ("block", 9), ("input", (0, -1))])
def test_a_damaged_record_is_refused(backend, change):
    graph = build(list(NETS["plain"]), (6,))
    graph.records[2][change[0]] = change[1]
    with pytest.raises(ModelError):
        open_net(backend, graph=graph, params=seeded(graph))


def test_settings_that_do_not_fit_the_net_are_refused(backend):
    with pytest.raises(ModelError):
        open_net(backend, targets=CLASSES + 1)
    with pytest.raises(ModelError):
        open_net(backend, rule=rules.get("tp-ce"), loss=Loss.MSE)
    with pytest.raises(ModelError):
        open_net(backend, [Dense(CLASSES, "softmax")], loss=Loss.MSE)
    graph = build(list(NETS["plain"]), (6,))
    with pytest.raises(ModelError):
        open_net(backend, graph=graph, params=seeded(graph)[:-1].copy())


def test_normalisation_refuses_to_learn_from_one_sample(backend):
    bench = open_net(backend, NETS["batchnorm"])
    before = bench.params.copy()
    with pytest.raises(DataError):
        bench.session.step(*samples(1, 6), 0.03)
    assert np.array_equal(before, bench.params)


def test_kept_parameters_come_back(backend):
    bench = open_net(backend, keep=True)
    before = bench.params.copy()
    bench.session.keep()
    bench.session.step(*samples(9, 6), 0.03)
    assert not np.array_equal(before, bench.params)
    bench.session.revert()
    assert np.array_equal(before, bench.params)
    assert load(backend).sizes(bench.graph.records, bench.config) == bench.session.sizes

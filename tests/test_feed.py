# SPDX-License-Identifier: Apache-2.0
"""Batches gathered for each step come in the engine's own order, whole or augmented, and resume to the bit."""

import numpy as np
import pytest
from benches import BACKENDS, OPTIMIZERS, open_net, samples
from nets import CLASSES, NETS

import edgelearn as el
from edgelearn import augment, engines, rules
from edgelearn.augment import Augmenter, Space
from edgelearn.engines import Run, Stats
from edgelearn.optim import schedule
from edgelearn.rules import Loss
from edgelearn.training.feed import Gathered, Whole

SEED = 2**40 + 5
NOISY = Augmenter(augment.parse({"noise": 0.3, "mix": 0.2}), Space((6,), np.dtype(np.float32)), SEED)


def fed(bench, feed, steps, first=0, **settings):
    stats = Stats()
    rates = schedule("cosine", 0.05, 2).spanning(12)
    feed.fit(bench.session, Run(rates, 8, steps, first, SEED, **settings), stats)
    return stats


def gathered(backend, x, y, rows=None, augmenter=None, smallest=1):
    rows = np.arange(len(x)) if rows is None else rows
    return Gathered(x, y, rows, engines.load(backend).order, augmenter, smallest)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.MSE])
@pytest.mark.parametrize("shuffle", [True, False])
def test_gathered_batches_end_in_the_same_bits_as_the_whole_set(backend, net, loss, shuffle):
    x, y = samples(17, 6, targets=CLASSES if loss is Loss.MSE else None)
    settings = {"rule": rules.get("readout"), "batch": 8, "loss": loss}
    one, other = (open_net(backend, NETS[net], **settings) for _ in range(2))
    smallest = 2 if net == "batchnorm" else 1  # 17 samples leave a last batch of one
    whole = fed(one, Whole(x, y), 9, shuffle=shuffle)
    parts = fed(other, gathered(backend, x, y, smallest=smallest), 9, shuffle=shuffle)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one.arrays(), other.arrays(), strict=True))
    assert (parts.samples, parts.correct) == (whole.samples, whole.correct)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_left_out_are_as_good_as_absent(backend):
    x, y = samples(30, 6)
    rows = np.arange(30)[np.arange(30) % 3 > 0]
    one, other = (open_net(backend, batch=8) for _ in range(2))
    fed(one, Whole(x[rows], y[rows]), 7)
    x[0::3] = np.nan
    fed(other, gathered(backend, x, y, rows), 7)
    assert np.array_equal(one.params, other.params)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_an_augmented_run_resumes_to_the_bit(backend, optimizer):
    x, y = samples(21, 6)
    settings = {"rule": rules.get("readout"), "batch": 8, "optimizer": OPTIMIZERS[optimizer]}
    whole, first, second = (open_net(backend, NETS["dropout"], **settings) for _ in range(3))
    feed = gathered(backend, x, y, augmenter=NOISY)
    fed(whole, feed, 11)
    fed(first, feed, 4)
    second.params[:], second.session.state[:] = first.arrays()
    for step in range(4, 11):
        fed(second, feed, 1, step)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole.arrays(), second.arrays(), strict=True))
    plain = open_net(backend, NETS["dropout"], **settings)
    fed(plain, Whole(x, y), 11)
    assert not np.array_equal(plain.params, whole.params)


def test_both_engines_learn_the_same_augmented_samples():
    x, y = samples(40, 6)
    trained = []
    for backend in ("native", "numba"):
        pytest.importorskip("numba")
        bench = open_net(backend, batch=8)
        fed(bench, gathered(backend, x, y, augmenter=NOISY), 10)
        trained.append(bench.params)
    assert np.allclose(*trained, atol=1e-4)


def test_a_net_sees_the_data_it_was_given_unchanged():
    x, y = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 1), np.uint8), np.arange(60) % 3
    before = x.copy()
    net = el.Net([el.Dense(8, "relu"), el.Dense(3)])
    net.fit(x, y, epochs=2, batch=8, augment={"flip": True, "shift": 1, "noise": 0.1, "mix": 0.3}, validation=0.2)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("schedule", ["interleaved", "sequential"])
def test_the_same_seed_augments_alike_and_another_does_not(blobs, schedule):
    def flat(seed, **settings):
        net = el.Net([el.Dense(16, "relu"), el.Dense(4)], input_shape=(6,))
        return net.fit(*blobs, epochs=3, batch=20, seed=seed, schedule=schedule, **settings).flat

    noisy = {"augment": {"noise": 0.5}}
    assert np.array_equal(flat(1, **noisy), flat(1, **noisy, threads=2))
    assert not np.array_equal(flat(1, **noisy), flat(2, **noisy))
    assert not np.array_equal(flat(1, **noisy), flat(1))


def test_images_without_a_channel_axis_are_images_where_a_layer_reads_them_so():
    window = el.Net([el.Conv2D(4, 3), el.Dense(2)], input_shape=(8, 8))
    steps = el.Net([el.Conv1D(4, 3), el.Dense(2)], input_shape=(8, 8))
    flat = el.Net([el.Dense(4), el.Dense(2)], input_shape=(8, 8))
    assert [net.sample_shape for net in (window, steps, flat)] == [(8, 8, 1), (8, 8), (8, 8)]
    assert el.Net([el.Dense(2)], input_shape=(8, 8, 1)).sample_shape == (8, 8, 1)


REFUSED = [
    ({"flip": True}, {}, "flip is for images"),
    ({"time_mask": 2}, {}, "time_mask is for sequences"),
    ({"mix": 0.2}, {"loss": "mse"}, "targets of a regression"),
    ({"turn": 90}, {}, "unknown augmentation 'turn'"),
]


@pytest.mark.parametrize(("table", "settings", "words"), REFUSED)
def test_what_a_task_forbids_is_refused_before_training(blobs, table, settings, words):
    x, y = blobs
    net = el.Net([el.Dense(1 if settings else 4)], input_shape=(6,), **settings)
    before = net.flat.copy()
    with pytest.raises(el.UsageError, match=words):
        net.fit(x, y + 0.5 if settings else y, augment=table, callbacks=[lambda moment: pytest.fail("a step was run")])
    assert np.array_equal(net.flat, before)


def test_the_recipe_travels_with_the_model_and_a_call_can_end_it(blobs, tmp_path):
    net = el.Net([el.Dense(16, "relu"), el.Dense(4)], input_shape=(6,))
    settings = {"augment": {"noise": 0.2}, "validation": 0.2, "patience": 2, "class_weights": [1, 1, 1, 2]}
    net.fit(*blobs, epochs=2, **settings).save(tmp_path / "m.safetensors")
    back = el.load(tmp_path / "m.safetensors")
    assert back.recipe() == net.recipe()
    assert back.recipe().augment == {"noise": 0.2}
    assert back.recipe().class_weights == (1.0, 1.0, 1.0, 2.0)
    off = back.recipe(augment={}, validation=0, patience=0, class_weights="none")
    assert (off.augment, off.validation, off.patience, off.class_weights) == ({}, 0.0, 0, "none")


def test_learning_sample_by_sample_takes_them_as_they_are(blobs):
    net, plain = (el.Net([el.Dense(4)], input_shape=(6,), train={"batch": 20}) for _ in range(2))
    net.train.update(augment={"noise": 1.0}, validation=0.5, class_weights="balanced")
    assert np.array_equal(net.partial_fit(*blobs).flat, plain.partial_fit(*blobs).flat)
    for settings in ({"augment": {"noise": 1.0}}, {"validation": 0.1}, {"class_weights": "balanced"}):
        with pytest.raises(el.UsageError, match="leave out|as a list"):
            net.partial_fit(*blobs, **settings)

# SPDX-License-Identifier: Apache-2.0
"""Held-out samples: which they are, what is scored on them, and runs that end when they are answered no better."""

import io
from importlib.util import find_spec

import numpy as np
import pytest

import edgelearn as el
from edgelearn.inputs import labels
from edgelearn.inputs.data import Dataset
from edgelearn.net import fitting
from edgelearn.training.progress import Progress
from edgelearn.training.recipe import Recipe
from edgelearn.training.validation import Best, Score, split


def small(outputs=4, **settings):
    return el.Net([el.Dense(16, "relu"), el.Dense(outputs)], input_shape=(6,), **settings)


@pytest.fixture
def muddled(blobs):
    """Few samples with half of their labels wrong: what a net learns of them by heart helps with no others."""
    x, y = blobs
    rng = np.random.default_rng(3)
    return x, np.where(rng.random(len(y)) < 0.5, rng.permutation(y), y)


def test_a_split_takes_its_share_of_every_class():
    y = np.repeat([0, 1, 3], [100, 40, 6])
    learned, held = split(y, 0.1, 5, stratified=True)
    assert np.bincount(y[held]).tolist() == [10, 4, 0, 1]
    assert sorted([*learned, *held]) == list(range(146))
    assert (np.diff(held) > 0).all()
    assert (np.diff(learned) > 0).all()
    assert np.array_equal(split(y, 0.1, 5, stratified=True)[1], held)
    assert not np.array_equal(split(y, 0.1, 6, stratified=True)[1], held)


def test_every_sample_can_be_held_out():
    y = np.zeros(12, np.int32)
    assert {int(i) for seed in range(60) for i in split(y, 0.1, seed, stratified=True)[1]} == set(range(12))


@pytest.mark.parametrize(("share", "held"), [(0.001, 1), (0.25, 5), (0.999, 19)])
def test_a_split_leaves_at_least_one_sample_on_either_side(share, held):
    targets = np.zeros((20, 3), np.float32)
    assert [len(part) for part in split(targets, share, 0, stratified=False)] == [20 - held, held]


def test_too_few_samples_to_hold_any_out_are_refused(blobs):
    x, y = blobs
    with pytest.raises(el.DataError, match="class 3 has one sample only"):
        small().fit(x[:4], y[:4] * [0, 0, 0, 1], validation=0.2)
    with pytest.raises(el.DataError, match="there is one sample only"):
        small(1, loss="mse").fit(x[:1], [0.5], validation=0.2)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan"), "0.1", True])
def test_shares_that_cannot_be_meant_are_refused(blobs, share):
    with pytest.raises(el.UsageError, match="from 0 to below 1"):
        small().fit(*blobs, validation=share)


def test_patience_without_held_out_samples_is_refused(blobs):
    with pytest.raises(el.UsageError, match="set validation = 0.1"):
        small().fit(*blobs, patience=3)


@pytest.mark.parametrize("backend", ["native", "numba"])
def test_the_score_is_that_of_the_net_on_the_samples_held_out(blobs, backend):
    if backend == "numba" and not find_spec("numba"):
        pytest.skip("numba is not installed")
    x, y = blobs
    net = small().fit(x, y, epochs=3, batch=7, validation=0.2, seed=9, backend=backend)
    _, held = split(y, 0.2, 9, stratified=True)
    probabilities = net.predict_proba(x[held])
    score = net.history.epochs[-1].validation
    assert len(held) == 40
    assert score.accuracy == pytest.approx((probabilities.argmax(1) == y[held]).mean())
    assert score.loss == pytest.approx(-np.log(probabilities[np.arange(40), y[held]]).mean(), rel=1e-4)
    assert net.history.samples == 3 * 160


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_a_regression_is_held_against_its_own_loss(blobs, loss):
    x = blobs[0]
    y = np.stack([4 * x[:, 0], x[:, 1]], axis=1)
    net = small(2, loss=loss).fit(x, y, epochs=3, validation=0.2, rule="tp-l2", huber=0.5)
    _, held = split(y, 0.2, 0, stratified=False)
    off = np.abs(net.predict(x[held]) - y[held])
    squared = off**2 / 2
    expected = squared if loss == "mse" else np.where(off <= 0.5, squared, 0.5 * (off - 0.25))
    score = net.history.epochs[-1].validation
    assert score.accuracy is None
    assert score.loss == pytest.approx(expected.sum(axis=1).mean(), rel=1e-4)


def test_patience_ends_a_run_and_brings_the_best_epoch_back(muddled):
    net, seen = small(), []

    def watch(moment):
        if moment.finished:
            seen.append((moment.validation.loss, net.flat.copy()))

    net.fit(*muddled, epochs=400, batch=10, lr=0.02, validation=0.3, patience=5, callbacks=[watch])
    losses, history = [loss for loss, _ in seen], net.history
    best = int(np.argmin(losses))
    assert len(losses) == len(history.epochs) == best + 1 + 5 < 400
    assert history.kept == best + 1
    assert history.validation.loss == losses[best]
    assert np.array_equal(net.flat, seen[best][1])
    assert not np.array_equal(net.flat, seen[-1][1])
    assert [moment.stops for moment in history.epochs] == [False] * (best + 5) + [True]


def test_without_patience_validation_only_watches(muddled):
    watched, seen = small(), []
    watched.fit(*muddled, epochs=60, batch=10, lr=0.02, validation=0.3, callbacks=[lambda m: seen.append(watched.flat)])
    losses = [moment.validation.loss for moment in watched.history.epochs]
    assert np.argmin(losses) < 59
    assert watched.history.kept == len(losses) == 60
    learned, _ = split(muddled[1], 0.3, 0, stratified=True)
    alone = small().fit(muddled[0][learned], muddled[1][learned], epochs=60, batch=10, lr=0.02)
    assert np.array_equal(alone.flat, watched.flat)


def test_ctrl_c_with_patience_leaves_the_best_epoch(muddled):
    net, seen = small(), []

    def interrupt(moment):
        if moment.finished:
            seen.append((moment.validation.loss, net.flat.copy()))
        if len(seen) > 3 and seen[-1][0] > min(loss for loss, _ in seen):
            raise KeyboardInterrupt

    net.fit(*muddled, epochs=400, batch=10, lr=0.02, validation=0.3, patience=50, callbacks=[interrupt])
    assert net.history.interrupted
    assert np.array_equal(net.flat, min(seen, key=lambda pair: pair[0])[1])


def test_divergence_after_a_good_epoch_leaves_the_best(muddled):
    net, kept = small(), []

    def spoil(moment):
        if moment.finished:
            kept.append(net.flat.copy())
        if moment.epoch == 2 and not kept[2:]:
            net.flat[:] = np.nan

    with pytest.raises(el.LearningError, match="the weights are those after epoch 2"):
        net.fit(*muddled, epochs=9, batch=1, lr=0.001, validation=0.3, patience=9, callbacks=[spoil])
    assert np.array_equal(net.flat, kept[1])


def test_the_sequential_schedule_is_held_out_where_the_output_learns(muddled):
    net = small().fit(*muddled, epochs=200, batch=10, lr=0.02, schedule="sequential", validation=0.3, patience=4)
    stages = [moment.stage for moment in net.history.epochs]
    assert stages.count(0) == 200
    assert stages.count(1) < 200
    assert [moment.validation is None for moment in net.history.epochs] == [stage == 0 for stage in stages]
    assert net.history.kept > 200


def test_the_best_epoch_is_the_one_of_the_least_loss():
    best = Best(2)
    scores = [Score(3.0, 0.9), Score(2.0, 0.1), Score(2.0, 0.8), Score(float("nan"), 0.9)]
    found = []
    for score in scores:
        best.after(score)
        found.append((best.is_now, best.is_over))
    assert found == [(True, False), (True, False), (False, False), (False, True)]


def test_progress_shows_what_was_held_out_and_ends_its_line(muddled, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    plain, terminal = io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True
    settings = {"epochs": 400, "batch": 10, "lr": 0.02, "validation": 0.3, "patience": 3}
    small().fit(*muddled, progress=Progress(plain), callbacks=[Progress(terminal)], **settings)
    assert all("validation loss" in line and line.count("accuracy") == 2 for line in plain.getvalue().splitlines())
    drawn = terminal.getvalue().split("\r")
    assert all("validation loss" in line for line in drawn[-3:])
    assert terminal.getvalue().endswith("\n")


def test_a_narrow_terminal_is_not_overrun(blobs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    small().fit(*blobs, epochs=3, validation=0.2, progress=Progress(terminal))
    lines = terminal.getvalue().replace("\033[K", "").replace("\n", "\r").split("\r")
    assert max(map(len, lines)) == 59
    assert "ETA" in terminal.getvalue()


def test_the_picture_shows_both_curves_and_the_epoch_kept(muddled, tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib import image

    from edgelearn.training import plots

    settings = {"epochs": 400, "batch": 10, "lr": 0.02}
    watched = small().fit(*muddled, validation=0.3, patience=3, **settings)
    plots.training(watched.history, tmp_path / "watched.png")
    for moment in watched.history.epochs:
        object.__setattr__(moment, "validation", None)
    plots.training(watched.history, tmp_path / "plain.png")
    held_out = [0xFF, 0x7F, 0x0E]  # the second colour of matplotlib's cycle
    for name, expected in (("watched", True), ("plain", False)):
        pixels = (image.imread(tmp_path / f"{name}.png")[..., :3] * 255).round()
        assert bool((pixels == held_out).all(axis=-1).any()) is expected


def test_balanced_weights_make_classes_count_alike():
    y = np.repeat([0, 1, 3], [60, 30, 10])
    weights = labels.class_weights("balanced", y, 5)
    counts = np.bincount(y, minlength=5)
    assert np.allclose(np.array(weights)[[0, 1, 3]] * counts[[0, 1, 3]], 100 / 3)
    assert (weights[2], weights[4]) == (1.0, 1.0)
    assert labels.class_weights("none", y, 5) is None
    assert labels.class_weights([1, 2, 3, 4, 5], y, 5) == (1.0, 2.0, 3.0, 4.0, 5.0)


BAD_WEIGHTS = [
    ("heavy", el.UsageError, "none or balanced, or a list of positive numbers"),
    ([1, 0, 1, 1], el.UsageError, "positive numbers"),
    ([1, -1, 1, 1], el.UsageError, "positive numbers"),
    ([1, float("inf"), 1, 1], el.UsageError, "positive numbers"),
    ([], el.UsageError, "positive numbers"),
    (3.0, el.UsageError, "positive numbers"),
    ([1, 2, 3], el.DataError, "3 class weights given, the net has 4 outputs"),
]


@pytest.mark.parametrize(("weights", "error", "words"), BAD_WEIGHTS)
def test_class_weights_that_cannot_be_meant_are_refused(blobs, weights, error, words):
    net = small()
    before = net.flat.copy()
    with pytest.raises(error, match=words):
        net.fit(*blobs, class_weights=weights)
    assert np.array_equal(net.flat, before)


def test_a_regression_has_no_class_weights(blobs):
    with pytest.raises(el.UsageError, match="which a regression does not have"):
        small(1, loss="mse").fit(blobs[0], blobs[0][:, 0], class_weights="balanced")


def test_weights_are_those_of_the_samples_that_are_learned(blobs):
    x, y = blobs[0][:103], np.repeat([0, 1, 2, 3], [50, 40, 10, 3])
    data = Dataset(x, y.astype(np.int32), x[:0], y[:0])
    fitted = fitting.fitting(small(), Recipe(validation=0.5, class_weights="balanced"), data)
    counts = np.bincount(fitted.feed.answers)
    assert counts.tolist() == [25, 20, 5, 1]
    assert np.allclose(np.array(fitted.class_weights) * counts, counts.sum() / 4)

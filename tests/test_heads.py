# SPDX-License-Identifier: Apache-2.0
"""Heads without iterations: equal to the normal equations, however the samples came and went."""

import numpy as np
import pytest

from edgelearn.errors import DataError, UsageError
from edgelearn.heads import RidgeHead, simplex
from edgelearn.recursive import RecursiveHead


@pytest.fixture
def samples():
    """Features (120, 12) of four classes, their labels."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    return (rng.normal(0, 1.5, (4, 12))[y] + rng.normal(size=(120, 12))).astype(np.float32), y


def joint(x, y, penalty, balanced=True, width=None):
    """Ridge by the normal equations, all samples at once."""
    rows = np.hstack([x[:, :width].astype(np.float64), np.ones((len(x), 1))])
    weights = (1 / np.bincount(y))[y] if balanced else np.ones(len(y))
    scaled = rows * weights[:, None]
    squares = x.astype(np.float64) ** 2
    level = penalty * (squares * weights[:, None]).sum() / x.shape[1]
    a = scaled.T @ rows + level * np.diag([*np.ones(rows.shape[1] - 1), 0])
    return np.linalg.solve(a, scaled.T @ np.eye(y.max() + 1)[y])


@pytest.mark.parametrize("balanced", [True, False])
def test_batches_and_classes_that_come_later_give_joint_ridge(samples, balanced):
    x, y = samples
    head = RidgeHead(12, 0.05, balanced=balanced)
    for name in range(2):
        head.add_class(name)
    early = y < 2
    head.partial_fit(x[early][:20], y[early][:20]).partial_fit(x[early][20:], y[early][20:])
    for name in (2, 3):
        head.add_class(name, x[y == name])
    expected = joint(x, y, 0.05, balanced)
    weight, bias = head.solve()
    assert weight == pytest.approx(expected[:-1], abs=1e-6)
    assert bias == pytest.approx(expected[-1], abs=1e-6)
    assert np.mean(np.array(head.predict(x)) == y) > 0.9


def test_every_prefix_is_ridge_on_the_first_features(samples):
    x, y = samples
    head = RidgeHead(12, 0.05).partial_fit(x, y)
    for width, (weight, bias) in zip((1, 3, 8, 12), head.prefixes([1, 3, 8, 12]), strict=True):
        expected = joint(x, y, 0.05, width=width)
        assert weight == pytest.approx(expected[:-1], abs=1e-6)
        assert bias == pytest.approx(expected[-1], abs=1e-6)


def test_many_features_are_solved_in_blocks():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 150)).astype(np.float32), np.arange(60) % 3
    weight, _ = RidgeHead(150, 0.1, balanced=False).partial_fit(x, y).solve()
    assert weight == pytest.approx(joint(x, y, 0.1, balanced=False)[:-1], abs=1e-6)


@pytest.mark.parametrize("balanced", [True, False])
def test_forgotten_samples_might_never_have_been(samples, balanced):
    x, y = samples
    gone = np.arange(120) % 5 == 0
    head = RidgeHead(12, 0.05, balanced=balanced).partial_fit(x, y).forget(x[gone], y[gone])
    fresh = RidgeHead(12, 0.05, balanced=balanced)
    for name in head.classes:
        fresh.add_class(name)
    fresh.partial_fit(x[~gone], y[~gone])
    assert head.solve()[0] == pytest.approx(fresh.solve()[0], abs=1e-8)


def test_a_forgotten_class_might_never_have_been(samples):
    x, y = samples
    head = RidgeHead(12, 0.05).partial_fit(x, y).forget_class(2)
    fresh = RidgeHead(12, 0.05).partial_fit(x[y != 2], y[y != 2])
    assert head.classes == fresh.classes == [0, 1, 3]
    assert np.array_equal(head.solve()[0], fresh.solve()[0])


def test_recursive_least_squares_is_ridge_after_every_sample(samples):
    x, y = samples
    head = RecursiveHead(12, 4, penalty=2.0)
    for count, (row, label) in enumerate(zip(x, y, strict=True), 1):
        head.learn_one(row, int(label))
        if count in (1, 30, 120):
            rows = np.hstack([x[:count].astype(np.float64), np.ones((count, 1))])
            expected = np.linalg.solve(rows.T @ rows + 2 * np.eye(13), rows.T @ np.eye(4)[y[:count]])
            assert head.solve()[0] == pytest.approx(expected[:-1], abs=1e-6)
    assert head.predict(x).tolist() == (x @ expected[:-1] + expected[-1]).argmax(axis=1).tolist()
    for each in (head, RidgeHead(12).partial_fit(x, y)):
        with pytest.raises(DataError, match="head of 12 features cannot take"):
            each.predict(x[:, :5])
    with pytest.raises(UsageError, match="0 features, 3 classes, penalty 1"):
        RecursiveHead(0, 3)
    assert head.add_class() == 4
    assert head.solve()[0].shape == (12, 5)


def test_simplex_targets_stand_at_one_angle_and_do_not_move(samples):
    frame = simplex(5)
    assert frame @ frame.T == pytest.approx(np.where(np.eye(5), 1, -0.25))
    x, y = samples
    head = RidgeHead(12, 0.05, etf=True, total=5).partial_fit(x[y < 3], y[y < 3])
    assert head.solve()[0].shape == (12, 3)
    head.add_class(3, x[y == 3])
    assert np.mean(np.array(head.predict(x)) == y) > 0.9
    head.add_class(4)
    with pytest.raises(DataError, match="the simplex holds 5 classes"):
        head.add_class(5)
    with pytest.raises(UsageError, match="belong to their classes"):
        head.forget_class(3)


def test_what_cannot_be_counted_is_refused(samples):
    x, y = samples
    head = RidgeHead(12).partial_fit(x, y)
    with pytest.raises(DataError, match="there is a class '1'"):
        head.add_class(1)
    with pytest.raises(DataError, match="cannot take"):
        head.partial_fit(x[:, :5], y)
    with pytest.raises(DataError, match="cannot take"):
        head.partial_fit(np.where(x > 3, np.nan, x), y)
    with pytest.raises(DataError, match="120 samples and 3 labels"):
        head.partial_fit(x, y[:3])
    with pytest.raises(DataError, match="fewer than 31 samples of class '0' were learned"):
        head.forget(x[:31], np.zeros(31, int))
    with pytest.raises(DataError, match="no class 'x' can be taken out"):
        head.forget_class("x")
    with pytest.raises(UsageError, match="widths \\[0\\] do not fit"):
        head.prefixes([0])
    with pytest.raises(DataError, match="samples of two classes"):
        RidgeHead(12).partial_fit(x[y == 0], y[y == 0]).solve()
    with pytest.raises(UsageError, match="positive penalty"):
        RidgeHead(12, penalty=0)
    with pytest.raises(UsageError, match="give total"):
        RidgeHead(12, etf=True)
    with pytest.raises(UsageError, match="one class needs no head"):
        simplex(1)
    recursive = RecursiveHead(12, 2)
    with pytest.raises(DataError, match="label 2 is outside"):
        recursive.learn_one(x[0], 2)
    with pytest.raises(DataError, match="does not fit 12 features"):
        recursive.learn_one(x[0, :3], 0)
    with pytest.raises(UsageError, match="penalty -1: recursive"):
        RecursiveHead(12, 2, penalty=-1)

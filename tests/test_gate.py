# SPDX-License-Identifier: Apache-2.0
"""Whether what learned may serve: bounds, classes, noise, repeated attempts."""

import numpy as np
import pytest

import edgelearn as el
from edgelearn.learning.gate import Gate, paired


def answers(labels, accuracy, rng):
    """Answers of which a share is right."""
    wrong = (labels + 1 + rng.integers(0, 9, len(labels))) % 10
    return np.where(rng.random(len(labels)) < accuracy, labels, wrong)


def judged(before, after, n=1000, seed=0, gate=None, attempt=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    return (gate or Gate()).judge(labels, answers(labels, before, rng), answers(labels, after, rng), attempt)


def test_a_clear_gain_is_accepted_and_told_in_numbers():
    verdict = judged(0.7, 0.8)
    assert verdict.accepted
    assert verdict.before == pytest.approx(0.7, abs=0.05)
    assert verdict.after == pytest.approx(0.8, abs=0.05)
    assert verdict.lower < verdict.gain < verdict.upper
    assert set(verdict.per_class) == {str(i) for i in range(10)}
    assert verdict.to_json()["samples"] == 1000


def test_noise_does_not_promote():
    passed = [judged(0.8, 0.8, seed=seed).accepted for seed in range(400)]
    assert sum(passed) <= 20, "at most 2.5 % may, and three standard deviations"
    assert not any(judged(0.8, 0.77, seed=seed).accepted for seed in range(100))


def test_repeated_attempts_together_promote_no_more_noise():
    some = 0
    for seed in range(100):
        some += any(judged(0.8, 0.8, seed=1000 * seed + k, attempt=k).accepted for k in range(1, 11))
    assert some <= 12, "5 % may, and three standard deviations"


def test_a_net_that_is_as_good_passes_where_that_is_asked_for():
    gate = Gate(min_gain=-0.05)
    assert sum(judged(0.8, 0.8, seed=seed, gate=gate).accepted for seed in range(50)) > 30
    assert not any(judged(0.8, 0.7, seed=seed, gate=gate).accepted for seed in range(50))


def test_few_samples_are_not_enough_however_good():
    verdict = judged(0.0, 1.0, n=49)
    assert not verdict.accepted
    assert "49 samples are held out and 50 are needed: learn more samples" in verdict.reason
    assert judged(0.0, 1.0, n=50).accepted
    assert not Gate().judge(*(np.zeros(0, int),) * 3).accepted


def test_a_class_that_is_lost_is_not_paid_for_by_others():
    labels = np.arange(1000) % 10
    before = np.where(np.arange(1000) % 3 == 0, labels, 10)
    after = np.where(labels == 4, 10, labels)
    verdict = Gate().judge(labels, before, after, names=[f"class {i}" for i in range(10)])
    assert verdict.gain > 0.4
    assert not verdict.accepted
    assert "class 4 lost more than 0.01: add samples of it" in verdict.reason
    assert verdict.per_class["class 4"] < -0.3
    assert Gate(max_drop=0.9).judge(labels, before, after).accepted


def test_what_is_worse_beyond_doubt_is_harmful():
    assert judged(0.8, 0.6).harmful
    assert not judged(0.8, 0.79).harmful
    assert not judged(0.6, 0.8).harmful


def test_bounds_hold_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        old = rng.random(200) < 0.7
        new = np.where(rng.random(200) < 0.8, old, rng.random(200) < 0.9)
        truth = 0.2 * (0.9 - 0.7)
        _, low, high = paired(old, new, 0.025)
        inside += low <= truth <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


REFUSED = [
    ({"max_drop": -0.1}, "max_drop must be from 0 to below 1"),
    ({"confidence": 1.0}, "confidence must be from 0.5 to below 1"),
    ({"min_gain": 1}, "min_gain must be"),
    ({"holdout": 0}, "without held-out samples nothing can be judged: set holdout"),
    ({"holdout": 1.0}, "holdout must be from 0 to below 1"),
    ({"min_samples": 0}, "raise those"),
    ({"min_samples": 2000}, "min_samples must be from 1 to max_samples and shadow, 1000 and 500, not 2000"),
    ({"policy": "always"}, "unknown policy 'always': choose one of auto, manual, shadow"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_a_gate_that_cannot_be_meant_is_refused(settings, words):
    with pytest.raises(el.UsageError, match=words):
        Gate(**settings)

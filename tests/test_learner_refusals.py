# SPDX-License-Identifier: Apache-2.0
"""What a learner refuses: samples that cannot be right, labels that neighbours contradict, and what cannot be meant;
and what it does not refuse."""

import numpy as np
import pytest
from streams import blobs, feed, flipped, kinds, learned, novice

import edgelearn as el

X, Y = blobs(3000)


BAD = [
    (lambda x, y: (np.where(np.arange(20) == 3, np.nan, x), y), "sample 0 of the samples holds NaN or infinity"),
    (lambda x, y: (np.where(np.arange(20) == 3, np.inf, x), y), "NaN or infinity"),
    (lambda x, y: (x[:, :5], y), "expected samples of shape"),
    (lambda x, y: (x, y[:5]), "give one label for each sample"),
    (lambda x, y: (x, y + 4), "outside 0 .. 3"),
    (lambda x, y: (x, -y - 1), "outside 0 .. 3"),
    (lambda x, y: (x, np.array(["cat"] * len(y))), "the net has no class names: give labels as whole numbers"),
    (lambda x, y: (x, y.astype(float)), "labels must be one integer or text each"),
    (lambda x, y: (x[:0], y[:0]), "pass at least one"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD)
def test_a_bad_batch_is_refused_with_the_reason_kept(spoil, words):
    with learned(200) as learner:
        before, samples = learner.candidate.flat.copy(), learner.samples
        with pytest.raises(el.DataError, match=words):
            learner.partial_fit(*spoil(X[200:260], Y[200:260]))
        assert learner.events[-1].kind == "refused"
        assert words.split(":")[0].split("..")[0].strip() in learner.events[-1].message
        assert np.array_equal(learner.candidate.flat, before)
        assert learner.samples == samples
        assert learner.partial_fit(X[200:260], Y[200:260]).learned


def test_dead_and_stuck_sensors_are_refused_sample_by_sample():
    with learned(200) as learner:
        x = X[200:300].copy()
        x[:30] = 0.5
        step = learner.partial_fit(x, Y[200:300])
        assert step.refused == 30
        assert "30 samples hold one value everywhere: look whether the sensor is covered" in step.reason
        x = X[300:400].copy()
        x[:40] = x[0]
        step = learner.partial_fit(x, Y[300:400])
        assert step.refused == 40
        assert "one and the same with different labels: look whether the sensor is stuck" in step.reason
        assert kinds(learner) == ["refused", "refused"]
        assert learner.samples == 200 + 70 + 60


def test_labels_that_neighbours_contradict_are_refused_unless_trusted():
    x, y = blobs(2000, spread=0.6)
    bad = flipped(y, 0.4, 4, np.random.default_rng(0))
    with el.Learner(novice(spread=0.6, n=1500)) as learner:
        assert sum(step.refused for step in feed(learner, x[:1000], y[:1000])) == 0
        steps = feed(learner, x[1000:], bad[1000:])
        assert sum(step.refused for step in steps) > 600
        assert "check the labels, or learn them with trust=True" in steps[-1].reason
        assert sum(step.refused for step in feed(learner, x[1000:], bad[1000:], trust=True)) == 0
    with el.Learner(novice(spread=0.6, n=1500)) as learner:
        steps = feed(learner, x, (y + 1) % 4)
        assert sum(step.refused for step in steps) == 0, "labels of another meaning are no noise"


def test_labels_right_after_a_change_of_the_inputs_are_not_doubted():
    x, y = blobs(2000, spread=0.6)
    moved = np.roll(x, 7, axis=1) * np.float32(1.5)
    with el.Learner(novice(spread=0.6, n=400)) as learner:
        feed(learner, x[:1000], y[:1000])
        steps = feed(learner, moved[1000:], y[1000:])
        assert sum(step.refused for step in steps) == 0
        assert any(step.drift for step in steps[:10])
        assert "drift" in kinds(learner)
        version = learner.commit()
        assert version.metrics["accepted"]
        assert learner.net.score(moved, y) > 0.9
        assert learner.net.score(x, y) > 0.9, "what was before is not forgotten"


def test_a_stream_that_stays_raises_no_alarm():
    alarms = 0
    for seed in range(5):
        x, y = blobs(4000, seed=10 + seed)
        with el.Learner(novice(seed), rehearsals=1) as learner:
            alarms += any(step.drift for step in feed(learner, x, y, portion=250))
    assert alarms == 0


def closed():
    """A learner that has ended, twice; it answers still."""
    with el.Learner(novice()) as learner:
        pass
    learner.close()
    assert learner.predict(X[0]).model_id == learner.version.id
    return learner


REFUSED = [
    (lambda: el.Learner(el.Net([el.Dense(1)], 3, loss="mse")), el.UsageError, "use net.partial_fit"),
    (lambda: el.Learner(el.Net([el.Dense(3)], 3)), el.ModelError, "fit it first, or declare"),
    (lambda: el.Learner(novice(), rehearsals=0), el.UsageError, "rehearsals must be at least 1"),
    (lambda: el.Learner(novice(), replay="2 apples"), el.UsageError, "cannot be read"),
    (lambda: el.Learner(novice(), replay="20").partial_fit(X[:40], Y[:40]), el.BudgetError, "give replay more"),
    (lambda: el.Learner(novice(), lr=-1.0), el.UsageError, "rate"),
    (lambda: el.Learner(novice()).rollback(), el.UsageError, "no earlier version was live"),
    (lambda: el.Learner(novice()).promote("77"), el.UsageError, "take one of the history"),
    (lambda: el.Learner(novice(), keep_bytes=100), el.BudgetError, "raise keep_bytes"),
    (lambda: el.Learner("mlp"), el.UsageError, "load one with el.load"),
    (lambda: el.Learner(novice(), gate=0.01), el.UsageError, "write el.Gate"),
    (lambda: closed().learn_one(X[0], Y[0]), el.UsageError, "make another for its folder"),
    (lambda: closed().commit(), el.UsageError, "make another for its folder"),
    (lambda: el.Learner(novice()).add_class(4), el.ModelError, "4 is no name for a class beside .* give another text"),
    (lambda: closed().add_class(), el.UsageError, "make another for its folder"),
]


@pytest.mark.parametrize(("act", "error", "words"), REFUSED)
def test_what_cannot_be_meant_is_refused(act, error, words):
    with pytest.raises(error, match=words):
        act()

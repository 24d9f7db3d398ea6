# SPDX-License-Identifier: Apache-2.0
"""A net that serves while a copy learns: what is learned, promoted, undone and grown."""

import numpy as np
import pytest
from streams import blobs, feed, kinds, learned, novice

import edgelearn as el

X, Y = blobs(3000)
XT, YT = blobs(2000, seed=1)


def test_what_it_learned_serves_after_a_commit_that_the_gate_accepts():
    with learned() as learner:
        first, before = learner.version, learner.net.score(XT, YT)
        assert learner.predict(X[0]).model_id == first.id
        version = learner.commit("evening")
        assert learner.version == version == learner.store.current()
        assert (version.parent, version.note, version.number) == (first.id, "evening", 2)
        assert learner.net.score(XT, YT) > before + 0.05
        assert version.metrics["accepted"] is True
        assert version.metrics["gain"] > version.metrics["lower"] > 0
        assert set(version.metrics["per_class"]) == {"0", "1", "2", "3"}
        assert learner.predict(X[0]).model_id == version.id
        assert "promoted" in kinds(learner)
        assert learner.commit() == version, "nothing was learned since"
        learner.rollback(version.parent)
        assert learner.net.score(XT, YT) == before
        assert learner.predict(X[0]).model_id == first.id
        assert [v.id for v in learner.history()] == [first.id, version.id]


def test_predictions_are_those_of_the_serving_net():
    with learned(200) as learner:
        net = el.load(learner.store.read(learner.version.id))
        some = learner.predict(XT[:50])
        assert [p.label for p in some] == net.predict(XT[:50]).tolist()
        assert [p.probability for p in some] == pytest.approx(net.predict_proba(XT[:50]).max(1).tolist())
        assert learner.predict(XT[3]) == some[3]
        with pytest.raises(el.DataError, match="expected samples of shape"):
            learner.predict(np.zeros(7, np.float32))


def test_sample_by_sample_is_as_good_as_by_portions():
    with el.Learner(novice()) as ones, el.Learner(novice()) as portions:
        steps = [ones.learn_one(x, int(y)) for x, y in zip(X[:320], Y[:320], strict=True)]
        for start in range(0, 320, 32):
            portions.partial_fit(X[start : start + 32], Y[start : start + 32])
        assert np.array_equal(ones.candidate.flat, portions.candidate.flat)
        assert [step.waiting for step in steps[:33]] == [*range(1, 32), 0, 1]
        assert sum(step.learned + step.held_out for step in steps) == 320 == ones.samples


def test_what_waits_is_learned_before_a_commit():
    with el.Learner(novice()) as learner:
        assert learner.partial_fit(X[:10], Y[:10]) == el.Step(waiting=10)
        assert learner.commit() != learner.version
        assert learner.samples == 10


def test_what_is_held_out_is_never_learned():
    with learned(1500, gate=el.Gate(holdout=0.3)) as learner:
        feed(learner, X[:1500], Y[:1500])  # the same once more
        memory = learner._learning.memory
        held = {row.tobytes() for rows, _ in memory.holdout.parts() for row in rows}
        kept = {row.tobytes() for rows, _ in memory.replay.parts() for row in rows}
        assert len(held) == pytest.approx(450, abs=60)
        assert not held & kept
        seen = []
        memory.replay.draw = lambda n: (X[:0], Y[:0].astype(np.int32))
        step = learner._learning.rehearsal._session.step
        learner._learning.rehearsal._session.step = lambda x, y, lr: seen.extend(x) or step(x, y, lr)
        feed(learner, X[1500:2500], Y[1500:2500])
        memory.replay.__dict__.pop("draw")
        held = {row.tobytes() for rows, _ in memory.holdout.parts() for row in rows}
        trained = {np.asarray(row, np.float16).astype(np.float32).tobytes() for row in seen}
        assert trained
        assert not held & trained


def test_noise_is_not_promoted():
    for seed in range(1, 5):
        with el.Learner(novice(n=2000)) as learner:
            first = learner.version
            feed(learner, X[:1500], np.random.default_rng(seed).integers(0, 4, 1500), trust=True)
            version = learner.commit()
            assert learner.version == first
            assert version.metrics["accepted"] is False
            assert version.metrics["reason"]
            assert learner.store.holds(version.id), "a person may still promote it"
            assert learner.commit() == version, "nothing was learned since"


def test_what_is_worse_beyond_doubt_is_forgotten():
    with learned(net=novice(n=2000), lr=20.0) as learner:
        assert not np.array_equal(learner.candidate.flat, learner.net.flat)
        version = learner.commit()
        assert version.metrics["upper"] < 0
        assert learner.version.id == version.parent
        assert kinds(learner) == ["kept", "reset"]
        assert np.array_equal(learner.candidate.flat, learner.net.flat)


def test_commits_that_are_refused_make_the_gate_stricter():
    with el.Learner(novice(n=2000)) as learner:
        bounds = []
        for part in range(3):
            learner.partial_fit(X[200 * part : 200 * part + 200], Y[200 * part : 200 * part + 200])
            bounds.append(learner.judge())
            learner.commit()
        wide = [(verdict.upper - verdict.lower) * verdict.samples**0.5 for verdict in bounds if not verdict.accepted]
        assert len(wide) == 3
        assert learner._policy.attempt == 4


def test_a_person_promotes_under_manual():
    with learned(gate=el.Gate(policy="manual")) as learner:
        first = learner.version
        version = learner.commit()
        assert version.metrics["accepted"]
        assert learner.version == first
        assert f"promote('{version.id[:12]}') has it serve" in learner.events[-1].message
        assert learner.promote(version.id[:12]) == learner.version == version
        assert learner.rollback() == learner.version == first


def test_in_shadow_it_must_show_it_once_more_on_samples_that_come_after():
    gate = el.Gate(policy="shadow", shadow=300)
    with learned(gate=gate) as learner:
        first, version = learner.version, learner.commit()
        assert kinds(learner)[-1] == "shadow"
        feed(learner, X[1500:1750], Y[1500:1750])
        assert learner.version == first
        feed(learner, X[1750:1850], Y[1750:1850])
        assert learner.version == version
    with learned(gate=gate) as learner:
        first = learner.version
        learner.commit()
        wrong = (learner._learning.trial._answer(X[1500:1900]) + 1) % 4
        feed(learner, X[1500:1900], wrong, trust=True)
        assert learner.version == first
        assert "does not serve after its time in shadow" in learner.events[-1].message


def test_a_new_class_is_learned_without_losing_the_others():
    x, y = blobs(4000, classes=5)
    old = y < 4
    net = novice(n=1500)
    with el.Learner(net) as learner:
        feed(learner, x[:1000][old[:1000]], y[:1000][old[:1000]])
        answers = learner.candidate.predict(XT)
        assert learner.add_class("doorbell") == 4
        assert learner.candidate.classes == ["0", "1", "2", "3", "doorbell"]
        names = np.array(learner.candidate.classes)
        assert np.mean(learner.candidate.predict(XT) == names[answers]) > 0.97, "it answers as before"
        feed(learner, x[1000:2500], names[y[1000:2500]])
        version = learner.commit()
        assert version.metrics["accepted"], version.metrics["reason"]
        xt, yt = blobs(2000, seed=5, classes=5)
        answers = np.array([p.label for p in learner.predict(xt)])
        assert np.mean(answers[yt == 4] == "doorbell") > 0.5
        assert np.mean(answers[yt < 4] == names[yt[yt < 4]]) > net.score(*blobs(2000, seed=1)) - 0.15
        with pytest.raises(
            el.ModelError, match="'doorbell' is no name for a class beside 0, 1, 2, 3, doorbell: give another text"
        ):
            learner.add_class("doorbell")


def test_a_class_without_a_name_is_an_index_where_there_are_no_names():
    with el.Learner(novice()) as learner:
        assert learner.add_class() == 4
        assert learner.candidate.classes is None
        assert learner.commit() != learner.version


def test_the_bytes_of_replay_are_a_bound():
    with learned(3000, replay="16KB") as learner:
        capacity = (16 << 10) // (20 * 2 + 8)
        assert learner.kept["replay"] == capacity
        assert learner._learning.memory.replay.bytes <= 16 << 10


def test_convolutions_and_images_channels_first_learn_too():
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (3, 2, 8, 8))
    y = np.arange(1200) % 3
    x = (0.4 * patterns[y] + 0.6 * rng.integers(0, 256, (1200, 2, 8, 8))).astype(np.uint8)
    layers = [el.Conv2D(6, 3), el.BatchNormalization(), el.Activation("relu"), el.MaxPool(2), el.Dense(3)]
    net = el.Net(layers, input=el.Input(shape=(2, 8, 8), layout="channels_first", scale=255.0))
    net.fit(x[:30], y[:30], epochs=1, batch=15)
    with el.Learner(net) as learner:
        before = net.score(x[1000:], y[1000:])
        feed(learner, x[:1000], y[:1000])
        assert learner.commit().metrics["accepted"]
        assert learner.net.score(x[1000:], y[1000:]) > before + 0.1
        assert isinstance(learner.predict(x[0]), el.Prediction)
        assert len(learner.predict(x[:2])) == 2


def test_nested_nets_stay_nested():
    net = el.Net([el.Dense(24, "relu"), el.Dense(4)], input_shape=(20,), nested=[0.5, 1.0])
    with el.Learner(net.fit(*blobs(60, seed=9), epochs=3, batch=16)) as learner:
        feed(learner, X[:1500], Y[:1500])
        assert learner.commit().metrics["accepted"]
        assert learner.net.submodel(width=0.5).score(XT, YT) > 0.4
        learner.add_class()
        assert learner.candidate.submodel(width=0.5).graph.outputs == 5

# SPDX-License-Identifier: Apache-2.0
"""A net that serves while a copy learns: what is learned, refused, promoted, undone, grown, kept and resumed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuts import Failing, Refusing
from streams import blobs, feed, flipped, novice

import edgelearn as el
from edgelearn.durable import DISK

X, Y = blobs(3000)
XT, YT = blobs(2000, seed=1)


def kinds(learner):
    return [event.kind for event in learner.events]


def learned(n=1500, net=None, **settings):
    learner = el.Learner(net or novice(), **settings)
    feed(learner, X[:n], Y[:n])
    return learner


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
        assert learner._attempt == 4


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
        with pytest.raises(el.ModelError, match="not among 0, 1, 2, 3, doorbell, not 'doorbell': name it"):
            learner.add_class("doorbell")


def test_a_new_class_stays_when_its_net_is_undone(tmp_path):
    x, y = blobs(3000, classes=5)
    with el.Learner(novice(n=1500), folder=tmp_path) as learner:
        learner.add_class()
        feed(learner, x[:1500], y[:1500])
        version = learner.commit()
        assert learner.version == version
        feed(learner, x[1500:1600], y[1500:1600])
        learner.checkpoint()
        assert learner.rollback().number == 1
        assert learner.net.graph.outputs == 4
        assert feed(learner, x[1600:1700], y[1600:1700])[0].learned, "samples of the class are still among the kept"
        learner._remove = lambda: None  # ends without a checkpoint
    with el.Learner(novice(), folder=tmp_path) as again:
        assert (again.net.graph.outputs, again.candidate.graph.outputs) == (4, 5)
        feed(again, x[1600:2600], y[1600:2600])
        assert again.commit() == again.version
        assert again.net.graph.outputs == 5


def test_a_commit_that_could_not_turn_the_pointer_is_done_by_the_next(tmp_path):
    learned(folder=tmp_path).close()
    disk = Failing()
    with el.Learner(novice(), folder=tmp_path, disk=disk) as learner:
        first, disk.at = learner.version, 12  # behind content and record, in the pointer
        with pytest.raises(el.OutputError):
            learner.commit()
        assert disk.fired
        assert learner.version == first
        assert len(learner.history()) == 2
        assert learner.commit() == learner.version == learner.history()[1]


def test_a_class_without_a_name_is_an_index_where_there_are_no_names():
    with el.Learner(novice()) as learner:
        assert learner.add_class() == 4
        assert learner.candidate.classes is None
        assert learner.commit() != learner.version


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


def test_a_folder_goes_on_where_it_was(tmp_path):
    with learned(folder=tmp_path) as learner:
        version, kept, samples = learner.commit(), learner.kept, learner.samples
    with el.Learner(novice(seed=7), folder=tmp_path) as again:
        assert again.version == version, "the folder's version serves, and not the net that was given"
        assert (again.kept, again.samples) == (kept, samples)
        assert "learning goes on after 1500 samples" in again.events[-1].message
        assert again.partial_fit(X[1500:1600], Y[1500:1600]).learned


SCRIPT = """
import os, signal, sys
import test_learner as here
from streams import feed
learner = here.el.Learner(here.novice(), folder=sys.argv[1])
feed(learner, here.X[:700], here.Y[:700])
learner.checkpoint()
feed(learner, here.X[700:900], here.Y[700:900])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_learning_goes_on_from_the_checkpoint_to_the_bit(tmp_path):
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    with el.Learner(novice(), folder=tmp_path / "whole") as whole:
        feed(whole, X[:700], Y[:700])
        whole.checkpoint()
        with el.Learner(novice(), folder=tmp_path / "killed") as resumed:
            assert resumed.samples == 700, "what came after the checkpoint is lost"
            for learner in (whole, resumed):
                feed(learner, X[700:1500], Y[700:1500])
            assert np.array_equal(whole.candidate.flat, resumed.candidate.flat)
            assert whole._learning.memory.to_json() == resumed._learning.memory.to_json()
            assert bytes(whole._learning.memory.replay.contents()) == bytes(resumed._learning.memory.replay.contents())
            assert whole.judge() == resumed.judge()
            assert whole.commit().id == resumed.commit().id


def test_a_shadow_goes_on_after_a_restart(tmp_path):
    gate = el.Gate(policy="shadow", shadow=300)
    with learned(gate=gate, folder=tmp_path) as learner:
        version = learner.commit()
        feed(learner, X[1500:1700], Y[1500:1700])
        assert learner.version != version
    with el.Learner(novice(), gate=gate, folder=tmp_path) as again:
        feed(again, X[1700:1850], Y[1700:1850])
        assert again.version == version


def spoil(folder, name):
    """Flip a bit in the middle of the newest file of a checkpoint."""
    manifest = json.loads(json.loads((folder / "learning" / "current.json").read_bytes())["table"])
    path = folder / "learning" / manifest["files"][name]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["candidate.safetensors", "average.bin", "state.bin", "replay.bin", "window.bin"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, name):
    with learned(300, folder=tmp_path) as learner:
        learner.checkpoint()
        feed(learner, X[300:600], Y[300:600])
    spoil(tmp_path, name)
    with el.Learner(novice(), folder=tmp_path) as again:
        assert again.samples == 300
        assert [event.kind for event in again.events] == ["damage", "resumed"]
        assert "is damaged: the snapshot before it is used" in again.events[0].message


def test_a_damaged_live_version_gives_way_to_the_one_before(tmp_path):
    with learned(folder=tmp_path) as learner:
        first, version = learner.version, learner.commit()
        assert learner.version == version
    path = tmp_path / "versions" / f"{version.id}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with el.Learner(novice(), folder=tmp_path) as again:
        assert again.version == first
        assert [event.kind for event in again.events] == ["damage", "damage", "resumed"]
        assert again.predict(X[0]).model_id == first.id
        assert again.kept["replay"] > 0
        assert "goes on from that one" in again.events[-1].message


def test_the_bytes_of_replay_are_a_bound():
    with learned(3000, replay="16KB") as learner:
        capacity = (16 << 10) // (20 * 2 + 8)
        assert learner.kept["replay"] == capacity
        assert learner._learning.memory.replay.bytes <= 16 << 10


def test_kept_samples_are_pages_of_the_file_after_a_checkpoint(tmp_path):
    with learned(1000, folder=tmp_path) as learner:
        learner.checkpoint()
        maps = Path("/proc/self/maps").read_text()
        assert "replay.bin" in maps
        assert "holdout.bin" in maps
        before = {path.name: path.read_bytes() for path in (tmp_path / "learning").iterdir()}
        feed(learner, X[1000:1500], Y[1000:1500])
        assert {path.name: path.read_bytes() for path in (tmp_path / "learning").iterdir()} == before


def test_a_folder_of_another_net_or_other_bounds_is_refused(tmp_path):
    learned(300, folder=tmp_path).close()
    with pytest.raises(el.ModelError, match="have capacity .* go on as before, or empty the folder"):
        el.Learner(novice(), folder=tmp_path, replay="1MB")
    shutil.rmtree(tmp_path / "versions")
    (tmp_path / "current.json").unlink()
    (tmp_path / "previous.json").unlink(missing_ok=True)
    with pytest.raises(el.ModelError, match="have features 20, not 6"):
        el.Learner(novice(features=6), folder=tmp_path)


REFUSED = [
    (lambda: el.Learner(el.Net([el.Dense(1)], 3, loss="mse")), el.UsageError, "use net.partial_fit"),
    (lambda: el.Learner(el.Net([el.Dense(3)], 3)), el.ModelError, "fit it first, or declare"),
    (lambda: el.Learner(novice(), rehearsals=0), el.UsageError, "rehearsals must be at least 1"),
    (lambda: el.Learner(novice(), replay="2 apples"), el.UsageError, "cannot be read"),
    (lambda: el.Learner(novice(), replay="20").partial_fit(X[:40], Y[:40]), el.BudgetError, "give replay more"),
    (lambda: el.Learner(novice(), lr=-1.0), el.UsageError, "rate"),
    (lambda: el.Learner(novice()).rollback(), el.UsageError, "no earlier version was live"),
    (lambda: el.Learner(novice()).promote("77"), el.UsageError, "take one of history"),
    (lambda: el.Learner(novice(), keep_bytes=100), el.BudgetError, "raise keep_bytes"),
]


@pytest.mark.parametrize(("act", "error", "words"), REFUSED)
def test_what_cannot_be_meant_is_refused(act, error, words):
    with pytest.raises(error, match=words):
        act()


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


def test_on_a_disk_that_takes_no_writes_it_answers_and_learns_and_commits_later(tmp_path):
    learned(300, folder=tmp_path).close()
    disk = Refusing()
    learner = el.Learner(novice(), folder=tmp_path, disk=disk)
    first = learner.version
    feed(learner, X[300:1500], Y[300:1500])
    for act in (learner.commit, learner.checkpoint):
        with pytest.raises(el.OutputError, match="Read-only file system"):
            act()
    assert learner.version == first == el.Learner(novice(), folder=tmp_path).version
    assert learner.predict(X[0]).model_id == first.id
    assert disk.done
    learner.store._objects.disk = learner._snapshots._disk = DISK
    assert learner.commit() == learner.version != first
    learner.close()


def test_what_is_no_model_never_serves(tmp_path):
    with learned(300, folder=tmp_path) as learner:
        first = learner.version
        junk = learner.store.commit(b"not a model")
        other = learner.store.commit(novice(features=7).to_bytes())
        for act in (learner.promote, learner.rollback):
            with pytest.raises(el.ModelError, match="not a model file"):
                act(junk.id)
            with pytest.raises(el.ModelError, match="is for other samples"):
                act(other.id)
        assert learner.version == first == learner.store.current()
        learner.store.activate(junk.id)  # another program did that
    with el.Learner(novice(), folder=tmp_path) as again:
        assert again.version == first == again.store.current()
        assert "version 2 cannot be loaded" in again.events[0].message

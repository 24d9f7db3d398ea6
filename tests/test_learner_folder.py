# SPDX-License-Identifier: Apache-2.0
"""A learner in a folder: it goes on where it was, through kills, damage and disks that take no writes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuts import Failing, Refusing
from streams import blobs, feed, learned, novice

import edgelearn as el
from edgelearn.durable import DISK

X, Y = blobs(3000)


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
import test_learner_folder as here
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

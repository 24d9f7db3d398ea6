# SPDX-License-Identifier: Apache-2.0
"""The power goes, the process is killed or the disk refuses at every operation of a learner's commit, checkpoint and
rollback. Afterwards the older or the newer version serves and learning goes on from the older or the newer state."""

import errno
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest
import reliability
from cuts import Failing, Killing, Losing, PowerCut
from streams import blobs, feed, novice

import edgelearn as el
from edgelearn.learning.snapshots import Snapshots

X, Y = blobs(1200)


def prepared(folder):
    """A learner's folder: one version, a checkpoint after 300 samples, then one after 800."""
    with el.Learner(novice(), folder=folder, replay="32KB") as learner:
        feed(learner, X[:300], Y[:300])
        learner.checkpoint()
        feed(learner, X[300:800], Y[300:800])
    return folder


def promoted(folder):
    """The same after a commit that the gate accepted."""
    with el.Learner(novice(), folder=prepared(folder), replay="32KB") as learner:
        learner.commit()
        assert learner.version.number == 2
    return folder


def checkpoint(learner):
    feed(learner, X[800:], Y[800:])
    learner.checkpoint()


# what is there, what is done, versions that may serve afterwards, and when it is done; likewise samples
WALKS = {
    "commit": (prepared, lambda learner: learner.commit(), ({1, 2}, 2), ({800}, 800)),
    "checkpoint": (prepared, checkpoint, ({1}, 1), ({800, 1200}, 1200)),
    "rollback": (promoted, lambda learner: learner.rollback(), ({2, 1}, 1), ({800}, 800)),
}


def play(name, folder, disk):
    """Do it once; whether it was acknowledged."""
    try:
        WALKS[name][1](el.Learner(novice(), folder=folder, replay="32KB", disk=disk))
    except (PowerCut, el.OutputError):
        return False
    return True


def check(name, folder, acknowledged):
    """What must hold after a restart."""
    _, _, (versions, version), (counts, count) = WALKS[name]
    again = el.Learner(novice(), folder=folder, replay="32KB")
    assert again.version.number in ({version} if acknowledged else versions)
    assert again.samples in ({count} if acknowledged else counts)
    assert [event.kind for event in again.events] == ["resumed"], "a cut is no damage"
    assert again.predict(X[0]).model_id == again.version.id
    assert again.kept["replay"] > 200
    assert again.partial_fit(X[:64], Y[:64]).loss is not None
    again.checkpoint()
    left = [path.name for path in folder.rglob(".edgelearn-*") if path.parent.name == "learning"]
    assert left == []


def every_cut(name, tmp_path, disk_at, step):
    """Play with the disk struck at each operation, or every few; how many there are."""
    WALKS[name][0](tmp_path / "as it was")
    whole = disk_at(None)
    shutil.copytree(tmp_path / "as it was", tmp_path / "whole")
    assert play(name, tmp_path / "whole", whole)
    with suppress(PowerCut, OSError):
        whole.strike()  # as soon as it is acknowledged
    check(name, tmp_path / "whole", acknowledged=True)
    for at in range(0, len(whole.done), step):
        folder, disk = tmp_path / f"{at}", disk_at(at)
        shutil.copytree(tmp_path / "as it was", folder)
        acknowledged = play(name, folder, disk)
        assert disk.fired, "the cut did not fire"
        check(name, folder, acknowledged)
    return len(whole.done)


HOW = {
    "power cut": Losing,
    "power cut, names survive": lambda at: Losing(at, names=False),
    "no space left": lambda at: Failing(at, errno.ENOSPC),
    "I/O error": lambda at: Failing(at, errno.EIO),
}


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize(("how", "step"), [("power cut", 3), ("no space left", 5)])
def test_cuts(name, how, step, tmp_path):
    assert every_cut(name, tmp_path, HOW[how], step) > 8


@pytest.mark.parametrize("how", HOW)
def test_a_cut_while_a_snapshot_is_forgotten_leaves_a_whole_one_or_none(how, tmp_path):
    whole = HOW[how](None)
    forgotten(tmp_path / "whole", whole).forget()
    assert Snapshots(tmp_path / "whole" / "s").load() is None
    for at in range(len(whole.done)):
        disk = HOW[how](at)
        with pytest.raises((PowerCut, el.OutputError)):
            forgotten(tmp_path / f"{at}", disk).forget()
        again = Snapshots(tmp_path / f"{at}" / "s")
        found = again.load()
        assert found is None or found[1]["a.bin"].read_bytes() == b"%d" % found[0]["number"]
        assert again.faults == [], "a cut is no damage"
        again.forget()
        assert again.load() is None
    assert len(whole.done) == 5


def forgotten(folder, disk):
    """Two snapshots, on a disk that is struck from now on."""
    folder.mkdir()
    for number in (1, 2):
        Snapshots(folder / "s").save({"number": number}, {"a.bin": b"%d" % number})
    return Snapshots(folder / "s", disk)


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("how", HOW)
def test_every_cut(name, how, tmp_path):
    reliability.struck(f"learner: {name}", how, every_cut(name, tmp_path, HOW[how], step=1))


KILLED = """
import sys, pathlib
import test_learner_cuts as here
print(here.play(sys.argv[1], pathlib.Path(sys.argv[2]), here.Killing(int(sys.argv[3]))))
"""


def every_kill(name, tmp_path, step):
    """A process that is killed with SIGKILL at each operation, or every few; how many there are."""
    WALKS[name][0](tmp_path / "as it was")
    whole = Killing()
    shutil.copytree(tmp_path / "as it was", tmp_path / "whole")
    assert play(name, tmp_path / "whole", whole)
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    for at in range(0, len(whole.done), step):
        folder = tmp_path / f"{at}"
        shutil.copytree(tmp_path / "as it was", folder)
        command = [sys.executable, "-c", KILLED, name, str(folder), str(at)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False)
        assert done.returncode == -9, f"the cut did not fire: {done.stdout!r} {done.stderr!r}"
        check(name, folder, acknowledged=False)
    return len(whole.done)


@pytest.mark.parametrize("name", WALKS)
def test_a_process_that_is_killed(name, tmp_path):
    assert every_kill(name, tmp_path, step=12) > 8


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKS)
def test_a_process_that_is_killed_at_every_operation(name, tmp_path):
    reliability.struck(f"learner: {name}", "kill -9", every_kill(name, tmp_path, step=1))

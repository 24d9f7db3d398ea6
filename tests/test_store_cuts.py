# SPDX-License-Identifier: Apache-2.0
"""The power goes, the process is killed or the disk refuses at every single operation of what a store does. Afterwards
the older or the newer version is live, what was acknowledged is there, and doing it again ends as if nothing was."""

import errno
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest
import reliability
from cuts import Failing, Killing, Losing, PowerCut

from edgelearn import errors
from edgelearn.store import Store
from edgelearn.store.versions import digest

OLD, NEW, MORE = (bytes([i]) * 3000 for i in range(3))
IDS = {"old": digest([OLD]), "new": digest([NEW]), "more": digest([MORE]), None: None}


def empty(folder):
    """Nothing, not even the folder."""


def one(folder):
    """The old version is live."""
    store = Store(folder)
    store.activate(store.commit(OLD).id)


def two(folder):
    """The old version is live, the new one is committed."""
    one(folder)
    Store(folder).commit(NEW)


def turned(folder):
    """The new version is live, the old one was."""
    two(folder)
    Store(folder).activate(IDS["new"])


def full(folder):
    """Five versions and what a cut commit left; the fourth and the fifth were live last."""
    store = Store(folder)
    for i in (7, 6, 2, 0, 1):
        store.activate(store.commit(bytes([i]) * 3000).id)
    for name in (".edgelearn-0123456789abcdef.json", f"{digest([b'cut'])}.safetensors"):
        (folder / "versions" / name).write_bytes(b"cut")


def damaged(folder):
    """The new version is live, and its file is damaged."""
    turned(folder)
    (folder / "versions" / f"{IDS['new']}.safetensors").write_bytes(NEW[:-1])


def learned(store):
    return store.activate(store.commit(NEW, parent=IDS["old"]).id)


# what is there, what is done to it, who may be live in between and is live at the end, whose content stays and is made
WALKS = {
    "first commit": (empty, lambda s: s.commit(OLD), [None], None, [], "old"),
    "first version": (empty, lambda s: s.activate(s.commit(OLD).id), [None, "old"], "old", [], "old"),
    "commit": (one, lambda s: s.commit(NEW), ["old"], "old", ["old"], "new"),
    "activate": (two, lambda s: s.activate(IDS["new"]), ["old", "new"], "new", ["old", "new"], "new"),
    "learned": (one, learned, ["old", "new"], "new", ["old"], "new"),
    "rollback": (turned, lambda s: s.rollback(IDS["old"]), ["new", "old"], "old", ["old", "new"], "old"),
    "collect": (full, lambda s: s.collect(), ["new"], "new", ["old", "new"], "new"),
    "quarantine": (damaged, lambda s: s.activate(s.commit(MORE).id), ["old", "more"], "more", ["old"], "more"),
}


def play(name, folder, disk):
    """Do it once; whether it was acknowledged."""
    _, act, *_ = WALKS[name]
    try:
        act(Store(folder, keep_bytes=7000 if name == "collect" else 1 << 20, disk=disk))
    except (PowerCut, errors.OutputError):
        return False
    return True


def prepared(name, folder):
    WALKS[name][0](folder)
    return folder


def check(name, folder, acknowledged):
    """What must hold after a restart, and when it is done again."""
    _, _, between, end, stays, made = WALKS[name]
    store = Store(folder, keep_bytes=7000 if name == "collect" else 1 << 20)
    version = store.current()
    found = version.id if version else None
    assert found in [IDS[who] for who in ([end] if acknowledged else between)]
    for who in [*stays, made] if acknowledged else stays:
        assert digest([store.read(IDS[who]).read_bytes()]) == IDS[who]
    assert name == "quarantine" or store.faults == [], "a cut is no damage"
    assert play(name, folder, Killing())
    after = Store(folder).current()
    assert (after.id if after else None) == IDS[end]
    Store(folder).collect()
    names = [path.name for place in (folder, folder / "versions") for path in place.iterdir()]
    assert not [name for name in names if name.startswith((".edgelearn", digest([b"cut"])))]


def every_cut(name, tmp_path, disk_at):
    """Play with the disk struck at operation 0, 1, ... until none is left; how many there were."""
    prepared(name, tmp_path / "as it was")
    for at in range(1000):
        folder, disk = tmp_path / f"{at}", disk_at(at)
        if (tmp_path / "as it was").exists():
            shutil.copytree(tmp_path / "as it was", folder)
        acknowledged = play(name, folder, disk)
        if not disk.fired:
            with suppress(PowerCut, OSError):
                disk.strike()  # as soon as it is acknowledged
            assert acknowledged
        check(name, folder, acknowledged)
        if not disk.fired:
            return at
    raise AssertionError("it never ends")


HOW = {
    "power cut": Losing,
    "power cut, names survive": lambda at: Losing(at, names=False),
    "no space left": lambda at: Failing(at, errno.ENOSPC),
    "I/O error": lambda at: Failing(at, errno.EIO),
}


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("how", ["power cut", "no space left"])
def test_a_cut_at_every_operation(name, how, tmp_path):
    whole = HOW[how](None)
    play(name, prepared(name, tmp_path / "whole"), whole)
    assert every_cut(name, tmp_path, HOW[how]) == len(whole.done) > 2


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("how", HOW)
def test_every_cut(name, how, tmp_path):
    reliability.struck(f"store: {name}", how, every_cut(name, tmp_path, HOW[how]))


KILLED = """
import sys, pathlib
import test_store_cuts as here
print(here.play(sys.argv[1], pathlib.Path(sys.argv[2]), here.Killing(int(sys.argv[3]))))
"""


def killed(name, folder, at):
    """Whether a process that plays was killed at an operation."""
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    command = [sys.executable, "-c", KILLED, name, str(folder), str(at)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == -9 or done.stdout == "True\n", done.stderr
    return done.returncode == -9


@pytest.mark.parametrize("name", WALKS)
def test_a_process_that_is_killed(name, tmp_path):
    every_kill(name, tmp_path, step=6)


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKS)
def test_a_process_that_is_killed_at_every_operation(name, tmp_path):
    reliability.struck(f"store: {name}", "kill -9", every_kill(name, tmp_path, step=1))


def every_kill(name, tmp_path, step):
    """kill -9 at every operation, or every few; how many there are."""
    whole = Killing()
    play(name, prepared(name, tmp_path / "whole"), whole)
    for at in range(0, len(whole.done), step):
        folder = prepared(name, tmp_path / f"{at}")
        assert killed(name, folder, at), "the cut did not fire"
        check(name, folder, acknowledged=False)
    assert not killed(name, prepared(name, tmp_path / "after"), len(whole.done))
    return len(whole.done)

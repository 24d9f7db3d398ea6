# SPDX-License-Identifier: Apache-2.0
"""A board without a line whose power goes, whose process is killed or whose disk refuses at any operation."""

import errno
import os
import random
import shutil
import subprocess
import sys
import textwrap

import pytest
import reliability
from cuts import Cutting, Failing, Losing, PowerCut
from flashing import Direct, digest, model

from edgelearn.flash.smp import El
from edgelearn.flash.trials import TRIES
from edgelearn.store.versions import unseal

OLD, NEW, THIRD = model(2500, 1), model(2600, 2), model(2400, 3)


def written(folder):
    """The old model runs, the new one is in the other slot."""
    board = Direct(folder)
    board.install(OLD)
    board.write(NEW, version=2)


def pending(folder):
    """The new model is to be tried."""
    written(folder)
    Direct(folder).about(El.ACTIVATE, NEW)


def tried(folder):
    """The new model is on trial."""
    pending(folder)
    Direct(folder)


def confirmed(folder):
    """The new model runs, the old one is in the other slot."""
    tried(folder)
    Direct(folder).confirm(NEW)


def begun(folder):
    """The old model runs."""
    Direct(folder).install(OLD)


def exhausted(folder):
    """The trial has no starts left."""
    pending(folder)
    for _ in range(TRIES):
        Direct(folder)


WALKS = {
    "write": (begun, lambda d: d.write(NEW, version=2), {"old"}, "old"),
    "activate": (written, lambda d: d.about(El.ACTIVATE, NEW), {"old", "new"}, "new"),
    "trial": (pending, lambda d: None, {"old", "new"}, "new"),
    "confirm": (tried, lambda d: d.confirm(NEW), {"new"}, "new"),
    "rollback of a trial": (tried, lambda d: d.about(El.ROLLBACK, NEW), {"old", "new"}, "old"),
    "rollback": (confirmed, lambda d: d.about(El.ROLLBACK, NEW), {"old", "new"}, "old"),
    "end of a trial": (exhausted, lambda d: None, {"old"}, "old"),
}
CONTENT = {"old": OLD, "new": NEW}


def play(name, folder, disk):
    """Start a board and do it; whether it came to its end."""
    _, act, _, _ = WALKS[name]
    try:
        answer = act(Direct(folder, disk=disk))
    except PowerCut:
        return False
    return answer is None or "err" not in answer


def operations(name, folder):
    """How many operations of a disk it takes."""
    WALKS[name][0](folder)
    disk = Cutting()
    assert play(name, folder, disk)
    shutil.rmtree(folder)
    return len(disk.done)


def durable(folder):
    """How many bytes of the new model survived, as the disk says it; None if no transfer of it is there."""
    about = folder / "incoming" / f"{digest(NEW)}.json"
    return unseal(about.read_bytes())["durable"] if about.exists() else None


def settled(name, folder):
    """After the cut: what runs, then the same again to its end, then what runs."""
    _, act, between, end = WALKS[name]
    kept = durable(folder)
    board = Direct(folder)
    assert board.live() in [CONTENT[name] for name in between]
    answer = act(board)
    if name == "write" and "began" in answer:
        assert answer["began"] == (kept or 0)
    board = Direct(folder)
    assert board.live() == CONTENT[end]
    assert board.board.slots._live("model") == digest(CONTENT[end])
    assert name != "write" or board.board.slots.path("model", digest(NEW)).read_bytes() == NEW


def cut_everywhere(name, folder, disk_of):
    """Strike each operation once, in a run of its own; how many there were."""
    count = operations(name, folder)
    for at in range(count):
        WALKS[name][0](folder)
        disk = disk_of(at)
        play(name, folder, disk)
        assert disk.fired
        settled(name, folder)
        shutil.rmtree(folder)
    return count


HOW = {
    "power cut": lambda at: Losing(at, names=True),
    "power cut, names survive": lambda at: Losing(at, names=False),
    "no space left": lambda at: Failing(at, errno.ENOSPC),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", WALKS)
def test_a_cut_at_every_operation(quick_path, name, how):
    """Where the disk refuses, the process lives on, says so, and does it when the disk is well again."""
    assert cut_everywhere(name, quick_path / "board", HOW[how]) > 3


def cut_twice(name, folder, count, rng):
    """The power goes, and again while the board comes up or does the same again; whether it went twice."""
    WALKS[name][0](folder)
    first, second = (Losing(rng.randrange(count), rng.random() < 0.5) for _ in range(2))
    assert not play(name, folder, first)
    play(name, folder, second)
    assert first.fired
    for _ in range(TRIES + 1):  # a trial that was not confirmed in time has ended by then
        board = Direct(folder)
        assert board.live() in (OLD, NEW)
    board.install(THIRD, version=3)
    assert board.live() == THIRD
    shutil.rmtree(folder)
    return second.fired


@pytest.mark.parametrize("name", WALKS)
def test_two_cuts_in_a_row(quick_path, name):
    folder, rng = quick_path / "board", random.Random(name)
    count = operations(name, folder)
    assert sum(cut_twice(name, folder, count, rng) for _ in range(8)) > 0


CHILD = """
import sys
sys.path[:0] = [{tests!r}]
from test_flash_cuts import WALKS, play
from cuts import Killing
from pathlib import Path
play({name!r}, Path({folder!r}), Killing({at}))
"""


def killed_at(name, folder, at):
    """Do it in a process of its own that dies of SIGKILL at one operation."""
    tests = os.path.dirname(os.path.abspath(__file__))
    code = textwrap.dedent(CHILD).format(tests=tests, name=name, folder=str(folder), at=at)
    WALKS[name][0](folder)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    settled(name, folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["trial", "end of a trial"])
def test_kill_of_a_real_process(quick_path, name):
    """Of what a start does by itself; test_flash_killed.py kills boards that hosts talk to."""
    folder = quick_path / "board"
    killed_at(name, folder, random.Random(name).randrange(operations(name, folder)))


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKS)
def test_kill_of_a_real_process_at_every_operation(quick_path, name):
    folder = quick_path / "board"
    count = operations(name, folder)
    for at in range(count):
        killed_at(name, folder, at)
    reliability.struck(f"board: {name}", "kill -9", count)


@pytest.mark.soak
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", WALKS)
def test_cuts_for_the_page(tmp_path, name, how):
    """As above, on a real disk."""
    reliability.struck(f"board: {name}", how, cut_everywhere(name, tmp_path / "board", HOW[how]))


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKS)
def test_many_times_two_cuts_in_a_row(quick_path, name):
    folder, rng = quick_path / "board", random.Random(name)
    count = operations(name, folder)
    twice = sum(cut_twice(name, folder, count, rng) for _ in range(200))
    columns = ["what", "operations", "runs", "cut twice"]
    about = (
        "The power goes at a random operation, and again at one while the board comes up or does the same again. "
        "Afterwards the older or the newer model runs, over four starts, and a third is written, tried and confirmed."
    )
    reliability.record("Two power cuts in a row", about, columns, [[name, count, 200, twice]])

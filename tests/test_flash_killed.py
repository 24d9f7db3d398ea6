# SPDX-License-Identifier: Apache-2.0
"""Real processes that die of a real SIGKILL with a line between them: the board at every operation of its disk, the
host at every frame that it sends. Afterwards the older or the newer model runs, and the same command goes on."""

import json
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import reliability
from elflash_commands import CLEAN, ELFLASH, ok
from flashing import Direct, digest, model, remote, virtual, write

from edgelearn.errors import FlashError, NothingToDoError
from edgelearn.flash.board import Identity
from edgelearn.flash.link import open_link
from edgelearn.flash.smp import El
from edgelearn.store import Store
from edgelearn.store.versions import unseal

FAST = 921_600
OLD, NEW = model(3000, 1), model(1_300_000, 2)
CONTENT = {digest(OLD): OLD, digest(NEW): NEW}


class GoneError(Exception):
    """The board's process has ended: nobody comes back on this line."""


# ---- the board -------------------------------------------------------------------------------------------------------


@contextmanager
def served(folder, *words):
    """`elflash serve-virtual` in a process of its own, without asking for signatures."""
    command = [*ELFLASH, "serve-virtual", "--link", "board", "--unpaced", "--unsigned", "--data-dir", "disk", *words]
    command += ["--baud", str(FAST)]
    process = subprocess.Popen(command, cwd=folder, env=CLEAN, stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()  # nothing if it was killed while it came up
        assert "virtual board is on" in said or process.wait() == -9
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def host_of(folder, process):
    """The host's side, which gives up when the board's process has ended."""

    def connect():
        if process.poll() is not None:
            raise GoneError
        return open_link(name, FAST)

    name = str(folder / "board")
    return remote(SimpleNamespace(wire=SimpleNamespace(name=name)), FAST, patience=0, connect=connect)


def written(disk):
    """The old model runs, the new one is in the other slot."""
    board = Direct(disk)
    board.install(OLD)
    board.write(NEW, version=2, chunk=32_000)


def tried(disk):
    """The new model is on trial."""
    written(disk)
    Direct(disk).about(El.ACTIVATE, NEW)
    Direct(disk)


def confirmed(disk):
    """The new model runs, the old one is in the other slot."""
    tried(disk)
    Direct(disk).confirm(NEW)


def activate(host):
    """Mark it, and start with it."""
    if host.activate("model", digest(NEW)):
        host.reset()


def rollback(host):
    """Mark it, and start without."""
    if host.rollback("model", digest(NEW), "asked for"):
        host.reset()


# what there is, what the host does, what may run after the kill, what runs when it is done again, and the operations of
# the disk that it takes at least
WALKS = {
    "write": (lambda d: Direct(d).install(OLD), lambda h: write(h, NEW, version=2), {"old"}, "old", 110),
    "activate": (written, activate, {"old", "new"}, "new", 20),
    "confirm": (tried, lambda h: h.confirm("model", digest(NEW)), {"new"}, "new", 5),
    "rollback": (confirmed, rollback, {"old", "new"}, "old", 15),
}
NAMES = {"old": digest(OLD), "new": digest(NEW)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A function from a walk to a fresh folder whose `disk` is what there is before it."""
    known = {}

    def make(name):
        if name not in known:
            known[name] = tmp_path_factory.mktemp("prepared") / "disk"
            WALKS[name][0](known[name])
        folder = tmp_path_factory.mktemp("board")
        shutil.copytree(known[name], folder / "disk")
        return folder

    return make


def running(host):
    """The hash of what answers."""
    state = host.state("model")
    return state["slots"][state["running"]]["sha256"].hex()


def content(folder, sha256):
    """The bytes on the board's disk under that hash."""
    return Store(folder / "disk" / "model", suffix=".bin").read(sha256).read_bytes()


def durable(folder):
    """How many bytes of the new model survived, as the disk says it."""
    about = folder / "disk" / "incoming" / f"{digest(NEW)}.json"
    return unseal(about.read_bytes())["durable"] if about.exists() else 0


def survives(folder, act, at):
    """Do it with a board that dies at operation `at` of its disk; whether it lived to the end."""
    with served(folder, "--faults", f"kill@{at}") as process:
        try:
            with host_of(folder, process) as host:
                act(host)
        except (FlashError, GoneError):
            assert process.wait(10) == -9
            return False
        return process.poll() is None


def killed_board(name, folder, at):
    """Kill, start again, look, do it again, look; False if the kill came too late to strike."""
    _, act, between, end, _ = WALKS[name]
    if survives(folder, act, at):
        return False
    kept = durable(folder)
    with served(folder) as process, host_of(folder, process) as host:
        now = running(host)
        assert now in {NAMES[which] for which in between}
        assert content(folder, now) == CONTENT[now]
        done = act(host)
        if name == "write":
            assert done.state == "present" or done.resumed_at == kept
        assert running(host) == NAMES[end]
    assert content(folder, digest(NEW)) == NEW
    assert content(folder, digest(OLD)) == OLD
    return True


@pytest.mark.parametrize(("name", "count"), [("write", 2), ("activate", 1), ("confirm", 1), ("rollback", 1)])
def test_a_board_that_is_killed(prepared, name, count):
    for at in random.Random(name).sample(range(1, WALKS[name][-1] + 1), count):
        assert killed_board(name, prepared(name), at), at


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKS)
def test_a_board_that_is_killed_at_every_operation(prepared, name):
    at = 1
    while killed_board(name, prepared(name), at):
        at += 1
    assert at > WALKS[name][-1]
    reliability.struck(f"board on a line: {name}", "kill -9", at - 1)


def test_a_write_outlives_the_board_and_goes_on_with_the_next_one(prepared):
    """One `elflash write`: the board dies under it, is started again, and has durable bytes of the first life."""
    folder = prepared("write")
    (folder / "new.bin").write_bytes(NEW)
    words = ["-p", "board", "--reconnect", "30", "--json", "write", "new.bin", "--unsigned", "--compress", "none"]
    with served(folder, "--faults", "kill@90") as first:
        host = subprocess.Popen(
            [*ELFLASH, "-b", str(FAST), *words, "--version", "2"],
            cwd=folder,
            env=CLEAN,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert first.wait(30) == -9
    kept = durable(folder)
    with served(folder):
        said = host.communicate(timeout=60)[0]
    assert host.returncode == 0
    assert json.loads(said.splitlines()[-1])["written"][0]["state"] == "written"
    assert kept >= 1 << 20
    assert content(folder, digest(NEW)) == NEW


# ---- the host --------------------------------------------------------------------------------------------------------

HOST = """
import os, sys
from edgelearn.cli.elflash import main
from edgelearn.flash.link import SerialLink
real, seen = SerialLink.write, []
def write(self, data):
    seen.append(data)
    if len(seen) == {at}:
        real(self, data[: len(data) // 2])
        os.kill(os.getpid(), 9)
    real(self, data)
SerialLink.write = write
sys.exit(main(sys.argv[1:]))
"""


def arrived(board, data):
    """How many bytes the board has once it has worked off what the dead host sent."""
    with remote(board) as host:
        try:
            return host.read(El.HAVE, {"sid": bytes.fromhex(digest(data))[:8]})["off"]
        except NothingToDoError:
            return 0


def killed_host(folder, data, at):
    """`elflash write --activate` dies when half of its frame `at` is on the line; the next one goes on. False if there
    are not so many frames."""
    with virtual(folder / "disk", identity=Identity(baud_max=230_400)) as board:
        (folder / "new.bin").write_bytes(data)
        words = ["-p", board.wire.name, "--json", "write", "new.bin", "--unsigned", "--compress", "none", "--activate"]
        command = [sys.executable, "-c", HOST.format(at=at), *words]
        died = subprocess.run(command, cwd=folder, env=CLEAN, capture_output=True, text=True, check=False)
        if died.returncode == 0:
            return False
        assert died.returncode == -9, died.stderr
        began = arrived(board, data)
        (done,) = json.loads(ok(*words, cwd=folder).stdout.splitlines()[-1])["written"]
        assert done["state"] == "present" or done["resumed_at"] == began
        (slot,) = json.loads(ok("-p", board.wire.name, "slots", "--json", cwd=folder).stdout)["slots"]
        assert (slot["sha256"], slot["confirmed"], slot["running"]) == (digest(data), True, True)
    assert content(folder, digest(data)) == data
    return True


SMALL, LARGE, AT_LEAST = model(40_000, 3), model(120_000, 4), 20


def test_a_host_that_is_killed(tmp_path_factory):
    for at in random.Random("host").sample(range(1, AT_LEAST + 1), 2):
        assert killed_host(tmp_path_factory.mktemp("host"), SMALL, at), at


@pytest.mark.soak
@pytest.mark.parametrize(("name", "data"), [("small", SMALL), ("large enough for a higher rate", LARGE)])
def test_a_host_that_is_killed_at_every_frame(tmp_path_factory, name, data):
    at = 1
    while killed_host(tmp_path_factory.mktemp("host"), data, at):
        at += 1
    assert at > AT_LEAST
    columns = ["file", "frames sent by `elflash write --activate`", "kills that fired"]
    about = (
        "`elflash write --activate` gets a SIGKILL when half of each frame is on the line, once for each frame that it "
        "sends. The same command then goes on at the byte that the board has, and ends with the model confirmed and "
        "its bytes identical."
    )
    reliability.record("A host killed at every frame", about, columns, [[name, at - 1, at - 1]])

# SPDX-License-Identifier: Apache-2.0
"""Cuts and faults of the whole daemon: killed at every file operation of a promotion, a disk that is full or read-only,
a clock in 1970, a damaged checkpoint."""

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import forked
import numpy as np
import pytest
import reliability
from daemons import CLASSES, beginner, daemon, model, pictures, started, until

import edgelearn as el

X, Y = pictures(300, seed=31)

TRAIN = """
[train]
policy = "auto"
checkpoint_seconds = 0.1
[govern]
priority = "normal"
"""

OPERATIONS = ("rename", "fsync", "fdatasync", "unlink", "pwrite64", "write", "openat")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A data folder with a live version and one to promote; their ids."""
    folder = tmp_path_factory.mktemp("two")
    with daemon(folder / "data", "--model", model(folder / "a.safetensors", seed=1), tcp=False) as running:
        second = running.client.push(model(folder / "b.safetensors", seed=2))
        ids = [running.client.history()[0].id, second.id]
        running.client.promote(second.id)  # both are proved, so that the cuts fall into the change alone
        running.client.rollback()
    return folder / "data", ids


def cut(two, folder, call, number, start):
    """Promote with a kill at the n-th call of a kind from then on; whether it fired, and what serves afterwards."""
    source, ids = two
    shutil.copytree(source, folder)
    (folder / "api.sock").unlink(missing_ok=True)
    with (
        daemon(folder, tcp=False, start=start) as running,
        traced(running, f"inject={call}:signal=SIGKILL:when={number}"),
    ):
        try:
            running.client.promote(ids[1])
            fired = False
        except el.DaemonError:
            fired = True
            running.process.wait(120)
    with daemon(folder, tcp=False, start=start) as running:
        live = running.client.predict(X[0]).model_id
        assert live in ids, "neither serves"
        assert fired or live == ids[1]
        assert len(running.client.history()) == 2
    shutil.rmtree(folder)
    return fired, live == ids[1]


@contextmanager
def traced(running, what):
    """System calls of a daemon answered otherwise for a while."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(running.process.pid), "-e", what]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: attached(running.process.pid))
        yield
    finally:
        tracer.terminate()
        tracer.wait(120)


def attached(pid):
    """With all threads, of which any may be the one that writes."""
    said = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return not any("TracerPid:\t0\n" in text for text in said)


def sweep(two, folder, calls, most, start=started):
    """All cuts of a promotion: for each kind of call 1, 2, ... until none fires any more."""
    rows = []
    for call in calls:
        after = []
        for number in range(1, most + 1):
            fired, is_new = cut(two, folder / f"{call}-{number}", call, number, start)
            if not fired:
                break
            after.append(is_new)
        rows.append([call, len(after), after.count(False), after.count(True), 0])
    return rows


needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@needs_strace
def test_a_promotion_that_is_killed_leaves_one_of_the_two(two, tmp_path):
    rows = sweep(two, tmp_path, ("rename",), 2)
    assert rows[0][1] == 2, "both cuts fired"


@needs_strace
@pytest.mark.soak
def test_a_promotion_that_is_killed_at_any_operation_leaves_one_of_the_two(two, quick_path):
    rows = sweep(two, quick_path, OPERATIONS, 60, start=forked.daemon)
    about = "A real kill -9 of the daemon, by strace, at each system call of a kind while it promotes a version."
    columns = ["call", "cuts that fired", "older serves", "newer serves", "neither"]
    reliability.record("The daemon killed at every operation of a promotion", about, columns, rows)
    assert all(row[1] > 0 for row in rows if row[0] in ("rename", "fsync"))


@pytest.fixture
def small(tmp_path):
    """A file system of four megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def flood(running):
    """More samples than there is space for."""
    for _ in range(50):
        running.client.partial_fit(X, Y)


def stuff(path):
    """Write until nothing goes in any more."""
    with path.open("ab", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def test_a_full_disk_refuses_samples_and_serves_on_until_there_is_space(small, tmp_path):
    config = '[keep]\nfloor = 0\nversions = "1MB"\n'
    with daemon(small, "--model", beginner(tmp_path / "m.safetensors"), config=config, tcp=False) as running:
        running.client.partial_fit(X, Y)
        fill = small / "fill"
        fill.write_bytes(b"")
        with pytest.raises(OSError, match="No space"):
            stuff(fill)
        with pytest.raises(el.OutputError, match="free space on the disk"):
            flood(running)
        kept = sum(running.client.samples()["counts"].values())
        assert running.client.predict(X[0]).label in CLASSES
        with pytest.raises(el.OutputError):
            running.client.push(model(tmp_path / "other.safetensors", seed=3))
        fill.unlink()
        running.client.partial_fit(X[:5], Y[:5])
        assert sum(running.client.samples()["counts"].values()) == kept + 5


@needs_strace
def test_a_disk_that_became_read_only_refuses_samples_and_serves_on(tmp_path):
    """Every write is answered EROFS, as after a remount for errors of a card."""
    with daemon(tmp_path / "data", "--model", beginner(tmp_path / "m.safetensors"), tcp=False) as running:
        running.client.partial_fit(X[:10], Y[:10])
        with traced(running, "inject=pwrite64,ftruncate,fdatasync,fsync,rename:error=EROFS"):
            with pytest.raises(el.OutputError):
                running.client.partial_fit(X[:10], Y[:10])
            with pytest.raises(el.OutputError):
                running.client.push(model(tmp_path / "other.safetensors", seed=3))
            assert running.client.predict(X[0]).label in CLASSES
        running.client.partial_fit(X[:10], Y[:10])
        assert sum(running.client.samples()["counts"].values()) == 20
        assert len(running.client.history()) == 1


def test_a_clock_in_1970_is_told_and_changes_nothing(tmp_path):
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(
        "import time\nstart = time.time()\nreal = time.time\ntime.time = lambda: real() - start\n"
    )
    with daemon(
        tmp_path / "data",
        "--model",
        beginner(tmp_path / "m.safetensors"),
        config=TRAIN,
        tcp=False,
        environment={"PYTHONPATH": str(trap)},
    ) as running:
        assert "the clock of this board is not set" in running.said()
        running.client.partial_fit(X, Y)
        version = running.client.commit()
        assert version.created < 86400
        assert running.client.predict(X[0]).model_id == version.id
        assert [v.number for v in running.client.history()] == [1, 2]


@pytest.mark.parametrize("part", ["largest", "smallest"])
def test_a_damaged_checkpoint_costs_what_was_learned_since_and_nothing_else(tmp_path, part):
    with daemon(tmp_path, "--model", beginner(tmp_path / "m.safetensors"), config=TRAIN, tcp=False) as running:
        running.client.partial_fit(X, Y)
        first = running.client.commit()
    files = sorted(
        (p for p in (tmp_path / "models" / "learning").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    assert files
    victim = files[-1 if part == "largest" else 0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(content)
    with daemon(tmp_path, config=TRAIN, tcp=False) as running:
        assert running.client.predict(X[0]).model_id == first.id
        rng = np.random.default_rng(0)
        x, y = pictures(600, seed=33)
        order = rng.permutation(600)
        running.client.partial_fit(x[order], y[order])
        job = running.client.train()["id"]
        until(lambda: running.client.job(job)["state"] in ("live", "refused"))
        assert running.client.job(job)["samples"] >= 600
        assert running.client.predict(X[0]).label in CLASSES

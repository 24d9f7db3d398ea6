# SPDX-License-Identifier: Apache-2.0
"""The daemon and its trainer, cut at the operations on the disk of a push, a promotion, a rollback, a collection, and
of a job with its checkpoints and its commit. Afterwards the older or the newer version serves, samples that were
acknowledged are there, and the same done again ends as if nothing had been.

Samples of the cuts start each process anew; sweeps of all cuts fork them, in memory, where most of a cut would be
imports and syncs: what a power cut loses, `cuts.Losing` takes away itself."""

import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import forked
import pytest
import reliability
from daemons import CLASSES, SHAPE, beginner, daemon, model, pictures, started, until
from striking import DAEMON, HOW, TRAINER, Trap

import edgelearn as el
from edgelearn.daemon.task import INTERRUPTED, Task
from edgelearn.store import Store
from edgelearn.store.locking import Lock

X, Y = pictures(300, seed=31)
LIVES = ("no space left", "I/O error")
"""Ways in which the process that is struck lives on."""


@dataclass
class Base:
    """A data folder as it is before the cut, with ids and files of versions for it."""

    folder: object
    files: list
    ids: list

    def copy(self, folder):
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("api.sock", "log"))
        return folder


def based(folder, files, count):
    """A folder whose first version is live, `count` are there, with 20 samples."""
    base = Base(folder / "data", files, [])
    with daemon(base.folder, "--model", files[0], tcp=False) as running:
        base.ids = [running.client.history()[0].id, *(running.client.push(file).id for file in files[1:count])]
        running.client.partial_fit(X[:20])
    return base


def small(folder):
    return based(folder, [model(folder / f"{seed}.safetensors", seed=seed) for seed in range(3)], 2)


def ready(folder):
    """Two versions, the first one live; both are proved, so that cuts fall into the change alone."""
    base = small(folder)
    with daemon(base.folder, tcp=False) as running:
        running.client.promote(base.ids[1])
        running.client.rollback()
    return base


def turned(folder):
    """The second version is live, the first one was."""
    base = small(folder)
    with daemon(base.folder, tcp=False) as running:
        running.client.promote(base.ids[1])
    return base


def large(path, seed):
    """A model of which two are more than 64 KB."""
    el.Net([el.Dense(700, "relu"), el.Dense(3)], input=el.Input(shape=SHAPE, scale=255), seed=seed).save(path)
    return path


def full(folder):
    """Three versions, and no room for two of them and one more."""
    base = based(folder, [large(folder / f"{seed}.safetensors", seed) for seed in range(4)], 3)
    (base.folder / "config.toml").write_text('[keep]\nversions = "64KB"\n')
    return base


# what is there, what is done, which versions may serve in between and which one at the end, what states all have then
WALKS = {
    "push": (small, lambda client, base: client.push(base.files[2]), (0,), 0, ["live", "kept", "kept"]),
    "promotion": (ready, lambda client, base: client.promote(base.ids[1]), (0, 1), 1, ["kept", "live"]),
    "rollback": (turned, lambda client, base: client.rollback(base.ids[0]), (1, 0), 0, ["live", "kept"]),
    "collection": (
        *(full, lambda client, base: client.push(base.files[3]), (0,), 0),
        ["live", "collected", "collected", "kept"],
    ),
}


def play(name, base, folder, how, at, start=started):
    """Do it in a daemon that is struck, then see what a daemon after that has; the operations, and whether it fired."""
    _, act, between, end, states = WALKS[name]
    trap = Trap(folder / "trap", DAEMON, how, at)
    acknowledged = struck(trap, base, folder, lambda client: act(client, base), [base.ids[i] for i in between], start)
    with daemon(folder / "data", tcp=False, start=start) as running:
        live = running.client.predict(X[0]).model_id
        assert live in [base.ids[i] for i in ((end,) if acknowledged else between)]
        assert len(running.client.history()) in ({len(states)} if acknowledged else {len(base.ids), len(states)})
        assert sum(running.client.samples()["counts"].values()) == 25
        act(running.client, base)
        assert running.client.predict(X[0]).model_id == base.ids[end]
        assert [version["state"] for version in running.client.versions()][::-1] == states
        assert "quarantine" not in running.said(), "a cut is no damage"
    return trap


def struck(trap, base, folder, act, serving, start):
    """Whether it was acknowledged."""
    with daemon(base.copy(folder / "data"), tcp=False, environment=trap.lay(), start=start) as running:
        running.client.partial_fit(X[:5])
        trap.arm()
        with suppress(el.DaemonError, el.OutputError):
            act(running.client)
            running.kill()  # as soon as it is acknowledged
            return True
        if trap.how in LIVES:
            assert running.client.predict(X[0]).model_id in serving, "it serves on"
        else:
            assert running.process.wait(120) == -9
    return False


def sweep(play, folder):
    """Cuts at operations 0, 1, ... until none is left; how many there were."""
    count = len(play(folder / "whole", None).operations)
    for at in range(10**6):
        trap = play(folder / f"{at}", at)
        if not trap.fired:
            assert at >= count > 8, "the cut did not fire"
            return at
        shutil.rmtree(folder / f"{at}")
    raise AssertionError("it never ends")


def sample(play, folder, most):
    """A cut at one of the first operations, by a fixed seed."""
    assert play(folder / "one", random.Random(most).randrange(most)).fired, "the cut did not fire"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A function from how one is built to the base, which is built once."""
    built = {}

    def get(build):
        if build not in built:
            built[build] = build(tmp_path_factory.mktemp(build.__name__))
        return built[build]

    return get


@pytest.mark.parametrize(
    ("name", "how"),
    [("push", "I/O error"), ("promotion", "power cut"), ("rollback", "kill -9"), ("collection", "kill -9")],
)
def test_cuts_of_the_daemon(bases, tmp_path, name, how):
    base = bases(WALKS[name][0])
    sample(lambda folder, at: play(name, base, folder, how, at), tmp_path, most=9)


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("how", HOW)
def test_every_cut_of_the_daemon(bases, quick_path, name, how):
    base = bases(WALKS[name][0])
    count = sweep(lambda folder, at: play(name, base, folder, how, at, start=forked.daemon), quick_path)
    reliability.struck(f"daemon: {name}", how, count)


CONFIG = """
[train]
policy = "auto"
checkpoint_seconds = 0.0
min_samples = 40
[govern]
priority = "normal"
"""


def taught(folder):
    """A beginner is live, 270 samples have labels, of which 14 are no whole portion, and what a job makes of them is
    known."""
    base = Base(folder / "data", [beginner(folder / "m.safetensors")], [])
    with daemon(base.folder, "--model", base.files[0], config=CONFIG, tcp=False) as running:
        running.client.partial_fit(X[:270], Y[:270])
        base.ids = [running.client.history()[0].id]
    with daemon(base.copy(folder / "calm"), tcp=False) as running:
        base.ids.append(running.client.commit().id)
    return base


def ended(client, job):
    return until(lambda: (found := client.job(job))["state"] in ("live", "refused", "failed") and found, 600)


def learn(base, folder, how, at):
    """A job in a daemon whose trainer, or all of it, is struck; in the end it has made the version that it would have
    made, to the bit."""
    trap = Trap(folder / "trap", TRAINER, how, at)
    with daemon(base.copy(folder / "data"), tcp=False, environment=trap.lay()) as running:
        trap.arm()
        job = running.client.train()["id"]
        if how.startswith("power cut") and at is not None:
            until(lambda: running.process.poll() is not None or running.client.job(job)["state"] == "live", 600)
        else:
            learned(running.client, base, ended(running.client, job), trap)
    if trap.fired and how.startswith("power cut"):
        with daemon(folder / "data", tcp=False) as running:
            known = running.client.ask("GET", "/v1/jobs")["jobs"]
            assert running.client.predict(X[0]).model_id in base.ids
            learned(running.client, base, ended(running.client, known[0]["id"]), trap)
    return trap


def learned(client, base, job, trap):
    """A job that a disk refused has failed and says so; the next one, and any other, ends well."""
    if trap.how in LIVES and trap.fired and job["state"] == "failed":
        assert client.predict(X[0]).model_id == base.ids[0]
        assert "choose a writable folder" in job["reason"]
        job = ended(client, client.train()["id"])
    assert job["state"] == "live", job
    assert client.predict(X[0]).model_id == job["version"] == base.ids[1]
    assert sum(client.samples()["counts"].values()) == 270


@pytest.mark.parametrize("how", ["kill -9", "power cut", "no space left"])
def test_cuts_of_a_job(bases, tmp_path, how):
    base = bases(taught)
    sample(lambda folder, at: learn(base, folder, how, at), tmp_path, most=40)


def trained(folder, surroundings):
    """The version that a training process says it has committed, run as the daemon does; None where it says none."""
    task = Task(str(folder), 270, "", CLASSES, min_samples=40, checkpoint_seconds=0.0, priority="normal")
    said = forked.trainer(json.dumps(asdict(task)), folder.parent / "said", surroundings)
    return next((line["version"] for line in map(json.loads, said) if line["kind"] == "committed"), None)


def train(base, folder, how, at):
    """A training process that is struck, and one after it, make the version that one makes, to the bit; what is live is
    not theirs to change."""
    trap = Trap(folder / "trap", TRAINER, how, at)
    base.copy(folder / "data")
    surroundings = {**os.environ, **trap.lay()}
    trap.arm()
    made = [trained(folder / "data", surroundings), *([trained(folder / "data", os.environ)] if trap.fired else [])]
    assert {version for version in made if version} == {base.ids[1]}
    store = Store(folder / "data" / "models")
    assert store.current().id == base.ids[0]
    assert store.read(base.ids[1]).is_file()
    assert store.faults == [], "a cut is no damage"
    return trap


def test_a_trainer_waits_for_another_stops_without_its_daemon_and_the_next_one_goes_on(bases, tmp_path):
    base = bases(taught)
    folder = base.copy(tmp_path / "data")
    (folder / "models").rename(tmp_path / "models")
    task = Task(str(folder), 270, "", CLASSES, min_samples=40, checkpoint_seconds=600.0, priority="normal")
    with Lock(folder).held(), open(tmp_path / "orphan", "wb") as said:
        process = subprocess.Popen([sys.executable, "-m", TRAINER], stdin=subprocess.PIPE, stdout=said)
        process.stdin.write(f"{json.dumps(asdict(task))}\n".encode())
        process.stdin.close()
        until(lambda: Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "900\n", 120)
        (tmp_path / "models").rename(folder / "models")
    assert process.wait(120) == INTERRUPTED, (tmp_path / "orphan").read_text()
    assert trained(folder, os.environ) == base.ids[1], "it learned no sample twice"


@pytest.mark.soak
@pytest.mark.parametrize("how", HOW)
def test_every_cut_of_a_trainer(bases, quick_path, how):
    base = bases(taught)
    count = sweep(lambda folder, at: train(base, folder, how, at), quick_path)
    reliability.struck("trainer: checkpoints and commit of a job", how, count)

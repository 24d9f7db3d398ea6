# SPDX-License-Identifier: Apache-2.0
"""Versions come in, become live and go back without a request failing; what does not answer never becomes live."""

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import reliability
from daemons import CLASSES, daemon, model, pictures, until

import edgelearn as el
from edgelearn.client import Client
from edgelearn.daemon import canary
from edgelearn.daemon.versions import TRIAL_STARTS

X, Y = pictures(30, seed=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [model(folder / f"m{seed}.safetensors", seed=seed) for seed in (1, 2)]


@pytest.fixture
def served(tmp_path, files):
    with daemon(tmp_path / "data", "--model", files[0]) as running:
        yield running


def kinds(running):
    found, last = [], running.client.status()["last_event"]
    for event in running.client.watch():
        found.append(event)
        if event["id"] >= last:
            break
    return found


def test_the_life_of_versions(served, files):
    first = served.client.history()[0]
    second = served.client.push(files[1], "the second")
    assert [(v.number, v.note) for v in served.client.history()] == [(1, "given as m1.safetensors"), (2, "the second")]
    assert served.client.predict(X[0]).model_id == first.id
    assert served.client.promote(second.id[:10]).id == second.id
    np.testing.assert_allclose(served.client.predict_proba(X), el.load(files[1]).predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(served.client.predict_proba(X, first.id), el.load(files[0]).predict_proba(X), atol=1e-6)
    assert [v["state"] for v in served.client.versions()] == ["live", "kept"]
    assert served.client.rollback().id == first.id
    with pytest.raises(el.UsageError, match="no earlier version was live"):
        served.client.rollback()
    assert served.client.rollback(second.id).id == second.id
    assert served.client.promote(second.id).id == second.id, "promoting what is live changes nothing"
    diff = served.client.diff(first.id, second.id)
    assert {layer["name"] for layer in diff["layers"]} >= {"dense.weight", "dense.bias"}
    assert all(layer["change"] > 0 for layer in diff["layers"] if layer["name"].endswith("weight"))
    status, _, content = served.ask("GET", f"/v1/versions/{second.id}/file")
    assert (status, content) == (200, files[1].read_bytes())
    with pytest.raises(el.UsageError, match="no version has an id"):
        served.client.promote("ffff")


def test_what_was_live_is_live_after_a_kill(tmp_path, files):
    with daemon(tmp_path, "--model", files[0], tcp=False) as running:
        second = running.client.push(files[1])
        running.client.promote(second.id)
        running.kill()
    with daemon(tmp_path, "--model", files[0], tcp=False) as running:
        assert running.client.predict(X[0]).model_id == second.id
        assert len(running.client.history()) == 2


def broken(files, tmp_path):
    """Files that are no models, each in its own way."""
    content = files[1].read_bytes()
    flipped = bytearray(content)
    flipped[-5] ^= 64
    for name, data in {"empty": b"", "text": b"hello", "cut": content[:-7], "flipped": bytes(flipped)}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        yield path


def test_broken_files_are_refused_and_nothing_is_kept(served, files, tmp_path):
    for path in broken(files, tmp_path):
        with pytest.raises(el.EdgelearnError):
            served.client.push(path)
    assert len(served.client.history()) == 1
    assert not list(served.folder.glob(".edgelearn-*"))
    assert served.client.predict(X[0]).label in CLASSES


def test_a_model_that_kills_the_process_that_tries_it_never_becomes_live(tmp_path, files):
    """The trial process is made to die as by a fault in the core."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(
        "import os, sys, signal\n"
        "if 'edgelearn.daemon.canary' in ' '.join(sys.orig_argv) and os.path.exists(os.environ['TRAP']):\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    surroundings = {"PYTHONPATH": str(trap), "TRAP": str(trap / "armed")}
    with daemon(tmp_path / "data", "--model", files[0], environment=surroundings) as running:
        (trap / "armed").touch()
        with pytest.raises(el.VerificationError, match="crashed its trial process with signal 11"):
            running.client.push(files[1])
        (trap / "armed").unlink()
        assert running.client.predict(X[0]).model_id == running.client.history()[0].id
        assert running.client.push(files[1]).number == 2


def test_the_canary_says_what_is_wrong(files, tmp_path):
    for path in [files[0], *broken(files, tmp_path)]:
        done = subprocess.run(
            [sys.executable, "-m", "edgelearn.daemon.canary", str(path)], capture_output=True, text=True, check=False
        )
        said = json.loads(done.stdout)
        assert ("seconds" in said) == (path == files[0])
    assert canary._judged(b'{"seconds": 0.5}', 0) == 0.5
    with pytest.raises(el.VerificationError, match="status 3"):
        canary._judged(b"", 3)


def test_a_version_that_keeps_ending_the_daemon_goes_back_by_itself(tmp_path, files):
    with daemon(tmp_path, "--model", files[0], tcp=False) as running:
        first = running.client.history()[0]
        second = running.client.push(files[1])
        running.client.promote(second.id)
        running.kill()
    for _ in range(TRIAL_STARTS):
        with daemon(tmp_path, tcp=False) as running:
            assert running.client.predict(X[0]).model_id == second.id
            running.kill()
    with daemon(tmp_path, tcp=False) as running:
        assert running.client.predict(X[0]).model_id == first.id
        told = [event for event in kinds(running) if event["kind"] == "rollback"]
        assert len(told) == 1
        state = {v["id"]: v["state"] for v in running.client.versions()}
        assert state == {first.id: "live", second.id: "refused"}
        with pytest.raises(el.UsageError, match="was refused"):
            running.client.promote(second.id)


def test_a_damaged_version_is_not_served_again(tmp_path, files):
    with daemon(tmp_path, "--model", files[0], tcp=False) as running:
        first = running.client.history()[0]
        second = running.client.push(files[1])
        running.client.promote(second.id)
    path = tmp_path / "models" / "versions" / f"{second.id}.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with daemon(tmp_path, tcp=False) as running:
        assert running.client.predict(X[0]).model_id == first.id
        assert any(event["kind"] == "damage" for event in kinds(running))
        assert list((tmp_path / "models" / "quarantine").iterdir())


def swaps(running, ids, count, clients=2):
    """Swap under load; answers, seconds each, and what failed."""
    failed, answered, stop = [], [], threading.Event()

    def ask(client):
        try:
            answered.append(client.predict(X[0]).model_id)
        except Exception as error:  # whatever it is, it counts
            failed.append(repr(error))

    def load():
        with Client(f"unix:{running.folder}/api.sock") as client:
            while not stop.is_set():
                ask(client)

    threads = [threading.Thread(target=load) for _ in range(clients)]
    for thread in threads:
        thread.start()
    sizes = []
    for number in range(count):
        running.client.rollback(ids[number % 2])
        sizes.append(running.memory)
    stop.set()
    for thread in threads:
        thread.join()
    return answered, failed, sizes


def test_swaps_under_load_fail_no_request(served, files):
    second = served.client.push(files[1])
    ids = [second.id, served.client.history()[0].id]
    answered, failed, _ = swaps(served, ids, 30)
    assert not failed
    assert set(answered) == set(ids)


@pytest.mark.soak
def test_a_thousand_swaps_leave_no_memory_behind(served, files):
    second = served.client.push(files[1])
    ids = [second.id, served.client.history()[0].id]
    swaps(served, ids, 100)
    answered, failed, sizes = swaps(served, ids, 1000)
    slope = float(np.polyfit(np.arange(len(sizes)), sizes, 1)[0])
    columns = ["swaps", "answers meanwhile", "failed", "KB of resident memory per swap"]
    rows = [[len(sizes), len(answered), len(failed), slope]]
    about = "One version and the other in turn, while two clients ask as fast as they can."
    reliability.record("A thousand swaps under load", about, columns, rows)
    assert not failed
    assert len(answered) > 1000
    assert slope < 1.0, f"{slope:.2f} KB per swap"


def test_idle_it_is_small_and_asleep(tmp_path):
    net = el.Net(el.load("cnn-small").layers, input_shape=(28, 28, 1), input=None)
    rng = np.random.default_rng(0)
    net.fit(rng.integers(0, 255, (64, 28, 28, 1), np.uint8), np.arange(64) % 10, epochs=1, lr=1e-4)
    net.save(tmp_path / "cnn.safetensors")
    with daemon(tmp_path / "data", "--model", tmp_path / "cnn.safetensors", tcp=False) as running:
        for _ in range(20):
            running.client.predict(rng.integers(0, 255, (28, 28, 1), np.uint8))
        pids = processes(running.process.pid)
        size = sum(proportional(pid) for pid in pids)
        until(lambda: share(pids) <= 0.01)
    assert size <= 45 * 1024, f"{size} KB"


def share(pids):
    """Of a processor, over three seconds."""
    before, start = busy(pids), time.monotonic()
    time.sleep(3)
    return (busy(pids) - before) / (time.monotonic() - start)


def processes(pid):
    """A process and those that it started."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [pid, *(int(child) for child in children.stdout.split())]


def proportional(pid):
    with open(f"/proc/{pid}/smaps_rollup") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("Pss:"))


def busy(pids):
    """Seconds of processor time."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stream:
            ticks += sum(map(int, stream.read().rsplit(")", 1)[1].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def test_nothing_is_left_running_after_the_end(tmp_path, files):
    with daemon(tmp_path, "--model", files[0], tcp=False) as running:
        running.client.partial_fit(X, Y)
    assert running.process.returncode == 0
    assert not (tmp_path / "api.sock").exists()
    until(lambda: len(processes(running.process.pid)) == 1)

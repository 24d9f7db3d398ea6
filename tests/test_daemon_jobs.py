# SPDX-License-Identifier: Apache-2.0
"""Training beside serving: what is promoted and what is not, under the governor, through kills and cuts."""

import os
import signal
import time

import numpy as np
import pytest
from daemons import CLASSES, beginner, daemon, pictures, until

import edgelearn as el

X, Y = pictures(600, seed=11)
XT, YT = pictures(90, seed=12)

CONFIG = """
[train]
policy = "auto"
checkpoint_seconds = 0.1
shadow_seconds = 0.0
[govern]
priority = "normal"
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return beginner(tmp_path_factory.mktemp("model") / "m.safetensors")


def score(client):
    return np.mean(np.array(CLASSES)[client.predict_proba(XT).argmax(axis=1)] == YT)


def state(running):
    return running.client.status()["state"]


def ended(running, job, seconds=60):
    return until(lambda: _ended(running.client.job(job)), seconds)


def _ended(job):
    return None if job["active"] else job


def trainer(running):
    """The process that trains, once there is one."""
    path = f"/proc/{running.process.pid}/task/{running.process.pid}/children"

    def found():
        with open(path) as stream:
            children = [int(pid) for pid in stream.read().split()]
        for pid in children:
            with open(f"/proc/{pid}/cmdline") as stream:
                if "edgelearn.daemon.train" in stream.read():
                    return pid
        return None

    return until(found, 30)


def test_samples_become_a_better_version_that_answers(tmp_path, file):
    with daemon(tmp_path, "--model", file, config=CONFIG) as running:
        before = score(running.client)
        with pytest.raises(el.UsageError, match="give samples with labels"):
            running.client.train()
        running.client.partial_fit(X, Y)
        assert running.client.status()["fresh"] == 600
        version = running.client.commit("the first samples")
        assert version.note == "the first samples"
        assert version.parent == running.client.history()[0].id
        assert version.metrics["accepted"]
        assert running.client.predict(X[0]).model_id == version.id
        after = score(running.client)
        assert after > max(0.9, before + 0.3)
        assert state(running) == "live"
        assert running.client.rollback().id == version.parent
        assert score(running.client) == before
        code, answer = running.json("POST", "/v1/jobs", {"policy": "yolo"})
        assert (code, "manual, auto, shadow" in answer["error"]) == (400, True)
        assert running.json("GET", "/v1/jobs/99")[0] == 404
        jobs = running.json("GET", "/v1/jobs")[1]["jobs"]
        assert [(job["state"], job["version"]) for job in jobs] == [("live", version.id)]


def test_by_hand_nothing_is_promoted_but_by_a_person(tmp_path, file):
    with daemon(tmp_path, "--model", file, config=CONFIG, tcp=False) as running:
        running.client.partial_fit(X, Y)
        version = running.client.commit(policy="manual")
        assert running.client.job(1)["state"] == "kept"
        assert running.client.predict(X[0]).model_id != version.id
        running.client.promote(version.id)
        assert running.client.predict(X[0]).model_id == version.id


def test_poisoned_labels_are_not_promoted_and_training_begins_by_itself(tmp_path, file):
    rng = np.random.default_rng(0)
    with daemon(tmp_path, "--model", file, config=CONFIG, tcp=False) as running:
        running.client.partial_fit(X, Y)
        good = running.client.commit()
        clean = score(running.client)
        running.client.ask("PATCH", "/v1/config", {"train": {"every": 300}})
        running.client.partial_fit(X, rng.permutation(Y))
        until(lambda: running.client.status()["job"]["id"] == 2, 30)
        job = ended(running, 2)
        assert job["state"] == "refused"
        assert job["reason"]
        assert running.client.predict(X[0]).model_id == good.id
        assert score(running.client) == clean


def test_a_new_class_is_learned(tmp_path, file):
    dotted = np.tile(np.array([0, 255], np.uint8), 8).reshape(4, 4, 1)
    x = np.concatenate([X[:300], np.repeat(dotted[None], 150, axis=0)])
    x[300:] = np.clip(x[300:].astype(int) + np.random.default_rng(0).integers(-20, 20, x[300:].shape), 0, 255)
    y = np.concatenate([Y[:300], ["dotted"] * 150])
    order = np.random.default_rng(1).permutation(len(x))
    with daemon(tmp_path, "--model", file, config=CONFIG, tcp=False) as running:
        with pytest.raises(el.DataError, match="POST /v1/classes"):
            running.client.partial_fit(x, y)
        assert running.client.add_class("dotted") == [*CLASSES, "dotted"]
        running.client.partial_fit(x[order], y[order])
        running.client.commit()
        assert running.client.status()["classes"] == [*CLASSES, "dotted"]
        assert running.client.predict(dotted).label == "dotted"
        with pytest.raises(el.DataError, match="needs a name"):
            running.client.add_class("")


def many(running):
    for _ in range(10):
        running.client.partial_fit(X, Y)


def test_a_trainer_that_is_killed_goes_on_to_the_same_bits(tmp_path, file):
    with daemon(tmp_path / "calm", "--model", file, config=CONFIG, tcp=False) as running:
        many(running)
        expected = running.client.commit("many")
    with daemon(tmp_path / "cut", "--model", file, config=CONFIG, tcp=False) as running:
        many(running)
        job = running.client.train("many")["id"]
        until(lambda: running.client.job(job)["samples"] > 500, 60, every=0.001)
        os.kill(trainer(running), signal.SIGKILL)
        assert ended(running, job)["state"] == "live"
        assert "the training process died with signal 9" in running.said()
        assert running.client.job(job)["version"] == expected.id


def test_a_daemon_that_is_killed_goes_on_with_its_job(tmp_path, file):
    with daemon(tmp_path, "--model", file, config=CONFIG, tcp=False) as running:
        many(running)
        job = running.client.train()["id"]
        pid = trainer(running)
        until(lambda: running.client.job(job)["samples"] > 500, 60, every=0.001)
        os.kill(pid, signal.SIGSTOP)  # as the governor may have it stand still at that moment
        running.kill()
    with daemon(tmp_path, config=CONFIG, tcp=False) as running:
        assert ended(running, job)["state"] == "live"
        assert "goes on where it was cut" in running.said()
        assert score(running.client) > 0.9
        files = [(tmp_path / name).stat().st_mode for name in ("config.toml", "cursor")]
        assert files[0] == files[1], "the trainer began with the umask that the daemon was given"


def test_a_trainer_that_keeps_dying_fails_its_job_and_nothing_else(tmp_path, file):
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(
        "import os, sys\nif 'edgelearn.daemon.train' in ' '.join(sys.orig_argv):\n    os._exit(1)\n"
    )
    with daemon(tmp_path / "data", "--model", file, config=CONFIG, environment={"PYTHONPATH": str(trap)}) as running:
        running.client.partial_fit(X, Y)
        job = ended(running, running.client.train()["id"])
        assert (job["state"], job["attempts"]) == ("failed", 3)
        assert "died 3 times, the last time with status 1" in job["reason"]
        assert running.client.predict(X[0]).label in CLASSES
        assert state(running) == "failed"
        with pytest.raises(el.LearningError, match="died 3 times"):
            running.client.commit()


def test_one_job_at_a_time_and_it_can_be_cancelled(tmp_path, file):
    with daemon(tmp_path, "--model", file, config=CONFIG) as running:
        many(running)
        job = running.client.train()["id"]
        with pytest.raises(el.UsageError, match="is under way"):
            running.client.train()
        assert running.client.cancel()["state"] == "cancelled"
        assert running.client.cancel(job)["state"] == "cancelled"
        with pytest.raises(el.UsageError, match="no job is under way"):
            running.client.cancel()
        with pytest.raises(el.UsageError, match="99"):
            running.client.cancel(99)
        assert running.client.status()["fresh"] == 6000
        assert running.client.commit().metrics["accepted"]


def heat(root, degrees):
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text(f"{degrees * 1000}\n")


def memory(root, megabytes):
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/meminfo").write_text(f"MemAvailable: {megabytes << 10} kB\n")


def test_heat_and_memory_hold_training_back_within_two_seconds(tmp_path, file):
    root = tmp_path / "root"
    heat(root, 50)
    memory(root, 500)
    surroundings = {"EDGELEARN_SYSROOT": str(root)}
    with daemon(tmp_path / "data", "--model", file, config=CONFIG, environment=surroundings) as running:
        for _ in range(10):  # so many that learning lasts longer than the test
            many(running)
        job = running.client.train()["id"]
        pid = trainer(running)
        until(lambda: running.client.job(job)["samples"] > 0, 60)
        heat(root, 80)
        start = time.monotonic()
        until(lambda: state(running) == "paused", 2.0)
        assert time.monotonic() - start < 2.0
        assert "80 degrees are too hot" in running.client.status()["reason"]
        assert 'edgelearn_state{state="paused"} 1' in running.ask("GET", "/metrics")[2].decode()
        assert "edgelearn_temperature_celsius 80" in running.ask("GET", "/metrics")[2].decode()
        with open(f"/proc/{pid}/stat") as stream:
            assert stream.read().rsplit(")", 1)[1].split()[0] == "T"
        assert running.client.predict(X[0]).label in CLASSES
        heat(root, 72)
        time.sleep(1.2)
        assert state(running) == "paused", "it must cool down clearly"
        heat(root, 60)
        until(lambda: state(running) != "paused", 3.0)
        memory(root, 20)
        until(lambda: state(running) == "paused" and not os.path.exists(f"/proc/{pid}/fd/0"), 12.0)
        assert "of memory are free" in running.client.status()["reason"]
        memory(root, 500)
        until(lambda: state(running) == "training", 30)
        running.client.ask("DELETE", f"/v1/jobs/{job}")
        assert "training: pause, 80 degrees are too hot" in running.said()


def test_a_trainer_beyond_its_memory_fails_with_what_to_change(tmp_path, file):
    with daemon(tmp_path, "--model", file, config=f'{CONFIG}memory = "8MB"\n', tcp=False) as running:
        for _ in range(4):
            many(running)
        job = ended(running, running.client.train()["id"])
        assert job["state"] == "failed"
        assert "more than the 8 MB of [govern] memory" in job["reason"]


def test_in_shadow_it_is_judged_on_what_comes_after(tmp_path, file):
    with daemon(tmp_path, "--model", file, config=CONFIG.replace("auto", "shadow"), tcp=False) as running:
        running.client.partial_fit(X, Y)
        job = running.client.train()["id"]
        until(lambda: state(running) == "shadow", 60)
        until(lambda: running.client.job(job)["reason"].startswith("0 samples were labelled since"), 10)
        for sample in X[:20]:
            running.client.predict(sample)
        shadow = running.client.status()["shadow"]
        assert shadow["seen"] > 0
        assert shadow["failed"] == 0
        assert "shadow" in [version["state"] for version in running.client.versions()]
        running.client.partial_fit(XT, YT)
        assert ended(running, job, 20)["state"] == "live"
        assert running.client.status()["shadow"] is None

# SPDX-License-Identifier: Apache-2.0
"""Samples are on the disk when they are acknowledged, whatever happens next; what cannot be learned is refused."""

import io
import json
import re
import shutil
import sqlite3
import threading
from contextlib import closing, suppress
from functools import partial

import numpy as np
import pytest
from daemons import CLASSES, daemon, model, pictures, started, until

import edgelearn as el
from edgelearn.client import Client
from edgelearn.daemon.pictures import png

X, Y = pictures(48, seed=7)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return model(tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture(scope="module")
def served(tmp_path_factory, file):
    with daemon(tmp_path_factory.mktemp("samples"), "--model", file) as running:
        yield running


def stored(folder):
    with closing(sqlite3.connect(folder / "samples.db")) as base:
        return base.execute("SELECT id, x, label FROM samples ORDER BY id").fetchall()


def test_samples_come_back_as_they_went_in(served):
    ids = served.client.partial_fit(X, Y)
    assert ids == sorted(ids)
    _, one = served.json("GET", f"/v1/samples/{ids[3]}")
    assert (one["label"], one["shape"]) == (Y[3], [4, 4, 1])
    assert np.array_equal(np.reshape(one["data"], one["shape"]), X[3])
    listed = served.client.samples(limit=2, label="wild")["samples"]
    assert [s["label"] for s in listed] == ["wild"] * 2
    assert listed[0]["id"] > listed[1]["id"]
    number = served.client.partial_fit(X[:1], [2])[0]
    assert served.json("GET", f"/v1/samples/{number}")[1]["label"] == CLASSES[2]


def test_a_person_labels_and_removes(served):
    (sample,) = served.client.partial_fit(X[:1])
    before = served.client.samples()["counts"]
    assert served.client.label(sample, "mid")["label"] == "mid"
    after = served.client.samples()["counts"]
    assert after["mid"] == before["mid"] + 1
    assert after.get("", 0) == before[""] - 1
    assert served.json("PATCH", f"/v1/samples/{sample}", {"label": "mild"})[0] == 400
    assert served.json("PATCH", f"/v1/samples/{sample}", {"label": None})[1]["label"] is None
    assert served.json("DELETE", f"/v1/samples/{sample}")[0] == 200
    assert served.json("GET", f"/v1/samples/{sample}")[0] == 404
    assert served.json("PATCH", f"/v1/samples/{sample}", {"label": "mid"})[0] == 404
    assert served.json("GET", "/v1/samples/first")[0] == 404


def test_a_sample_can_be_looked_at(served):
    image = pytest.importorskip("PIL.Image")
    (sample,) = served.client.partial_fit(X[5:6])
    status, headers, content = served.ask("GET", f"/v1/samples/{sample}/picture")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    with image.open(io.BytesIO(content)) as seen:
        assert np.array_equal(np.asarray(seen), X[5, :, :, 0])


REFUSED = [
    (np.zeros((1, 5)), ["calm"], "expected samples of shape"),
    (np.full((1, 16), np.nan), ["calm"], "NaN or infinity"),
    (np.full((1, 16), 1e300), ["calm"], "NaN or infinity"),
    (X[:2], ["calm"], "one for each sample"),
    (X[:1], ["clam"], "is no class"),
    (X[:1], [3], "outside 0 .. 2"),
    (X[:1], [-1], "outside 0 .. 2"),
    (X[:1], [1.5], "outside 0 .. 2"),
    (X[:1], ["\n"], "label is text"),
    (X[:1], ["a" * 101], "label is text"),
]


@pytest.mark.parametrize(("x", "y", "expected"), REFUSED)
def test_what_cannot_be_learned_is_refused_and_nothing_is_kept(served, x, y, expected):
    before = len(stored(served.folder))
    with pytest.raises(el.EdgelearnError, match=expected):
        served.client.partial_fit(x, y)
    assert len(stored(served.folder)) == before


def test_files_are_read_as_the_model_reads_them(tmp_path):
    pytest.importorskip("PIL")
    net = el.Net(
        [el.Conv2D(2, 3), el.Flatten(), el.Dense(2)],
        input=el.Input(shape=(4, 4, 3), scale=255, image=el.Image((4, 4), "rgb")),
    )
    net.classes = ["a", "b"]
    net.save(tmp_path / "rgb.safetensors")
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    with daemon(tmp_path / "data", "--model", tmp_path / "rgb.safetensors") as running:
        kind = {"Content-Type": "image/png"}
        status, answer = running.json("POST", "/v1/samples?label=b", png(pixels), kind)
        assert status == 201
        _, one = running.json("GET", f"/v1/samples/{answer['ids'][0]}")
        assert (one["label"], np.reshape(one["data"], (4, 4, 3)).tolist()) == ("b", pixels.tolist())
        status, answer = running.json("POST", "/v1/samples", png(pixels)[:40], kind)
        assert status == 400
        assert running.json("POST", "/v1/samples?label=c", png(pixels), kind)[0] == 400


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path, file):
    acknowledged = []

    def send(folder):
        client = Client(f"unix:{folder}/api.sock")
        with client, suppress(el.DaemonError):
            while True:
                acknowledged.extend(client.partial_fit(X[:16], Y[:16]))

    for _ in range(3):
        with daemon(tmp_path, "--model", file, tcp=False) as running:
            threads = [threading.Thread(target=send, args=(tmp_path,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            most = len(acknowledged) + 800
            until(lambda most=most: len(acknowledged) > most)
            running.kill()
            for thread in threads:
                thread.join()
    with daemon(tmp_path, tcp=False) as running:
        counts = running.client.samples()["counts"]
        ids = {row[0] for row in stored(tmp_path)}
    assert len(acknowledged) == len(set(acknowledged)) > 2400
    assert set(acknowledged) <= ids
    assert sum(counts.values()) == len(ids)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_each_acknowledgement_follows_its_fsync(tmp_path, file):
    trace = tmp_path / "trace"
    prefix = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-y",
        "-s",
        "16",
        "-e",
        "trace=fdatasync,fsync,sendto,write,pwrite64",
        "-o",
        trace,
    ]
    with daemon(tmp_path / "data", "--model", file, tcp=False, start=partial(started, prefix=prefix)) as running:
        before = len(trace.read_text().splitlines())
        for _ in range(5):
            running.client.partial_fit(X[:16], Y[:16])
        lines = trace.read_text().splitlines()[before:]
    logged, synced, answers = 0, 0, 0
    for line in lines:
        if "pwrite64(" in line and "samples.db-wal" in line:
            logged += 1
        elif re.search(r"f(data)?sync\(", line) and "samples.db-wal" in line:
            synced = logged
        elif "HTTP/1.1 201" in line:
            answers += 1
            assert logged == synced > 0, "an answer left before its samples were on the disk"
    assert answers == 5


def test_the_oldest_go_when_there_is_no_room(tmp_path, file):
    with daemon(tmp_path, "--model", file, tcp=False, config='[keep]\nsamples = "64KB"\n') as running:
        many = np.repeat(X, 20, axis=0)
        last = [running.client.partial_fit(many, np.repeat(Y, 20)) for _ in range(6)][-1]
        kept = [row[0] for row in stored(tmp_path)]
        listed = running.client.samples()
    assert listed["bytes"] == 16 * len(kept) <= 64 << 10
    assert kept == list(range(kept[0], last[-1] + 1))
    assert sum(listed["counts"].values()) == len(kept)


def test_a_damaged_page_costs_what_was_on_it_and_nothing_else(tmp_path, file):
    with daemon(tmp_path, "--model", file, tcp=False) as running:
        for _ in range(20):
            running.client.partial_fit(X, Y)
    path = tmp_path / "samples.db"
    content = bytearray(path.read_bytes())
    page = content.index(X[7].tobytes(), len(content) // 3) // 4096
    content[4096 * page : 4096 * page + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    with daemon(tmp_path, tcp=False) as running:
        told = [event for event in events(running) if event["kind"] == "samples_repaired"]
        assert len(told) == 1
        kept = len(stored(tmp_path))
        assert running.client.partial_fit(X[:1], Y[:1])
        assert running.client.predict(X[0]).label in CLASSES
    assert 20 * 48 * 0.8 < kept < 20 * 48
    assert len(list(tmp_path.glob("samples.damaged-*.db"))) == 1


def test_a_flipped_bit_in_a_sample_is_noticed(tmp_path, file):
    with daemon(tmp_path, "--model", file) as running:
        ids = running.client.partial_fit(X[:2], Y[:2])
        with closing(sqlite3.connect(tmp_path / "samples.db")) as base:
            base.execute("UPDATE samples SET x = ? WHERE id = ?", (bytes(16), ids[0]))
            base.commit()
        assert running.json("GET", f"/v1/samples/{ids[0]}")[0] == 404
        assert [s["id"] for s in running.client.samples()["samples"]] == [ids[1]]


def events(running):
    """Those that are known by now."""
    found = []
    for event in running.client.watch():
        found.append(event)
        if event["id"] >= running.client.ask("GET", "/v1/status")["last_event"]:
            return found
    return found


def test_below_the_floor_nothing_is_taken_and_it_recovers_by_itself(tmp_path, file):
    with daemon(tmp_path, "--model", file) as running:
        assert running.client.partial_fit(X[:1], Y[:1])
        assert running.json("PATCH", "/v1/config", {"keep": {"floor": "900000GB"}})[0] == 200
        status, answer = running.json("POST", "/v1/samples", {})
        assert (status, answer["kind"]) == (507, "OutputError")
        assert "free space on the disk" in answer["error"]
        assert running.client.predict(X[0]).label in CLASSES
        assert running.json("PATCH", "/v1/config", {"keep": {"floor": 0}})[0] == 200
        assert running.client.partial_fit(X[:1], Y[:1])
        kinds = [event["kind"] for event in events(running)]
        assert kinds.index("disk_full") < kinds.index("disk_free")


def test_events_come_as_they_happen_and_again_for_those_who_were_away(tmp_path, file):
    with daemon(tmp_path, "--model", file) as running:
        assert [e["kind"] for e in events(running)] == ["version", "promoted"]
        stream = running.client.watch(last=2)
        running.client.partial_fit(X, Y)
        first = next(stream)
        assert (first["kind"], first["data"]) == ("samples", {"count": 48})
        assert json.loads(running.ask("GET", "/v1/status")[2])["last_event"] == first["id"]
        stream.close()

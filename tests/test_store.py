# SPDX-License-Identifier: Apache-2.0
"""Versions in a folder: what is live, going back, what is deleted, what is refused."""

import json
import subprocess
import sys

import pytest
from stored import CONTENT, filled, live

from edgelearn import errors
from edgelearn.store import DAY, TRAIL, Store
from edgelearn.store.versions import digest


def test_a_version_is_what_was_committed_and_is_live_when_it_is_activated(tmp_path):
    store = Store(tmp_path / "new")
    assert store.current() is None
    assert store.history() == []
    first = store.commit(CONTENT[0], note="from the factory", metrics={"accuracy": 0.9, "per_class": {"a": 1}})
    assert store.current() is None, "a commit alone changes nothing"
    second = store.commit(CONTENT[1], parent=first.id)
    assert (first.id, first.size, first.number) == (digest([CONTENT[0]]), len(CONTENT[0]), 1)
    store.activate(second.id[:12])
    again = Store(tmp_path / "new")
    assert again.current() == second
    assert again.history() == [first, second]
    assert again.history()[0].metrics == {"accuracy": 0.9, "per_class": {"a": 1}}
    assert again.read(first.id).read_bytes() == CONTENT[0]
    assert again.read(first.id).suffix == ".safetensors"
    assert again.faults == []


def test_a_file_is_committed_as_its_bytes_are(tmp_path):
    (tmp_path / "m.tflite").write_bytes(CONTENT[5] * 3000)
    store = Store(tmp_path / "store", suffix=".tflite")
    version = store.commit(tmp_path / "m.tflite")
    assert version.id == digest([CONTENT[5] * 3000])
    assert store.read(version.id).read_bytes() == CONTENT[5] * 3000


def test_the_same_content_is_the_same_version(tmp_path):
    store = Store(tmp_path)
    first = store.commit(CONTENT[0], note="first")
    assert store.commit(CONTENT[0], note="again") == first
    assert len(store.history()) == 1


def test_a_version_cannot_be_changed(tmp_path):
    version = Store(tmp_path).commit(CONTENT[0], metrics={"accuracy": 0.5})
    with pytest.raises(AttributeError):
        version.note = "better"
    with pytest.raises(TypeError):
        version.metrics["accuracy"] = 1.0
    assert json.loads(json.dumps(version.to_json()))["metrics"] == {"accuracy": 0.5}


def test_going_back_goes_back_step_by_step(tmp_path):
    store, versions = filled(tmp_path)
    assert store.rollback() == versions[1]
    assert store.rollback() == versions[0] == store.current()
    with pytest.raises(errors.UsageError, match="no earlier version was live"):
        store.rollback()
    assert store.current() == versions[0]


def test_what_was_gone_back_from_is_not_gone_back_to(tmp_path):
    store, versions = filled(tmp_path, 4)
    assert store.rollback(versions[1].id) == versions[1]
    assert store.rollback() == versions[0]
    candidate = store.commit(CONTENT[9])
    assert store.rollback(candidate.id) == candidate, "one that never was live"
    with pytest.raises(errors.UsageError, match="no earlier"):
        store.rollback()


def test_the_same_version_twice_is_one_step(tmp_path):
    store, versions = filled(tmp_path, 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    store.activate(versions[1].id)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before, "nothing was written"
    assert store.rollback() == versions[0]


def test_the_trail_is_bounded(tmp_path):
    store, versions = filled(tmp_path, TRAIL + 2)
    for version in versions[-2:1:-1]:
        assert store.rollback() == version
    with pytest.raises(errors.UsageError, match="no earlier"):
        store.rollback()


def test_the_oldest_go_first_and_the_live_one_and_the_one_before_stay(tmp_path):
    store, versions = filled(tmp_path, 8, keep_bytes=3500)
    assert [store.holds(version.id) for version in versions] == [False] * 5 + [True] * 3
    assert store.history() == versions, "what is known of them stays"
    store.rollback()
    store.keep_bytes = 1
    assert store.collect() == versions[7].size
    assert [store.holds(version.id) for version in versions] == [False] * 5 + [True] * 2 + [False]
    assert store.rollback() == versions[5]
    with pytest.raises(errors.UsageError, match="no earlier"):
        store.rollback()
    assert store.current() == versions[5]
    assert store.faults == [], "to be collected is no fault"


def test_records_of_what_is_gone_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("edgelearn.store.objects.RECORDS", 2)
    store, versions = filled(tmp_path, 7, keep_bytes=2500)
    store.collect()
    assert [version.number for version in store.history()] == [4, 5, 6, 7]
    assert store.commit(CONTENT[9]).number == len(versions) + 1


def test_a_write_budget_holds_for_a_day(tmp_path, monkeypatch):
    now = [1_700_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    store = Store(tmp_path, write_budget=2500)
    store.commit(CONTENT[0])
    store.commit(CONTENT[1])
    with pytest.raises(errors.BudgetError, match="2001 of 2500 bytes .* commit later or raise write_budget"):
        store.commit(CONTENT[2])
    assert store.commit(CONTENT[1]).number == 2, "nothing is written for what is there"
    now[0] += DAY + 1
    store.commit(CONTENT[2])


def test_the_clock_may_be_wrong(tmp_path, monkeypatch):
    now = [1_700_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    store = Store(tmp_path, write_budget=2500)
    first, second = live(store, CONTENT[0]), live(store, CONTENT[1])
    now[0] = 12.0  # a board without a battery, after a power cut
    third = live(store, CONTENT[2])
    assert store.history() == [first, second, third]
    assert store.rollback() == second


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "new").write_bytes(b"")
    with pytest.raises(errors.OutputError, match="File exists"):
        Store(tmp_path / "new").commit(CONTENT[0])


REFUSED = [
    (lambda s, f: s.commit(b""), errors.UsageError, "the model is empty: commit the bytes"),
    (lambda s, f: s.commit(f / "none.safetensors"), errors.UsageError, "cannot read .*none.* commit a model file"),
    (lambda s, f: s.commit(f), errors.UsageError, "Is a directory.* commit a model file"),
    (lambda s, f: s.commit(b"x", metrics={"loss": float("nan")}), errors.UsageError, "plain finite numbers"),
    (lambda s, f: s.commit(b"x", metrics={"loss": s}), errors.UsageError, "plain finite numbers"),
    (lambda s, f: s.commit(bytes(5000)), errors.BudgetError, "5000 bytes is more than keep_bytes=4000"),
    (lambda s, f: s.activate("0123"), errors.UsageError, "no version has an id that begins with '0123'"),
    (lambda s, f: s.activate(""), errors.UsageError, "take one of the history"),
    (lambda s, f: s.rollback("0123"), errors.UsageError, "take one of the history"),
    (lambda s, f: s.read("../current"), errors.UsageError, "take one of the history"),
    (lambda s, f: Store(f, keep_bytes=0), errors.UsageError, "keep_bytes must be above 0"),
    (lambda s, f: Store(f, write_budget=-1), errors.UsageError, "write_budget must be above 0"),
    (lambda s, f: Store(f / "current.json").commit(b"x"), errors.OutputError, "choose a writable folder"),
    (lambda s, f: Store(f / "a" / "b").commit(b"x"), errors.OutputError, "No such file or directory"),
]


@pytest.mark.parametrize(("act", "error", "words"), REFUSED)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(tmp_path, act, error, words):
    store, versions = filled(tmp_path, keep_bytes=4000)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(error, match=words):
        act(store, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert store.current() == versions[-1]


def test_a_store_needs_no_numpy():
    code = "import edgelearn.store, sys; print('numpy' in sys.modules, 'hashlib' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False False\n"

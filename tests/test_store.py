# SPDX-License-Identifier: Apache-2.0
"""Versions in a folder: what is live, going back, what is damaged, what is deleted, what is refused."""

import json
import subprocess
import sys
import threading

import pytest
from cuts import Refusing

from edgelearn import errors
from edgelearn.durable import Disk
from edgelearn.store import DAY, TRAIL, Store, objects
from edgelearn.store.versions import digest, seal, unseal

CONTENT = [bytes([i]) * (1000 + i) for i in range(12)]


def live(store, content):
    version = store.activate(store.commit(content).id)
    assert store.current() == version
    return version


def filled(folder, n=3, **settings):
    """A store in which n versions were live one after the other."""
    store = Store(folder, **settings)
    return store, [live(store, CONTENT[i]) for i in range(n)]


def damage(path, at=500):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


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


def test_a_damaged_live_version_gives_way_to_the_one_before(tmp_path):
    store, versions = filled(tmp_path)
    damage(store.read(versions[2].id))
    again = Store(tmp_path)
    assert again.current() == versions[1]
    assert [path.name.split(".")[0] for path in (tmp_path / "quarantine").iterdir()] == [versions[2].id]
    assert "went to quarantine" in again.faults[0]
    assert "what was live before it is" in again.faults[1]
    assert store.current() == versions[1], "a store that had seen it sound notices too"
    assert not again.holds(versions[2].id)
    with pytest.raises(errors.ModelError, match="damaged or was collected"):
        again.activate(versions[2].id)
    assert again.rollback() == versions[0]


def test_a_damaged_version_that_is_committed_again_is_not_live_by_that(tmp_path):
    store, versions = filled(tmp_path)
    damage(store.read(versions[2].id))
    again = Store(tmp_path)
    assert again.commit(CONTENT[2]) == versions[2]
    assert Store(tmp_path).current() == versions[1]
    assert again.activate(versions[2].id) == again.current() == versions[2]


@pytest.mark.parametrize(
    "spoil", [lambda p: damage(p, 60), lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"[]")]
)
def test_a_damaged_pointer_gives_way_to_the_one_before(tmp_path, spoil):
    _, versions = filled(tmp_path)
    spoil(tmp_path / "current.json")
    again = Store(tmp_path)
    assert again.current() == versions[1]
    assert "current.json went to quarantine" in again.faults[0]
    assert again.activate(versions[2].id) == Store(tmp_path).current()


def test_a_damaged_record_loses_the_record_and_not_the_version(tmp_path):
    _, versions = filled(tmp_path)
    damage(tmp_path / "versions" / f"{versions[2].id}.json", 100)
    again = Store(tmp_path)
    found = again.current()
    assert (found.id, found.size, found.note) == (versions[2].id, versions[2].size, "its record was lost")
    again.collect()
    assert Store(tmp_path).read(found.id).read_bytes() == CONTENT[2]
    assert len(again.faults) == 1
    assert len(again.history()) == 3


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


def test_quarantined_files_go_before_good_ones(tmp_path):
    store, versions = filled(tmp_path, 4)
    damage(store.read(versions[3].id))
    assert Store(tmp_path).current() == versions[2]
    store.keep_bytes = sum(version.size for version in versions[:3])
    assert store.collect() == versions[3].size
    assert list((tmp_path / "quarantine").iterdir()) == []
    assert all(store.holds(version.id) for version in versions[:3])


def test_what_cut_commits_left_is_deleted_and_nothing_else(tmp_path):
    store, versions = filled(tmp_path, 2)
    left = [".edgelearn-0123456789abcdef.safetensors", f"{digest([b'cut'])}.safetensors"]
    for name in left:
        (tmp_path / "versions" / name).write_bytes(b"cut")
    (tmp_path / "versions" / "notes.txt").write_bytes(b"of a person")
    assert store.collect() == 6
    assert not any((tmp_path / "versions" / name).exists() for name in left)
    assert (tmp_path / "versions" / "notes.txt").exists()
    assert all(store.holds(version.id) for version in versions)


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


def test_on_a_disk_that_takes_no_writes_the_live_version_is_served(tmp_path):
    store, versions = filled(tmp_path)
    damage(store.read(versions[2].id))
    refused = Refusing()
    again = Store(tmp_path, disk=refused)
    assert again.current() == versions[1]
    assert again.read(versions[1].id).read_bytes() == CONTENT[1]
    assert "cannot be moved (Read-only file system)" in again.faults[0]
    for act in (lambda: again.commit(CONTENT[7]), again.rollback, again.collect):
        with pytest.raises(errors.OutputError, match="Read-only file system.* choose a writable folder"):
            act()
    assert refused.done


def test_threads_and_stores_commit_at_once(tmp_path):
    ids = []

    def work(i):
        store = Store(tmp_path)
        ids.extend(live_or_not(store, CONTENT[i], j) for j in range(3))

    def live_or_not(store, content, j):
        version = store.commit(content + bytes([j]))
        store.activate(version.id)
        return version.id

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = Store(tmp_path)
    assert sorted(ids) == sorted(version.id for version in store.history())
    assert [version.number for version in store.history()] == list(range(1, 13))
    assert store.current().id in ids
    assert store.faults == []


class Beaten(Disk):
    """Another process makes each folder just before."""

    def __init__(self):
        self.beaten = 0

    def make_folder(self, path):
        path.mkdir()
        self.beaten += 1
        super().make_folder(path)


def test_whoever_loses_the_race_for_the_first_commit_commits_too(tmp_path):
    disk = Beaten()
    assert live(Store(tmp_path / "new", disk=disk), CONTENT[0]).number == 1
    assert disk.beaten == 2


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "new").write_bytes(b"")
    with pytest.raises(errors.OutputError, match="File exists"):
        Store(tmp_path / "new").commit(CONTENT[0])


def meanwhile(monkeypatch, name, act):
    """Another process acts right behind the first call of a function of the store's own."""
    real = getattr(objects, name)

    def first(*given):
        monkeypatch.setattr(objects, name, real)
        try:
            return real(*given)
        finally:
            act()

    monkeypatch.setattr(objects, name, first)


def test_a_reader_leaves_alone_what_another_has_mended_meanwhile(tmp_path, monkeypatch):
    _, versions = filled(tmp_path)
    reader, other = Store(tmp_path), Store(tmp_path)
    damage(other.read(versions[2].id))
    meanwhile(monkeypatch, "digest", lambda: other.activate(other.commit(CONTENT[2]).id))
    assert reader.current() == versions[2] == Store(tmp_path).current()
    assert reader.faults == []


def test_a_reader_leaves_alone_a_pointer_that_was_turned_meanwhile(tmp_path, monkeypatch):
    _, versions = filled(tmp_path)
    reader, other = Store(tmp_path), Store(tmp_path)
    damage(tmp_path / "current.json", 60)
    meanwhile(monkeypatch, "unseal", lambda: other.activate(versions[0].id))
    assert reader.current() == versions[0] == Store(tmp_path).current()
    assert reader.faults == []


def test_a_reader_whose_version_is_collected_reads_on(tmp_path, monkeypatch):
    filled(tmp_path, 2)
    reader, other = Store(tmp_path), Store(tmp_path, keep_bytes=2100)
    new = []
    meanwhile(monkeypatch, "unseal", lambda: new.extend(live(other, content) for content in CONTENT[7:10]))
    assert reader.current() == new[-1]
    assert reader.faults == []


def test_a_reader_brings_no_record_back_that_was_deleted_meanwhile(tmp_path, monkeypatch):
    store, versions = filled(tmp_path, 6, keep_bytes=2100)
    monkeypatch.setattr(objects, "RECORDS", 1)
    meanwhile(monkeypatch, "unseal", store.collect)
    assert "its record was lost" not in [version.note for version in Store(tmp_path).history()]
    assert store.history() == versions[-3:]


def test_tables_notice_every_flipped_bit():
    sealed = seal({"trail": ["a", "b"], "x": 1.5})
    assert unseal(sealed) == {"trail": ["a", "b"], "x": 1.5}
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(errors.ModelError, match="damaged"):
            unseal(bytes(flipped))


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


def test_a_file_that_changes_while_it_is_read_is_not_committed(tmp_path, monkeypatch):
    source = tmp_path / "m.bin"
    source.write_bytes(CONTENT[0])
    store = Store(tmp_path / "store")
    monkeypatch.setattr(store, "_collect", lambda room: source.write_bytes(CONTENT[1]))
    with pytest.raises(errors.DataError, match="changed while it was read: commit it again"):
        store.commit(source)
    assert store.history() == []
    assert list((tmp_path / "store" / "versions").iterdir()) == []


def test_a_store_needs_no_numpy():
    code = "import edgelearn.store, sys; print('numpy' in sys.modules, 'hashlib' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False False\n"

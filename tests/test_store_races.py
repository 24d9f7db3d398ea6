# SPDX-License-Identifier: Apache-2.0
"""Versions in a folder that several write at once, or read while others write."""

import threading

import pytest
from stored import CONTENT, damage, filled, live

from edgelearn import errors
from edgelearn.durable import Disk
from edgelearn.store import Store, objects


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


def test_a_file_that_changes_while_it_is_read_is_not_committed(tmp_path, monkeypatch):
    source = tmp_path / "m.bin"
    source.write_bytes(CONTENT[0])
    store = Store(tmp_path / "store")
    monkeypatch.setattr(store, "_collect", lambda room: source.write_bytes(CONTENT[1]))
    with pytest.raises(errors.DataError, match="changed while it was read: commit it again"):
        store.commit(source)
    assert store.history() == []
    assert list((tmp_path / "store" / "versions").iterdir()) == []

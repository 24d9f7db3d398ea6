# SPDX-License-Identifier: Apache-2.0
"""Versions in a folder whose files are damaged, left behind or on a disk that takes no writes."""

import pytest
from cuts import Refusing
from stored import CONTENT, damage, filled

from edgelearn import errors
from edgelearn.store import Store
from edgelearn.store.versions import digest, seal, unseal


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


def test_tables_notice_every_flipped_bit():
    sealed = seal({"trail": ["a", "b"], "x": 1.5})
    assert unseal(sealed) == {"trail": ["a", "b"], "x": 1.5}
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(errors.ModelError, match="damaged"):
            unseal(bytes(flipped))

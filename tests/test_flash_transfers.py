# SPDX-License-Identifier: Apache-2.0
"""Transfers on a board without a line: who owns the offset, what is left of one, what refuses it."""

from collections import namedtuple

import pytest
from cuts import Cutting, Failing
from flashing import Direct, digest, item, model

from edgelearn.flash.board import RESERVE, Policy
from edgelearn.flash.bundle import signed
from edgelearn.flash.manifest import Manifest
from edgelearn.flash.smp import El, Group, Img, Op
from edgelearn.flash.staging import OPEN, Staging
from edgelearn.store import Store

OLD, NEW = model(2500, 1), model(2600, 2)


def test_another_file_of_the_same_name_and_size_begins_at_zero(quick_path):
    board, other = Direct(quick_path), model(2600, 3)
    begun = _begin(board, NEW)
    board.chunk(begun["sid"], 0, NEW[:1000])
    board.ask(Op.READ, El.HAVE, {"sid": begun["sid"]})
    assert _begin(Direct(quick_path), other)["off"] == 0
    assert _begin(Direct(quick_path), NEW)["off"] == 1000


def _begin(board, data, unsigned=True, **more):
    raw, _ = signed(Manifest((item(data),), **more), None)
    body = {"manifest": raw, "unsigned": unsigned, "index": 0, "packing": "none", "size": len(data)}
    return board.ask(Op.WRITE, El.BEGIN, {**body, "sha256": bytes.fromhex(digest(data))})


def test_the_board_owns_the_offset_and_chunks_may_come_twice(quick_path):
    board = Direct(quick_path)
    sid = _begin(board, NEW)["sid"]
    assert board.chunk(sid, 500, NEW[500:900])["off"] == 0
    assert board.chunk(sid, 0, NEW[:500])["off"] == 500
    assert board.chunk(sid, 0, NEW[:500])["off"] == 500
    bad = {"sid": sid, "off": 500, "crc": 1, "data": NEW[500:600]}
    assert board.ask(Op.WRITE, El.CHUNK, bad)["off"] == 500
    assert board.chunk(sid, 500, NEW[500:] + b"more")["off"] == 500  # more than was announced
    assert board.ask(Op.WRITE, El.VERIFY, {"sid": sid})["err"]["rc"] == 9  # not all there
    assert board.ask(Op.WRITE, El.CHUNK, {"sid": b"12345678"})["err"]["rc"] == 11


def test_abort_and_erase_end_a_transfer(quick_path):

    board = Direct(quick_path)
    for end in (lambda sid: board.ask(Op.WRITE, El.ABORT, {"sid": sid}), lambda sid: _erase(board)):
        sid = _begin(board, NEW)["sid"]
        board.chunk(sid, 0, NEW[:1000])
        assert "err" not in end(sid)
        assert _begin(board, NEW)["off"] == 0
    board.install(OLD)
    refused = board.ask(Op.WRITE, Img.ERASE, {"slot": 1}, Group.IMAGE)
    assert refused == {"rc": 6}  # it runs


def _erase(board):

    return board.ask(Op.WRITE, Img.ERASE, {}, Group.IMAGE)


@pytest.mark.parametrize("damage", ["torn", "changed", "lost"])
def test_a_torn_or_changed_part_is_cut_back_to_what_its_hash_vouches_for(quick_path, damage):
    board = Direct(quick_path)
    sid = _begin(board, NEW)["sid"]
    board.chunk(sid, 0, NEW[:1000])
    board.ask(Op.READ, El.HAVE, {"sid": sid})
    board.chunk(sid, 1000, NEW[1000:1500])  # not durable yet
    part = next((quick_path / "incoming").glob("*.part"))
    if damage == "changed":
        part.write_bytes(b"\0" + part.read_bytes()[1:])
    elif damage == "lost":
        part.unlink()
    expected = {"torn": 1000, "changed": 0, "lost": 0}[damage]
    again = Direct(quick_path)
    assert _begin(again, NEW)["off"] == expected
    assert again.write(NEW)["began"] == expected
    again.about(El.ACTIVATE, NEW)
    again.board.boot()
    assert again.live() == NEW


def test_a_byte_that_changes_on_the_disk_is_found_before_the_slot_is(quick_path):
    board = Direct(quick_path)
    sid = _begin(board, NEW)["sid"]
    board.chunk(sid, 0, NEW)
    part = next((quick_path / "incoming").glob("*.part"))
    part.write_bytes(NEW[:-1] + b"x" if NEW[-1:] != b"x" else NEW[:-1] + b"y")
    refused = board.ask(Op.WRITE, El.VERIFY, {"sid": sid})
    assert refused["err"]["rc"] == 8
    assert board.board.slots.images["model"].slots == (None, None)
    assert board.write(NEW)["match"]


def test_heat_and_other_work_refuse_a_write_before_it_begins(quick_path):
    board = Direct(quick_path, policy=Policy(unsigned=True, busy=lambda: "84 C"))
    refused = board.write(NEW)
    assert refused["err"]["rc"] == 9
    assert "84 C" in refused["rsn"]


def test_a_disk_without_room_refuses_and_goes_on_when_there_is(quick_path, monkeypatch):

    board = Direct(quick_path)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("edgelearn.flash.board.shutil.disk_usage", lambda folder: usage(1, 1, 1000))
        refused = board.write(NEW)
        assert refused["err"]["rc"] == 9
        assert "1,000 are free" in refused["rsn"]
        need = RESERVE + 3 * len(NEW)  # what arrives, put together, and in the store
        patch.setattr("edgelearn.flash.board.shutil.disk_usage", lambda folder: usage(1, 1, need - 1))
        assert board.write(NEW)["err"]["rc"] == 9
        patch.setattr("edgelearn.flash.board.shutil.disk_usage", lambda folder: usage(1, 1, need))
    assert board.write(NEW)["match"]


def test_a_board_takes_what_it_says_it_has_room_for(quick_path):
    """Of a daemon's store that keeps less, what is too much is said before a byte."""
    board = Direct(quick_path / "own")
    assert board.board.slots.stores["model"].keep_bytes == board.board.identity.capacity
    small = Direct(quick_path / "daemon", stores={"model": Store(quick_path / "store", keep_bytes=2600)})
    refused = small.write(NEW)
    assert refused["err"]["rc"] == 9
    assert "a slot takes 2,600" in refused["rsn"]
    assert small.write(model(2000))["match"]


def test_older_models_go_when_the_disk_is_full_and_what_runs_stays(quick_path, monkeypatch):
    board, versions = Direct(quick_path), quick_path / "model" / "versions"
    for number in range(5):
        board.install(model(3000, number), version=number + 1)
    held = sum(path.stat().st_size for path in versions.glob("*.bin"))
    usage = namedtuple("usage", "total used free")

    def full(folder):
        return usage(1, 1, RESERVE + 3 * len(NEW) + held // 2 - sum(p.stat().st_size for p in versions.glob("*.bin")))

    monkeypatch.setattr("edgelearn.flash.board.shutil.disk_usage", full)
    assert board.write(NEW, version=6)["match"]
    assert len(list(versions.glob("*.bin"))) == 3  # what runs, what ran before, what was written
    assert board.live() == model(3000, 4)
    board.about(El.ROLLBACK, model(3000, 4))
    assert board.live() == model(3000, 4)  # the slot to go back to has been written


def test_what_nobody_signed_comes_in_only_where_both_sides_say_so(quick_path):
    for allows, asks in ((True, True), (True, False), (False, True)):
        begun = _begin(Direct(quick_path, policy=Policy(unsigned=allows)), NEW, asks)
        assert begun.get("err", {}).get("rc") == (None if allows and asks else 7)


def test_a_board_looks_itself_whether_a_manifest_is_for_it(quick_path):
    board = Direct(quick_path)
    for other in ({"boards": ("rpi4",)}, {"arch": "armv7l"}, {"abi": 99}):
        assert _begin(board, NEW, **other)["err"]["rc"] == 6


def test_transfers_that_nobody_goes_on_with_make_room(quick_path, monkeypatch):
    begun = Direct(quick_path)
    begun.chunk(_begin(begun, OLD)["sid"], 0, OLD[:1000])
    (left,) = (quick_path / "incoming").glob("*.part")
    usage = namedtuple("usage", "total used free")
    board, room = Direct(quick_path), RESERVE + 3 * len(NEW)
    free = "edgelearn.flash.board.shutil.disk_usage"
    monkeypatch.setattr(free, lambda folder: usage(1, 1, room - left.exists()))
    assert board.write(NEW)["match"]
    assert not left.exists()


def test_what_waits_is_made_durable_after_two_seconds(quick_path):
    now = [0.0]
    board = Direct(quick_path, clock=lambda: now[0])
    sid = _begin(board, NEW)["sid"]
    assert board.chunk(sid, 0, NEW[:500]) == {"off": 500, "durable": 0}
    now[0] = 2.1
    assert board.chunk(sid, 500, NEW[500:600]) == {"off": 600, "durable": 600}


def test_bytes_are_synced_before_they_are_said_to_be_durable(quick_path):
    disk = Cutting()
    board = Direct(quick_path, disk=disk)
    sid = _begin(board, NEW)["sid"]
    board.chunk(sid, 0, NEW[:500])
    disk.done.clear()
    assert board.ask(Op.READ, El.HAVE, {"sid": sid})["durable"] == 500
    assert disk.done.index("sync") < disk.done.index("create")  # of the file that says so


def test_transfers_are_told_apart_by_hash_and_size(quick_path):
    """Their names on the line are eight bytes of the hash."""
    staging, sha256 = Staging(quick_path), b"12345678" + bytes(24)
    first = staging.begin(sha256, 100)
    first.add(b"x" * 50)
    first.sync()
    assert staging.begin(sha256[:8] + b"1" * 24, 100).off == 0
    assert staging.begin(sha256, 100).off == 50
    assert (staging.begin(sha256, 40).size, staging.begin(sha256, 40).off) == (40, 0)
    assert Staging(quick_path).begin(sha256, 40).off == 0


def test_a_board_remembers_the_last_few_transfers(quick_path):
    staging = Staging(quick_path)
    sids = [staging.begin(bytes([number]) * 32, 10).sid for number in range(OPEN + 1)]
    assert staging.find(sids[0]) is None
    assert all(staging.find(sid) for sid in sids[1:])


def test_bytes_that_a_disk_took_by_half_are_cut_off_again(quick_path):
    disk = Failing()
    board = Direct(quick_path, disk=disk)
    sid = _begin(board, NEW)["sid"]
    board.chunk(sid, 0, NEW[:500])
    disk.at = len(disk.done) + 1  # the write behind the opening of the file
    assert "the board's disk" in board.chunk(sid, 500, NEW[500:1000])["rsn"]
    assert disk.fired
    assert board.chunk(sid, 500, NEW[500:])["off"] == len(NEW)
    assert board.ask(Op.WRITE, El.VERIFY, {"sid": sid})["match"]

# SPDX-License-Identifier: Apache-2.0
"""Slots, trials and transfers on a board without a line, and what is left of them when the power goes, the process is
killed or the disk refuses at any operation."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from cuts import Cutting, Failing, Losing, PowerCut
from flashing import Direct, digest, item, model, noise

from edgelearn.flash.board import Policy
from edgelearn.flash.slots import TRIES
from edgelearn.flash.smp import El, Op

OLD, NEW = model(2500, 1), model(2600, 2)


def running(direct):
    slot = direct.board.slots.images["model"].running
    entry = direct.board.slots.images["model"].slots[slot] if slot is not None else None
    return entry.sha256 if entry else None


def events(direct):
    return [event["what"] for event in direct.board.slots.events]


def test_a_model_is_written_tried_confirmed_and_rolled_back(quick_path):
    board = Direct(quick_path)
    board.install(OLD, version=1)
    assert board.live() == OLD
    assert board.write(NEW, version=2)["slot"] == 0
    assert board.live() == OLD  # written is not active
    assert board.about(El.ACTIVATE, NEW)["restart"] is True
    assert running(board) == digest(OLD)
    board.board.boot()
    assert board.live() == NEW
    assert board.confirm(NEW) == {}
    assert board.confirm(NEW) == {}  # again it changes nothing
    assert board.board.slots.images["model"].floor == 2
    for _ in range(3):
        assert board.about(El.ROLLBACK, NEW)["restart"] in (True, False)  # asked again it does not go forth again
        board.board.boot()
        assert board.live() == OLD
    version = board.board.slots.stores["model"].current()
    assert (version.id, version.metrics["version"]) == (digest(OLD), 1)
    assert "flashed" in version.note


def test_a_flashed_model_is_a_version_in_the_store_of_a_daemon(quick_path):
    from edgelearn.store import Store

    store = Store(quick_path / "daemon")
    learned = store.activate(store.commit(model(100, 9), note="learned here").id)
    board = Direct(quick_path / "board", stores={"model": store})
    board.install(NEW, version=4)
    assert store.current().id == digest(NEW)
    assert [v.note for v in store.history()] == ["learned here", "flashed: model.bin version 4"]
    board.about(El.ROLLBACK, NEW)
    assert store.current().id in (digest(NEW), learned.id)


def test_a_thousand_ordinary_starts_change_nothing_and_write_nothing(quick_path):
    Direct(quick_path).install(OLD)
    before = (quick_path / "slots.json").read_bytes()
    disk = Cutting()
    board = Direct(quick_path, disk=disk)
    for _ in range(1000):
        board.board.boot()
    assert disk.done == []
    assert running(board) == digest(OLD)
    assert (quick_path / "slots.json").read_bytes() == before


def test_a_trial_that_is_never_confirmed_ends_by_itself_once_and_is_not_taken_again(quick_path):
    board = Direct(quick_path)
    board.install(OLD)
    board.write(NEW, version=2)
    board.about(El.ACTIVATE, NEW)
    for _ in range(TRIES):
        board = Direct(quick_path)  # crashes and starts again
        assert board.live() == NEW
    for _ in range(3):
        board = Direct(quick_path)
        assert board.live() == OLD
    assert sum("rolled back" in what for what in events(board)) == 1
    assert board.write(NEW, version=2)["err"]["rc"] == 10
    assert board.about(El.ACTIVATE, NEW)["err"]["rc"] == 10
    assert board.board.slots.images["model"].floor == 1


def test_content_that_does_not_load_never_becomes_live_and_the_reason_is_kept(quick_path):
    board, bad = Direct(quick_path), model(2000)[:-1]
    board.install(OLD)
    board.write(bad, version=2)
    board.about(El.ACTIVATE, bad)
    board.board.boot()
    assert board.live() == OLD
    assert "cut short" in events(board)[-1]


def test_confirm_needs_what_runs_the_start_it_runs_in_and_health(quick_path):
    class Sick:
        def start(self, image, path):
            return ""

        def health(self, image):
            return "3 of 4 canaries failed"

    board = Direct(quick_path, runner=Sick())
    board.write(NEW)
    assert board.confirm(NEW)["err"]["rc"] == 10
    board.board.runner = Direct(quick_path).board.runner
    assert board.confirm(NEW)["err"]["rc"] == 9  # written, not running
    board.about(El.ACTIVATE, NEW)
    assert board.confirm(NEW)["err"]["rc"] == 9  # pending
    old = board.board.boot_id
    board.board.boot()
    assert board.about(El.CONFIRM, NEW, boot_id=old)["err"]["rc"] == 9  # it has restarted since
    board.board.runner = Sick()
    refused = board.confirm(NEW)
    assert (refused["err"]["rc"], "3 of 4 canaries" in refused["rsn"]) == (10, True)


def test_versions_below_the_confirmed_one_are_refused_before_a_byte(quick_path):
    board = Direct(quick_path)
    board.install(NEW, version=5)
    refused = board.write(OLD, version=4)
    assert refused["err"]["rc"] == 7
    assert "below 5" in refused["rsn"]
    assert not list((quick_path / "incoming").iterdir())
    assert board.write(OLD, version=5)["match"]


def test_a_second_write_during_a_trial_is_refused(quick_path):
    board = Direct(quick_path)
    board.install(OLD)
    board.write(NEW, version=2)
    board.about(El.ACTIVATE, NEW)
    assert board.write(model(100, 7), version=3)["err"]["rc"] == 9
    assert board.write(NEW, version=2)["state"] == "present"


def test_nothing_to_confirm_to_activate_or_to_roll_back_to(quick_path):
    board = Direct(quick_path)
    assert board.about(El.ACTIVATE, NEW)["err"]["rc"] == 11
    board.install(OLD)
    assert board.about(El.ROLLBACK, OLD)["err"]["rc"] == 11
    assert board.about(El.ACTIVATE, OLD)["restart"] is False


def test_adapters_and_runtimes_have_slots_of_their_own(quick_path):
    board = Direct(quick_path)
    for image, data in (("model", OLD), ("adapter", noise(500, 3)), ("runtime", noise(700, 4))):
        board.install(data, image)
        assert board.live(image) == data
    board.about(El.ROLLBACK, OLD)
    assert board.live("adapter") == noise(500, 3)


def test_another_file_of_the_same_name_and_size_begins_at_zero(quick_path):
    board, other = Direct(quick_path), model(2600, 3)
    begun = _begin(board, NEW)
    board.chunk(begun["sid"], 0, NEW[:1000])
    board.ask(Op.READ, El.HAVE, {"sid": begun["sid"]})
    assert _begin(Direct(quick_path), other)["off"] == 0
    assert _begin(Direct(quick_path), NEW)["off"] == 1000


def _begin(board, data):
    from edgelearn.flash.bundle import signed
    from edgelearn.flash.manifest import Manifest

    raw, _ = signed(Manifest((item(data),)), None)
    body = {"manifest": raw, "unsigned": True, "index": 0, "packing": "none", "size": len(data)}
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
    from edgelearn.flash.smp import Group, Img

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
    from edgelearn.flash.smp import Group, Img

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


def test_a_lost_or_damaged_table_of_slots_leaves_what_is_live(quick_path):
    Direct(quick_path).install(OLD, version=3)
    for spoil in (lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-20])):
        spoil(quick_path / "slots.json")
        board = Direct(quick_path)
        assert board.live() == OLD
        assert board.board.slots.images["model"].floor == 3
        board.install(NEW, version=4)
        board.about(El.ROLLBACK, NEW)
        board.board.boot()
        assert board.live() == OLD
        shutil.rmtree(quick_path)
        Direct(quick_path).install(OLD, version=3)


def test_heat_and_other_work_refuse_a_write_before_it_begins(quick_path):
    board = Direct(quick_path, policy=Policy(unsigned=True, busy=lambda: "84 C"))
    refused = board.write(NEW)
    assert refused["err"]["rc"] == 9
    assert "84 C" in refused["rsn"]


def test_a_disk_without_room_refuses_and_goes_on_when_there_is(quick_path, monkeypatch):
    from collections import namedtuple

    board = Direct(quick_path)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("edgelearn.flash.board.shutil.disk_usage", lambda folder: usage(1, 1, 1000))
        refused = board.write(NEW)
        assert refused["err"]["rc"] == 9
        assert "1,000 are free" in refused["rsn"]
    assert board.write(NEW)["match"]


# ---- cuts ------------------------------------------------------------------------------------------------------------


def written(folder):
    """The old model runs, the new one is in the other slot."""
    board = Direct(folder)
    board.install(OLD)
    board.write(NEW, version=2)


def pending(folder):
    """The new model is to be tried."""
    written(folder)
    Direct(folder).about(El.ACTIVATE, NEW)


def tried(folder):
    """The new model is on trial."""
    pending(folder)
    Direct(folder)


def confirmed(folder):
    """The new model runs, the old one is in the other slot."""
    tried(folder)
    Direct(folder).confirm(NEW)


def begun(folder):
    """The old model runs."""
    Direct(folder).install(OLD)


def exhausted(folder):
    """The trial has no starts left."""
    pending(folder)
    for _ in range(TRIES):
        Direct(folder)


# what there is, what is done to it, what may run after a cut, what runs when it is done again
WALKS = {
    "write": (begun, lambda d: d.write(NEW, version=2), {"old"}, "old"),
    "activate": (written, lambda d: d.about(El.ACTIVATE, NEW), {"old", "new"}, "new"),
    "trial": (pending, lambda d: None, {"old", "new"}, "new"),
    "confirm": (tried, lambda d: d.confirm(NEW), {"new"}, "new"),
    "rollback of a trial": (tried, lambda d: d.about(El.ROLLBACK, NEW), {"old", "new"}, "old"),
    "rollback": (confirmed, lambda d: d.about(El.ROLLBACK, NEW), {"old", "new"}, "old"),
    "end of a trial": (exhausted, lambda d: None, {"old"}, "old"),
}
CONTENT = {"old": OLD, "new": NEW}


def play(name, folder, disk):
    """Start a board and do it; whether it came to its end."""
    _, act, _, _ = WALKS[name]
    try:
        answer = act(Direct(folder, disk=disk))
    except PowerCut:
        return False
    return answer is None or "err" not in answer


def operations(name, folder):
    """How many operations of a disk it takes."""
    WALKS[name][0](folder)
    disk = Cutting()
    assert play(name, folder, disk)
    shutil.rmtree(folder)
    return len(disk.done)


def settled(name, folder):
    """After the cut: what runs, then the same again to its end, then what runs."""
    _, act, between, end = WALKS[name]
    board = Direct(folder)
    assert board.live() in [CONTENT[name] for name in between]
    act(board)
    board = Direct(folder)
    assert board.live() == CONTENT[end]
    assert board.board.slots._live("model") == digest(CONTENT[end])
    return board


@pytest.mark.parametrize("names", [True, False], ids=["renames are lost", "contents are lost"])
@pytest.mark.parametrize("name", WALKS)
def test_power_cut_at_every_operation(quick_path, name, names):
    folder = quick_path / "board"
    count = operations(name, folder)
    assert count > 3
    for at in range(count):
        WALKS[name][0](folder)
        disk = Losing(at, names)
        assert not play(name, folder, disk)
        assert disk.fired
        settled(name, folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", WALKS)
def test_disk_that_refuses_at_every_operation(quick_path, name):
    """The process lives on: it says so, serves what it served, and does it when the disk is well again."""
    folder = quick_path / "board"
    for at in range(operations(name, folder)):
        WALKS[name][0](folder)
        disk = Failing(at, errno.ENOSPC)
        play(name, folder, disk)
        assert disk.fired
        settled(name, folder)
        shutil.rmtree(folder)


CHILD = """
import sys
sys.path[:0] = [{tests!r}]
from test_flash_slots import WALKS, play
from cuts import Killing
from pathlib import Path
play({name!r}, Path({folder!r}), Killing({at}))
"""


def killed_at(name, folder, at):
    """Do it in a process of its own that dies of SIGKILL at one operation."""
    tests = os.path.dirname(os.path.abspath(__file__))
    code = textwrap.dedent(CHILD).format(tests=tests, name=name, folder=str(folder), at=at)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr


@pytest.mark.parametrize("name", ["write", "confirm", "rollback"])
def test_kill_of_a_real_process(quick_path, name):
    folder = quick_path / "board"
    at = operations(name, folder) // 2
    WALKS[name][0](folder)
    killed_at(name, folder, at)
    settled(name, folder)


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKS)
def test_kill_of_a_real_process_at_every_operation(quick_path, name):
    folder = quick_path / "board"
    for at in range(operations(name, folder)):
        WALKS[name][0](folder)
        killed_at(name, folder, at)
        settled(name, folder)
        shutil.rmtree(folder)

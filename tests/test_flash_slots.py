# SPDX-License-Identifier: Apache-2.0
"""Slots and trials on a board without a line."""

import shutil

import pytest
from cuts import Cutting, Refusing
from flashing import Direct, digest, model, noise

from edgelearn.errors import RefusedError
from edgelearn.flash.slots import FAILED, Slots
from edgelearn.flash.smp import El
from edgelearn.flash.trials import TRIES

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
    for _ in range(1000):
        board = Direct(quick_path, disk=disk)  # all that it knows is what is on the disk
        assert running(board) == digest(OLD)
    assert disk.done == []
    assert board.live() == OLD
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


def test_the_same_content_under_a_later_version_raises_the_floor_where_it_runs(quick_path):
    board = Direct(quick_path)
    board.install(OLD, version=1)
    assert board.write(OLD, version=5)["state"] == "present"
    board.write(NEW, version=6)
    board.write(NEW, version=7)  # not confirmed: no floor
    board.write(NEW, version=6)
    assert board.board.slots.images["model"].slots[0].version == 7
    assert board.write(NEW, version=8, force=True)["match"]  # all of it came again
    again = Direct(quick_path)  # as the disk has it
    image = again.board.slots.images["model"]
    assert ([entry.version for entry in image.slots], image.floor) == ([8, 5], 5)
    assert again.write(OLD, version=4)["err"]["rc"] == 7


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


def test_an_older_version_that_is_confirmed_does_not_lower_the_floor(quick_path):
    board = Direct(quick_path)
    board.install(OLD, version=1)
    board.write(NEW, version=3)
    board.write(OLD, version=5)
    board.about(El.ACTIVATE, NEW)
    board.board.boot()
    assert "err" not in board.confirm(NEW)
    assert board.board.slots.images["model"].floor == 5


def test_a_slot_on_trial_is_not_erased(quick_path):
    board = Direct(quick_path)
    board.install(OLD)
    board.write(NEW, version=2)
    board.about(El.ACTIVATE, NEW)
    slots = board.board.slots
    with pytest.raises(RefusedError, match="only the other"):
        slots.erase("model", slots.images["model"].inactive)


def test_the_last_failures_are_remembered_and_older_ones_may_be_tried_again(quick_path):
    board = Direct(quick_path)
    sick = [(5).to_bytes(8, "little") + b"{bad!" + bytes([number]) for number in range(FAILED + 1)]
    for number, content in enumerate(sick):
        board.write(content, version=number + 1)
        board.about(El.ACTIVATE, content)
        board.board.boot()
    assert list(board.board.slots.images["model"].failed) == [digest(content) for content in sick[1:]]
    assert board.write(sick[-1], version=50)["err"]["rc"] == 10
    assert board.write(sick[0], version=50)["match"]


def test_a_disk_that_takes_no_writes_starts_what_ran_before_the_trial(quick_path):
    """A start of the trial that cannot be counted is none."""
    board = Direct(quick_path)
    board.install(OLD)
    board.write(NEW, version=2)
    board.about(El.ACTIVATE, NEW)
    board.board.boot()
    assert board.live() == NEW
    started = []
    Slots(quick_path, disk=Refusing()).boot(lambda image, path: started.append(path.read_bytes()) or "")
    assert started == [OLD]

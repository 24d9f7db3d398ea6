# SPDX-License-Identifier: Apache-2.0
"""Two slots for each image, and which of them runs: written, on trial, confirmed or back. Whatever operation the power
fails at, what runs afterwards is the older or the newer content.

Contents are versions in a store per image, so a flashed model is a version like any other; what is live is the store's
pointer. A slot names a version, and `slots.json` holds the slots, trials, version floors and events.

A trial is `pending` until the board restarts, `running` for at most TRIES starts, each counted on the disk before it
begins, and `leaving` while the board goes back. Starts without a trial write nothing, so no number of power cycles
changes a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edgelearn.durable import DISK, Disk
from edgelearn.errors import (
    EdgelearnError,
    ModelError,
    NothingToDoError,
    OutputError,
    RefusedError,
    TrustError,
    UnhealthyError,
)
from edgelearn.flash.manifest import IMAGES, Item
from edgelearn.flash.table import Table
from edgelearn.flash.trials import LEAVING, PENDING, RUNNING, TRIES, Entry, Trial
from edgelearn.store import Store

FAILED = 16
"""Contents per image that are remembered as failed and not taken again."""

Start = Callable[[str, Path], str]
"""Load the content of an image and let it answer; what is wrong with it, or nothing."""


class Slots(Table):
    """The slots of a board in `folder`, with a store for each image that takes contents of `capacity` bytes.

    Raises:
        OutputError: a change cannot be written; what ran before goes on.
    """

    def __init__(
        self, folder: Path, stores: Mapping[str, Store] | None = None, disk: Disk = DISK, capacity: int = 256 << 20
    ) -> None:
        kept: Mapping[str, Store] = stores or {}
        own = {
            image: kept.get(image) or Store(folder / image, suffix=".bin", disk=disk, keep_bytes=capacity)
            for image in IMAGES
        }
        super().__init__(folder, own, disk)

    def check(self, item: Item) -> None:
        """Whether this may be written now.

        Raises:
            TrustError: a version below the floor.
            UnhealthyError: content that failed its trial here.
            RefusedError: the slot to write is on trial.
        """
        image, sha256 = self.images[item.image], item.sha256.hex()
        if item.version < image.floor:
            raise TrustError(f"version {item.version} is below {image.floor} that was confirmed: build a newer one")
        if sha256 in image.failed:
            raise UnhealthyError(f"this {item.image} failed here before ({image.failed[sha256]}): build another")
        if image.trial and image.find(sha256) is None:
            raise RefusedError(f"a {item.image} is on trial: confirm it or roll back first")

    def make_room(self) -> None:
        """Delete what is kept beside what runs and what ran before it."""
        for store in self.stores.values():
            if store.folder.is_dir():
                store.collect(0)

    def install(self, item: Item, content: Path, key: str) -> int:
        """Put verified content in the slot that does not run; its number. It stays there when it is there."""
        image, sha256 = self.images[item.image], item.sha256.hex()
        about = {"version": item.version, "name": item.name, "key": key}
        self.stores[item.image].commit(content, note=f"flashed: {item.name} version {item.version}", metrics=about)
        found = image.find(sha256)
        if found is None:
            found = image.inactive
            entry = Entry(sha256, item.size, item.version, item.name, key)
            self._save(item.image, image.put(found, entry))
        else:
            self.relabel(item, key)
        return found

    def holds(self, name: str, sha256: str) -> int | None:
        """The slot with this content, if the content is there and whole."""
        slot = self.images[name].find(sha256)
        return slot if slot is not None and self.stores[name].holds(sha256) else None

    def relabel(self, item: Item, key: str) -> None:
        """The same content came under a later version: its slot has that now, and so has the floor where it runs."""
        image = self.images[item.image]
        slot = image.find(item.sha256.hex())
        entry = image.slots[slot] if slot is not None else None
        if slot is None or entry is None or item.version <= entry.version:
            return
        kept = image.put(slot, replace(entry, version=item.version, name=item.name, key=key))
        runs = entry.confirmed and slot == image.active
        self._save(item.image, replace(kept, floor=item.version if runs else image.floor))

    def activate(self, name: str, sha256: str) -> bool:
        """Let the next start try this content. False if it runs already.

        Raises:
            NothingToDoError: no slot holds it.
            UnhealthyError: it failed here before.
            RefusedError: something else is on trial.
        """
        image, slot = self.images[name], self.holds(name, sha256)
        if slot is None:
            raise NothingToDoError(f"no {name} slot holds {sha256[:12]}: write it first")
        if sha256 in image.failed:
            raise UnhealthyError(f"this {name} failed here before ({image.failed[sha256]}): write another")
        if slot == image.running:
            return False
        if image.trial and image.trial.slot == slot and image.trial.phase == PENDING:
            return True
        if image.trial:
            raise RefusedError(f"another {name} is on trial: confirm it or roll back first")
        before = self.stores[name].current()
        self._save(name, replace(image, trial=Trial(slot, before=before.id if before else None)))
        return True

    def boot(self, start: Start) -> None:
        """What a start does: go on leaving a trial, count one, load what runs. A trial that does not load ends."""
        for name in IMAGES:
            trial = self.images[name].trial
            try:
                if trial:
                    self._try(name, trial, start)
            except OutputError:  # a disk that takes no writes: no start of a trial goes uncounted
                self._start(name, trial.before if trial else None, start)
            else:
                if self.images[name].trial is None:
                    self._settle(name)
                    self._start(name, self._live(name), start)

    def _start(self, name: str, sha256: str | None, start: Start) -> None:
        if sha256 is not None:
            start(name, self.stores[name].read(sha256))

    def _settle(self, name: str) -> None:
        """A rollback turns the store's pointer before the slots; a cut between them is made up for here."""
        image, live = self.images[name], self._live(name)
        other = image.slots[image.inactive]
        if other and other.confirmed and other.sha256 == live:
            self._save(name, replace(image, active=image.inactive), f"back to {other.name} version {other.version}")

    def _try(self, name: str, trial: Trial, start: Start) -> None:
        if trial.phase == LEAVING or not trial.left:
            return self._leave(name, trial.reason or f"not confirmed in {TRIES} starts")
        self._save(name, replace(self.images[name], trial=replace(trial, phase=RUNNING, left=trial.left - 1)))
        entry = self.images[name].slots[trial.slot]
        assert entry is not None
        try:
            reason = start(name, self.stores[name].read(entry.sha256))
        except ModelError as error:  # its content does not match its hash any more
            reason = str(error)
        if reason:
            self._leave(name, reason)
        else:
            self.stores[name].activate(entry.sha256)

    def confirm(self, name: str, sha256: str) -> None:
        """Keep what is on trial; its version is the floor from now on. Doing it again changes nothing.

        Raises:
            NothingToDoError: nothing is on trial.
            RefusedError: what runs is not what is to be confirmed.
        """
        image = self.images[name]
        slot, trial = image.running, image.trial
        entry = image.slots[slot] if slot is not None else None
        if entry is None or entry.sha256 != sha256:
            running = entry.sha256[:12] if entry else "nothing"
            raise RefusedError(f"{running} runs, not {sha256[:12]}: restart the board and confirm what runs then")
        if trial is None:
            if entry.confirmed:
                return
            raise NothingToDoError(f"no {name} is on trial: activate one first")
        kept = image.put(trial.slot, replace(entry, confirmed=True))
        floor = max(image.floor, entry.version)
        told = f"{entry.name} version {entry.version} ({sha256[:12]}) is confirmed"
        self._save(name, replace(kept, active=trial.slot, trial=None, floor=floor), told)

    def rollback(self, name: str, reason: str, failed: bool = False) -> None:
        """End a trial, or go back to the confirmed content of the other slot. `failed`: do not take it again.

        Raises:
            NothingToDoError: there is neither.
        """
        image = self.images[name]
        if image.trial and (failed or image.trial.phase == RUNNING):
            self._leave(name, reason, failed)
        elif image.trial:
            self._save(name, replace(image, trial=None), f"a trial was called off: {reason}")
        else:
            other = image.slots[image.inactive]
            if image.active is None or other is None or not other.confirmed:
                raise NothingToDoError(f"the other {name} slot holds nothing that was confirmed: write a {name}")
            # The store's pointer first: a cut between leaves it ahead, and `boot` loads what it names.
            self.stores[name].activate(other.sha256)
            told = f"back to {other.name} version {other.version} ({other.sha256[:12]}): {reason}"
            self._save(name, replace(image, active=image.inactive), told)

    def _leave(self, name: str, reason: str, failed: bool = True) -> None:
        """Back to what ran before the trial, in steps that can each be the last before a cut."""
        image = self.images[name]
        trial = image.trial
        assert trial is not None
        if trial.phase != LEAVING:
            trial = replace(trial, phase=LEAVING, reason=reason, failed=failed)
            self._save(name, replace(image, trial=trial))
        entry = image.slots[trial.slot]
        assert entry is not None
        if trial.before is not None and self._live(name) != trial.before:
            self.stores[name].rollback(trial.before)
        known = dict(image.failed) | ({entry.sha256: trial.reason} if trial.failed else {})
        told = f"{entry.name} version {entry.version} ({entry.sha256[:12]}) was rolled back: {trial.reason}"
        kept = {sha256: known[sha256] for sha256 in list(known)[-FAILED:]}
        self._save(name, replace(image, trial=None, failed=kept), told)

    def erase(self, name: str, slot: int) -> None:
        """Empty a slot that does not run.

        Raises:
            RefusedError: it runs, or is on trial.
        """
        image = self.images[name]
        if slot in (image.running, image.active) or (image.trial and image.trial.slot == slot):
            raise RefusedError(f"{name} slot {slot} runs: only the other slot can be erased")
        if image.slots[slot] is not None:
            self._save(name, image.put(slot, None))

    def path(self, name: str, sha256: str) -> Path | None:
        """The file with this content, if it is there and whole."""
        with suppress(EdgelearnError):
            return self.stores[name].read(sha256)
        return None

# SPDX-License-Identifier: Apache-2.0
"""`slots.json`: slots, trials, version floors and events of a board, on its disk as a whole or as they were before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgelearn.durable import Disk, replacing, write_through
from edgelearn.errors import EdgelearnError
from edgelearn.flash.manifest import IMAGES
from edgelearn.flash.trials import Entry, Image, image_of
from edgelearn.store import Store
from edgelearn.store.versions import seal, unseal

EVENTS = 20
"""Events that are remembered; each rollback is one, with its reason."""


class Table:
    """What the file in `folder` says, by image; `events` are the oldest first.

    Raises:
        OutputError: a change cannot be written.
    """

    def __init__(self, folder: Path, stores: Mapping[str, Store], disk: Disk) -> None:
        self.folder, self.stores, self.disk = folder, stores, disk
        self.images, self.events, self._told = self._load()

    def _load(self) -> tuple[dict[str, Image], list[dict[str, Any]], int]:
        """What was saved; where that is lost, the live versions of the stores are what there is."""
        try:
            table = unseal((self.folder / "slots.json").read_bytes())
            return {name: image_of(table["images"][name]) for name in IMAGES}, list(table["events"]), table["told"]
        except FileNotFoundError:
            return {name: self._recovered(name) for name in IMAGES}, [], 0
        except (EdgelearnError, KeyError, TypeError, OSError):
            lost = {
                "n": 1,
                "image": "",
                "what": "slots.json was damaged: the live versions stay, the rest is forgotten",
            }
            return {name: self._recovered(name) for name in IMAGES}, [lost], 1

    def _recovered(self, name: str) -> Image:
        live = self.stores[name].current()
        if live is None:
            return Image()
        entry = Entry(live.id, live.size, int(live.metrics.get("version", 0)), str(live.metrics.get("name", name)))
        return Image((replace(entry, confirmed=True), None), 0, floor=entry.version)

    def _save(self, name: str, image: Image, told: str = "") -> None:
        images, events, number = {**self.images, name: image}, self.events, self._told
        if told:
            number += 1
            events = [*events, {"n": number, "image": name, "what": told}][-EVENTS:]
        table = {"images": {k: asdict(v) for k, v in images.items()}, "events": events, "told": number}
        if not self.folder.is_dir():
            self.disk.make_folder(self.folder)
            self.disk.sync_folder(self.folder.parent)
        with replacing(self.folder / "slots.json", self.disk) as partial:
            write_through(partial, [seal(table)], self.disk)
        self.images, self.events, self._told = images, events, number

    def _live(self, name: str) -> str | None:
        live = self.stores[name].current()
        return live.id if live else None

# SPDX-License-Identifier: Apache-2.0
"""What a board remembers of an image: its two slots, the trial of one, the lowest version, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

TRIES = 3
"""Starts that a trial has to be confirmed in."""
PENDING, RUNNING, LEAVING = "pending", "running", "leaving"


@dataclass(frozen=True)
class Entry:
    """What a slot holds: a version of the store by its hash, and what its manifest said."""

    sha256: str
    size: int
    version: int
    name: str
    key: str = ""
    confirmed: bool = False


@dataclass(frozen=True)
class Trial:
    """Of the content in `slot`; `before` is the version of the store to go back to, `reason` why it is left,
    `failed` whether its content is to be refused from then on."""

    slot: int
    phase: str = PENDING
    left: int = TRIES
    before: str | None = None
    reason: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Image:
    """The two slots of one image; `floor` is the lowest version it still takes."""

    slots: tuple[Entry | None, Entry | None] = (None, None)
    active: int | None = None
    trial: Trial | None = None
    floor: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> int | None:
        """The slot whose content answers."""
        return self.trial.slot if self.trial and self.trial.phase == RUNNING else self.active

    @property
    def inactive(self) -> int:
        """The slot that may be written."""
        return 1 if self.active is None else 1 - self.active

    def put(self, slot: int, entry: Entry | None) -> Image:
        """The same with another content in a slot."""
        return replace(self, slots=(entry, self.slots[1]) if slot == 0 else (self.slots[0], entry))

    def find(self, sha256: str) -> int | None:
        """The slot that holds this content."""
        return next((n for n, entry in enumerate(self.slots) if entry and entry.sha256 == sha256), None)


def image_of(table: Mapping[str, Any]) -> Image:
    """An image as `dataclasses.asdict` made a table of it."""
    slots = [Entry(**entry) if entry else None for entry in table["slots"]]
    trial = Trial(**table["trial"]) if table["trial"] else None
    return Image((slots[0], slots[1]), table["active"], trial, table["floor"], dict(table["failed"]))

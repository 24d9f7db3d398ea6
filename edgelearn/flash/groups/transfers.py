# SPDX-License-Identifier: Apache-2.0
"""Group 64: what SMP lacks. A signed manifest before the first byte, transfers that survive restarts, a look at what
was written, trials with health, and the rate of the line."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgelearn.errors import MismatchError, NothingToDoError, RefusedError, UnhealthyError
from edgelearn.flash import packing
from edgelearn.flash.cbor import octets
from edgelearn.flash.manifest import IMAGES, MAX_IMAGE, Item
from edgelearn.flash.smp import El, Message, Op
from edgelearn.flash.staging import digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgelearn.flash.board import Answer, Board, Handler
    from edgelearn.flash.staging import Transfer

PROTOCOL = 1


@dataclass(frozen=True)
class Session:
    """A transfer with what it will be: an item of a manifest, in a form."""

    transfer: Transfer
    item: Item
    key: str
    packing: str
    old: Path | None


class Transfers:
    """Answers of group 64."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._sessions: dict[bytes, Session] = {}
        self.table: dict[tuple[Op, int], Handler] = {
            (Op.READ, El.HELLO): lambda request: {"proto": PROTOCOL, **self._board.info()},
            (Op.WRITE, El.BEGIN): self.begin,
            (Op.WRITE, El.CHUNK): self.chunk,
            (Op.READ, El.HAVE): self.have,
            (Op.WRITE, El.VERIFY): self.verify,
            (Op.READ, El.VERIFY): self.look,
            (Op.WRITE, El.ACTIVATE): self.activate,
            (Op.WRITE, El.CONFIRM): self.confirm,
            (Op.WRITE, El.ROLLBACK): self.rollback,
            (Op.READ, El.HEALTH): self.health,
            (Op.READ, El.EVENTS): self.events,
            (Op.WRITE, El.ABORT): self.abort,
        }

    def begin(self, request: Message) -> Answer:
        """Check all that can be checked before a byte is sent; then say from which byte on."""
        body, board = request.body, self._board
        content = board.admit(
            octets(body, "manifest"),
            octets(body, "signature") if "signature" in body else b"",
            bool(body.get("unsigned")),
        )
        item = content.items[int(body["index"])]
        sha256, size, form = octets(body, "sha256"), int(body["size"]), body["packing"]
        if form not in packing.PACKINGS or len(sha256) != 32 or not 0 < size <= MAX_IMAGE:
            raise ValueError("packing, sha256 or size")
        board.slots.check(item)
        slot = board.slots.holds(item.image, item.sha256.hex())
        if slot is not None and not body.get("force"):
            board.slots.relabel(item, content.key)
            return {"state": "present", "slot": slot}
        old = self._old(item.image, octets(body, "old")) if form == "diff" else None
        board.require_room(item.image, item.size, size)
        transfer = board.staging.begin(sha256, size)
        self._sessions[transfer.sid] = Session(transfer, item, content.key, form, old)
        for sid in list(self._sessions)[:-8]:
            del self._sessions[sid]
        return {"state": "receiving", "sid": transfer.sid, "off": transfer.off}

    def _old(self, image: str, sha256: bytes) -> Path:
        path = self._board.slots.path(image, sha256.hex()) if len(sha256) == 32 else None
        if path is None:
            raise NothingToDoError("the board has not the payload that the difference is to: write all of it")
        return path

    def _session(self, request: Message) -> Session:
        session = self._sessions.get(octets(request.body, "sid"))
        if session is None:
            raise NothingToDoError("no such transfer since the board started: begin it again")
        return session

    def chunk(self, request: Message) -> Answer:
        """Bytes at an offset. The answer is where the next ones belong, whatever came."""
        transfer, data = self._session(request).transfer, octets(request.body, "data")
        fits = request.body["off"] == transfer.off and len(data) <= transfer.size - transfer.off
        if fits and zlib.crc32(data) == request.body["crc"]:
            transfer.add(data)
        return {"off": transfer.off, "durable": transfer.durable}

    def have(self, request: Message) -> Answer:
        """What a power cut would leave, and its hash."""
        transfer = self._session(request).transfer
        transfer.sync()
        return {"off": transfer.off, "durable": transfer.durable, "sha256": transfer.prefix()}

    def verify(self, request: Message) -> Answer:
        """Read it back from the disk, put it in the slot that does not run."""
        session = self._session(request)
        transfer, item, staging = session.transfer, session.item, self._board.staging
        if transfer.off != transfer.size:
            raise RefusedError(f"{transfer.size - transfer.off} bytes are missing: send them first")
        transfer.check()
        self._board.slots.check(item)  # things may have changed since it began
        path = transfer.part if session.packing == "none" else self._unpacked(session)
        try:
            if path == transfer.part and (transfer.sha256, transfer.size) != (item.sha256, item.size):
                raise MismatchError("what arrived is not what the manifest says: make the bundle again")
            slot = self._board.slots.install(item, path, session.key)
        finally:
            if path != transfer.part:
                self._board.disk.remove(path)
        staging.finish(transfer)
        del self._sessions[transfer.sid]
        return {"match": True, "slot": slot, "sha256": item.sha256}

    def _unpacked(self, session: Session) -> Path:
        """The payload as a file, if it is what the manifest says."""
        staging, item = self._board.staging, session.item
        try:
            with session.transfer.part.open("rb") as source:
                return staging.assemble(item.sha256, packing.unpack(session.packing, source, item.size, session.old))
        except MismatchError:
            staging.finish(session.transfer)
            raise

    def look(self, request: Message) -> Answer:
        """The slot that holds content, after reading it again."""
        name, sha256 = self._named(request)
        slot, path = self._board.slots.images[name].find(sha256), self._board.slots.path(name, sha256)
        if slot is None or path is None or digest_of(path).hex() != sha256:
            raise MismatchError(f"no {name} slot holds {sha256[:12]} undamaged: write it")
        return {"slot": slot}

    def activate(self, request: Message) -> Answer:
        """Mark content for a trial at the next start."""
        name, sha256 = self._named(request)
        return {"restart": self._board.slots.activate(name, sha256)}

    def _named(self, request: Message) -> tuple[str, str]:
        name = request.body["image"]
        if name not in IMAGES:
            raise ValueError("image")
        return name, octets(request.body, "sha256").hex()

    def confirm(self, request: Message) -> Answer:
        """Keep what runs now, in this start, and is well."""
        name, sha256 = self._named(request)
        if request.body["boot_id"] != self._board.boot_id:
            raise RefusedError("the board has restarted since: look what runs now and confirm that")
        if reason := self._board.runner.health(name):
            raise UnhealthyError(f"the {name} on trial is not healthy ({reason}): roll it back with 'elflash rollback'")
        self._board.slots.confirm(name, sha256)
        return {}

    def rollback(self, request: Message) -> Answer:
        """Go back, if what runs is what the host thinks; asked again it changes nothing."""
        name, sha256 = self._named(request)
        slots = self._board.slots
        image = slots.images[name]
        slot = image.trial.slot if image.trial else image.active
        now = image.slots[slot] if slot is not None else None
        if now is None or now.sha256 != sha256:
            return {"restart": False}
        reason = str(request.body.get("reason", "asked for"))[:120]
        running = image.running
        slots.rollback(name, reason, bool(request.body.get("failed")))
        return {"restart": running != slots.images[name].running}

    def health(self, request: Message) -> Answer:
        """What runs, and how it does."""
        return {
            "boot_id": self._board.boot_id,
            "busy": self._board.policy.busy(),
            "images": [self._state(name) for name in IMAGES],
        }

    def _state(self, name: str) -> Answer:
        image = self._board.slots.images[name]
        trial = (
            {"slot": image.trial.slot, "phase": image.trial.phase, "left": image.trial.left} if image.trial else None
        )
        slots = [
            entry
            and {
                "sha256": bytes.fromhex(entry.sha256),
                "size": entry.size,
                "version": entry.version,
                "name": entry.name,
                "key": entry.key,
                "confirmed": entry.confirmed,
            }
            for entry in image.slots
        ]
        wrong = self._board.runner.health(name)
        return {"image": name, "running": image.running, "floor": image.floor, "trial": trial, "wrong": wrong} | {
            "slots": slots
        }

    def events(self, request: Message) -> Answer:
        """What happened after event number `after`."""
        after = int(request.body.get("after", 0))
        return {"events": [event for event in self._board.slots.events if event["n"] > after]}

    def abort(self, request: Message) -> Answer:
        """Forget a transfer: the next one begins at zero."""
        session = self._session(request)
        del self._sessions[session.transfer.sid]
        self._board.staging.finish(session.transfer)
        return {}

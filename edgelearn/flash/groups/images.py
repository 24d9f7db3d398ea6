# SPDX-License-Identifier: Apache-2.0
"""Group 1 of SMP, as mcumgr, smpmgr and smpclient use it: list, upload, test, confirm, erase.

Images are numbered model 0, adapter 1, runtime 2, with slots 0 and 1 each. What is uploaded is a bundle, which brings
its signature, or, where the board allows it, a bare file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgelearn.errors import EdgelearnError, IncompatibleError, MismatchError, RefusedError, TrustError
from edgelearn.flash import bundle, packing
from edgelearn.flash.cbor import octets
from edgelearn.flash.manifest import IMAGES, Item
from edgelearn.flash.smp import Group, Img, Message, Op, Rc
from edgelearn.flash.trials import RUNNING, Entry, Image

if TYPE_CHECKING:
    from edgelearn.flash.board import Answer, Board, Handler
    from edgelearn.flash.staging import Transfer

HASH_NOT_FOUND, WRITE_FAILED, INVALID_SLOT, NO_OFFSET, NO_LENGTH = 8, 12, 14, 20, 21
BAD_HEADER, BAD_MAGIC, INVALID_HASH, OLDER, TOO_LARGE, OVERRUN, DENIED = 22, 23, 24, 27, 30, 31, 32
"""Errors of the group, in IMG_MGMT_ERR's numbers."""
FIRST = len(bundle.MAGIC)


class Images:
    """Answers of group 1."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._upload: tuple[Transfer, str] | None = None
        self.table: dict[tuple[Op, int], Handler] = {
            (Op.READ, Img.STATE): self.state,
            (Op.WRITE, Img.STATE): self.mark,
            (Op.WRITE, Img.UPLOAD): self.upload,
            (Op.WRITE, Img.ERASE): self.erase,
            (Op.READ, Img.SLOTS): self.slots,
        }

    def state(self, request: Message) -> Answer:
        """All slots that hold something."""
        listed = []
        for number, name in enumerate(IMAGES):
            image = self._board.slots.images[name]
            listed += [_row(number, slot, entry, image) for slot, entry in enumerate(image.slots) if entry]
        return {"images": listed, "splitStatus": 0}

    def mark(self, request: Message) -> Answer | Message:
        """Set content for test by its hash, or confirm what runs; never what does not run."""
        confirm, slots = bool(request.body.get("confirm")), self._board.slots
        if request.body.get("hash") is None:
            if not confirm:
                return self._refuse(request, INVALID_HASH)
            on_trial = [name for name in IMAGES if (t := slots.images[name].trial) and t.phase == RUNNING]
            return self._confirm(request, on_trial)
        sha256 = octets(request.body, "hash").hex()
        if len(sha256) != 64:
            return self._refuse(request, INVALID_HASH)
        names = [name for name in IMAGES if slots.images[name].find(sha256) is not None]
        if not names:
            return self._refuse(request, HASH_NOT_FOUND)
        if confirm:
            image = slots.images[names[0]]
            if image.running is None or image.find(sha256) != image.running:
                return self._refuse(request, DENIED)
            return self._confirm(request, names[:1])
        slots.activate(names[0], sha256)
        return self.state(request)

    def _confirm(self, request: Message, names: list[str]) -> Answer | Message:
        for name in names:
            image = self._board.slots.images[name]
            entry = image.slots[image.running] if image.running is not None else None
            if entry is None or self._board.runner.health(name):
                return self._refuse(request, DENIED)
            self._board.slots.confirm(name, entry.sha256)
        return self.state(request)

    def _refuse(self, request: Message, rc: int) -> Message:
        return request.refusal(rc, Group.IMAGE)

    def upload(self, request: Message) -> Answer | Message:
        """A piece of a file; the answer is the offset that comes next, whatever came."""
        body = request.body
        if "off" not in body:
            return self._refuse(request, NO_OFFSET)
        try:
            if body["off"] == 0:
                refused = self._begin(request)
                if refused is not None:
                    return self._refuse(request, refused)
            if self._upload is None:
                return {"off": 0}
            transfer, _ = self._upload
            if body["off"] == transfer.off and transfer.off < transfer.size:
                data = octets(body, "data")
                if len(data) > transfer.size - transfer.off:
                    return self._refuse(request, OVERRUN)
                transfer.add(data)
            if transfer.off < transfer.size:
                return {"off": transfer.off}
            return self._finish(transfer)
        except (EdgelearnError, OSError) as error:
            return self._refuse(request, _rc(error))

    def _begin(self, request: Message) -> int | None:
        """Open the transfer; an error's number if this file cannot be taken."""
        body = request.body
        size, number, sha256 = body.get("len"), body.get("image") or 0, body.get("sha")
        if not isinstance(size, int) or size <= 0:
            return NO_LENGTH
        if number not in range(len(IMAGES)):
            return INVALID_SLOT
        self._check_start(octets(body, "data"))
        named = sha256 if isinstance(sha256, bytes) and len(sha256) == 32 else None
        if named is None:  # it cannot be gone on with: a name of its own, and the last one without is gone
            self._forget(unnamed=True)
        self._board.require_room(IMAGES[number], size, size)
        transfer = self._board.staging.begin(named or os.urandom(32), size, named is not None)
        self._upload = (transfer, IMAGES[number])
        return None

    def _check_start(self, data: bytes) -> None:
        """Without a bundle's first bytes it is a bare file, which not every board takes."""
        if not data.startswith(bundle.MAGIC[: len(data)]) or not data:
            self._board.require_unsigned()

    def _forget(self, unnamed: bool = False) -> None:
        if self._upload is not None and not (unnamed and self._upload[0].named):
            self._board.staging.finish(self._upload[0])
            self._upload = None

    def _finish(self, transfer: Transfer) -> Answer:
        assert self._upload is not None
        name = self._upload[1]
        try:
            transfer.check()
            with transfer.part.open("rb") as stream:
                is_bundle = stream.read(FIRST) == bundle.MAGIC
            if is_bundle:
                self._install_bundle(transfer.part)
            else:
                self._install_bare(name, transfer)
        except (EdgelearnError, OSError):
            self._forget()
            raise
        self._forget()
        return {"off": transfer.size, "match": True}

    def _install_bare(self, name: str, transfer: Transfer) -> None:
        """A file that nobody vouches for takes the place of version 0, or the version that the floor allows."""
        self._board.require_unsigned()
        floor = self._board.slots.images[name].floor
        digest = transfer.sha256 if transfer.named else transfer.prefix()
        item = Item(name, floor, f"{name}.bin", transfer.size, digest)
        self._board.slots.check(item)
        self._board.slots.install(item, transfer.part, "")

    def _install_bundle(self, path: Path) -> None:
        """All of a bundle or nothing: each payload is unpacked and checked before the first slot changes."""
        whole, ready = bundle.read(path), []
        content = self._board.admit(whole.raw, whole.signature)
        try:
            for item, form in zip(content.items, whole.forms, strict=True):
                self._board.slots.check(item)
                self._board.require_room(item.image, item.size, 0)
                ready.append((item, self._unpacked(path, item, form)))
            for item, file in ready:
                self._board.slots.install(item, file, content.key)
        finally:
            for _, file in ready:
                self._board.disk.remove(file)

    def _unpacked(self, path: Path, item: Item, form: bundle.Form) -> Path:
        with path.open("rb") as stream:
            part = packing.Slice(stream, form.offset, form.size)
            return self._board.staging.assemble(item.sha256, packing.unpack(form.packing, part, item.size))

    def erase(self, request: Message) -> Answer | Message:
        """Empty a slot that does not run, the model's unless one is named; uploads begin at zero after it."""
        slot = request.body.get("slot", self._board.slots.images[IMAGES[0]].inactive)
        if not isinstance(slot, int) or not 0 <= slot < 2 * len(IMAGES):
            return self._refuse(request, INVALID_SLOT)
        name = IMAGES[slot // 2]
        try:
            self._board.slots.erase(name, slot % 2)
        except RefusedError:
            return request.refusal(Rc.BAD_STATE)
        self._upload = None
        self._board.staging.clear()
        return {}

    def slots(self, request: Message) -> Answer:
        """How large each slot is, and which image an upload to it names."""
        size = self._board.identity.capacity
        rows = [{"slot": slot, "size": size, "upload_image_id": 0} for slot in (0, 1)]
        return {
            "images": [
                {"image": n, "slots": [{**row, "upload_image_id": n} for row in rows], "max_image_size": size}
                for n in range(len(IMAGES))
            ]
        }


def _row(number: int, slot: int, entry: Entry, image: Image) -> Answer:
    """A slot as MCUboot lists it."""
    trial = image.trial if image.trial and image.trial.slot == slot else None
    return {
        "image": number,
        "slot": slot,
        "version": f"{entry.version}.0.0",
        "hash": bytes.fromhex(entry.sha256),
        "bootable": True,
        "pending": trial is not None and trial.phase != RUNNING,
        "confirmed": entry.confirmed and slot == image.active,
        "active": slot == image.running,
        "permanent": False,
    }


def _rc(error: Exception) -> int:
    """The number of the group that comes nearest."""
    kinds = ((IncompatibleError, BAD_HEADER), (MismatchError, BAD_HEADER), (RefusedError, TOO_LARGE))
    if isinstance(error, TrustError):
        return OLDER if "below" in str(error) else BAD_MAGIC
    return next((rc for kind, rc in kinds if isinstance(error, kind)), WRITE_FAILED)

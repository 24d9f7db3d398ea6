# SPDX-License-Identifier: Apache-2.0
"""A board as the host sees it: what it can be asked for, and files that reach it whatever happens in between."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import Any

from edgelearn.errors import LinkError, NothingToDoError, RefusedError, UnhealthyError
from edgelearn.flash.manifest import Manifest
from edgelearn.flash.session import SLOW, Session
from edgelearn.flash.smp import El, File, Group, Op
from edgelearn.flash.upload import Progress, Upload

VERIFY_PER_MB = 8.0
"""Seconds that a board may take to read back and unpack a megabyte: SD cards stall for seconds."""
BEGINNINGS = 20
"""Times that a transfer is begun again after a lost line or a restart before it is given up."""


@dataclass(frozen=True)
class Payload:
    """One image of a manifest in the form in which it travels; `old` is the hash that a `diff` is to."""

    index: int
    packing: str
    data: bytes
    old: bytes = b""

    def about(self) -> dict[str, Any]:
        """What the board must know of it before it comes."""
        sha256 = hashlib.sha256(self.data).digest()
        table = {"index": self.index, "packing": self.packing, "size": len(self.data), "sha256": sha256}
        return {**table, "old": self.old}


@dataclass(frozen=True)
class Written:
    """What became of a payload: `present` if the board had it, else `written`."""

    image: str = ""
    sha256: str = ""
    slot: int = 0
    state: str = ""
    bytes_sent: int = 0
    resumed_at: int = 0
    seconds: float = 0.0


class Remote(Session):
    """What a board can be asked for, and files that reach it whatever happens in between."""

    def state(self, image: str) -> dict[str, Any]:
        """Slots, trial, floor and health of an image."""
        found: dict[str, Any] = next(row for row in self.read(El.HEALTH)["images"] if row["image"] == image)
        return found

    def check(self, content: Manifest) -> None:
        """Whether the board is the one that this is for, before anything is sent.

        Raises:
            IncompatibleError: it is not.
        """
        content.check_board(self.info["board"], self.info["arch"], int(self.info["abi"]))

    def write(
        self,
        raw: bytes,
        signature: bytes,
        content: Manifest,
        payload: Payload,
        told: Progress,
        force: bool = False,
        resume: bool = True,
        started: bool = False,
    ) -> Written:
        """Bring one payload into the slot that does not run. A lost line is waited for, and gone on with. `started`:
        only if the board has a part of it already.

        Raises:
            NothingToDoError: it has not, though it should.
            LinkError: the line did not come back; what the board has stays there.
            FlashError: the board refused.
        """
        item = content.items[payload.index]
        begin = {"manifest": raw, "signature": signature, "unsigned": not signature, "force": force} | payload.about()
        if started and not self._begun(begin):
            raise NothingToDoError("the board has no part of this: send it with 'elflash write'")
        start, first, done = time.monotonic(), None, None
        for attempt in range(BEGINNINGS):
            done = self._once(begin, payload, told, resume or attempt > 0, item.size, attempt + 1 == BEGINNINGS)
            first = done.resumed_at if first is None else first
            if done.state:
                break
        assert done is not None
        assert first is not None
        sent = len(payload.data) - first if done.state == "written" else 0
        return replace(
            done,
            image=item.image,
            sha256=item.sha256.hex(),
            bytes_sent=sent,
            resumed_at=first,
            seconds=time.monotonic() - start,
        )

    def _begun(self, begin: dict[str, Any]) -> bool:
        """Whether the board has some of it, or all."""
        begun = self.do(El.BEGIN, begin)
        return bool(begun["state"] == "present" or begun["off"])

    def _once(
        self, begin: dict[str, Any], payload: Payload, told: Progress, resume: bool, size: int, last: bool
    ) -> Written:
        """One beginning of a transfer; without a `state` it must be begun again."""
        first = 0
        try:
            begun = self.do(El.BEGIN, begin)
            if begun["state"] == "present":
                return Written(slot=begun["slot"], state="present")
            if not resume and begun["off"]:
                self.do(El.ABORT, {"sid": begun["sid"]})
                begun = self.do(El.BEGIN, begin)
            first = int(begun["off"])
            most = int(self.info["max_chunk"])
            Upload(self.client, self.ladder, begun["sid"], payload.data, first, most, told).run()
            done = self.do(El.VERIFY, {"sid": begun["sid"]}, SLOW + VERIFY_PER_MB * size / 1e6)
            return Written(slot=done["slot"], state="written", resumed_at=first)
        except NothingToDoError:
            if payload.packing == "diff" or last:
                raise
            self.hello()
        except LinkError:
            if last:
                raise
            self.reconnect()
        return Written(resumed_at=first)

    def activate(self, image: str, sha256: str) -> bool:
        """Mark content for a trial; whether the board must restart for it."""
        return bool(self.do(El.ACTIVATE, {"image": image, "sha256": bytes.fromhex(sha256)})["restart"])

    def confirm(self, image: str, sha256: str) -> None:
        """Keep what is on trial."""
        boot_id = self.hello()["boot_id"]
        self.do(El.CONFIRM, {"image": image, "sha256": bytes.fromhex(sha256), "boot_id": boot_id})

    def rollback(self, image: str, sha256: str, reason: str, failed: bool = False) -> bool:
        """Go back from this content; whether the board must restart for it."""
        body = {"image": image, "sha256": bytes.fromhex(sha256), "reason": reason, "failed": failed}
        return bool(self.do(El.ROLLBACK, body)["restart"])

    def try_out(self, image: str, sha256: str, seconds: float) -> None:
        """Start the board with content on trial, look at it for up to `seconds`, confirm it; or roll it back.

        Raises:
            UnhealthyError: it did not start, or was not well in time; the board runs what it ran before.
        """
        if self.activate(image, sha256):
            self.reset()
        end = time.monotonic() + seconds
        while True:
            state = self.state(image)
            running = state["slots"][state["running"]] if state["running"] is not None else None
            if running is None or running["sha256"].hex() != sha256:
                raise UnhealthyError(f"the board went back by itself: {self.last_event(image)}; build another {image}")
            if not state["wrong"]:
                return self.confirm(image, sha256)
            if time.monotonic() >= end:
                break
            time.sleep(0.2)
        if self.rollback(image, sha256, str(state["wrong"]), failed=True):
            self.reset()
        raise UnhealthyError(f"the {image} was rolled back ({state['wrong']}): build another one")

    def last_event(self, image: str) -> str:
        """What happened last to an image."""
        events = [event for event in self.read(El.EVENTS, {"after": 0})["events"] if event["image"] == image]
        return str(events[-1]["what"]) if events else "it does not say why"

    def verify(self, image: str, sha256: str) -> int:
        """The slot that holds this content, which the board reads again from its disk.

        Raises:
            MismatchError: none does, or it is damaged.
        """
        size = max((slot["size"] for slot in self.state(image)["slots"] if slot), default=0)
        body = {"image": image, "sha256": bytes.fromhex(sha256)}
        timeout = SLOW + VERIFY_PER_MB * size / 1e6
        return int(self.client.request(Op.READ, Group.EDGELEARN, El.VERIFY, body, timeout)["slot"])

    def file(self, name: str) -> bytes:
        """A log or report of the board.

        Raises:
            RefusedError: there is none of that name.
        """
        data, size = b"", 1
        while len(data) < size:
            try:
                answer = self.client.request(Op.READ, Group.FILE, File.DOWNLOAD, {"name": name, "off": len(data)})
            except RefusedError as error:
                raise RefusedError(f"the board gives no {name}: name a file below logs or reports") from error
            size = int(answer.get("len", size))
            if not answer["data"] and len(data) < size:
                raise RefusedError(f"{name} became shorter while it was read: read it again")
            data += answer["data"]
        return data

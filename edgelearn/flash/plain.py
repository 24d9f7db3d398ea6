# SPDX-License-Identifier: Apache-2.0
"""A board that speaks plain SMP and nothing of ours, such as one that runs Zephyr: upload, test, confirm by group 1."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

from edgelearn.errors import MismatchError, NothingToDoError, RefusedError
from edgelearn.flash.cbor import octets
from edgelearn.flash.client import Client, NotSupportedError
from edgelearn.flash.smp import Group, Img, Op, Os
from edgelearn.flash.upload import Progress

FIRST = 10.0
"""Seconds for the first chunk, in which a board may erase its slot."""
SMALL = 256
"""Bytes of a message that every board has room for."""
STUCK = 5
"""Times that a board names the same offset before it is given up: one that cannot write does so for ever."""
OVERHEAD = 8 + 4 + 120
"""Bytes of a message beside its data: header, frame, names, length and hash."""


class Plain:
    """What such a board can be asked for."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def info(self) -> dict[str, Any]:
        """What it says of itself; what it does not answer is left out."""
        asked: tuple[tuple[Os, dict[str, Any]], ...] = (
            (Os.INFO, {"format": "a"}),
            (Os.BOOTLOADER, {}),
            (Os.PARAMS, {}),
        )
        said: dict[str, Any] = {}
        for command, body in asked:
            with suppress(NotSupportedError, RefusedError):
                said |= self._client.request(Op.READ, Group.OS, command, body)
        return said

    def erase(self, slot: int | None = None) -> None:
        """Empty a slot that does not run, which the board chooses unless one is named; flash takes its time."""
        self._client.request(Op.WRITE, Group.IMAGE, Img.ERASE, {} if slot is None else {"slot": slot}, FIRST)

    def slots(self) -> list[dict[str, Any]]:
        """What its slots hold, as it lists them."""
        return list(self._client.request(Op.READ, Group.IMAGE, Img.STATE, {})["images"])

    def upload(self, data: bytes, image: int, told: Progress) -> None:
        """Send a file, from the offset on that the board names.

        Raises:
            MismatchError: it says that its hash is another.
            RefusedError: it names none, or the same one again and again.
            LinkError: it does not answer.
        """
        size, off, match, same = max(16, self._buffer() - OVERHEAD), 0, True, 0
        while off < len(data):
            body: dict[str, Any] = {"off": off, "data": data[off : off + size]}
            if not off:
                sha256 = hashlib.sha256(data).digest()
                body = {**body, "image": image, "len": len(data), "sha": sha256}
            answer = self._client.request(Op.WRITE, Group.IMAGE, Img.UPLOAD, body, 0.0 if off else FIRST)
            there, match = answer.get("off"), bool(answer.get("match", True))
            same = same + 1 if there == off else 0
            if not isinstance(there, int) or same == STUCK:
                raise RefusedError(f"the board goes no further than byte {off:,} of {len(data):,}: look at its log")
            off = there
            told(off, len(data))
        if not match:
            raise MismatchError("what the board has is not what was sent: write it again")

    def _buffer(self) -> int:
        """Bytes of a message that it has room for."""
        try:
            return int(self._client.request(Op.READ, Group.OS, Os.PARAMS, {}).get("buf_size", SMALL))
        except NotSupportedError:  # older boards and bootloaders do not say
            return SMALL

    def test(self, sha256: bytes) -> None:
        """Let the next start try it."""
        self._client.request(Op.WRITE, Group.IMAGE, Img.STATE, {"hash": sha256, "confirm": False})

    def confirm(self) -> None:
        """Keep what runs."""
        self._client.request(Op.WRITE, Group.IMAGE, Img.STATE, {"confirm": True})

    def reset(self) -> None:
        """Restart it."""
        self._client.request(Op.WRITE, Group.OS, Os.RESET, {})

    def newest(self, image: int = 0) -> bytes:
        """The hash of an image's slot that does not run.

        Raises:
            NothingToDoError: there is none.
        """
        rows = [row for row in self.slots() if row.get("image", 0) == image]
        waiting = [row for row in rows if not row.get("active") and isinstance(row.get("hash"), bytes)]
        if not waiting:
            raise NothingToDoError("no slot holds anything to test: write an image first")
        return octets(waiting[-1], "hash")

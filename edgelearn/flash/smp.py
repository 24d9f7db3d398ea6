# SPDX-License-Identifier: Apache-2.0
"""SMP messages: a header of eight bytes and a CBOR map. Bytes in, bytes out; no port in sight.

Source: Zephyr's "SMP protocol specification" and "MCUmgr" pages. Groups from 64 on are ours.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from edgelearn.errors import EdgelearnError
from edgelearn.flash import cbor

HEADER = struct.Struct(">BBHHBB")
"""Operation and version, flags, length of the map, group, sequence, command."""
V1, V2 = 0, 1
"""Versions of the protocol: they differ in how an error is said."""


class Op(IntEnum):
    """What a message is; a response is its request plus one."""

    READ = 0
    READ_RESPONSE = 1
    WRITE = 2
    WRITE_RESPONSE = 3


class Group(IntEnum):
    """Groups of commands."""

    OS = 0
    IMAGE = 1
    FILE = 8
    EDGELEARN = 64


class Os(IntEnum):
    """Commands of group 0."""

    ECHO = 0
    RESET = 5
    PARAMS = 6
    INFO = 7
    BOOTLOADER = 8


class Img(IntEnum):
    """Commands of group 1."""

    STATE = 0
    UPLOAD = 1
    ERASE = 5
    SLOTS = 6


class File(IntEnum):
    """Commands of group 8."""

    DOWNLOAD = 0
    STATUS = 1
    HASH = 2
    HASHES = 3
    CLOSE = 4


class El(IntEnum):
    """Commands of group 64."""

    HELLO = 0
    BEGIN = 1
    CHUNK = 2
    HAVE = 3
    VERIFY = 4
    ACTIVATE = 5
    CONFIRM = 6
    ROLLBACK = 7
    SET_BAUD = 8
    HEALTH = 9
    EVENTS = 10
    NAK = 11
    ABORT = 12


class Rc(IntEnum):
    """Errors of SMP itself (MGMT_ERR)."""

    OK = 0
    UNKNOWN = 1
    NO_MEMORY = 2
    INVALID = 3
    TIMEOUT = 4
    NOT_FOUND = 5
    BAD_STATE = 6
    TOO_LARGE = 7
    NOT_SUPPORTED = 8
    CORRUPT = 9
    BUSY = 10
    DENIED = 11


class Why(IntEnum):
    """Errors of group 64; each has an exit code of elflash (errors.py)."""

    INVALID = 3
    INCOMPATIBLE = 6
    TRUST = 7
    MISMATCH = 8
    REFUSED = 9
    UNHEALTHY = 10
    NOTHING = 11


_FOR_V1 = {
    Group.OS: {2: Rc.INVALID, 3: Rc.NOT_FOUND},
    Group.IMAGE: {3: Rc.NOT_FOUND, 9: Rc.BAD_STATE, 15: Rc.NO_MEMORY, 27: Rc.BAD_STATE, 28: Rc.BAD_STATE}
    | dict.fromkeys((14, 19, 20, 21, 22, 24, 25), Rc.INVALID),
    Group.FILE: {2: Rc.INVALID, 3: Rc.NOT_FOUND, 13: Rc.INVALID},
}
"""What errors of groups are in version 1, as Zephyr's groups translate them; all others are UNKNOWN."""


class SmpError(EdgelearnError, ValueError):
    """Bytes that are no SMP message; the frame is dropped and comes again."""


@dataclass(frozen=True)
class Message:
    """One request or response."""

    op: Op
    group: int
    command: int
    sequence: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    version: int = V2

    @property
    def is_request(self) -> bool:
        """Whether somebody waits for an answer."""
        return self.op in (Op.READ, Op.WRITE)

    def answers(self, request: Message) -> bool:
        """Whether this is the response to that request."""
        mine = (self.op, self.group, self.command, self.sequence)
        return mine == (request.op + 1, request.group, request.command, request.sequence)

    def answer(self, body: dict[str, Any]) -> Message:
        """The response to this request, of its version."""
        return Message(Op(self.op + 1), self.group, self.command, self.sequence, body, self.version)

    def refusal(self, rc: int, group: int | None = None, reason: str = "") -> Message:
        """The response that says an error: `rc` of SMP, or of `group` where that is given."""
        if self.version == V1 and group in _FOR_V1:
            rc, group = _FOR_V1[Group(group)].get(rc, Rc.UNKNOWN), None
        if self.version == V1 or group is None:
            return self.answer({"rc": rc, **({"rsn": reason} if reason else {})})
        return self.answer({"err": {"group": group, "rc": rc}, **({"rsn": reason} if reason else {})})


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    body = cbor.dumps(message.body)
    first = message.version << 3 | message.op
    return HEADER.pack(first, 0, len(body), message.group, message.sequence, message.command) + body


def decode(data: bytes) -> Message:
    """The message in these bytes.

    Raises:
        SmpError: another length than the header says, an operation or version that there is not, no map.
    """
    if len(data) < HEADER.size:
        raise SmpError(f"{len(data)} bytes are no SMP message: send it again")
    first, _, length, group, sequence, command = HEADER.unpack_from(data)
    version, op = first >> 3 & 3, first & 7
    if op > Op.WRITE_RESPONSE or version > V2 or length != len(data) - HEADER.size:
        raise SmpError("a header that does not fit its message: send it again")
    try:
        body = cbor.loads(memoryview(data)[HEADER.size :]) if length else {}  # old tools and bootloaders send none
    except cbor.CborError as error:
        raise SmpError(str(error)) from error
    if not isinstance(body, dict) or not all(isinstance(key, str) for key in body):
        raise SmpError("a message without a map of names: send it again")
    return Message(Op(op), group, command, sequence, body, version)

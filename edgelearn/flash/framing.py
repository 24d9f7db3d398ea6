# SPDX-License-Identifier: Apache-2.0
"""Messages on a line of bytes, without any line: `console` and `cobs`.

console is "SMP over console" of Zephyr and mcumgr: lines of at most 127 bytes, `06 09` before the first and `04 14`
before each further one, in base64 the length (of message and CRC), the message and its CRC16-XMODEM. Other text may
stand before and between the lines.
cobs is Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999) of the message and its CRC32, between zeros. It is
negotiated, for lines that carry nothing else.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from binascii import crc_hqx
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

START, CONTINUE = b"\x06\x09", b"\x04\x14"
LINE = 127
"""Bytes of a line with marker and newline: what receivers of mcumgr have room for."""
LINE_LIMIT = 1024
"""Bytes of a line that are looked at, its last ones. What is before them is text of the console."""
OVERHEAD = 4
"""Length and CRC beside a message; they share the announced buffer with it."""
LARGEST = 0xFFFF - 2
"""Bytes of a message that the 16 bits of a length can announce."""


@dataclass(frozen=True)
class Broken:
    """A frame that began and did not end well; the other side may be told at once."""

    reason: str


class Decoder(Protocol):
    """From pieces of a stream to messages."""

    def feed(self, data: bytes) -> Iterator[bytes | Broken]:
        """The messages that these bytes complete, and the frames that they break."""


def encode_console(message: bytes, line: int = LINE) -> bytes:
    """The lines of one message.

    Raises:
        ValueError: more than 65,533 bytes.
    """
    if len(message) > LARGEST:
        raise ValueError(f"a message of {len(message)} bytes: at most {LARGEST} fit a frame, send smaller chunks")
    length = (len(message) + 2).to_bytes(2, "big")
    text = b64encode(length + message + crc_hqx(message, 0).to_bytes(2, "big"))
    step = (line - 3) // 4 * 4
    pieces = (text[at : at + step] for at in range(0, len(text), step))
    return b"".join((CONTINUE if at else START) + piece + b"\n" for at, piece in enumerate(pieces))


class ConsoleDecoder:
    """Finds frames among the text of a console. `limit`: bytes of a message; `text`: bytes that were no frame."""

    def __init__(self, limit: int = LARGEST) -> None:
        self.limit, self.text = limit, 0
        self._line = bytearray()
        self._body: bytearray | None = None
        self._length = 0

    def feed(self, data: bytes) -> Iterator[bytes | Broken]:
        """Messages and broken frames, in order."""
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            self._keep(data[at:end])
            at = end + 1
            yield from self._finished()
        self._keep(data[at:])

    def _keep(self, piece: bytes) -> None:
        """The end of a line: a frame may begin behind any amount of noise."""
        self.text += max(0, len(self._line) + len(piece) - LINE_LIMIT)
        self._line += piece[-LINE_LIMIT:]
        del self._line[:-LINE_LIMIT]

    def _finished(self) -> Iterator[bytes | Broken]:
        """What one whole line gives."""
        line, self._line = bytes(self._line), bytearray()
        first, more = line.rfind(START), line.rfind(CONTINUE)  # a sender may have died before
        if first >= 0:
            if self._body is not None:
                yield Broken("the frame before it ended early")
            self._body, self._length = bytearray(), 0
            yield from self._add(line[first + 2 :])
        elif more >= 0 and self._body is not None:
            yield from self._add(line[more + 2 :])
        else:
            self.text += len(line) + 1

    def _add(self, line: bytes) -> Iterator[bytes | Broken]:
        assert self._body is not None
        try:
            self._body += b64decode(line.rstrip(b"\r"), validate=True)
        except Base64Error:
            yield self._broken("a line that is not base64")
            return
        if not self._length and len(self._body) >= 2:
            self._length = int.from_bytes(self._body[:2], "big") + 2
        if not OVERHEAD <= self._length <= self.limit + OVERHEAD:
            yield self._broken(f"a length of {self._length - OVERHEAD}, at most {self.limit} fit")
        elif len(self._body) > self._length:
            yield self._broken("more bytes than announced")
        elif len(self._body) == self._length:
            yield self._checked(self._body)

    def _checked(self, body: bytearray) -> bytes | Broken:
        if crc_hqx(memoryview(body)[2:], 0):  # over a message and its own CRC it is 0
            return self._broken("a wrong CRC16")
        self._body = None
        return bytes(memoryview(body)[2:-2])

    def _broken(self, reason: str) -> Broken:
        self._body = None
        return Broken(reason)


def encode_cobs(message: bytes) -> bytes:
    """One message between two zeros; a zero in front ends whatever noise came before."""
    out = bytearray(b"\0")
    for part in (message + zlib.crc32(message).to_bytes(4, "big")).split(b"\0"):
        at = 0
        while len(part) - at >= 254:
            out += b"\xff" + part[at : at + 254]
            at += 254
        out.append(len(part) - at + 1)
        out += part[at:]
    return bytes(out + b"\0")


class CobsDecoder:
    """Finds frames between zeros. `limit`: bytes of a message."""

    def __init__(self, limit: int = LARGEST) -> None:
        self.limit = limit
        self._most = limit + 4 + limit // 254 + 2
        self._raw = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | Broken]:
        """Messages and broken frames, in order."""
        at = 0
        while (end := data.find(b"\0", at)) >= 0:
            self._raw += data[at : min(end, at + self._room())]
            at = end + 1
            if self._raw:
                raw, self._raw = self._raw, bytearray()
                yield self._unstuffed(raw)
        self._raw += data[at : at + self._room()]

    def _room(self) -> int:
        return self._most + 1 - len(self._raw)

    def _unstuffed(self, raw: bytearray) -> bytes | Broken:
        if len(raw) > self._most:
            return Broken("more bytes than a frame may have")
        out, at = bytearray(), 0
        while at < len(raw):
            code = raw[at]
            out += raw[at + 1 : at + code]
            at += code
            if code < 255 and at < len(raw):
                out.append(0)
        # A frame of nothing is refused: with its CRC it is four zeros, which a piece of a frame can be by chance.
        if at != len(raw) or not 4 < len(out) <= self.limit + 4:
            return Broken("stuffing that does not end with the frame")
        message = bytes(memoryview(out)[:-4])
        if zlib.crc32(message) != int.from_bytes(out[-4:], "big"):
            return Broken("a wrong CRC32")
        return message


ENCODERS = {"console": encode_console, "cobs": encode_cobs}
DECODERS: dict[str, type[ConsoleDecoder] | type[CobsDecoder]] = {"console": ConsoleDecoder, "cobs": CobsDecoder}

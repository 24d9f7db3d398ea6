# SPDX-License-Identifier: Apache-2.0
"""Forms in which a payload travels: as it is, compressed by zstandard, or as what differs from a payload that the board
has. Unpacking never writes more than was announced.

`diff` is a zstandard stream of: how many bytes to copy from which place of the old file, and how many new bytes follow,
three big-endian 64-bit numbers and those bytes, until the payload is whole.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from edgelearn.errors import MismatchError, UsageError

PACKINGS = ("none", "zstd", "diff")
BLOCK = 4096
"""Bytes that are compared at once for a diff."""
PIECE = 1 << 18
"""Bytes in memory at once."""
WINDOW = 1 << 23
"""Bytes that a stream may ask the board to keep for unpacking."""

_STEP = struct.Struct(">QQQ")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise UsageError("compression needs the package zstandard: pip install 'edgelearn[serial]'") from error
    return zstandard


def compress(data: bytes) -> bytes:
    """A zstandard stream of the data, with a window that boards allow."""
    zstandard = _zstandard()
    parameters = zstandard.ZstdCompressionParameters.from_level(12, window_log=min(23, max(10, len(data).bit_length())))
    packed: bytes = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    return packed


def smallest(data: bytes) -> tuple[str, bytes]:
    """Compressed where that saves a twentieth, else as it is."""
    packed = compress(data)
    return ("zstd", packed) if len(packed) < 0.95 * len(data) else ("none", data)


def diff(old: bytes, new: bytes) -> bytes:
    """What turns the old payload into the new one, block by block at the same place."""
    out, at = [], 0
    while at < len(new):
        same = _run(old, new, at, equal=True)
        other = _run(old, new, at + same, equal=False)
        out.append(_STEP.pack(at, same, other) + new[at + same : at + same + other])
        at += same + other
    return compress(b"".join(out))


def forms(data: bytes, pack: str, old: bytes | None) -> list[tuple[str, bytes, bytes]]:
    """Packing, bytes and the hash of the old payload, the form to try first at the front."""
    whole = ("none", data, b"") if pack == "none" else (*smallest(data), b"")
    if old is None:
        return [whole]
    changed = diff(old, data)
    return [("diff", changed, hashlib.sha256(old).digest()), whole] if len(changed) < len(whole[1]) else [whole]


def _run(old: bytes, new: bytes, at: int, equal: bool) -> int:
    """Bytes from `at` on whose blocks are equal, or are not."""
    start = at
    while at < len(new):
        block = new[at : at + BLOCK]
        if (old[at : at + BLOCK] == block) != equal:
            break
        at += len(block)
    return at - start


class Slice:
    """A part of a file as a stream of its own."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self._stream, self._left = stream, size
        stream.seek(offset)

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes, of the part only."""
        piece = self._stream.read(self._left if count < 0 else min(count, self._left))
        self._left -= len(piece)
        return piece


def unpack(packing: str, source: Slice | BinaryIO, size: int, old: Path | None = None) -> Iterator[bytes]:
    """The payload of `size` bytes in `source`, piece by piece.

    Raises:
        MismatchError: it is damaged, too short or too long.
    """
    left = size
    for piece in _pieces(packing, source, old):
        left -= len(piece)
        if left < 0:
            raise MismatchError(f"it unpacks to more than the {size} bytes announced: make the bundle again")
        yield piece
    if left:
        raise MismatchError(f"it unpacks to {size - left} of the {size} bytes announced: make the bundle again")


def _pieces(packing: str, stream: Slice | BinaryIO, old: Path | None) -> Iterator[bytes]:
    if packing == "none":
        while piece := stream.read(PIECE):
            yield piece
        return
    zstandard = _zstandard()
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(stream)
        if packing == "zstd":
            while piece := reader.read(PIECE):
                yield piece
        else:
            yield from _joined(reader, old)
    except zstandard.ZstdError as error:
        raise MismatchError("a compressed payload that is damaged: make the bundle again") from error


def _joined(reader: Any, old: Path | None) -> Iterator[bytes]:
    """New bytes and copies of old ones, in turn."""
    if old is None:
        raise MismatchError("the board has not the payload that the difference is to: write it without --diff-with")
    with old.open("rb") as base:
        while head := _exactly(reader, _STEP.size):
            place, same, other = _STEP.unpack(head)
            if place > old.stat().st_size:
                raise MismatchError("a difference to another file: write it without --diff-with")
            base.seek(place)
            yield from _counted(base, same)
            yield from _counted(reader, other)


def _counted(stream: Any, count: int) -> Iterator[bytes]:
    while count:
        piece = stream.read(min(count, PIECE))
        if not piece:
            raise MismatchError("a difference that ends early: write it without --diff-with")
        count -= len(piece)
        yield piece


def _exactly(stream: Any, count: int) -> bytes:
    """So many bytes, or none at the end."""
    whole = b""
    while len(whole) < count and (piece := stream.read(count - len(whole))):
        whole += piece
    if whole and len(whole) < count:
        raise MismatchError("a difference that ends early: write it without --diff-with")
    return whole

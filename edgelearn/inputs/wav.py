# SPDX-License-Identifier: Apache-2.0
"""Reads .wav files: PCM of 8, 16, 24 and 32 bits and floats, plain or in the extensible format. Nothing compressed.

Python's own `wave` reads neither floats nor, before 3.12, the extensible format that most 24-bit recorders write.
Layout: Multimedia Programming Interface and Data Specifications 1.0 (IBM and Microsoft, 1991), "WAVE".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import BrokenFileError

Waveform = NDArray[np.float64]

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
KINDS = {2: "ADPCM", 6: "A-law", 7: "mu-law", 17: "ADPCM", 80: "MPEG", 85: "MP3", 255: "AAC"}
"""Compressed formats that people meet, by their tag."""

DTYPES = {(PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 24): "u1", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"}
"""Type of a stored value by format and bits; three bytes of 24 bits are joined when they are read."""

RATES = (1_000, 768_000)
"""Lowest and highest believable rate in Hz."""

OPEN_END = 0x7FFF0000
"""Recorders that write into a pipe give a size from here up, since they do not know it: the file's end counts."""

LOUDEST = 256.0
"""Floats are meant to stay within -1 and 1; what is further out than this is no sound in that unit."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself: `kind` is PCM or FLOAT, `rate` in Hz, `start` the first byte of its samples,
    `frames` the samples of one channel."""

    kind: int
    bits: int
    channels: int
    rate: int
    start: int
    frames: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * self.bits // 8


def header(stream: BinaryIO, name: str) -> Header:
    """The header of a file, without its samples.

    Raises:
        BrokenFileError: not a .wav file, compressed, damaged, cut short, or without sound.
    """
    stream.seek(0)
    start = stream.read(12)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        raise _broken(name, "it does not begin as a .wav file")
    end = stream.seek(0, 2)
    described: tuple[int, int, int, int] | None = None
    for chunk, first, size in _chunks(stream, end):
        if chunk == b"fmt ":
            described = _described(stream, first, size, name)
        elif chunk == b"data" and described:
            return _header(described, first, end, size, name)
    raise _broken(name, "it ends before its sound")


def read(stream: BinaryIO, name: str, about: Header, first: int = 0, end: int | None = None) -> Waveform:
    """Samples first .. end - 1 of a file with this header: channels averaged, full scale 1.

    Raises:
        BrokenFileError: cut short while it is read, or floats that are no sound.
    """
    first = min(max(first, 0), about.frames)
    count = max(min(about.frames if end is None else end, about.frames) - first, 0)
    stream.seek(about.start + first * about.frame_bytes)
    content = stream.read(count * about.frame_bytes)
    if len(content) < count * about.frame_bytes:
        raise _broken(name, "it became shorter while it was read")
    values = _values(content, about).reshape(count, about.channels)
    if about.kind == FLOAT and count and not np.abs(values).max() <= LOUDEST:  # a NaN is not within either
        raise _broken(name, "it holds NaN, or floats far outside -1 and 1")
    mono: Waveform = values.mean(axis=1)
    return mono


def full_scale(values: NDArray[Any]) -> Waveform:
    """Integers of 8 (unsigned), 16 or 32 bits as fractions of full scale; floats as they are."""
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    if values.dtype == np.uint8:
        return (values.astype(np.float64) - 128) / 128
    return values.astype(np.float64) / 2.0 ** (8 * values.itemsize - 1)


def _chunks(stream: BinaryIO, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of each chunk; they begin at even places."""
    place = 12
    while place + 8 <= end:
        stream.seek(place)
        name, size = struct.unpack("<4sI", stream.read(8))
        if not name.decode("latin-1").isprintable():
            return
        yield name, place + 8, size
        place += 8 + size + size % 2


def _described(stream: BinaryIO, first: int, size: int, name: str) -> tuple[int, int, int, int]:
    """Kind, bits, channels and rate from the chunk `fmt `."""
    stream.seek(first)
    content = stream.read(min(size, 40))
    if len(content) < 16:
        raise _broken(name, "its format is cut short")
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == EXTENSIBLE and len(content) >= 26:
        tag = int.from_bytes(content[24:26], "little")
    if (tag, bits) not in DTYPES:
        kind = KINDS.get(tag, f"format {tag}" if tag not in (PCM, FLOAT) else f"{bits}-bit")
        raise BrokenFileError(
            f"{name} holds {kind} sound, which is not read here: convert it to 16-bit PCM "
            f"(ffmpeg -i IN.wav -c:a pcm_s16le OUT.wav)"
        )
    if channels == 0 or block != channels * bits // 8 or not RATES[0] <= rate <= RATES[1]:
        raise _broken(name, f"it claims {channels} channels of {bits} bits at {rate:,} Hz in blocks of {block} bytes")
    return tag, bits, channels, rate


def _header(described: tuple[int, int, int, int], first: int, end: int, size: int, name: str) -> Header:
    kind, bits, channels, rate = described
    if first + size > end and size < OPEN_END:
        raise _broken(name, f"{first + size - end:,} bytes are missing at its end")
    frames = min(size, end - first) // (channels * bits // 8)
    if frames == 0:
        raise _broken(name, "it holds no sound")
    return Header(kind, bits, channels, rate, first, frames)


def _values(content: bytes, about: Header) -> Waveform:
    values = np.frombuffer(content, DTYPES[about.kind, about.bits])
    if about.bits == 24:
        wide = np.zeros((len(values) // 3, 4), np.uint8)
        wide[:, 1:] = values.reshape(-1, 3)  # the upper three bytes of 32 bits, which has the same full scale
        values = wide.view("<i4")
    with np.errstate(invalid="ignore"):  # signalling NaN; the caller refuses it
        return full_scale(values)


def _broken(name: str, what: str) -> BrokenFileError:
    return BrokenFileError(f"{name} cannot be read as sound, {what}: record or convert it again")

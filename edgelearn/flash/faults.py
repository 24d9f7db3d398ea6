# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on a virtual line, on request: `drop=1%,flip=0.5%,dup=1%,stall=2s,cut@37`.

drop, flip and dup strike whole frames, each with that chance: a frame is lost, gets one bit flipped, or comes twice.
`stall` is how long the board's disk hangs at times, `noise` the chance of a line of kernel log before an answer,
`health=TEXT` what is wrong with every model that is tried. `cut@N` is the operation of the board's disk at which the
power goes; the board starts again after it. `kill@N` is the one at which the board's process dies of SIGKILL, and
whoever started it has to start it again. Operations are counted from the start of the process on, over all restarts.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

from edgelearn.durable import Disk
from edgelearn.errors import UsageError
from edgelearn.flash.framing import CONTINUE, START
from edgelearn.flash.health import Probe


class PowerCut(BaseException):
    """The board is without power: nothing after this happens, and no handler of errors sees it."""


@dataclass(frozen=True)
class Faults:
    """Chances from 0 to 1, seconds, a reason, and the number of an operation of the disk, from 1 up; 0 for never."""

    drop: float = 0.0
    flip: float = 0.0
    dup: float = 0.0
    noise: float = 0.0
    stall: float = 0.0
    health: str = ""
    cut: int = 0
    kill: int = 0


def read(text: str) -> Faults:
    """What `--faults` says.

    Raises:
        UsageError: a fault that there is not, or a value that cannot be meant.
    """
    found: dict[str, float | int | str] = {}
    for part in filter(None, text.split(",")):
        name, _, value = re.sub(r"^(cut|kill)@", r"\1=", part).partition("=")
        try:
            found[name] = _value(name, value)
        except (ValueError, KeyError) as error:
            known = "drop=1%, flip=1%, dup=1%, noise=10%, stall=2s, health=TEXT, cut@N and kill@N"
            raise UsageError(f"--faults {part}: write {known}, joined by commas") from error
    return Faults(**found)  # type: ignore[arg-type]


def _value(name: str, value: str) -> float | int | str:
    kind = {field.name: field.type for field in fields(Faults)}[name]
    if kind == "str":
        return value
    number = float(value.removesuffix("%").removesuffix("s"))
    number = number / 100 if value.endswith("%") else number
    if not 0 <= number < 1 << 31 or (name in ("drop", "flip", "dup", "noise") and number > 1):
        raise ValueError(name)
    return int(number) if kind == "int" else number


class Frames:
    """Strikes the frames of one direction of a line. A frame is passed on when it is whole, other bytes at once; bytes
    of a line that has not ended wait."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults, self._random = faults, random.Random(seed)
        self._rest, self._frame, self._left = b"", b"", 0
        self.struck = 0

    def chance(self) -> float:
        """A number from 0 to 1."""
        return self._random.random()

    def pass_on(self, data: bytes) -> bytes:
        """What arrives of these bytes."""
        if not (self._faults.drop or self._faults.flip or self._faults.dup):
            return data
        self._rest += data
        return b"".join(iter(self._next, b""))

    def _next(self) -> bytes:
        """The next whole thing: a frame of COBS between zeros, or a line."""
        out = b""
        while not out:
            begins = self._rest[:1] == b"\0"
            end = self._rest.find(b"\0", 1) if begins else self._rest.find(b"\n")
            if end < 0:
                return self._cut() if begins else self._text()
            piece, self._rest = self._rest[: end + 1], self._rest[end + 1 :]
            if piece == b"\0\0":  # the end of one frame and the beginning of the next
                out, self._rest = b"\0", b"\0" + self._rest
            else:
                out = self._strike(piece) if begins else self._line(piece)
        return out

    def _cut(self) -> bytes:
        """A frame of COBS that no zero ends, once a line of a console has come behind it."""
        at = self._rest.find(START)
        end = self._rest.find(b"\n", at)
        if at < 0 or end < 0 or not _is_base64(self._rest[at + 2 : end]):
            return b""
        piece, self._rest = self._rest[:at], self._rest[at:]
        return piece

    def _text(self) -> bytes:
        """Bytes that cannot become a line of a frame, such as noise of another rate."""
        if START in self._rest or CONTINUE in self._rest or self._rest[-1:] in (START[:1], CONTINUE[:1]):
            return b""
        piece, self._rest = self._rest, b""
        return piece

    def _line(self, line: bytes) -> bytes:
        """Gather the lines of one frame; its first four characters say how many there will be."""
        before, _, text = line.partition(START)
        if text and _is_base64(text[:4]):
            self._frame = START
            self._left = -(-(int.from_bytes(b64decode(text[:4])[:2], "big") + 2) // 3) * 4
            return before + self._gather(text)
        if line.startswith(CONTINUE) and self._frame:
            self._frame += CONTINUE
            return self._gather(line[2:])
        return line

    def _gather(self, text: bytes) -> bytes:
        self._frame, self._left = self._frame + text, self._left - len(text) + 1
        if self._left > 0:
            return b""
        frame, self._frame = self._frame, b""
        return self._strike(frame)

    def _strike(self, frame: bytes) -> bytes:
        chance = self._random.random()
        for fate in ("drop", "flip", "dup"):
            chance -= getattr(self._faults, fate)
            if chance < 0:
                self.struck += 1
                return {"drop": b"", "flip": self._flipped(frame), "dup": frame + frame}[fate]
        return frame

    def _flipped(self, frame: bytes) -> bytes:
        spoiled = bytearray(frame)
        spoiled[self._random.randrange(len(spoiled))] ^= 1 << self._random.randrange(8)
        return bytes(spoiled)


def _is_base64(text: bytes) -> bool:
    try:
        return len(b64decode(text, validate=True)) > 1
    except Base64Error:
        return False


class FaultyDisk(Disk):
    """A disk that hangs at times, and at operation `cut` or `kill` of the board's life is the last thing it does."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults, self._random = faults, random.Random(seed)
        self.operations = self.stalls = 0
        self._powered = True

    def power_on(self) -> None:
        """After a cut: it works again."""
        self._powered = True

    def _step(self) -> None:
        if not self._powered:  # nothing that tidies up after an error reaches the disk
            raise PowerCut
        self.operations += 1
        if self.operations == self._faults.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.operations == self._faults.cut:
            self._powered = False
            raise PowerCut

    def create(self, path: Path) -> BinaryIO:
        """As its base, and so are the others."""
        self._step()
        return super().create(path)

    def extend(self, path: Path) -> BinaryIO:
        """One operation."""
        self._step()
        return super().extend(path)

    def truncate(self, path: Path, size: int) -> None:
        """One operation."""
        self._step()
        super().truncate(path, size)

    def write(self, stream: BinaryIO, part: bytes | memoryview) -> None:
        """One operation; half of it is written when it is the last one."""
        if self._powered and self.operations + 1 in (self._faults.cut, self._faults.kill):
            super().write(stream, memoryview(part)[: len(part) // 2])
        self._step()
        super().write(stream, part)

    def sync(self, stream: BinaryIO) -> None:
        """One operation, which takes as long as the card likes: one in four hangs."""
        self._step()
        if self._faults.stall and self._random.random() < 0.25:
            self.stalls += 1
            time.sleep(self._faults.stall)
        super().sync(stream)

    def rename(self, old: Path, new: Path) -> None:
        """One operation."""
        self._step()
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        """One operation."""
        self._step()
        super().remove(path)

    def make_folder(self, path: Path) -> None:
        """One operation."""
        self._step()
        super().make_folder(path)

    def sync_folder(self, path: Path) -> None:
        """One operation."""
        self._step()
        super().sync_folder(path)


class FaultyProbe(Probe):
    """Finds `health` wrong with every model that is tried; the one that ran when the board was made stays well."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults
        self._runs: Path | None = None
        self._well: Path | None = None

    def trust(self) -> None:
        """What runs now is well."""
        self._well = self._runs

    def start(self, image: str, path: Path) -> str:
        """It loads: only later it turns out not to be well."""
        if image == "model":
            self._runs = path
        return super().start(image, path)

    def health(self, image: str) -> str:
        """What `--faults health=` says of a model."""
        sick = image == "model" and self._runs != self._well
        return super().health(image) or (self._faults.health if sick else "")

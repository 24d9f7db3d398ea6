# SPDX-License-Identifier: Apache-2.0
"""What on this board will bite someone who trains on it: the checks of `edgelearn doctor`. Needs no numpy."""

from __future__ import annotations

import grp
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgelearn.daemon.board import Board

MB = 1 << 20
_LITTLE = 200 * MB
_CLOCK_KNOWN = 1_735_689_600.0
_WARM = 70.0


@dataclass(frozen=True)
class Check:
    """One finding: `level` is fine, note or warning; the message of the latter two ends with what to do."""

    name: str
    level: str
    message: str


def board(folder: Path, root: Path = Path("/"), now: float | None = None) -> list[Check]:
    """All checks, for a board whose /sys and /proc are under `root` and data under `folder`."""
    checks: tuple[Callable[[], Iterator[Check]], ...] = (
        lambda: _memory_cgroup(root),
        lambda: _pressure(root),
        lambda: _clock(time.time() if now is None else now),
        lambda: _disk(folder, root),
        lambda: _permissions(folder),
        lambda: _heat(Board(folder, root)),
    )
    return [found for check in checks for found in check()]


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""


def _memory_cgroup(root: Path) -> Iterator[Check]:
    """Stock Raspberry Pi OS turns them off, and systemd and Docker then ignore limits without a word."""
    unified = _text(root / "sys/fs/cgroup/cgroup.controllers").split()
    old = [line.split() for line in _text(root / "proc/cgroups").splitlines() if line.startswith("memory")]
    if "memory" in unified or (not unified and any(line[-1] == "1" for line in old)):
        yield Check("memory cgroup", "fine", "limits of memory are kept by the kernel")
    else:
        text = "MemoryMax of units and containers is ignored: add cgroup_enable=memory to the kernel's command line"
        yield Check("memory cgroup", "warning", f"memory cgroups are off, so {text}; edgelearnd's own limits hold")


def _pressure(root: Path) -> Iterator[Check]:
    if (root / "proc/pressure/memory").exists():
        yield Check("pressure", "fine", "the kernel tells how long tasks wait for memory")
    else:
        text = "pressure stall information is missing, free memory is looked at instead: add psi=1 to the command line"
        yield Check("pressure", "note", text)


def _clock(now: float) -> Iterator[Check]:
    if now < _CLOCK_KNOWN:
        year = time.gmtime(now).tm_year
        text = f"the clock says {year}: connect to a time server, or add a clock; times are wrong until then"
        yield Check("clock", "warning", text)
    else:
        yield Check("clock", "fine", "the clock is set")


def _disk(folder: Path, root: Path) -> Iterator[Check]:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_RDONLY:
        yield Check("disk", "warning", f"{place} is mounted read-only: remount it, or choose another --data-dir")
    elif free < _LITTLE:
        yield Check(
            "disk", "warning", f"only {free // MB:,} MB are free at {place}: free some, training stops at 64 MB"
        )
    else:
        yield Check("disk", "fine", f"{free // MB:,} MB are free at {place}")
    if _kind(place, root) in ("tmpfs", "ramfs", "overlay"):
        text = f"{place} is on {_kind(place, root)}, which may not outlive a restart: choose a --data-dir on a disk"
        yield Check("storage", "warning", text)


def _kind(place: Path, root: Path) -> str:
    """The file system of a path, by the longest mount point that it is under."""
    best, kind = -1, ""
    for line in _text(root / "proc/mounts").splitlines():
        fields = line.split()
        if len(fields) > 2 and place.is_relative_to(fields[1]) and len(fields[1]) > best:
            best, kind = len(fields[1]), fields[2]
    return kind


def _permissions(folder: Path) -> Iterator[Check]:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(place, os.W_OK):
        yield Check("permissions", "warning", f"you may not write to {place}: sudo chown {os.getuid()} {place}")
    mine = {*os.getgroups(), os.getegid()}
    for name, what in (("edgelearn", "talk to the daemon of the system"), ("dialout", "use serial ports")):
        with suppress(KeyError):
            if os.getuid() and grp.getgrnam(name).gr_gid not in mine:
                yield Check("groups", "note", f"to {what}: sudo usermod -aG {name} $USER, then log in again")


def _heat(sensors: Board) -> Iterator[Check]:
    reading = sensors.read()
    if reading.temperature is None:
        yield Check(
            "heat", "note", "no thermal zone can be read, so training cannot slow down when it is hot: set [govern] cpu"
        )
    elif reading.temperature >= _WARM:
        text = f"{reading.temperature:.0f} degrees already: add a heat sink, or lower [govern] temperature"
        yield Check("heat", "warning", text)
    else:
        yield Check("heat", "fine", f"{reading.temperature:.0f} degrees")
    word = reading.throttled or 0
    if word & 0x50005:
        what = "under-voltage" if word & 0x10001 else "throttling"
        when = "now" if word & 0xF else "since the start"
        yield Check(
            "power", "warning", f"{what} {when} (throttled=0x{word:x}): use a stronger power supply and cooling"
        )

# SPDX-License-Identifier: Apache-2.0
"""Serial ports of this machine, and why one cannot be used: who holds it, which group may open it, which services
grab what is plugged in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgelearn.errors import UsageError

PROC = Path("/proc")
GRABBERS = {
    "ModemManager": "it talks to new ports: 'sudo systemctl stop ModemManager', or a udev line "
    'ATTRS{idVendor}=="VID", ENV{ID_MM_DEVICE_IGNORE}="1"',
    "brltty": "it takes USB serial ports for Braille displays: 'sudo systemctl stop brltty-udev brltty'",
}
"""Services known to take ports away, and what to do."""


@dataclass(frozen=True)
class Port:
    """A serial port; `refused` says why it cannot be opened, or is empty."""

    path: str
    vid: int | None = None
    pid: int | None = None
    serial: str = ""
    name: str = ""
    refused: str = ""

    def matches(self, wanted: dict[str, str]) -> bool:
        """Whether it is one of those that `--port-filter` asks for."""
        mine = {
            "vid": f"{self.vid:04x}" if self.vid is not None else "",
            "pid": f"{self.pid:04x}" if self.pid is not None else "",
            "serial": self.serial,
            "name": f"{self.path} {self.name}",
        }
        hexes = {
            key: value.lower().removeprefix("0x").zfill(4) for key, value in wanted.items() if key in ("vid", "pid")
        }
        return all(mine[k] == v for k, v in hexes.items()) and all(
            wanted[k].lower() in mine[k].lower() for k in ("serial", "name") if k in wanted
        )


def filters(text: str) -> dict[str, str]:
    """`vid=0403,name=usb` as a table.

    Raises:
        UsageError: another key, or no value.
    """
    pairs = dict(part.partition("=")[::2] for part in text.split(",") if part)
    if set(pairs) - {"vid", "pid", "name", "serial"} or not all(pairs.values()):
        raise UsageError(f"--port-filter {text}: write vid=, pid=, name= or serial=, joined by commas")
    return pairs


def listed() -> list[Port]:
    """Ports with hardware behind them, with what speaks against each."""
    try:
        from serial.tools import list_ports
    except ImportError as error:
        raise UsageError("ports need the package pyserial: pip install 'edgelearn[serial]'") from error
    found = [p for p in list_ports.comports() if p.vid is not None or p.hwid != "n/a" or "ttyS" not in p.device]
    return [Port(p.device, p.vid, p.pid, p.serial_number or "", p.description or "", refusal(p.device)) for p in found]


def refusal(path: str) -> str:
    """Why this port cannot be opened, as a sentence, or nothing."""
    if not os.access(path, os.R_OK | os.W_OK):
        return _permission(path)
    if who := holders(path):
        return f"{path} is in use by {', '.join(who)}: end that program, then try again"
    return ""


def _permission(path: str) -> str:
    group = ""
    with suppress(ImportError, OSError, KeyError):
        import grp

        group = grp.getgrgid(os.stat(path).st_gid).gr_name
    if group and group != "root":
        return f"{path} belongs to group {group}: run 'sudo usermod -aG {group} $USER' and log in again"
    rule = f'KERNEL=="{Path(path).name}", GROUP="dialout", MODE="0660"'
    return f"{path} may not be opened: put the line {rule} into /etc/udev/rules.d/50-serial.rules and plug it in again"


def holders(path: str, proc: Path = PROC) -> list[str]:
    """Other processes that have this port open, as `name (pid)`; those of other users only root can see."""
    wanted, found = os.path.realpath(path), []
    for folder in proc.glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        with suppress(OSError):
            open_files = [_target(link) for link in (folder / "fd").iterdir()]
            if wanted in open_files and not (wanted.startswith("/dev/pts/") and _is_master(open_files)):
                found.append(f"{(folder / 'comm').read_text().strip()} ({folder.name})")
    return sorted(found)


def _target(link: Path) -> str:
    with suppress(OSError):
        return os.readlink(link)
    return ""


def _is_master(open_files: list[str]) -> bool:
    """Whether a process is the other side of a pseudo-terminal, a virtual board: it does not use the port."""
    return "/dev/ptmx" in open_files or "/dev/pts/ptmx" in open_files


def grabbers(proc: Path = PROC) -> list[tuple[str, str]]:
    """Services that run here and are known to take ports away, with what to do about each."""
    running = set(_names(proc))
    return [(name, advice) for name, advice in GRABBERS.items() if name in running]


def _names(proc: Path) -> Iterable[str]:
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):
            yield (folder / "comm").read_text().strip()


def console_on(path: str, cmdline: Path = PROC / "cmdline") -> bool:
    """Whether the kernel writes its log to this port."""
    with suppress(OSError):
        consoles = [w[8:].split(",")[0] for w in cmdline.read_text().split() if w.startswith("console=")]
        return os.path.realpath(path) in [os.path.realpath(f"/dev/{name}") for name in consoles]
    return False

# SPDX-License-Identifier: Apache-2.0
"""The systemd unit of the daemon: its text, and where it goes.

Type=notify with a watchdog, a user of its own, everything closed that a process that serves and trains does not need.
The limits count where memory cgroups are on; where they are not, the daemon's governor keeps its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgelearn.daemon.server import check_address
from edgelearn.durable import replacing, write_through
from edgelearn.errors import OutputError, UsageError

NAME = "edgelearn.service"
SYSTEM = Path("/etc/systemd/system")
USER = "edgelearn"
DATA = Path("/var/lib/edgelearn")
LEAST_MEMORY = 100
"""Megabytes: an idle daemon with a small net takes 45, its trainer as much again."""
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))

_UNIT = """# Written by edgelearn service install.
[Unit]
Description=edgelearn: a model that keeps learning
Documentation=man:systemd.service(5)
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
WatchdogSec=60
TimeoutStartSec=120
TimeoutStopSec=30
Restart=on-failure
RestartSec=2
KillMode=mixed
OOMPolicy=continue
{user}{folders}Nice=5
IOWeight=50
MemoryHigh={high}
MemoryMax={most}
TasksMax=64
UMask=0007
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
DevicePolicy=closed
DeviceAllow=char-ttyS rw
DeviceAllow=char-ttyAMA rw
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyACM rw
DeviceAllow=/dev/vcio rw
DeviceAllow=/dev/vchiq rw
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy={wanted}
"""


@dataclass(frozen=True)
class Service:
    """A unit to be: of the system, or `of_user` who asks. `listen` and `model` are handed to edgelearnd, which listens
    in the runtime folder, too, where commands look for it; `memory` is in megabytes for all its processes.

    Raises:
        UsageError: an address or memory that cannot be meant.
    """

    of_user: bool = False
    data: Path | None = None
    listen: Sequence[str] = field(default=())
    model: Path | None = None
    memory: int = 400

    def __post_init__(self) -> None:
        for address in self.listen:
            check_address(address)
        if self.memory < LEAST_MEMORY:
            raise UsageError(f"--memory {self.memory} is too little to serve and train: give it {LEAST_MEMORY} or more")

    @property
    def path(self) -> Path:
        """Where the unit goes."""
        if not self.of_user:
            return SYSTEM / NAME
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return home / "systemd" / "user" / NAME

    @property
    def folder(self) -> Path:
        """Where its data is."""
        if self.data is not None:
            return self.data.expanduser().absolute()
        return Path.home() / ".local" / "share" / "edgelearn" if self.of_user else DATA

    def text(self) -> str:
        """The unit.

        Raises:
            UsageError: a path or address that a unit cannot hold.
            OutputError: edgelearnd is not installed.
        """
        return _UNIT.format(
            command=" ".join(self._command()),
            user="" if self.of_user else f"User={USER}\nGroup={USER}\n",
            folders=self._folders(),
            high=f"{self.memory * 3 // 4}M",
            most=f"{self.memory}M",
            home="no" if self.of_user else "read-only" if self._in_homes() else "yes",
            wanted="default.target" if self.of_user else "multi-user.target",
        )

    def _command(self) -> list[str]:
        """Words as a unit has them; %t is the runtime folder."""
        listen = ["unix:%t/edgelearn/api.sock", *map(_quoted, self.listen)]
        model = ["--model", _quoted(str(self.model.absolute()))] if self.model else []
        listens = [part for address in listen for part in ("--listen", address)]
        return [_quoted(_program()), "--data-dir", _quoted(str(self.folder)), *listens, *model]

    def _in_homes(self) -> list[Path]:
        """What the service needs and lies in somebody's home: homes must not be out of its sight then."""
        needed = [Path(_program()), Path(sys.prefix), Path(sys.executable).resolve(), Path(__file__), self.folder]
        needed += [self.model.absolute()] if self.model else []
        return [path for path in needed if any(path.is_relative_to(home) for home in HOMES)]

    def _check_homes(self) -> None:
        for path in [] if self.of_user else self._in_homes():
            closed = [place for place in path.parents if place.exists() and not place.stat().st_mode & 0o001]
            if closed:
                raise OutputError(
                    f"{path} is needed and {closed[-1]} is closed to user {USER}: install edgelearn below /opt, or use "
                    "--user"
                )

    def _folders(self) -> str:
        """StateDirectory where data lies where systemd makes it, a writable path elsewhere."""
        runtime = "RuntimeDirectory=edgelearn\nRuntimeDirectoryMode=0750\n"
        if self.folder == DATA:
            return f"{runtime}StateDirectory=edgelearn\nStateDirectoryMode=0750\n"
        return f"{runtime}ReadWritePaths={_quoted(str(self.folder))}\n"

    def install(self) -> None:
        """Write the unit, after systemd has found nothing wrong with it.

        Raises:
            OutputError: it cannot be written, systemd would not take it, or it needs what it may not see.
        """
        self._check_homes()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.data is not None or self.of_user:
                self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {error.filename} ({error.strerror}): use sudo, or --user") from error
        with replacing(self.path) as partial:
            write_through(partial, [self.text().encode()])
            complaint = verify(partial)
            if complaint:
                raise OutputError(f"systemd would not take the unit ({complaint}): see it with --dry-run")


def verify(path: Path) -> str:
    """What `systemd-analyze verify` has against a unit; empty where it has nothing, or is not there."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return ""
    done = subprocess.run([analyze, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if path.name in line or "edgelearn" in line]
    return "; ".join(lines)[:500] if done.returncode or lines else ""


def systemctl(of_user: bool, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask systemd.

    Raises:
        OutputError: it is not there.
    """
    command = shutil.which("systemctl")
    if command is None or not Path("/run/systemd/system").is_dir():
        raise OutputError("systemd does not run here: start 'edgelearnd --data-dir DIR' by what does")
    scope = ["--user"] if of_user else []
    return subprocess.run([command, *scope, *arguments], capture_output=True, text=True, check=False)


def _program() -> str:
    """edgelearnd of this installation, by its whole path: units know no PATH."""
    beside = Path(sys.executable).with_name("edgelearnd")
    found = str(beside) if beside.exists() else shutil.which("edgelearnd")
    if found is None:
        raise OutputError("edgelearnd is not installed beside this Python: pip install 'edgelearn[daemon]'")
    return found


def _quoted(text: str) -> str:
    """A word of a unit's command line."""
    if not text.isprintable():
        raise UsageError(f"{text!r} cannot stand in a unit: use printable characters")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if set(escaped) & set(" \t'\"\\;") else escaped

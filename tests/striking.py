# SPDX-License-Identifier: Apache-2.0
"""Cuts inside the processes of a real daemon, which import this at their start: once the file `armed` is there, every
operation on the disk is written to `operations`, and the one of the given number strikes, once, and leaves `fired`."""

import errno
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cuts import Cutting, Failing, Killing, Losing, PowerCut

from edgelearn.durable import DISK, Disk

DAEMON, TRAINER = "edgelearn.cli.daemon", "edgelearn.daemon.train"


class Off(Losing):
    """The power goes, for the daemon that a process is of, too."""

    def strike(self):
        with suppress(PowerCut):
            super().strike()
        if DAEMON in Path(f"/proc/{os.getppid()}/cmdline").read_text():
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


HOW = {
    "kill -9": Killing,
    "power cut": Off,
    "power cut, names survive": lambda at: Off(at, names=False),
    "no space left": lambda at: Failing(at, errno.ENOSPC),
    "I/O error": lambda at: Failing(at, errno.EIO),
}


class Counted(Cutting):
    """Counts from when it is armed until it has struck; before and after it is a disk like any other."""

    @property
    def watches(self):
        return (self.folder / "armed").exists() and not (self.folder / "fired").exists()

    def step(self, name):
        if self.watches:
            with (self.folder / "operations").open("a") as stream:
                stream.write(f"{name}\n")
            super().step(name)

    def write(self, stream, part):
        if self.watches:
            super().write(stream, part)
        else:
            Disk.write(self, stream, part)

    def strike(self):
        (self.folder / "fired").touch()
        super().strike()


@dataclass
class Trap:
    """What strikes: at which operation, `how`, of which process, and the folder of its marks."""

    folder: Path
    who: str
    how: str
    at: int | None

    def lay(self):
        """The surroundings of a daemon that it is for."""
        self.folder.mkdir(parents=True)
        (self.folder / "sitecustomize.py").write_text("import striking\nstriking.take()\n")
        path = os.pathsep.join([str(self.folder), str(Path(__file__).parent)])
        return {"PYTHONPATH": path, "EDGELEARN_TRAP": json.dumps([str(self.folder), self.who, self.how, self.at])}

    def arm(self):
        """From here on operations count."""
        (self.folder / "armed").touch()

    @property
    def fired(self):
        """Whether it struck."""
        return (self.folder / "fired").exists()

    @property
    def operations(self):
        """What was done from the arming to the strike."""
        return (self.folder / "operations").read_text().split()


def take():
    """Have the disk of this process strike, if it is the one."""
    folder, who, how, at = json.loads(os.environ["EDGELEARN_TRAP"])
    if who in sys.orig_argv:
        disk = HOW[how](at)
        DISK.__dict__.update(vars(disk), folder=Path(folder))
        DISK.__class__ = type("Struck", (Counted, type(disk)), {})

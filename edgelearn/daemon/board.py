# SPDX-License-Identifier: Apache-2.0
"""What the board says of itself: heat, throttling, memory, power, disk. Whatever is missing on a board is None.

Linux's sysfs and procfs under `root`, the throttling word of Raspberry Pi's firmware, thermal zones and power mode of
Jetsons.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NOT_HEAT = ("PMIC-Die", "pmic-die", "Tdiode_tegra")
"""Zones of Jetsons that always read 100 degrees or nothing of use."""

_TOO_HOT = 150.0
"""Degrees; a sensor that says more is broken."""

_SAYS_SECONDS = 1.0


@dataclass(frozen=True)
class Reading:
    """One look. `temperature` is that of the hottest zone in degrees Celsius, `throttled` Raspberry Pi's word (bit 0
    under-voltage, 1 frequency capped, 2 throttled, 3 soft temperature limit; 16 to 19 the same since the start),
    `available` bytes of memory, `pressure` the share of time in percent that tasks waited for memory in the last ten
    seconds, `mains` whether power comes from outside, `free` bytes of disk, `mode` of an nvpmodel."""

    temperature: float | None = None
    throttled: int | None = None
    available: int | None = None
    pressure: float | None = None
    mains: bool | None = None
    free: int | None = None
    mode: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Board:
    """Looks below `root`, which is / but in tests, and at the disk of `folder`."""

    def __init__(self, folder: Path, root: Path = Path("/")) -> None:
        self.root, self._folder = root, folder

    def read(self) -> Reading:
        """All of it, in a fraction of a millisecond where no command must be run."""
        return Reading(
            self._temperature(),
            self._throttled(),
            self._available(),
            self._pressure(),
            self._mains(),
            self._free(),
            self._mode(),
        )

    def _text(self, path: str | Path) -> str | None:
        with suppress(OSError, UnicodeDecodeError):
            return (self.root / path).read_text().strip()
        return None

    def _places(self, pattern: str) -> list[Path]:
        with suppress(OSError):
            return sorted(self.root.glob(pattern))
        return []

    def _temperature(self) -> float | None:
        found = []
        for zone in self._places("sys/class/thermal/thermal_zone*"):
            if self._text(zone / "type") in NOT_HEAT:
                continue
            with suppress(ValueError):
                degrees = int(self._text(zone / "temp") or "") / 1000
                found += [degrees] if degrees < _TOO_HOT else []
        return max(found, default=None)

    def _throttled(self) -> int | None:
        for path in self._places("sys/devices/platform/soc*/soc*:firmware/get_throttled"):
            with suppress(ValueError):
                return int(self._text(path) or "", 16)
        command = shutil.which("vcgencmd")
        if command is None:
            return None
        with suppress(OSError, ValueError, subprocess.SubprocessError):
            done = subprocess.run([command, "get_throttled"], capture_output=True, text=True, timeout=_SAYS_SECONDS)
            return int(done.stdout.partition("=")[2], 16)
        return None

    def _available(self) -> int | None:
        for line in (self._text("proc/meminfo") or "").splitlines():
            if line.startswith("MemAvailable:"):
                with suppress(ValueError, IndexError):
                    return int(line.split()[1]) << 10
        return None

    def _pressure(self) -> float | None:
        """Kernels without pressure stall information have no such file."""
        for part in (self._text("proc/pressure/memory") or "").split():
            if part.startswith("avg10="):
                with suppress(ValueError):
                    return float(part[6:])
        return None

    def _mains(self) -> bool | None:
        """Without a battery the question does not arise."""
        supplies = self._places("sys/class/power_supply/*")
        kinds = {supply: self._text(supply / "type") for supply in supplies}
        batteries = [supply for supply, kind in kinds.items() if kind == "Battery"]
        if not batteries:
            return None
        online = [self._text(supply / "online") for supply, kind in kinds.items() if kind in ("Mains", "USB")]
        charging = [self._text(supply / "status") in ("Charging", "Full", "Not charging") for supply in batteries]
        return "1" in online if online else any(charging)

    def _free(self) -> int | None:
        with suppress(OSError):
            found = os.statvfs(self._folder)
            return found.f_bavail * found.f_frsize
        return None

    def _mode(self) -> str | None:
        status = self._text("var/lib/nvpmodel/status")
        return status.partition(":")[2] or None if status else None

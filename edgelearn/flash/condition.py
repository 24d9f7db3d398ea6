# SPDX-License-Identifier: Apache-2.0
"""What is known to go wrong on boards later, looked at beforehand: limits on memory that are not kept, no clock."""

from __future__ import annotations

import time
from pathlib import Path

_CLOCK_SET = 1_735_689_600
"""The start of 2025."""


def warnings(root: Path = Path("/"), now: float | None = None) -> list[str]:
    """What a user should know of this board. None of it keeps a transfer from working."""
    found = []
    controllers = root / "sys/fs/cgroup/cgroup.controllers"
    if controllers.is_file() and "memory" not in controllers.read_text().split():
        found.append("memory limits are not kept: add cgroup_enable=memory to the kernel's command line")
    if not (root / "proc/pressure/memory").exists():
        found.append("the kernel does not tell of memory pressure (PSI): limits on training react later")
    if (time.time() if now is None else now) < _CLOCK_SET:
        found.append("the clock is not set: dates in logs are wrong, transfers do not need it")
    return found

# SPDX-License-Identifier: Apache-2.0
"""Resident memory of this process."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")


def now() -> int:
    """Bytes resident now (VmRSS)."""
    return _bytes("VmRSS")


def peak() -> int:
    """Largest resident memory so far, bytes (VmHWM; getrusage where there is no /proc)."""
    if STATUS.is_file():
        return _bytes("VmHWM")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bytes(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024

# SPDX-License-Identifier: Apache-2.0
"""The training process as the daemon holds it: start, stand still, go on, stop, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgelearn.daemon.task import Task

GRACE_SECONDS = 10.0
"""For a checkpoint when it is asked to stop; then it is killed, and the checkpoint before counts."""

SILENT_SECONDS = 120.0
"""A process that says nothing for so long, while it may work and does, hangs."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Trainer:
    """A process that trains."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.stands = self.asked = False
        self.heard, self._busy = time.monotonic(), 0.0

    @classmethod
    async def start(cls, task: Task) -> Trainer:
        """Start one."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "edgelearn.daemon.train")
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 20)
        assert process.stdin is not None
        process.stdin.write(
            json.dumps(asdict(task)).encode() + b"\n"
        )  # the pipe stays open: when it closes, the process ends by itself
        return cls(process)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def bytes(self) -> int:
        """Its resident memory."""
        with suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        return 0

    @property
    def hangs(self) -> bool:
        """Whether it has said nothing for long though it could: one that only waits for the processor does not hang."""
        if self.stands or time.monotonic() - self.heard < SILENT_SECONDS:
            return False
        state, busy = self._stat()
        return state != "R" or busy - self._busy > SILENT_SECONDS

    def _stat(self) -> tuple[str, float]:
        """Its state, R for one that works or wants to, and the seconds that it has worked."""
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return fields[0], (int(fields[11]) + int(fields[12])) / _TICKS
        return "R", 0.0

    async def said(self) -> AsyncIterator[dict[str, Any]]:
        """What it says, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.heard, self._busy = time.monotonic(), self._stat()[1]
            with suppress(ValueError):
                yield json.loads(line)

    async def ended(self) -> int:
        """Its exit code, negative for a signal."""
        return await self._process.wait()

    def stand(self) -> None:
        """Stop where it is, within a moment and keeping its memory."""
        if not self.stands:
            self._signal(signal.SIGSTOP)
            self.stands = True

    def go_on(self) -> None:
        """Go on."""
        if self.stands:
            self._signal(signal.SIGCONT)
            self.stands, self.heard = False, time.monotonic()

    async def stop(self) -> None:
        """Ask for a checkpoint and an end; kill it when it takes too long."""
        self.asked = True
        self._signal(signal.SIGTERM)
        self.go_on()
        try:
            await asyncio.wait_for(self.ended(), GRACE_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            await self.kill()

    async def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)
        await self.ended()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

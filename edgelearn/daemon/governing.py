# SPDX-License-Identifier: Apache-2.0
"""What the governor decides, done to the training process: it works, stands still for a share of the time, or ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from edgelearn.daemon.governor import PAUSE, STOP, Decision
from edgelearn.daemon.job import ATTEMPTS, Job
from edgelearn.daemon.sections import size_of
from edgelearn.daemon.trainer import SILENT_SECONDS, Trainer

if TYPE_CHECKING:
    from edgelearn.daemon.jobs import Jobs

TICK_SECONDS, IDLE_SECONDS = 0.5, 10.0
"""Between two looks of the governor: while there is training, and while there is none."""


class Governing:
    """Looks at the board for the jobs of a daemon."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._begins = asyncio.Event()

    def wake(self) -> None:
        """A job begins: look at once."""
        self._begins.set()

    async def run(self) -> None:
        """Look and act, twice a second while there is something to govern."""
        while True:
            decision = await self._look()
            await self._apply(decision.action, decision.duty)

    async def _look(self) -> Decision:
        """What the governor says now; told when it is something else than before."""
        jobs, governor = self._jobs, self._jobs.governor
        governor.govern, governor.keep = jobs.config().govern, jobs.config().keep
        jobs.reading = await asyncio.to_thread(jobs.board.read)
        before = governor.decision
        now = governor.decide(jobs.reading, jobs.trainer.bytes if jobs.trainer else 0)
        if (now.action, now.cause) != (before.action, before.cause) and self._is_busy:
            jobs.events.tell("governor", f"training: {now.action}, {now.reason or 'nothing holds it back'}")
        return now

    @property
    def _is_busy(self) -> bool:
        return self._jobs.current is not None and self._jobs.current.is_active

    async def _apply(self, action: str, duty: float) -> None:
        trainer, job = self._jobs.trainer, self._jobs.current
        if trainer is None or job is None:
            await self._rest(TICK_SECONDS if self._is_busy else IDLE_SECONDS)
            return
        if action == STOP:
            self._count_memory(job, trainer)
            await trainer.stop()
        elif action == PAUSE:
            trainer.stand()
            self._jobs.change(job, "paused", self._jobs.governor.decision.reason)
            await asyncio.sleep(TICK_SECONDS)
        else:
            await self._let_work(trainer, job, duty)

    async def _rest(self, seconds: float) -> None:
        """Until the time is over or a job begins."""
        self._begins.clear()
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._begins.wait(), seconds)

    def _count_memory(self, job: Job, trainer: Trainer) -> None:
        """A trainer that is stopped again and again for its own size will not fit the next time either."""
        most = size_of("memory", self._jobs.config().govern.memory)
        job.attempts += trainer.bytes > most
        if job.attempts >= ATTEMPTS:
            reason = f"training needs more than the {most >> 20:,} MB of [govern] memory: raise it, or lower replay"
            self._jobs.change(job, "failed", reason)

    async def _let_work(self, trainer: Trainer, job: Job, duty: float) -> None:
        """For a share of a tick."""
        trainer.go_on()
        if job.state == "paused":
            self._jobs.change(job, "training")
        await asyncio.sleep(TICK_SECONDS * duty)
        if duty < 1:
            trainer.stand()
            await asyncio.sleep(TICK_SECONDS * (1 - duty))
        elif trainer.hangs:
            text = f"the training process said nothing for {SILENT_SECONDS:g} s: it is ended"
            self._jobs.events.tell("trainer", text)
            await trainer.kill()

# SPDX-License-Identifier: Apache-2.0
"""Training as jobs: one at a time, in a process of its own, under the governor. A job that was under way when the
power went goes on when it is back.

waiting -> training -> validating -> live, shadow (then live or refused), kept (a person decides) or refused
with paused(reason) between, and failed(reason) or cancelled at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgelearn.daemon import log
from edgelearn.daemon.board import Board, Reading
from edgelearn.daemon.config import Config
from edgelearn.daemon.events import Events
from edgelearn.daemon.governing import TICK_SECONDS, Governing
from edgelearn.daemon.governor import RUN, Governor
from edgelearn.daemon.job import ATTEMPTS, KEPT, Job, encoded, read, write
from edgelearn.daemon.samples import Samples
from edgelearn.daemon.sections import size_of
from edgelearn.daemon.task import INTERRUPTED, Task
from edgelearn.daemon.trainer import Trainer
from edgelearn.daemon.trials import judged
from edgelearn.daemon.versions import Versions
from edgelearn.errors import EdgelearnError, UsageError


class Jobs:
    """All of them, the current one's process, and the governor."""

    def __init__(
        self,
        folder: Path,
        samples: Samples,
        versions: Versions,
        events: Events,
        config: Callable[[], Config],
        board: Board,
    ) -> None:
        self.folder, self._samples, self._versions, self.events = folder, samples, versions, events
        self.config, self.board = config, board
        self.governor = Governor(config().govern, config().keep)
        self.reading = Reading()
        self.known: list[Job] = read(folder / "jobs")
        self.trainer: Trainer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._run: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._governing = Governing(self)
        self._stops = False

    # Life

    def start(self) -> None:
        """Begin to govern, and go on with a job that was cut."""
        self._tasks.append(asyncio.ensure_future(self._governing.run()))
        if self.current is not None and self.current.is_active:
            self.events.tell("job", f"job {self.current.id} goes on where it was cut", job=self.current.id)
            self._run = asyncio.ensure_future(self._work(self.current))

    async def stop(self) -> None:
        """Checkpoint and end; the job goes on at the next start."""
        self._stops = True
        for task in [*self._tasks, *([self._run] if self._run else [])]:
            task.cancel()
        if self.trainer is not None:
            await self.trainer.stop()
        if self._saving is not None:
            await self._saving

    @property
    def current(self) -> Job | None:
        """The latest job."""
        return self.known[-1] if self.known else None

    def create(self, note: str = "", policy: str | None = None) -> Job:
        """A new job that learns all that is labelled by now.

        Raises:
            UsageError: one is under way, or there is nothing new to learn.
        """
        if self.current is not None and self.current.is_active:
            raise UsageError(f"job {self.current.id} is under way: wait for it, or cancel it first")
        if not self.fresh and not set(self._samples.classes) - set(self._versions.serving.ready().names):
            raise UsageError("no sample was labelled since the last job: give samples with labels first")
        number = 1 + (self.current.id if self.current else 0)
        job = Job(number, policy=policy or self.config().train.policy, note=note, created=time.time())
        job.until = self._samples.labelled
        self.known = [*self.known, job][-KEPT:]
        self.change(job, "waiting")
        self._governing.wake()
        self._run = asyncio.ensure_future(self._work(job))
        return job

    async def cancel(self, job: Job) -> None:
        """End a job; what it learned since its last version is learned again by the next."""
        if not job.is_active:
            return
        run, trainer = self._run, self.trainer
        if run is not None:
            run.cancel()
        if trainer is not None:
            await trainer.kill()
        if run is not None:
            await asyncio.wait({run})
        self._versions.serving.shadow = None
        if not self._is_live(job):
            self.change(job, "cancelled", "somebody cancelled it")

    def _is_live(self, job: Job) -> bool:
        """Whether its version answers: promoted just now, by a person, or before a cut that its state did not survive;
        then the job has come to its end."""
        live = self._versions.serving.live
        is_live = live is not None and live.version.id == job.version
        if is_live:
            self.change(job, "live")
        return is_live

    @property
    def fresh(self) -> int:
        """Labels since the last job that was not cut short."""
        learned = [job.until for job in self.known if job.state not in ("failed", "cancelled")]
        return max(0, self._samples.labelled - max(learned, default=0))

    def sample_came(self) -> None:
        """Begin by itself when there is enough that is new."""
        every, current = self.config().train.every, self.current
        is_free = current is None or not current.is_active
        if every and is_free and self.fresh >= every and self._versions.serving.live is not None:
            self.create(f"after {self.fresh} new labels")

    # Work

    async def _work(self, job: Job) -> None:
        try:
            if job.state != "shadow":
                await self._train(job)
            while job.state == "shadow":
                await self._shade(job)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a job may fail, the daemon may not
            if not isinstance(error, EdgelearnError):
                log.error(f"job {job.id} failed", error=repr(error))
            self.change(job, "failed", str(error) or type(error).__name__)

    async def _train(self, job: Job) -> None:
        """Until it is committed or has failed; a process that dies is started again, from its checkpoint."""
        while job.is_active and job.version is None:
            while self.governor.decision.action != RUN:
                self.change(job, "paused", self.governor.decision.reason)
                await asyncio.sleep(TICK_SECONDS)
            self.change(job, "training")
            self.trainer = trainer = await Trainer.start(self._task(job))
            try:
                async for said in trainer.said():
                    self._hear(job, said)
                status = await trainer.ended()
            finally:
                if not self._stops:
                    self.trainer = None
            if status != INTERRUPTED and not trainer.asked and job.is_active and job.version is None:
                self._died(job, status)
        if job.version is not None and job.is_active:
            await self._decide(job)

    def _died(self, job: Job, status: int) -> None:
        job.attempts += 1
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if job.attempts >= ATTEMPTS:
            self.change(job, "failed", f"the training process died {ATTEMPTS} times, the last time with {how}")
        else:
            self.events.tell("trainer", f"the training process died with {how}: it goes on from its checkpoint")

    def _task(self, job: Job) -> Task:
        train, keep = self.config().train, self.config().keep
        return Task(
            str(self.folder),
            job.until,
            job.note,
            self._samples.classes,
            replay=size_of("replay", train.replay),
            rehearsals=train.rehearsals,
            lr=train.lr,
            min_samples=train.min_samples,
            max_drop=train.max_drop,
            checkpoint_seconds=train.checkpoint_seconds,
            keep_bytes=size_of("versions", keep.versions),
            priority=self.config().govern.priority,
            write_budget=size_of("write_budget", keep.write_budget),
        )

    def _hear(self, job: Job, said: dict[str, Any]) -> None:
        """What the process says."""
        kind = said.get("kind")
        if kind in ("progress", "validating"):
            job.samples, job.done = int(said["samples"]), float(said.get("done", 1.0))
            job.loss = said.get("loss", job.loss)
            self.change(job, "training" if kind == "progress" else "validating")
            self.events.pass_on("progress", f"job {job.id}: {job.done:.0%}", job=job.id, done=job.done)
        elif kind == "event":
            self.events.tell(f"learner_{said['what'].replace(' ', '_')}", said["message"], job=job.id)
        elif kind == "failed":
            self.change(job, "failed", said["reason"])
        elif kind == "nothing":
            self.change(job, "refused", said["reason"])
        elif kind == "committed":
            job.version = said["version"]
            if not said["accepted"]:
                self.change(job, "refused", said["reason"])

    # What becomes of a version

    async def _decide(self, job: Job) -> None:
        """What the policy says of a version that the gate accepted."""
        assert job.version is not None
        version = await self._versions.find(job.version)
        live = self._versions.serving.live
        if self._is_live(job):
            return
        if live is not None and version.parent != live.version.id:
            self.change(job, "refused", "another version became live meanwhile: train again from that one")
        elif job.policy == "manual":
            self.change(job, "kept", "it passed the gate: promote it to have it answer")
        elif job.policy == "auto":
            await self._versions.promote(version.id)
            self.change(job, "live")
        else:
            await self._versions.shade(version.id)
            self.change(job, "shadow", "it answers beside the live version")

    async def _shade(self, job: Job) -> None:
        """Wait, then judge it on what was labelled since; without enough of that, wait on."""
        assert job.version is not None
        if self._is_live(job):
            return
        if self._versions.serving.shadow is None:  # after a restart
            await self._versions.shade(job.version)
        shadow = self._versions.serving.shadow
        train = self.config().train
        await asyncio.sleep(max(TICK_SECONDS, min(train.shadow_seconds, 60.0)))
        if shadow is None or time.monotonic() - shadow.since < train.shadow_seconds:
            return
        verdict = await asyncio.to_thread(judged, self._versions.serving, shadow, self._samples.path, job.until, train)
        if shadow is not self._versions.serving.shadow:  # it was promoted meanwhile
            return
        if verdict.samples < train.min_samples and not shadow.failed:
            reason = f"{verdict.samples} samples were labelled since, {train.min_samples} are needed: label more"
            self.change(job, "shadow", reason)
        elif verdict.accepted and not shadow.failed:
            await self._versions.promote(job.version)
            self.change(job, "live")
        else:
            self._versions.serving.shadow = None
            self.change(job, "refused", verdict.reason if not shadow.failed else "it failed to answer in shadow")

    def change(self, job: Job, state: str, reason: str = "") -> None:
        """Another state, told and kept on the disk."""
        if (job.state, job.reason) == (state, reason):
            return
        if job.state != state:
            text = f"job {job.id}: {state}{', ' + reason if reason else ''}"
            self.events.tell("job", text, job=job.id, state=state, reason=reason, version=job.version)
        job.state, job.reason = state, reason
        if self._saving is None or self._saving.done():
            self._saving = asyncio.ensure_future(self._save())

    async def _save(self) -> None:
        """Put what is known on the disk, beside the loop: a slow card must not keep answers waiting. What changes while
        it is written is written next."""
        written = b""
        while (content := encoded(self.known)) != written:
            await asyncio.to_thread(write, self.folder / "jobs", content)
            written = content

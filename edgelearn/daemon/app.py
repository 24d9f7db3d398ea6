# SPDX-License-Identifier: Apache-2.0
"""The daemon as one object: joins samples, versions, serving and their routes, and runs until it is told to stop."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgelearn.daemon import config as configuration
from edgelearn.daemon import health
from edgelearn.daemon.access import Access
from edgelearn.daemon.board import Board
from edgelearn.daemon.config import Config
from edgelearn.daemon.database import Sample
from edgelearn.daemon.drop import Drop
from edgelearn.daemon.events import Events
from edgelearn.daemon.http import Request, Response
from edgelearn.daemon.inference import Inference
from edgelearn.daemon.job import described
from edgelearn.daemon.job_routes import JobRoutes
from edgelearn.daemon.jobs import Jobs
from edgelearn.daemon.routes import Router
from edgelearn.daemon.sample_routes import SampleRoutes
from edgelearn.daemon.samples import Samples
from edgelearn.daemon.sections import size_of
from edgelearn.daemon.series import SECONDS, Series
from edgelearn.daemon.server import Server
from edgelearn.daemon.serving import Serving
from edgelearn.daemon.state_routes import StateRoutes
from edgelearn.daemon.trialfile import Trials
from edgelearn.daemon.version_routes import VersionRoutes
from edgelearn.daemon.versions import Versions
from edgelearn.errors import OutputError
from edgelearn.store import Store

_TOLD_SECONDS = 0.5
"""Samples that come within this time are one event."""

_CLOCK_KNOWN = 1_735_689_600.0
"""The start of 2025: a board whose clock is before it has not been told the time."""

_SWITCH_SECONDS = 0.001
"""How long one thread may keep the others waiting: five times less than usual, for the sake of the slowest answers."""


class Daemon:
    """A data folder, served. `start` before anything else, inside the loop that it runs in.

    Raises:
        OutputError: the folder cannot be written, or another daemon works in it.
    """

    def __init__(self, folder: Path, config: Config, board: Board) -> None:
        self.folder, self.config = folder, config
        self._lock = _locked(folder)
        self.events = Events()
        self.serving = Serving()
        self.access = Access.of(folder)
        keep = config.keep
        self.samples = Samples(folder / "samples.db", size_of("samples", keep.samples), self.events.tell)
        store = Store(
            folder / "models",
            keep_bytes=size_of("versions", keep.versions),
            write_budget=size_of("write_budget", keep.write_budget) or None,
        )
        self.versions = Versions(store, Trials(folder / "trials"), self.serving, self.events)
        self.jobs = Jobs(folder, self.samples, self.versions, self.events, lambda: self.config, board)
        parts = (Inference(self), SampleRoutes(self), JobRoutes(self), VersionRoutes(self), StateRoutes(self))
        limits = config.serve.limits()
        self.router = Router([route for part in parts for route in part.routes()], limits)
        self.server = Server(self.handle, limits, self.router.limit_of)
        self.series = Series()
        self._started = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self.requests: dict[str, int] = {}
        self._fresh = 0
        self._is_full = False
        self._ends = asyncio.Event()

    async def start(self, listen: Iterable[str]) -> list[str]:
        """Serve what was live, then listen; returns the addresses.

        Raises:
            OutputError, UsageError: an address that cannot be listened on.
        """
        sys.setswitchinterval(_SWITCH_SECONDS)
        if time.time() < _CLOCK_KNOWN:
            self.events.tell("clock", "the clock of this board is not set: times are wrong, order is not")
        await self.versions.start()
        self.jobs.start()
        self._tasks = [asyncio.ensure_future(work) for work in self._works()]
        return [await self.server.listen(address) for address in listen]

    def _works(self) -> Iterable[Coroutine[Any, Any, None]]:
        """What goes on beside requests."""
        yield self._measure()
        yield health.watch(self)
        if self.config.keep.drop:
            yield Drop(self, self.folder / self.config.keep.drop).watch()
        if self.config.mqtt.host:
            from edgelearn.daemon.mqtt import Bridge

            yield Bridge(self).run()

    async def _measure(self) -> None:
        """A point of the series now and then."""
        while True:
            self.series.add(time.time(), self.jobs.reading.temperature, self.serving.confidence())
            await asyncio.sleep(SECONDS)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ends.set)
        await self._ends.wait()

    async def stop(self) -> None:
        """Answer what was asked, finish what is being written, and end."""
        health.notify("STOPPING=1")
        for task in self._tasks:
            task.cancel()
        self.events.close()
        await self.server.close()
        await self.jobs.stop()
        self.serving.close()
        await asyncio.to_thread(self.samples.close)
        os.close(self._lock)

    async def handle(self, request: Request) -> Response:
        """A request to its route, past access."""
        route, request.segments = self.router.find(request.method, request.path)
        key = f"{route.method} {route.pattern}"
        self.requests[key] = self.requests.get(key, 0) + 1
        if not route.open:
            self.access.check(request)
        return await route.handler(request)

    # Samples

    @property
    def free_bytes(self) -> int:
        """What a user may still write to its disk."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def check_room(self) -> None:
        """Refuse to write below the floor, so that serving is not hurt; it ends by itself when there is space.

        Raises:
            OutputError: there is too little space.
        """
        free = self.free_bytes
        floor = size_of("floor", self.config.keep.floor)
        is_full = free < floor
        if is_full != self._is_full:
            self._is_full = is_full
            text = f"{free >> 20:,} MB are free, {floor >> 20:,} MB must be"
            kind = "disk_full" if is_full else "disk_free"
            self.events.tell(
                kind, f"{text}: {'nothing is' if is_full else 'samples are'} taken {'' if is_full else 'again'}"
            )
        if is_full:
            raise OutputError(f"only {free >> 20:,} MB are free, {floor >> 20:,} MB must be: free space on the disk")

    async def store(self, samples: list[Sample]) -> list[int]:
        """Samples onto the disk; their ids.

        Raises:
            OutputError: the disk takes no more.
        """
        ids = await self.samples.add(samples)
        if not self._fresh:
            asyncio.get_running_loop().call_later(_TOLD_SECONDS, self._tell_samples)
        self._fresh += len(ids)
        return ids

    def _tell_samples(self) -> None:
        count, self._fresh = self._fresh, 0
        self.events.tell("samples", f"{count:,} sample{'s' * (count != 1)} came", quiet=True, count=count)
        self.jobs.sample_came()

    @property
    def classes(self) -> list[str]:
        """Those of the live model, then those that the next one will know."""
        known = self.serving.live.names if self.serving.live else []
        return [*known, *(name for name in self.samples.classes if name not in known)]

    # State

    def reconfigure(self, config: Config) -> None:
        """Work by another configuration from now on."""
        self.config = config
        self.samples.limit = size_of("samples", config.keep.samples)
        self.versions.store.keep_bytes = size_of("versions", config.keep.versions)
        self.events.tell("config", "the configuration changed")

    def status(self) -> dict[str, Any]:
        """What goes on, and why."""
        live, shadow = self.serving.live, self.serving.shadow
        counts, job = dict(self.samples.counts), self.jobs.current
        state, reason = self.state()
        return {
            "state": state,
            "reason": reason,
            "model": self.config.serve.name,
            "live": self.versions.describe(live.version) if live else None,
            "classes": self.classes,
            "shadow": shadow.to_json() if shadow else None,
            "samples": {name or "": count for name, count in counts.items()},
            "job": described(job) if job else None,
            "fresh": self.jobs.fresh,
            "policy": self.config.train.policy,
            "board": self.jobs.reading.to_json(),
            "governor": asdict(self.jobs.governor.decision),
            "disk_free_bytes": self.free_bytes,
            "uptime_seconds": time.monotonic() - self._started,
            "addresses": self.server.addresses,
            "last_event": self.events.last,
        }

    def state(self) -> tuple[str, str]:
        """One word, and why."""
        job = self.jobs.current
        if self.serving.live is None:
            return "idle", "no model is live: push one"
        if job is not None and (
            job.is_active or job.state == "failed" or (job.state == "live" and not self.jobs.fresh)
        ):
            return ("collecting" if job.state == "waiting" else job.state), job.reason
        return ("collecting", f"{self.jobs.fresh:,} new labels") if self.jobs.fresh else ("idle", "")


def _locked(folder: Path) -> int:
    """The folder, made if missing, for this process alone until it ends."""
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)  # pictures of a home are nobody else's
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"another daemon works in {folder}: stop it, or choose another --data-dir") from error
    except OSError as error:
        raise OutputError(f"cannot work in {folder} ({error.strerror}): choose another --data-dir") from error
    return handle


async def run(folder: Path, listen: list[str], model: Path | None, ready: Any, board: Path = Path("/")) -> None:
    """Be the daemon: start, push `model` if it is given and not there yet, say `ready(addresses)`, run, stop.

    Raises:
        EdgelearnError: it cannot start.
    """
    daemon = Daemon(folder, configuration.read(folder), Board(folder, board))
    try:
        addresses = await daemon.start(listen)
        if model is not None:
            await daemon.versions.adopt(model)
        health.notify("READY=1", "STATUS=serving")
        ready(daemon, addresses)
        await daemon.run()
    finally:
        await daemon.stop()

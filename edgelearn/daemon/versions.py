# SPDX-License-Identifier: Apache-2.0
"""From a model file to the model that answers, and back: proved by a canary, loaded, warm, then the pointer, then the
swap. A version that brings the daemon down while it is on trial goes back by itself and is not offered again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgelearn import __version__
from edgelearn.daemon import canary
from edgelearn.daemon.events import Events
from edgelearn.daemon.serving import Model, Serving, Shadow
from edgelearn.daemon.trialfile import Trials
from edgelearn.errors import EdgelearnError, UsageError, VerificationError
from edgelearn.store import Store
from edgelearn.store.objects import parts
from edgelearn.store.versions import Version, digest

TRIAL_SECONDS = 60.0
"""A version that answers this long is no longer on trial."""

TRIAL_STARTS = 3
"""Times that the daemon may start with a version on trial before it goes back."""


class Versions:
    """The versions of a data folder and which of them answers. One change happens at a time."""

    def __init__(self, store: Store, trials: Trials, serving: Serving, events: Events) -> None:
        self.store, self.trials, self.serving, self._events = store, trials, serving, events
        self._lock = asyncio.Lock()
        self._told = 0
        self._trial_ends: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Serve what was live, or what was live before it if that does not load or keeps crashing."""
        await self._count_start()
        while (version := await asyncio.to_thread(self.store.current)) is not None:
            self._tell_faults()
            try:
                self.serving.swap(await self.serving.load(version, self.store.read(version.id)))
                self._events.tell("live", f"version {short(version)} is live", version=version.id)
                break
            except EdgelearnError as error:
                await self._refuse(version, str(error))
                if not await self._retreat(str(error)):
                    break
        self._tell_faults()
        self._end_trial_later()

    async def _count_start(self) -> None:
        """A start with a version on trial counts against it; ordinary power cycles of a proved one do not."""
        trial, current = self.trials.trial, await asyncio.to_thread(self.store.current)
        if not trial or current is None or current.id != trial.get("version"):
            self.trials.trial = {}
            return
        trial["starts"] = int(trial.get("starts", 0)) + 1
        if trial["starts"] > TRIAL_STARTS:
            self.trials.trial = {}
            reason = f"the daemon ended {TRIAL_STARTS} times within {TRIAL_SECONDS:g} s of its start: repair the model"
            await self._refuse(current, reason)
            await self._retreat(reason)
        else:
            with suppress(EdgelearnError):  # a disk that takes no writes still serves
                self.trials.save()

    async def _retreat(self, reason: str) -> bool:
        """Go back from a version that cannot be served; whether there was another."""
        try:
            back = await asyncio.to_thread(self.store.rollback)
        except EdgelearnError as error:
            self._events.tell("refused", f"there is no version to go back to: {error}")
            return False
        self._events.tell("rollback", f"back to version {short(back)}: {reason}", version=back.id, automatic=True)
        return True

    async def push(self, path: Path, note: str = "", **about: Any) -> Version:
        """Put a model file on the disk as a version, once a canary has proved it. The first one becomes live.

        Raises:
            VerificationError: the canary refused it; nothing is kept.
            OutputError, BudgetError: there is no room for it.
        """
        await canary.prove(path)
        version = await asyncio.to_thread(self._commit, path, note, about)
        self.trials.proved[version.id] = __version__
        self.trials.refused.pop(version.id, None)
        await asyncio.to_thread(self.trials.save)
        self._events.tell("version", f"version {short(version)} arrived: {note or 'no note'}", version=version.id)
        if self.serving.live is None:
            await self.promote(version.id)
        return version

    async def adopt(self, path: Path) -> None:
        """Have a model file among the versions, live if nothing else is.

        Raises:
            EdgelearnError: as `push`.
        """
        known = {version.id for version in await asyncio.to_thread(self.store.history)}
        name = await asyncio.to_thread(lambda: digest(parts(path)))
        if name not in known or not self.store.holds(name):
            await self.push(path, f"given as {path.name}")
        elif self.serving.live is None:
            await self.promote(name)

    def _commit(self, path: Path, note: str, about: Mapping[str, Any]) -> Version:
        return self.store.commit(path, note=note, **about)

    async def promote(self, version_id: str) -> Version:
        """Make a version live without a request failing.

        Raises:
            UsageError: no such version, or one that was refused.
            VerificationError, ModelError: it does not answer; what was live stays.
            OutputError: the pointer cannot be written; what was live stays.
        """
        return await self._change(version_id, "promoted")

    async def rollback(self, version_id: str | None = None) -> Version:
        """Make live again what was live before, or a version by its id.

        Raises:
            UsageError: there is no such version.
            VerificationError, ModelError, OutputError: as `promote`.
        """
        if version_id is None:
            version_id = await asyncio.to_thread(self._before)
        return await self._change(version_id, "rollback")

    def _before(self) -> str:
        """The id that a rollback goes to."""
        earlier = self.store.trail()[:-1]
        if not earlier:
            raise UsageError("no earlier version was live: name one of the history to go to")
        return earlier[-1]

    async def _change(self, version_id: str, kind: str) -> Version:
        async with self._lock:
            version = await asyncio.to_thread(self.store.find, version_id)
            before = self.serving.live
            if before is not None and before.version.id == version.id:
                return version
            if version.id in self.trials.refused and kind == "promoted":
                raise UsageError(f"version {short(version)} was refused: {self.trials.refused[version.id]}")
            path = await asyncio.to_thread(self.store.read, version.id)
            await self._prove(version, path)
            model = await self.serving.load(version, path)
            turning = asyncio.ensure_future(self._turn(version, model, kind))
            try:
                await asyncio.shield(turning)
            except asyncio.CancelledError:  # of a job: what is live on the disk and what answers must stay the same
                await asyncio.gather(turning, return_exceptions=True)
                raise
        return version

    async def _turn(self, version: Version, model: Model, kind: str) -> None:
        turn = self.store.activate if kind == "promoted" else self.store.rollback
        self._begin_trial(version)
        await asyncio.to_thread(self.trials.save)
        await asyncio.to_thread(turn, version.id)
        self.serving.swap(model)
        self._tell_faults()
        self._end_trial_later()
        what = "is live" if kind == "promoted" else "is live again"
        self._events.tell(kind, f"version {short(version)} {what}", version=version.id)

    async def _prove(self, version: Version, path: Path) -> None:
        """Once for each version and each version of edgelearn."""
        if self.trials.proved.get(version.id) == __version__:
            return
        try:
            await canary.prove(path)
        except VerificationError as error:
            if await asyncio.to_thread(self.store.holds, version.id):  # not collected meanwhile, which is no fault
                await self._refuse(version, str(error))
            raise
        self.trials.proved[version.id] = __version__

    async def shade(self, version_id: str) -> Shadow:
        """Let a version answer beside the live one.

        Raises:
            UsageError, VerificationError, ModelError: as `promote`.
        """
        version = await asyncio.to_thread(self.store.find, version_id)
        path = await asyncio.to_thread(self.store.read, version.id)
        await self._prove(version, path)
        self.serving.shadow = Shadow(await self.serving.load(version, path), time.monotonic())
        self._events.tell("shadow", f"version {short(version)} answers in shadow", version=version.id)
        return self.serving.shadow

    async def _refuse(self, version: Version, reason: str) -> None:
        self.trials.refused[version.id] = reason
        self.trials.proved.pop(version.id, None)
        with suppress(EdgelearnError):  # a disk that is full must not hide the reason
            await asyncio.to_thread(self.trials.save)
        self._events.tell("refused", f"version {short(version)} is refused: {reason}", version=version.id)

    # Trial

    def _begin_trial(self, version: Version) -> None:
        self.trials.trial = {"version": version.id, "starts": 0}

    def _end_trial_later(self) -> None:
        if self._trial_ends is not None:
            self._trial_ends.cancel()
        if self.trials.trial:
            loop = asyncio.get_running_loop()
            self._trial_ends = loop.call_later(TRIAL_SECONDS, self._end_trial)

    def _end_trial(self) -> None:
        self.trials.trial = {}
        with suppress(EdgelearnError):
            self.trials.save()

    def _tell_faults(self) -> None:
        """What the store found damaged since it was last asked."""
        for fault in self.store.faults[self._told :]:
            self._events.tell("damage", fault)
        self._told = len(self.store.faults)

    # Looking

    def describe(self, version: Version) -> dict[str, Any]:
        """A version for the API: what the store knows, and its state."""
        live = self.serving.live
        shadow = self.serving.shadow
        if live is not None and live.version.id == version.id:
            state = "live"
        elif shadow is not None and shadow.model.version.id == version.id:
            state = "shadow"
        elif version.id in self.trials.refused:
            state = "refused"
        else:
            state = "kept" if self.store.holds(version.id) else "collected"
        return {**version.to_json(), "state": state, "reason": self.trials.refused.get(version.id)}

    async def find(self, version_id: str) -> Version:
        """A version by the beginning of its id.

        Raises:
            UsageError: there is none, or several.
        """
        return await asyncio.to_thread(self.store.find, version_id)

    async def path(self, version: Version) -> Path:
        """The file of a version.

        Raises:
            ModelError: it was collected or is damaged.
        """
        return await asyncio.to_thread(self.store.read, version.id)


def short(version: Version) -> str:
    """A version as people are told of it."""
    return f"{version.number} ({version.id[:12]})"

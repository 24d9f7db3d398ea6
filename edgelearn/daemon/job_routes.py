# SPDX-License-Identifier: Apache-2.0
"""/v1/jobs: have it train, see how it goes, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelearn.daemon.http import HttpError, Request, Response, table
from edgelearn.daemon.job import Job, described
from edgelearn.daemon.routes import Route, missing, whole
from edgelearn.daemon.sections import POLICIES

if TYPE_CHECKING:
    from edgelearn.daemon.app import Daemon


class JobRoutes:
    """The handlers."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def routes(self) -> list[Route]:
        """Their table."""
        one = "/v1/jobs/{job}"
        return [
            Route("GET", "/v1/jobs", self.jobs, "the latest jobs, newest first", "Jobs"),
            Route("POST", "/v1/jobs", self.create, "train on what is labelled by now", "Job", "job", status=201),
            Route("GET", one, self.get, "a job", "Job"),
            Route("DELETE", one, self.cancel, "cancel a job", "Job"),
        ]

    async def jobs(self, request: Request) -> Response:
        """Newest first."""
        return Response.of({"jobs": [described(job) for job in self._daemon.jobs.known[::-1]]})

    async def create(self, request: Request) -> Response:
        """By the policy given, or that of the configuration."""
        given = table(await request.json(), "note", "policy")
        note, policy = given.get("note", ""), given.get("policy")
        if not isinstance(note, str) or policy not in (None, *POLICIES):
            raise HttpError(400, f"note must be text, policy one of {', '.join(POLICIES)}: correct them")
        return Response.of(described(self._daemon.jobs.create(note[:500], policy)), 201)

    async def get(self, request: Request) -> Response:
        """One of them."""
        return Response.of(described(self._find(request)))

    async def cancel(self, request: Request) -> Response:
        """One that has ended stays as it is."""
        job = self._find(request)
        await self._daemon.jobs.cancel(job)
        return Response.of(described(job))

    def _find(self, request: Request) -> Job:
        number = whole(request.segments["job"], "job")
        job = next((job for job in self._daemon.jobs.known if job.id == number), None)
        if job is None:
            raise missing("job", number)
        return job

# SPDX-License-Identifier: Apache-2.0
"""/v1/status, /v1/events, /v1/config, /metrics, /v1/series, /v1/doctor, the OpenAPI document and the page."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgelearn.daemon import checks, config, metrics, openapi
from edgelearn.daemon.families import families
from edgelearn.daemon.http import HttpError, Request, Response
from edgelearn.daemon.routes import Route

if TYPE_CHECKING:
    from edgelearn.daemon.app import Daemon


PAGE = Path(__file__).with_name("page.html")

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere, and no other page may hold it in a frame."""


class StateRoutes:
    """The handlers."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._changing = daemon, asyncio.Lock()

    def routes(self) -> list[Route]:
        """Their table."""
        return [
            Route("GET", "/", self.page, "the page for people", "text/html", open=True),
            Route("GET", "/openapi.json", self.document, "this description", "Document", open=True),
            Route("GET", "/metrics", self.metrics, "numbers for Prometheus", "text/plain"),
            Route("GET", "/v1/status", self.status, "what goes on, and why", "Status"),
            Route("GET", "/v1/series", self.series, "heat and confidence of the last hours", "Series"),
            Route("GET", "/v1/doctor", self.doctor, "what on this board will bite", "Checks"),
            Route(
                "GET",
                "/v1/events",
                self.events,
                "what happens, as it happens",
                "text/event-stream",
                query={"last": "integer"},
            ),
            Route("GET", "/v1/config", self.config, "the configuration, defaults included", "Config"),
            Route("PATCH", "/v1/config", self.configure, "change some keys, for now and later", "Config", "config"),
        ]

    async def page(self, request: Request) -> Response:
        """One file."""
        content = await asyncio.to_thread(PAGE.read_bytes)
        headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
        return Response(content=content, kind="text/html; charset=utf-8", headers=headers)

    async def document(self, request: Request) -> Response:
        """From the table of routes."""
        return Response.of(openapi.document(self._daemon.router.routes, self._daemon.config.serve.name))

    async def metrics(self, request: Request) -> Response:
        """In the text format of Prometheus."""
        return Response(content="\n".join([*families(self._daemon), ""]).encode(), kind=metrics.KIND)

    async def status(self, request: Request) -> Response:
        """For people and programs."""
        return Response.of(self._daemon.status())

    async def series(self, request: Request) -> Response:
        """Columns, a point every ten seconds."""
        return Response.of(self._daemon.series.to_json())

    async def doctor(self, request: Request) -> Response:
        """As `edgelearn doctor` on the board."""
        found = await asyncio.to_thread(checks.board, self._daemon.folder, self._daemon.jobs.board.root)
        return Response.of({"checks": [asdict(check) for check in found]})

    async def events(self, request: Request) -> Response:
        """Those after `last` or Last-Event-ID, then each as it comes."""
        known = request.headers.get("last-event-id", "")
        last = int(known) if known.isascii() and known.isdigit() and len(known) < 19 else 0
        last = request.number("last", last, 1 << 62)
        headers = {"Cache-Control": "no-cache"}
        return Response(kind="text/event-stream", headers=headers, stream=self._daemon.events.stream(last))

    async def config(self, request: Request) -> Response:
        """Every key with its value."""
        return Response.of(self._daemon.config.to_table())

    async def configure(self, request: Request) -> Response:
        """Checked whole before any of it counts; [serve] and [mqtt] count from the next start."""
        given = await request.json()
        if not isinstance(given, dict):
            raise HttpError(400, "the body must be one JSON object of sections: send that")
        async with self._changing:  # of two changes at once, neither is lost
            changed = self._daemon.config.changed(given)
            await asyncio.to_thread(config.write, self._daemon.folder, changed)
            self._daemon.reconfigure(changed)
        return Response.of(changed.to_table())

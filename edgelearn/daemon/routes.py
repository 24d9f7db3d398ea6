# SPDX-License-Identifier: Apache-2.0
"""The table of routes: what the daemon can be asked, which the router matches and the OpenAPI document describes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from edgelearn.daemon.http import HttpError, Request, Response, decoded, path_of
from edgelearn.daemon.limits import Limits

Handler = Callable[[Request], Awaitable[Response]]

PLACES = {
    "name": "name of the model, as [serve] has it",
    "version": "the first characters of a version's id, as many as tell it from the others",
    "other": "the same of another version",
    "sample": "a sample's id",
    "job": "a job's id",
}
"""What the placeholders of paths are."""


@dataclass(frozen=True)
class Route:
    """One entry. `body` is what it takes: a name in `openapi.BODIES`, or None; `answer` what it gives: one in
    `openapi.SCHEMAS`, or a media type. `open` ones need no token."""

    method: str
    pattern: str
    handler: Handler
    about: str
    answer: str
    body: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    status: int = 200
    open: bool = False

    @property
    def parts(self) -> list[str]:
        """Segments of the pattern; those in braces are placeholders."""
        return self.pattern.strip("/").split("/")


class Router:
    """Finds the route of a request, and what its body may be."""

    def __init__(self, routes: list[Route], limits: Limits) -> None:
        self.routes, self._limits = routes, limits

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route, and what its placeholders stand for.

        Raises:
            HttpError: 404 or 405.
        """
        given = path.strip("/").split("/")
        matching = [route for route in self.routes if _fits(route.parts, given)]
        for route in matching:
            if method in _methods(route):
                pairs = zip(route.parts, given, strict=True)
                return route, {part[1:-1]: decoded(text) for part, text in pairs if part.startswith("{")}
        if not matching:
            raise HttpError(404, f"there is nothing at {path[:100]}: see /openapi.json")
        allowed = ", ".join(sorted({method for route in matching for method in _methods(route)}))
        raise HttpError(405, f"{method[:20]} is not for {path[:100]}: use {allowed}", {"Allow": allowed})

    def limit_of(self, method: str, target: str) -> tuple[int, bool]:
        """Bytes that the body of a request may have, and whether they are held in memory."""
        try:
            route, _ = self.find(method, path_of(target))
        except HttpError:
            return 0, True
        if route.body == "model":
            return self._limits.file_bytes, False
        return (self._limits.body_bytes if route.body else 0), True


def _methods(route: Route) -> tuple[str, ...]:
    return ("GET", "HEAD") if route.method == "GET" else (route.method,)


def _fits(parts: list[str], given: list[str]) -> bool:
    if len(parts) != len(given):
        return False
    return all((part.startswith("{") and text != "") or part == text for part, text in zip(parts, given, strict=True))


def whole(text: str, what: str) -> int:
    """A placeholder as a number.

    Raises:
        HttpError: 404, there cannot be such a thing.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise HttpError(404, f"there is no {what} {text[:40]}: ids are whole numbers")
    return int(text)


def missing(what: str, name: Any) -> HttpError:
    """The refusal for something that is not there."""
    return HttpError(404, f"there is no {what} {name}: it may have been removed, list them to see")

# SPDX-License-Identifier: Apache-2.0
"""Requests and responses as values, and what an error is called in HTTP. Knows no sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from edgelearn.errors import (
    BudgetError,
    DataError,
    EdgelearnError,
    LearningError,
    ModelError,
    OutputError,
    UsageError,
    VerificationError,
)

JSON = "application/json"


class HttpError(Exception):
    """A refusal: its status, one sentence that ends with what to do next, and headers that explain it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


STATUS_OF: dict[type[EdgelearnError], int] = {
    UsageError: 400,
    DataError: 400,
    ModelError: 400,
    BudgetError: 409,
    LearningError: 409,
    VerificationError: 409,
    OutputError: 507,
}
"""What each error of edgelearn is in HTTP; the nearest base class counts. 507 is a disk that takes no more."""


def status_of(error: EdgelearnError) -> int:
    """The status of an error of edgelearn, 500 for one that has none."""
    return next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 500)


@dataclass(frozen=True)
class Peer:
    """Who is at the other end: process, user and groups on a unix socket, all None on TCP."""

    pid: int | None = None
    uid: int | None = None
    groups: tuple[int, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether the kernel vouches for it."""
        return self.uid is not None

    def __str__(self) -> str:
        return f"uid {self.uid}" if self.is_local else "tcp"


class Body:
    """What a request carries, read only when asked for and never beyond its limit.

    Raises:
        HttpError: 413 beyond the limit, 408 when it comes too slowly, 400 when it is cut.
    """

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts

    async def read(self) -> bytes:
        """All of it."""
        return b"".join([part async for part in self._parts])


@dataclass
class Request:
    """One request. `path` is decoded, `segments` are what the placeholders of its route stand for, header names are in
    lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    peer: Peer
    body: Body
    segments: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The path without query, still encoded: a slash inside a segment stays one."""
        return path_of(self.target)

    @property
    def query(self) -> dict[str, str]:
        """Parameters of the query, the last of each name."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 0 to `most` in the query.

        Raises:
            HttpError: 400, it is none.
        """
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= most):
            raise HttpError(400, f"{name}={text[:40]} is no whole number from 0 to {most}: correct it")
        return int(text)

    async def json(self) -> Any:
        """The body as JSON; an empty one is an empty object.

        Raises:
            HttpError: 400, it is none.
        """
        return parsed(await self.body.read() or b"{}")


def path_of(target: str) -> str:
    """The path of a request's target, which may be a whole URL, as a proxy is sent it."""
    return target.partition("?")[0] if target.startswith("/") else urlsplit(target).path


def parsed(content: bytes) -> Any:
    """JSON from bytes.

    Raises:
        HttpError: 400, it is none.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body is not JSON ({str(error)[:100]}): send one JSON object") from error


def table(value: Any, *keys: str) -> dict[str, Any]:
    """A JSON object that has no other keys than these.

    Raises:
        HttpError: 400, it is something else.
    """
    if not isinstance(value, dict):
        raise HttpError(400, f"the body must be one JSON object with {', '.join(keys)}: send that")
    for key in value:
        if key not in keys:
            raise HttpError(400, f"there is no '{key[:40]}' here: it takes {', '.join(keys) or 'nothing'}")
    return value


def decoded(segment: str) -> str:
    """A segment of a path as text.

    Raises:
        HttpError: 400, it is no UTF-8.
    """
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError as error:
        raise HttpError(400, "the path is not UTF-8: encode it as %XX of UTF-8") from error


@dataclass
class Response:
    """A status, content or a stream of it, and headers. A stream ends when its iterator does."""

    status: int = 200
    content: bytes = b""
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> Response:
        """A JSON response; underscores in header names become dashes."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value, allow_nan=False, separators=(",", ":")).encode(), headers=named)

    @classmethod
    def refusal(
        cls, status: int, message: str, headers: Mapping[str, str] | None = None, kind: str | None = None
    ) -> Response:
        """An error as the Open Inference Protocol writes it, and the class of it in edgelearn, if it has one."""
        known = {"kind": kind} if kind else {}
        response = cls.of({"error": message or HTTPStatus(status).phrase, **known}, status)
        response.headers.update(headers or {})
        return response

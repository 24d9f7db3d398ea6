# SPDX-License-Identifier: Apache-2.0
"""/v1/versions and /v1/rollback: models come in, are compared, become live, go back."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelearn.daemon.http import HttpError, Request, Response, table
from edgelearn.daemon.routes import Route
from edgelearn.errors import EdgelearnError, OutputError
from edgelearn.store.versions import Version

if TYPE_CHECKING:
    from edgelearn.daemon.app import Daemon

_MOST_LISTED = 1000
_PART = 1 << 18


class VersionRoutes:
    """The handlers."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def routes(self) -> list[Route]:
        """Their table."""
        one = "/v1/versions/{version}"
        note = {"note": "string"}
        return [
            Route(
                "GET",
                "/v1/versions",
                self.history,
                "all versions, newest first",
                "Versions",
                query={"limit": "integer"},
            ),
            Route("POST", "/v1/versions", self.push, "push a model file", "Version", "model", note, status=201),
            Route("GET", one, self.get, "a version", "Version"),
            Route("GET", f"{one}/file", self.file, "its model file", "application/octet-stream"),
            Route("POST", f"{one}/promote", self.promote, "make it live", "Version", "nothing"),
            Route("GET", one + "/diff/{other}", self.diff, "what another version does otherwise", "Diff"),
            Route("POST", "/v1/rollback", self.rollback, "make live what was live before", "Version", "rollback"),
        ]

    async def history(self, request: Request) -> Response:
        """Newest first."""
        limit = request.number("limit", 100, _MOST_LISTED)
        known = await asyncio.to_thread(self._daemon.versions.store.history)
        listed = [self._daemon.versions.describe(version) for version in known[::-1][:limit]]
        return Response.of({"versions": listed})

    async def get(self, request: Request) -> Response:
        """One of them."""
        return Response.of(self._daemon.versions.describe(await self._find(request)))

    async def push(self, request: Request) -> Response:
        """The file goes to the disk part by part, never into memory whole."""
        self._daemon.check_room()
        path = self._daemon.folder / f".edgelearn-{os.urandom(8).hex()}.safetensors"
        try:
            if not await _received(request, path):
                raise HttpError(400, "the body is empty: send a model.safetensors")
            note = request.query.get("note", "")[:500]
            version = await self._daemon.versions.push(path, note)
        except EdgelearnError as error:  # the name that it has here for a moment helps nobody
            raise type(error)(str(error).replace(f"{path}: ", "")) from error
        finally:
            with suppress(OSError):
                path.unlink()
        return Response.of(self._daemon.versions.describe(version), 201)

    async def file(self, request: Request) -> Response:
        """The model file, as it was committed."""
        path = await self._path(await self._find(request))
        headers = {"Content-Length": str(path.stat().st_size)}
        return Response(kind="application/octet-stream", headers=headers, stream=_parts(path))

    async def promote(self, request: Request) -> Response:
        """By hand it is not gated: a person decided."""
        table(await request.json())
        version = await self._daemon.versions.promote((await self._find(request)).id)
        return Response.of(self._daemon.versions.describe(version))

    async def rollback(self, request: Request) -> Response:
        """To the version named by `to`, or to what was live before."""
        to = table(await request.json(), "to").get("to")
        if to is not None and not isinstance(to, str):
            raise HttpError(400, "'to' must be the id of a version: send text, or leave it out")
        version = await self._daemon.versions.rollback(to)
        return Response.of(self._daemon.versions.describe(version))

    async def diff(self, request: Request) -> Response:
        """Weights and metrics of two versions."""
        first, second = [await self._find(request, place) for place in ("version", "other")]
        layers = await asyncio.to_thread(_distances, await self._path(first), await self._path(second))
        metrics = _metrics(first.metrics, second.metrics)
        return Response.of({"from": first.id, "to": second.id, "metrics": metrics, "layers": layers})

    async def _find(self, request: Request, place: str = "version") -> Version:
        try:
            return await self._daemon.versions.find(request.segments[place])
        except EdgelearnError as error:
            raise HttpError(404, str(error)) from error

    async def _path(self, version: Version) -> Path:
        try:
            return await self._daemon.versions.path(version)
        except EdgelearnError as error:
            raise HttpError(409, str(error)) from error


async def _received(request: Request, path: Path) -> int:
    """Bytes of the body that are in the file now."""
    size = 0
    try:
        with path.open("xb") as stream:
            async for part in request.body:
                size += len(part)
                await asyncio.to_thread(stream.write, part)
    except OSError as error:
        raise OutputError(f"cannot keep the model ({error.strerror}): free space on the disk") from error
    return size


async def _parts(path: Path) -> Any:
    with path.open("rb") as stream:
        while part := await asyncio.to_thread(stream.read, _PART):
            yield part


def _metrics(first: Any, second: Any) -> dict[str, Any]:
    """Numbers that both have, and how they differ."""
    both = {name for name in first if name in second and _is_number(first[name]) and _is_number(second[name])}
    return {
        name: {"from": first[name], "to": second[name], "change": second[name] - first[name]} for name in sorted(both)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _distances(first: Path, second: Path) -> list[dict[str, Any]]:
    """How far each parameter moved, relative to its size; those of other shapes have no distance."""
    import numpy as np

    from edgelearn import modelfile

    old, new = modelfile.read(first), modelfile.read(second)
    known = {p.name: p for p in old.graph.parameters}
    found: list[dict[str, Any]] = []
    for parameter in new.graph.parameters:
        before = known.get(parameter.name)
        item: dict[str, Any] = {"name": parameter.name, "shape": list(parameter.shape), "change": None}
        if before is not None and before.shape == parameter.shape:
            was, now = before.view(old.params), parameter.view(new.params)
            item["change"] = float(np.linalg.norm(now - was) / max(float(np.linalg.norm(was)), 1e-12))
        found.append(item)
    return found

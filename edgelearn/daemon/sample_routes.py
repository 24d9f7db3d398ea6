# SPDX-License-Identifier: Apache-2.0
"""/v1/samples: samples come in as tensors or as the files that the model reads, are listed, looked at and labelled."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.daemon import pictures
from edgelearn.daemon.database import Sample
from edgelearn.daemon.http import HttpError, Request, Response, table
from edgelearn.daemon.routes import Route, missing, whole
from edgelearn.daemon.samples import check_label
from edgelearn.daemon.serving import Model
from edgelearn.daemon.tensors import decode
from edgelearn.inputs.images import Image
from edgelearn.inputs.sounds import Sound
from edgelearn.inputs.windows import Window

if TYPE_CHECKING:
    from edgelearn.daemon.app import Daemon

FILES = {"image/png": Image, "image/jpeg": Image, "audio/wav": Sound, "audio/x-wav": Sound, "application/x-npy": Window}
"""What a body may be called that is a file of one sample, and how it becomes one."""

_MOST_LISTED = 200


class SampleRoutes:
    """The handlers."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def routes(self) -> list[Route]:
        """Their table."""
        one, listing = "/v1/samples/{sample}", {"limit": "integer", "label": "string", "before": "integer"}
        return [
            Route(
                "GET",
                "/v1/samples",
                self.latest,
                "the latest samples, and how many of each label",
                "Samples",
                query=listing,
            ),
            Route(
                "POST",
                "/v1/samples",
                self.add,
                "store samples; the answer comes when they are on the disk",
                "Stored",
                "samples",
                {"label": "string"},
                201,
            ),
            Route("GET", one, self.get, "one sample with its values", "Sample"),
            Route("PATCH", one, self.label, "say what a sample is", "SampleHead", "label"),
            Route("DELETE", one, self.remove, "forget a sample", "Removed"),
            Route("GET", "/v1/classes", self.classes, "classes of the live model, and those to come", "Classes"),
            Route(
                "POST", "/v1/classes", self.add_class, "let samples be of a new class", "Classes", "class", status=201
            ),
            Route("GET", f"{one}/picture", self.picture, "a sample as a picture", "image/png"),
        ]

    async def add(self, request: Request) -> Response:
        """Durable when answered."""
        self._daemon.check_room()
        content = await request.body.read()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        model = self._daemon.serving.ready()
        label = check_label(request.query.get("label"))
        if kind in FILES:
            rows = await asyncio.to_thread(_from_file, model, content, kind)
            labels: list[str | None] = [label]
        elif kind.startswith(("image/", "audio/", "video/")):
            raise HttpError(415, f"{kind[:40]} is not read here: send one of {', '.join(FILES)}, or tensors")
        else:
            rows, labels = _from_tensors(model, content, request, label)
        self._check_known([name for name in labels if name is not None])
        source = str(request.peer)
        stored = [Sample(row.tobytes(), row.dtype.name, name, source) for row, name in zip(rows, labels, strict=True)]
        ids = await self._daemon.store(stored)
        return Response.of({"ids": ids}, 201)

    async def latest(self, request: Request) -> Response:
        """Newest first."""
        limit = request.number("limit", 50, _MOST_LISTED)
        before = request.number("before", 0, 1 << 60) or None
        samples = self._daemon.samples
        counts = {name or "": count for name, count in dict(samples.counts).items()}
        listed = [_head(sample) for sample in samples.latest(limit, request.query.get("label"), before)]
        return Response.of({"samples": listed, "counts": counts, "bytes": samples.bytes})

    async def get(self, request: Request) -> Response:
        """With its values, flat in the order of the data."""
        sample = self._find(request)
        values = np.frombuffer(sample.x, sample.dtype).tolist()
        return Response.of({**_head(sample), "data": values, "shape": list(self._shape(sample))})

    async def label(self, request: Request) -> Response:
        """An empty label takes the label away."""
        given = table(await request.json(), "label")
        if "label" not in given:
            raise HttpError(400, 'the label is missing: send {"label": "dog"}, or {"label": null} to take it away')
        label = check_label(given.get("label"))
        if label is not None:
            self._check_known([label])
        sample_id = whole(request.segments["sample"], "sample")
        if not await self._daemon.samples.label(sample_id, label):
            raise missing("sample", sample_id)
        return Response.of(_head(self._find(request)))

    async def remove(self, request: Request) -> Response:
        """It stays in what was already learned from it."""
        sample_id = whole(request.segments["sample"], "sample")
        if not await self._daemon.samples.remove(sample_id):
            raise missing("sample", sample_id)
        return Response.of({"removed": sample_id})

    async def classes(self, request: Request) -> Response:
        """Those of the model first."""
        return Response.of({"classes": self._daemon.classes})

    async def add_class(self, request: Request) -> Response:
        """The next training adds it to the model."""
        name = check_label(table(await request.json(), "name").get("name"))
        model = self._daemon.serving.ready()
        if name is None or model.loss != "cross_entropy":
            raise HttpError(400, 'a class needs a name, and a model that tells classes apart: send {"name": "dog"}')
        if name not in self._daemon.classes:
            await self._daemon.samples.add_class(name)
        return Response.of({"classes": self._daemon.classes}, 201)

    async def picture(self, request: Request) -> Response:
        """Images as they are, everything else as a map of its values."""
        sample = self._find(request)
        values = np.frombuffer(sample.x, sample.dtype).reshape(self._shape(sample))
        headers = {"Cache-Control": "private, max-age=86400"}
        return Response(content=pictures.png(values), kind="image/png", headers=headers)

    def _check_known(self, labels: list[str]) -> None:
        """Labels must be classes: a typing error is not a new class.

        Raises:
            HttpError: 400, one is not.
        """
        model = self._daemon.serving.ready()
        known = [*model.names, *self._daemon.samples.classes]
        unknown = [label for label in labels if label not in known] if model.loss == "cross_entropy" else []
        if unknown:
            listed = ", ".join(known[:20])
            hint = "add it with POST /v1/classes, or edgelearn samples --add-class"
            raise HttpError(400, f"'{unknown[0]}' is no class, those are {listed}: {hint}")

    def _find(self, request: Request) -> Sample:
        sample_id = whole(request.segments["sample"], "sample")
        sample = self._daemon.samples.get(sample_id)
        if sample is None:
            raise missing("sample", sample_id)
        return sample

    def _shape(self, sample: Sample) -> tuple[int, ...]:
        """That of the live model where it fits."""
        values = len(sample.x) // np.dtype(sample.dtype).itemsize
        live = self._daemon.serving.live
        return live.shape if live is not None and live.input.features == values else (values,)


def _head(sample: Sample) -> dict[str, Any]:
    """A sample without its values."""
    return {"id": sample.id, "label": sample.label, "source": sample.source, "created": sample.created}


def _from_tensors(
    model: Model, content: bytes, request: Request, label: str | None
) -> tuple[NDArray[Any], list[str | None]]:
    """Rows and labels of a message with the tensors x and, where they are labelled, y."""
    message = decode(content, request.headers)
    unknown = set(message.tensors) - {"x", "y"}
    if unknown or "x" not in message.tensors:
        raise HttpError(400, "samples are a tensor x and, where they have labels, a tensor y: name them so")
    x, y = message.tensors["x"], message.tensors.get("y")
    if x.datatype == "BYTES":
        raise HttpError(400, f"tensor x holds text: send numbers, or one of {', '.join(FILES)} as the body")
    rows = model.rows(x.values)
    if y is None:
        labels = [label] * len(rows)
    else:
        if y.values.shape not in ((len(rows),), (len(rows), 1)):
            raise HttpError(400, f"labels have shape {y.values.shape} and not ({len(rows)},): give one for each sample")
        labels = [_named(model, value) for value in y.values.reshape(-1).tolist()]
    return rows, labels


def _from_file(model: Model, content: bytes, kind: str) -> NDArray[Any]:
    """One row from a picture, a sound or an array."""
    return model.rows(model.input.read(io.BytesIO(content), kind=FILES[kind])[None])


def _named(model: Model, value: Any) -> str | None:
    """A label as text: a name, or the number of an output."""
    if isinstance(value, str) or model.loss != "cross_entropy":
        return check_label(str(value))
    if isinstance(value, int) and 0 <= value < len(model.names):
        return model.names[value]
    raise HttpError(400, f"label {value} is outside 0 .. {len(model.names) - 1}: correct it, or send its name")

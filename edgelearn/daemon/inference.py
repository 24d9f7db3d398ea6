# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol v2: health, metadata, predictions. Every answer names the version that gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import __version__
from edgelearn.daemon.http import HttpError, Request, Response
from edgelearn.daemon.routes import Route
from edgelearn.daemon.serving import Model
from edgelearn.daemon.tensors import Message, Tensor, decode, encode
from edgelearn.errors import EdgelearnError

if TYPE_CHECKING:
    from edgelearn.daemon.app import Daemon

VERSION_HEADER = "Edgelearn-Version"

_MOST_VALUES = 1 << 24
"""Output values of one answer: bounded as its input is."""


class Inference:
    """The handlers of /v2."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def routes(self) -> list[Route]:
        """Their table."""
        model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
        return [
            Route("GET", "/v2", self.server, "what this server is", "Server"),
            Route("GET", "/v2/health/live", self.is_live, "whether it runs", "Live", open=True),
            Route("GET", "/v2/health/ready", self.is_ready, "whether it can predict", "Ready", open=True),
            Route("GET", model, self.metadata, "inputs and outputs of the live version", "Model"),
            Route("GET", f"{model}/ready", self.is_model_ready, "whether the model can predict", "ModelReady"),
            Route("POST", f"{model}/infer", self.infer, "predict with the live version", "Predictions", "infer"),
            Route("GET", version, self.metadata, "inputs and outputs of a version", "Model"),
            Route("GET", f"{version}/ready", self.is_model_ready, "whether a version can predict", "ModelReady"),
            Route("POST", f"{version}/infer", self.infer, "predict with a version", "Predictions", "infer"),
        ]

    async def server(self, request: Request) -> Response:
        """Name, version, extensions."""
        return Response.of({"name": "edgelearnd", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def is_live(self, request: Request) -> Response:
        """It runs if it answers."""
        return Response.of({"live": True})

    async def is_ready(self, request: Request) -> Response:
        """It can predict if a model is live."""
        ready = self._daemon.serving.live is not None
        return Response.of({"ready": ready}, 200 if ready else 503)

    async def is_model_ready(self, request: Request) -> Response:
        """A version is ready if it can be loaded."""
        model = await self._model(request)
        return Response.of({"name": self._daemon.config.serve.name, "ready": True, "version": model.version.id})

    async def metadata(self, request: Request) -> Response:
        """Tensors that go in and come out."""
        model = await self._model(request)
        live = self._daemon.serving.live
        versions = {model.version.id, *([live.version.id] if live else [])}
        inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, *model.shape]}]
        outputs = [
            {"name": name, "datatype": tensor.datatype, "shape": [-1, *tensor.values.shape[1:]]}
            for name, tensor in _outputs(model, np.zeros((1, model.graph.outputs), np.float32)).items()
        ]
        about = {"name": self._daemon.config.serve.name, "versions": sorted(versions), "platform": "edgelearn"}
        return Response.of({**about, "inputs": inputs, "outputs": outputs, "classes": model.classes})

    async def infer(self, request: Request) -> Response:
        """Predict. Without `outputs` in the request all of them come, as JSON unless `binary_data_output` says."""
        model = await self._model(request)
        message = decode(await request.body.read(), request.headers)
        x = _samples(message)
        if len(x) * model.graph.outputs > _MOST_VALUES:
            raise HttpError(413, "that is more than one answer may hold: send fewer samples at once")
        asked = self._daemon.serving.live if "version" not in request.segments else model
        model, outputs = await self._daemon.serving.answer(x, asked)
        names, binary = _wanted(message.about, list(_outputs(model, outputs[:1])))
        found = _outputs(model, outputs)
        about = {"model_name": self._daemon.config.serve.name, "model_version": model.version.id}
        if isinstance(message.about.get("id"), str):
            about["id"] = message.about["id"]
        response = encode(about, [found[name] for name in names], binary)
        response.headers[VERSION_HEADER] = model.version.id
        return response

    async def _model(self, request: Request) -> Model:
        """The model that a request names; 404 for another name or version, 503 while none is live."""
        name, version_id = request.segments["name"], request.segments.get("version")
        if name != self._daemon.config.serve.name:
            raise HttpError(404, f"there is no model {name[:60]}: this one is {self._daemon.config.serve.name}")
        serving, versions = self._daemon.serving, self._daemon.versions
        if version_id is None:
            if serving.live is None:
                raise HttpError(503, "no model is live: push one with 'edgelearn push FILE'", {"Retry-After": "10"})
            return serving.live
        try:
            version = await versions.find(version_id)
            return await serving.of(version, await versions.path(version))
        except EdgelearnError as error:
            raise HttpError(404, str(error)) from error


def _samples(message: Message) -> NDArray[Any]:
    """The one input."""
    if len(message.tensors) != 1:
        raise HttpError(400, f"there is one input, x, not {', '.join(message.tensors)[:80]}: send that")
    (tensor,) = message.tensors.values()
    if tensor.datatype == "BYTES":
        raise HttpError(400, f"input {tensor.name} holds text: send numbers")
    return tensor.values


def _outputs(model: Model, outputs: NDArray[np.float32]) -> dict[str, Tensor]:
    """What a net's outputs are called: probabilities and the best label, or values."""
    if model.loss != "cross_entropy":
        return {"values": Tensor("values", outputs)}
    labels = np.array(model.names, object)[outputs.argmax(axis=1)]
    return {"probabilities": Tensor("probabilities", outputs), "label": Tensor("label", labels)}


def _wanted(about: dict[str, Any], known: list[str]) -> tuple[list[str], set[str]]:
    """Names of the outputs that a request wants, and those of them that it wants as bytes."""
    everything = bool(_parameters(about).get("binary_data_output"))
    asked = about.get("outputs")
    if asked is None or asked == []:
        return known, set(known) if everything else set()
    if not isinstance(asked, list) or not all(isinstance(item, dict) and item.get("name") in known for item in asked):
        raise HttpError(400, f"outputs must be a list of objects, each with a name of {', '.join(known)}: correct it")
    binary = {item["name"] for item in asked if _parameters(item).get("binary_data", everything) is True}
    return list(dict.fromkeys(item["name"] for item in asked)), binary


def _parameters(item: dict[str, Any]) -> dict[str, Any]:
    found = item.get("parameters")
    return found if isinstance(found, dict) else {}

# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document, made from the table of routes, so that it cannot say what is not there."""

from __future__ import annotations

import re
from typing import Any

from edgelearn import __version__
from edgelearn.daemon.http import JSON
from edgelearn.daemon.routes import PLACES, Route
from edgelearn.daemon.tensors import DATATYPES, OCTETS

TEXT, WHOLE, NUMBER, TRUTH = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}
ANY: dict[str, Any] = {}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _or_null(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": [of["type"], "null"]}


_SHAPE = _list(WHOLE)
_TENSOR = _object(
    {"name": TEXT, "datatype": {"type": "string", "enum": [*DATATYPES, "BYTES"]}, "shape": _SHAPE},
    {"data": _list(ANY), "parameters": {"type": "object"}},
)
_TENSOR_HEAD = _object({"name": TEXT, "datatype": TEXT, "shape": _SHAPE})
_SAMPLE = {"id": WHOLE, "label": _or_null(TEXT), "source": TEXT, "created": NUMBER}
_VERSION = _object(
    {
        "id": TEXT,
        "number": WHOLE,
        "parent": _or_null(TEXT),
        "note": TEXT,
        "metrics": {"type": "object"},
        "created": NUMBER,
        "size": WHOLE,
        "state": {"type": "string", "enum": ["live", "shadow", "kept", "refused", "collected"]},
        "reason": _or_null(TEXT),
    }
)
_JOB = _object(
    {
        "id": WHOLE,
        "state": TEXT,
        "reason": TEXT,
        "created": NUMBER,
        "done": NUMBER,
        "samples": WHOLE,
        "version": _or_null(TEXT),
        "active": {"type": "boolean"},
    }
)

SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": _object({"error": TEXT}, {"kind": TEXT}),
    "Server": _object({"name": TEXT, "version": TEXT, "extensions": _list(TEXT)}),
    "Live": _object({"live": TRUTH}),
    "Ready": _object({"ready": TRUTH}),
    "ModelReady": _object({"name": TEXT, "ready": TRUTH, "version": TEXT}),
    "Model": _object(
        {
            "name": TEXT,
            "versions": _list(TEXT),
            "platform": TEXT,
            "inputs": _list(_TENSOR_HEAD),
            "outputs": _list(_TENSOR_HEAD),
            "classes": {"type": ["array", "null"], "items": TEXT},
        }
    ),
    "Predictions": _object({"model_name": TEXT, "model_version": TEXT, "outputs": _list(_TENSOR)}, {"id": TEXT}),
    "Samples": _object({"samples": _list(_object(_SAMPLE)), "counts": {"type": "object"}, "bytes": WHOLE}),
    "Stored": _object({"ids": _list(WHOLE)}),
    "SampleHead": _object(_SAMPLE),
    "Sample": _object({**_SAMPLE, "data": _list(NUMBER), "shape": _SHAPE}),
    "Removed": _object({"removed": WHOLE}),
    "Classes": _object({"classes": _list(TEXT)}),
    "Version": _VERSION,
    "Versions": _object({"versions": _list(_VERSION)}),
    "Diff": _object({"from": TEXT, "to": TEXT, "metrics": {"type": "object"}, "layers": _list({"type": "object"})}),
    "Job": _JOB,
    "Jobs": _object({"jobs": _list(_JOB)}),
    "Status": _object({"state": TEXT, "reason": TEXT, "model": TEXT}),
    "Config": {"type": "object"},
    "Series": _object({name: _list(ANY) for name in ("time", "temperature", "confidence")}),
    "Checks": _object({"checks": _list(_object({"name": TEXT, "level": TEXT, "message": TEXT}))}),
    "Document": {"type": "object"},
}
"""What is answered in JSON."""

_INPUTS = _object({"inputs": {"type": "array", "items": _TENSOR, "minItems": 1}}, {"id": TEXT, "outputs": _list(ANY)})
_BYTES = {"type": "string", "format": "binary"}

BODIES: dict[str, dict[str, Any]] = {
    "infer": {JSON: _INPUTS, OCTETS: _BYTES},
    "samples": {JSON: _INPUTS, **{kind: _BYTES for kind in (OCTETS, "image/png", "image/jpeg", "audio/wav")}},
    "label": {JSON: _object({"label": _or_null(TEXT)})},
    "class": {JSON: _object({"name": TEXT})},
    "model": {OCTETS: _BYTES},
    "rollback": {JSON: _object({}, {"to": TEXT})},
    "job": {JSON: _object({}, {"note": TEXT, "policy": {"type": "string", "enum": ["manual", "auto", "shadow"]}})},
    "config": {JSON: {"type": "object"}},
    "nothing": {JSON: {"type": "object", "additionalProperties": False}},
}
"""What is taken."""

_OPTIONAL = ("rollback", "nothing", "job")

_REFUSALS = {
    "400": "what was sent cannot be meant",
    "401": "the token is missing",
    "403": "this user may not",
    "404": "there is no such thing",
    "405": "not this method",
    "408": "too slow",
    "409": "not as things are",
    "413": "too large",
    "415": "not this kind of content",
    "503": "not now",
    "507": "the disk takes no more",
}


def document(routes: list[Route], name: str) -> dict[str, Any]:
    """The description of all routes, for a model of this name."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route, name)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgelearnd", "version": __version__, "description": "A board that keeps learning."},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "on TCP only"}},
        },
    }


def _place(place: str, name: str) -> dict[str, Any]:
    """The schema of a placeholder."""
    if place == "name":
        return {"type": "string", "enum": [name]}
    return {"type": "integer", "minimum": 1, "maximum": 1 << 40} if place in ("sample", "job") else TEXT


def _operation(route: Route, name: str) -> dict[str, Any]:
    places = re.findall(r"{(\w+)}", route.pattern)
    parameters = [
        {"name": place, "in": "path", "required": True, "schema": _place(place, name), "description": PLACES[place]}
        for place in places
    ]
    parameters += [{"name": name, "in": "query", "schema": {"type": kind}} for name, kind in route.query.items()]
    refusal = {"content": {JSON: {"schema": _reference("Error")}}}
    operation: dict[str, Any] = {
        "summary": route.about,
        "parameters": parameters,
        "responses": {
            str(route.status): {"description": route.about, "content": _answer(route)},
            **{status: {"description": text, **refusal} for status, text in _REFUSALS.items()},
        },
    }
    if route.answer == "Ready":
        operation["responses"]["503"] = {"description": "not ready", "content": _answer(route)}
    if route.answer == "Predictions":
        operation["responses"]["200"]["content"][OCTETS] = {"schema": _BYTES}
    if route.body:
        content = {kind: {"schema": schema} for kind, schema in BODIES[route.body].items()}
        operation["requestBody"] = {"required": route.body not in _OPTIONAL, "content": content}
    if route.open:
        operation["security"] = []
    return operation


def _answer(route: Route) -> dict[str, Any]:
    if route.answer in SCHEMAS:
        return {JSON: {"schema": _reference(route.answer)}}
    return {route.answer: {"schema": _BYTES if route.answer != "text/plain" else TEXT}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}

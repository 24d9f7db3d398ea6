# SPDX-License-Identifier: Apache-2.0
"""A model as one safetensors file: u64 header length, a JSON header padded to a multiple of 64, then, without
gaps, the tensors `records`, every parameter in flat order and, where there are any, `samples` and `train.state`.

Nothing is pickled, and every bit is under a digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import nested, rules
from edgelearn.durable import replacing, write_through
from edgelearn.errors import ModelError
from edgelearn.graph import FloatArray, Graph, build
from edgelearn.layers import from_config
from edgelearn.records import Op

MAGIC = 0x524E4C45
"""The bytes ELNR."""
VERSION = 1
ROW = 64
"""Bytes of a record, of the header row before them, and the alignment of the data."""
BLANK = "0" * 64
"""Stands for the digest while the digest is computed."""
DIGEST_KEY = b'"sha256":"'
"""Unique in a header: in a JSON string its quotes are escaped, and a tensor's value begins with a brace."""

SAMPLE_KINDS = {"|u1": "U8", "<f4": "F32"}
"""Types that samples are kept in, as numpy and safetensors call them."""

Tensors = dict[str, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Model:
    """What a model file holds.

    `layers` and `input` are tables as in a .toml, `params` is the flat float32 vector of `graph`, `train` the
    recipe, `provenance` where the weights come from, `nested` the widths of a nested net (nested.Nested),
    `samples` a few training samples (n, features) uint8 or float32
    that exports are compared on, `state` what an engine needs to go on training.
    """

    layers: list[dict[str, Any]]
    graph: Graph
    params: FloatArray
    input: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    classes: list[str] | None = None
    loss: str = "cross_entropy"
    provenance: dict[str, Any] = field(default_factory=dict)
    samples: NDArray[Any] | None = None
    state: bytes | None = None
    nested: dict[str, Any] | None = None


def write(path: str | Path, model: Model) -> None:
    """Write a model file; its name appears only when all of it is on disk.

    Raises:
        ModelError: parts that do not belong together, or weights that are not finite.
        OutputError: it cannot be written; nothing is left behind.
    """
    content = parts(model)
    with replacing(Path(path)) as partial:
        write_through(partial, content)


def parts(model: Model) -> list[bytes | memoryview]:
    """The bytes of a model file, piece by piece.

    Raises:
        ModelError: parts that do not belong together, or weights that are not finite.
    """
    _check(model)
    if model.params.shape != (model.graph.size,) or not np.isfinite(model.params).all():
        raise ModelError(f"a model of {model.graph.size} weights needs as many finite floats: train it again")
    return [_header(model), *_data(model)]


def read(path: str | Path) -> Model:
    """The model in a file, its weights a writable copy.

    Raises:
        ModelError: not such a file, truncated, damaged, or of a newer version.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path} ({error}): check the path") from error
    try:
        return _parsed(content)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ModelError(f"{path} is not a model file of edgelearn or is damaged: fetch it again") from error


def _parsed(content: bytes) -> Model:
    header, start = _json(content)
    metadata = header.pop("__metadata__")
    if metadata["format"] != "edgelearn":
        raise ModelError("this safetensors file was not written by edgelearn: train or convert the model first")
    end = max(tensor["data_offsets"][1] for tensor in header.values())
    if len(content) != start + end:
        raise ModelError(f"{len(content)} bytes instead of {start + end}, so it is damaged: fetch it again")
    words = np.frombuffer(content, "<u4", 4, start)
    if words[0] == MAGIC and words[1] > VERSION:
        raise ModelError(f"format {words[1]} is newer than this edgelearn knows ({VERSION}): update edgelearn")
    if metadata["sha256"] != _digest(content, start):
        raise ModelError("the content does not match its digest, so it is damaged: fetch it again")
    return _model(content, header, start, json.loads(metadata["edgelearn"]))


def _json(content: bytes) -> tuple[dict[str, Any], int]:
    """The header and where the data begins."""
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) < 8 or start > len(content):
        raise ModelError("not a model file, or cut before its header ends: fetch it again")
    header: dict[str, Any] = json.loads(content[8:start].decode("utf-8"))
    return header, start


def _model(content: bytes, header: Tensors, start: int, about: dict[str, Any]) -> Model:
    """The model, after checking that its layers give exactly the table and tensors in the file."""
    arguments = about.pop("graph")
    graph = built(about["layers"], {**arguments, "input_shape": tuple(arguments["input_shape"])})
    params = start + ROW * (len(graph.records) + 1)
    samples, state = _samples(content, header, start), _bytes(content, header, start, "train.state")
    if header != _tensors(graph, samples, state) or content[start:params] != _table(graph):
        raise ModelError("its layers do not match its records: write it again with this edgelearn")
    flat = np.frombuffer(content, "<f4", graph.size, params).astype(np.float32)
    model = Model(graph=graph, params=flat, samples=samples, state=state, **about)
    _check(model)
    return model


def _bytes(content: bytes, header: Tensors, start: int, name: str) -> bytes | None:
    if name not in header:
        return None
    first, last = header[name]["data_offsets"]
    return content[start + first : start + last]


def _samples(content: bytes, header: Tensors, start: int) -> NDArray[Any] | None:
    found = _bytes(content, header, start, "samples")
    if found is None:
        return None
    dtype = {kind: dtype for dtype, kind in SAMPLE_KINDS.items()}[header["samples"]["dtype"]]
    return np.frombuffer(found, dtype).reshape(header["samples"]["shape"]).copy()


def built(layers: list[dict[str, Any]], arguments: dict[str, Any]) -> Graph:
    """The graph of layers from their tables, and what `arguments_of` gave."""
    chain: list[Any] = [from_config(config) for config in layers]
    return build(chain, **arguments)


def arguments_of(graph: Graph) -> dict[str, Any]:
    """What graph.build was called with beside the layers."""
    first, last = graph.records[0], graph.records[-1]
    rescale = int(first["params"]) // 2 if first["op"] == Op.RESCALE else 0
    found = {"input_shape": graph.input_shape, "rescale": rescale, "softmax": bool(last["op"] == Op.SOFTMAX)}
    return {**found, "levels": graph.levels} if graph.levels else found


def _check(model: Model) -> None:
    tables = (model.input, model.train, model.provenance)
    if not all(isinstance(table, dict) for table in tables):
        raise ModelError("input, train and provenance must be tables: pass dictionaries")
    rules.loss(model.loss)
    grid = nested.parse(model.nested)
    if (len(grid.widths) if grid else 0) != model.graph.levels:
        raise ModelError("the widths of the model do not fit its records: write it again with this edgelearn")
    samples = model.samples
    if samples is not None and (samples.dtype.str not in SAMPLE_KINDS or samples.shape[1:] != (model.graph.features,)):
        raise ModelError(f"samples must be uint8 or float32 of shape (n, {model.graph.features}): prepare them")
    names = model.classes
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise ModelError("classes must be a list of names: pass strings")
    if names is not None and len(names) != model.graph.outputs:
        raise ModelError(f"{len(names)} classes do not fit {model.graph.outputs} outputs: name each output once")
    if len({p.name for p in model.graph.parameters}) < len(model.graph.parameters):
        raise ModelError("two parameters have one name: give each layer its own name")
    rebuilt = built(model.layers, arguments_of(model.graph))
    if _table(rebuilt) != _table(model.graph) or rebuilt.parameters != model.graph.parameters:
        raise ModelError("the layers do not give the records of the model: build the graph from these layers")


def _table(graph: Graph) -> bytes:
    """The tensor `records`: a header row of 16 little-endian words, then the records."""
    words = np.zeros(ROW // 4, "<u4")
    words[:4] = MAGIC, VERSION, len(graph.records), graph.size
    return words.tobytes() + graph.records.tobytes()


def _tensors(graph: Graph, samples: NDArray[Any] | None, state: bytes | None) -> Tensors:
    """Type, shape and place of every tensor, in file order."""
    rows = len(graph.records) + 1
    shapes: list[tuple[str, str, tuple[int, ...], int]] = [("records", "U8", (rows, ROW), rows * ROW)]
    shapes += [(p.name, "F32", p.shape, 4 * p.size) for p in graph.parameters]
    if samples is not None:
        shapes.append(("samples", SAMPLE_KINDS[samples.dtype.str], samples.shape, samples.nbytes))
    if state is not None:
        shapes.append(("train.state", "U8", (len(state),), len(state)))
    tensors, end = {}, 0
    for name, kind, shape, size in shapes:
        tensors[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    return tensors


def _data(model: Model) -> Iterator[bytes | memoryview]:
    yield _table(model.graph)
    yield np.ascontiguousarray(model.params, "<f4").data.cast("B")
    if model.samples is not None:
        yield np.ascontiguousarray(model.samples).data.cast("B")
    yield model.state or b""


def _header(model: Model) -> bytes:
    """Length and padded JSON, the digest over the whole file filled in."""
    about = {
        "graph": arguments_of(model.graph),
        **{key: getattr(model, key) for key in ("layers", "input", "train", "classes", "loss", "provenance")},
        **({"nested": model.nested} if model.nested else {}),
    }
    try:
        text = json.dumps(about, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ModelError(f"the description of the model is not JSON ({error}): use plain values") from error
    metadata = {"format": "edgelearn", "sha256": BLANK, "edgelearn": text}
    header = {"__metadata__": metadata, **_tensors(model.graph, model.samples, model.state)}
    body = json.dumps(header, separators=(",", ":")).encode()
    body += b" " * (-(8 + len(body)) % ROW)
    blank = len(body).to_bytes(8, "little") + body
    digest = _sha256()
    digest.update(blank)
    for part in _data(model):
        digest.update(part)
    return blank.replace(DIGEST_KEY + BLANK.encode(), DIGEST_KEY + digest.hexdigest().encode(), 1)


def _sha256() -> Any:
    """A hash object; hashlib brings five megabytes of OpenSSL, which training does not need."""
    import hashlib

    return hashlib.sha256()


def _digest(content: bytes, start: int) -> str:
    """SHA-256 of a file with zeros in place of the digest."""
    place = content.index(DIGEST_KEY, 0, start) + len(DIGEST_KEY)
    view = memoryview(content)
    digest = _sha256()
    digest.update(view[:place])
    digest.update(BLANK.encode())
    digest.update(view[place + len(BLANK) :])
    return str(digest.hexdigest())

# SPDX-License-Identifier: Apache-2.0
"""What an exported file says of the net that it came from, so that it can be read back and trained on."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgelearn import modelfile
from edgelearn.errors import ModelError
from edgelearn.graph import FloatArray, Graph
from edgelearn.layers import to_config
from edgelearn.net.structure import Structure
from edgelearn.records import Op

ENTRY = "edgelearn"
"""Entry of the metadata of a file: JSON with format, layers, graph, train, loss, records, norms."""

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Architecture:
    """Layers as tables, the graph that they give, recipe and loss; `norms` are the parameters of every
    BatchNormalization in the order of the records, (k,) float32, or nothing where the file has them as they are."""

    layers: list[dict[str, Any]]
    graph: Graph
    train: dict[str, Any]
    loss: str
    norms: FloatArray


def described(net: Structure, train: dict[str, Any], folds: bool) -> dict[str, str]:
    """The entry for the metadata of an exported file, with the norms where the file `folds` them into weights; none
    for a net with features cut off, whose layers are not what the file holds."""
    graph = net.graph
    if (graph.records["active"] != graph.records["units"]).any():
        return {}
    about = {
        "format": FORMAT,
        "layers": [to_config(layer) for layer in net.layers],
        "graph": modelfile.arguments_of(graph),
        "train": train,
        "loss": net.loss,
        "records": _text(graph.records.tobytes()),
        "norms": _text(b"".join(part.astype("<f4").tobytes() for part in norms_of(graph, net.flat) if folds)),
    }
    return {ENTRY: json.dumps(about, separators=(",", ":"))}


def norms_of(graph: Graph, flat: FloatArray) -> list[FloatArray]:
    """Views of the parameters of each BatchNormalization."""
    wanted = graph.records[graph.records["op"] == Op.BATCHNORM]
    return [flat[r["offset"] : r["offset"] + r["params"]] for r in wanted]


def read(text: str) -> Architecture:
    """What an entry says.

    Raises:
        ModelError: it is damaged, of a newer edgelearn, or its layers give other records.
    """
    try:
        about = json.loads(text)
        if about["format"] > FORMAT:
            raise ModelError(f"the file was written by a newer edgelearn (format {about['format']}): update edgelearn")
        arguments = {**about["graph"], "input_shape": tuple(about["graph"]["input_shape"])}
        graph = modelfile.built(about["layers"], arguments)
        norms = np.frombuffer(base64.b64decode(about["norms"]), "<f4").astype(np.float32)
        if base64.b64decode(about["records"]) != graph.records.tobytes():
            raise ModelError("the layers in the file do not match its records: export it again with this edgelearn")
        if norms.size not in (0, sum(part.size for part in norms_of(graph, np.zeros(graph.size, np.float32)))):
            raise ValueError("normalisation is cut short")
        return Architecture(about["layers"], graph, about["train"], about["loss"], norms)
    except ModelError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(f"the file's entry '{ENTRY}' is damaged ({error}): export it again") from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()

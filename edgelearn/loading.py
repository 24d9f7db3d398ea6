# SPDX-License-Identifier: Apache-2.0
"""el.load: a net from whatever describes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgelearn import definition, modelfile
from edgelearn.errors import ModelError
from edgelearn.frontend import Input
from edgelearn.layers import from_config
from edgelearn.net import Net


def load(path: str | Path, *, seed: int = 0, nested: Any = None) -> Net:
    """A net from a .toml definition or a name in models/, with fresh weights by `seed`, or a .safetensors model, of
    which a few are in models/ as well. `nested` makes it a nested net, as `Net`'s argument does; a model that is one
    already keeps its widths.

    Raises:
        ModelError: nothing there, or not a model; the message names what is.
    """
    suffix = Path(path).suffix
    if suffix == ".safetensors":
        return _from_model(modelfile.read(definition.find(path, suffix)), nested)
    if suffix not in ("", ".toml"):
        raise ModelError(f"{path} is not a model to train: give a name in models/, a .toml or a .safetensors")
    found = definition.read(path)
    loss = found.train.get("loss")
    given = Input.from_config(found.input)
    return Net(found.layers, seed=seed, loss=loss, input=given, train=found.train, nested=nested)


def _from_model(model: modelfile.Model, widths: Any) -> Net:
    net = Net(
        [from_config(layer) for layer in model.layers],
        loss=model.loss,
        input=Input.from_config(model.input),
        train=model.train,
        classes=model.classes,
        nested=model.nested or widths,
    )
    net.take(model.graph, model.params)
    net.restore(model.samples, model.provenance)
    return net

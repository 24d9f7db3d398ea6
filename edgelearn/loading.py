# SPDX-License-Identifier: Apache-2.0
"""el.load: a net from whatever describes one."""

from __future__ import annotations

from pathlib import Path

from edgelearn import definition, modelfile
from edgelearn.errors import ModelError
from edgelearn.frontend import Input
from edgelearn.layers import from_config
from edgelearn.net import Net


def load(path: str | Path, *, seed: int = 0) -> Net:
    """A net from a .toml definition or a name in models/, with fresh weights by `seed`, or a .safetensors model, of
    which a few are in models/ as well.

    Raises:
        ModelError: nothing there, or not a model; the message names what is.
    """
    suffix = Path(path).suffix
    if suffix == ".safetensors":
        return _from_model(modelfile.read(definition.find(path, suffix)))
    if suffix not in ("", ".toml"):
        raise ModelError(f"{path} is not a model to train: give a name in models/, a .toml or a .safetensors")
    found = definition.read(path)
    loss = found.train.get("loss")
    return Net(found.layers, seed=seed, loss=loss, input=Input.from_config(found.input), train=found.train)


def _from_model(model: modelfile.Model) -> Net:
    net = Net(
        [from_config(layer) for layer in model.layers],
        loss=model.loss,
        input=Input.from_config(model.input),
        train=model.train,
        classes=model.classes,
    )
    net.restore(model.params, model.samples, model.provenance)
    return net

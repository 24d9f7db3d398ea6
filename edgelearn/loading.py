# SPDX-License-Identifier: Apache-2.0
"""el.load: a net from whatever describes one."""

from __future__ import annotations

from pathlib import Path

from edgelearn import definition, modelfile
from edgelearn.errors import ModelError
from edgelearn.frontend import Input
from edgelearn.layers import from_config
from edgelearn.net import Net


def load(path: str | Path, *, rule: str | None = None, seed: int = 0) -> Net:
    """A net from a .toml definition, a name in models/, or a .safetensors model.

    `rule` chooses among the definition's per-rule settings; `seed` is that of fresh weights.

    Raises:
        ModelError: nothing there, or not a model; the message names what is.
    """
    if Path(path).suffix == ".safetensors":
        return _from_model(modelfile.read(Path(path)))
    found = definition.read(path)
    train = found.recipe(rule)
    loss = train.pop("loss", None)
    return Net(found.layers, seed=seed, loss=loss, input=Input.from_config(found.input), train=train)


def _from_model(model: modelfile.Model) -> Net:
    net = Net(
        [from_config(layer) for layer in model.layers],
        loss=model.loss,
        input=Input.from_config(model.input),
        train=model.train,
        classes=model.classes,
    )
    net.flat[...] = model.flat
    net.provenance = dict(model.provenance)
    return net

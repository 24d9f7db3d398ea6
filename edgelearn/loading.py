# SPDX-License-Identifier: Apache-2.0
"""el.load: a net from whatever describes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgelearn import definition, importing, modelfile
from edgelearn.errors import ModelError
from edgelearn.inputs.frontend import Input
from edgelearn.layers import from_config
from edgelearn.net import Net


def load(path: str | Path, *, seed: int = 0, loss: str | None = None, nested: Any = None) -> Net:
    """A net from a .toml definition or a name in models/, with fresh weights by `seed`, or a .safetensors model, of
    which a few are in models/ as well; or from an .onnx or .tflite file that edgelearn exported, or an .onnx file of
    another tool whose nodes are all known; others `el.adapt` takes as they are. `loss` goes over what the file says:
    an .onnx file that ends without a softmax is a regression unless it is told "cross_entropy". `nested` makes it a
    nested net, as `Net`'s argument does; a model that is one already keeps its widths.

    Raises:
        ModelError: nothing there, or not a model; the message names what is.
    """
    suffix = Path(path).suffix
    if suffix == ".safetensors":
        return _from_model(modelfile.read(definition.find(path, suffix)), loss, nested)
    if suffix in importing.READERS:
        return _from_model(importing.read(path), loss, nested)
    if suffix not in ("", ".toml"):
        raise ModelError(f"{path} is not a model to train: give a name in models/, a .toml, .safetensors or .onnx")
    found = definition.read(path)
    wanted = loss or found.train.get("loss")
    given = Input.from_config(found.input)
    return Net(found.layers, seed=seed, loss=wanted, input=given, train=found.train, nested=nested)


def _from_model(model: modelfile.Model, loss: str | None, widths: Any) -> Net:
    net = Net(
        [from_config(layer) for layer in model.layers],
        loss=loss or model.loss,
        input=Input.from_config(model.input),
        train=model.train,
        classes=model.classes,
        nested=model.nested or widths,
    )
    net.take(model.graph, model.params)
    net.restore(model.samples, model.provenance)
    return net

# SPDX-License-Identifier: Apache-2.0
"""Small models, a plain forward pass and the parts of a model file, for the tests of model files."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from edgelearn import graph
from edgelearn.layers import Activation, BatchNormalization, Dense, Dropout, to_config
from edgelearn.modelfile import Model
from edgelearn.records import Op

ACTIVATIONS = {
    Op.RELU: lambda z, slope: np.maximum(z, 0),
    Op.LEAKY_RELU: lambda z, slope: np.where(z > 0, z, slope * z),
    Op.TANH: lambda z, slope: np.tanh(z),
    Op.SIGMOID: lambda z, slope: 1 / (1 + np.exp(-z)),
    Op.SOFTMAX: lambda z, slope: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
}


def model_of(layers, features=4, rescale=0, softmax=True, **about):
    net = graph.build(layers, (features,), rescale, softmax)
    return Model([to_config(layer) for layer in layers], net, net.initial(seed=7), **about)


def classifier(**about):
    layers = [Dense(3, name="first"), BatchNormalization(), Activation("relu"), Dropout(0.5), Dense(2)]
    return model_of(layers, rescale=4, **about)


FULL = {
    "input": {"shape": [4], "scale": 255.0, "layout": "channels_last"},
    "train": {"rule": "tp-ce", "lr": 0.001},
    "classes": ["no", 'yes "sha256":"' + "0" * 64],
    "provenance": {"accuracy": 0.5, "data": "Zürich"},
    "state": b"\x00moments\xff",
}


def forward(net, flat, x):
    """The records in float64 numpy, as plainly as edgelearn.h says them."""
    x = x.astype(np.float64)
    for record in net.records:
        n, op, slope = int(record["units"]), Op(record["op"]), float(record["arg"][0])
        first = int(record["offset"])
        params = flat[first : first + int(record["params"])].astype(np.float64)
        if op is Op.RESCALE:
            weight, bias = params.reshape(2, -1)
            x = x * np.resize(weight, n) + np.resize(bias, n)
        elif op is Op.DENSE:
            inputs = int(record["fan_in"])
            x = x @ params[: inputs * n].reshape(inputs, n) + (params[inputs * n :] if record["flags"] else 0)
        elif op is Op.BATCHNORM:
            gamma, beta, mean, variance = params.reshape(4, n)
            x = (x - mean) / np.sqrt(variance + slope) * gamma + beta
        elif op is not Op.DROPOUT:
            x = ACTIVATIONS[op](x, slope)
    return x


def parts(content):
    """Header and data of a safetensors file."""
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]


def sealed(header, data):
    """A file whose digest is right, whatever its header says."""
    header["__metadata__"]["sha256"] = "0" * 64
    body = json.dumps(header, separators=(",", ":")).encode()
    blank = len(body).to_bytes(8, "little") + body + data
    return blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)

# SPDX-License-Identifier: Apache-2.0
"""What the tests of export share: the records as plain float64 formulas, random nets, and a short write()."""

from __future__ import annotations

import numpy as np

from edgelearn import export, graph
from edgelearn.graph import FLAG_BIAS, Graph, Op
from edgelearn.layers import Dense


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def evaluate(net: Graph, flat, x):
    """The records of edgelearn.h, read as formulas, in float64."""
    y = np.asarray(x, np.float64).reshape(len(x), -1)
    for r in net.records:
        p = flat[r["offset"] : r["offset"] + r["params"]].astype(np.float64)
        if r["op"] == Op.RESCALE:
            scale, shift = p.reshape(2, -1)
            j = np.arange(y.shape[1]) % len(scale)
            y = y * scale[j] + shift[j]
        elif r["op"] == Op.DENSE:
            w = p[: r["fan_in"] * r["stride"]].reshape(r["fan_in"], r["stride"])
            b = p[w.size :][: r["active"]] if r["flags"] & FLAG_BIAS else 0
            y = y @ w[: r["fan_in_active"], : r["active"]] + b
        elif r["op"] == Op.BATCHNORM:
            gamma, beta, mean, variance = p.reshape(4, -1)[:, : r["active"]]
            y = gamma * (y - mean) / np.sqrt(variance + r["arg"][0]) + beta
        else:
            slope = float(r["arg"][0])
            y = {
                Op.RELU: lambda v: np.maximum(v, 0),
                Op.LEAKY_RELU: lambda v, slope=slope: np.where(v > 0, v, slope * v),
                Op.TANH: np.tanh,
                Op.SIGMOID: lambda v: 1 / (1 + np.exp(-v)),
                Op.DROPOUT: lambda v: v,
                Op.SOFTMAX: softmax,
            }[Op(r["op"])](y)
    return y


def random_parameters(net: Graph, seed=0):
    """Every parameter away from its initial value, variances positive."""
    flat = np.random.default_rng(seed).normal(0, 0.5, net.size).astype(np.float32)
    for parameter in net.parameters:
        if parameter.name.endswith(".variance"):
            parameter.view(flat)[...] = np.abs(parameter.view(flat)) + 0.5
    return flat


def samples_of(net: Graph, count=9, seed=1):
    return np.random.default_rng(seed).normal(0, 1, (count, *net.input_shape)).astype(np.float32)


def write(path, net, flat, **changes):
    wanted = {"forward": lambda x: evaluate(net, flat, x), "samples": samples_of(net)} | changes
    return export.write(path, net, flat, **wanted)


def small(**changes):
    wanted = {"layers": [Dense(6, "relu"), Dense(3)], "input_shape": (4,)} | changes
    net = graph.build(**wanted)
    return net, random_parameters(net)

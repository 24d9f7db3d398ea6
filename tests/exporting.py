# SPDX-License-Identifier: Apache-2.0
"""What the tests of export share: what a net must answer, random nets, and a short write()."""

from __future__ import annotations

import numpy as np
import operations
from nets import ALL_NETS

from edgelearn import engines, export, graph
from edgelearn.engines import Config
from edgelearn.graph import Graph
from edgelearn.layers import Dense

EXPORTED = {
    name: ALL_NETS[name]
    for name in (
        *("plain", "leaky", "batchnorm", "layernorm", "dropout"),
        *("strides", "norms", "depthwise", "sequence", "wide", "picture"),
    )
}
"""Nets of every layer that files can hold in all number types."""


def evaluate(net: Graph, flat, x):
    """The records as the oracle reads them."""
    rows, params = np.asarray(x, np.float64).reshape(len(x), -1), flat.astype(np.float64)
    indices = range(len(net.records))
    return operations.chain(net.records, indices, rows, lambda i, y: operations.infer(net.records[i], params, y))


def core(net: Graph, flat, x):
    """The answers of the core."""
    rows = np.ascontiguousarray(x, np.float32).reshape(len(x), -1)
    session = engines.load("native").open(net.records, flat, Config(batch=8, targets=net.outputs, train=False))
    try:
        return session.forward(rows)
    finally:
        session.close()


def random_parameters(net: Graph, seed=0):
    """Every parameter away from its initial value, variances positive; sums of many inputs stay of the size of one."""
    flat = np.random.default_rng(seed).normal(0, 0.5, net.size).astype(np.float32)
    for parameter in net.parameters:
        if parameter.name.endswith(".variance"):
            parameter.view(flat)[...] = np.abs(parameter.view(flat)) + 0.5
        parameter.view(flat)[...] *= 2 / np.sqrt(max(4, parameter.fan_in))
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

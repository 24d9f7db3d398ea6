# SPDX-License-Identifier: Apache-2.0
"""What each record of a net computes, in float64, on samples as rows (n, features)."""

from __future__ import annotations

import numpy as np
import sequences
from formulas import batchnorm, dense, gelu, layernorm, relu, sigmoid, softmax, tanh
from formulas_attention import attention, embedding, positions
from formulas_maps import avgpool, conv, global_avgpool, maxpool

from edgelearn.geometry import sides_of
from edgelearn.records import (
    FLAG_BIAS,
    FLAG_NESTED,
    FLAG_SEQUENCES,
    RECURRENT,
    Op,
    groups_of_record,
    sides_after,
    window_of_record,
)

NORMS = (Op.BATCHNORM, Op.LAYERNORM)
TABLES = (Op.EMBEDDING, Op.POSITIONS)


def weights_of(record, flat):
    """The trained weights of a record as views of the flat vector."""
    start, stored, stride = int(record["offset"]), int(record["fan_in"]), int(record["stride"])
    used, units = int(record["fan_in_active"]), int(record["active"])
    if record["op"] in NORMS:
        beta = start + int(record["units"])
        return [flat[start : start + units], flat[beta : beta + units]]
    if record["op"] in TABLES:
        return [flat[start : start + int(record["params"])].reshape(-1, stride)[:, :units]]
    if record["op"] in RECURRENT:
        return _recurrent_weights(record, flat)
    if record["op"] not in (Op.DENSE, Op.CONV):
        return []
    groups = groups_of_record(record) if record["op"] == Op.CONV else 1
    places = window_of_record(record).kernel if record["op"] == Op.CONV else (max(int(record["window"]), 1),)
    inputs = stored // groups if record["op"] == Op.CONV else stored // places[0]
    shape = (*places, inputs, stride)
    end = start + int(np.prod(shape))
    read = inputs if groups > 1 else used if record["op"] == Op.CONV else used // places[0]
    w = flat[start:end].reshape(shape)[..., :read, :units]
    return [w, flat[end : end + units]] if record["flags"] & FLAG_BIAS else [w]


def gain_of(record):
    """What a nested product is multiplied by: a sum over k of d inputs is made as large as one over all."""
    if not record["flags"] & FLAG_NESTED or (record["op"] == Op.CONV and groups_of_record(record) > 1):
        return 1.0
    return np.sqrt(int(record["fan_in"]) / int(record["fan_in_active"]))


def recurrent_gains(record):
    """Of W, V and the biases of a recurrent record."""
    is_nested = record["flags"] & FLAG_NESTED
    return [gain_of(record), np.sqrt(int(record["units"]) / int(record["active"])) if is_nested else 1.0, 1.0, 1.0]


def _recurrent_weights(record, flat):
    """Rows (gates, units) of W, V and each bias, the leading units of every gate."""
    gates, rows = RECURRENT[Op(int(record["op"]))], int(record["params"])
    matrix = flat[int(record["offset"]) :][:rows].reshape(-1, gates, int(record["units"]))[..., : record["active"]]
    inputs, end = int(record["fan_in"]), int(record["fan_in"]) + int(record["units"])
    return [matrix[: record["fan_in_active"]], matrix[inputs : inputs + int(record["active"])], *matrix[end:]]


def statistics_of(record, flat):
    """Running mean and variance of a batch normalisation, as views."""
    start = int(record["offset"])
    first = 2 + 2 * int(record["window"])
    stored = flat[start : start + int(record["params"])].reshape(-1, int(record["units"]))
    return stored[first : first + 2, : record["active"]]


def shaped(record, x):
    """Rows as the record reads them: a map (n, height, width, channels) where it has one."""
    return x.reshape(len(x), *sides_of(int(record["size"])), -1) if record["size"] else x


def map_after(record):
    """Sides of the map that a record gives, or None for a flat vector."""
    is_last = record["op"] in RECURRENT and not record["flags"] & FLAG_SEQUENCES
    is_flat = not record["size"] or record["op"] == Op.GLOBAL_AVGPOOL or is_last
    return None if is_flat else sides_after(record)


def chain(records, indices, x, apply):
    """What consecutive records make of x, each by `apply(index, x)`; an addition gets what its branch began with."""
    left = {indices[0] - 1: x}
    for index in indices:
        x = apply(index, x)
        if records[index]["op"] == Op.ADD:
            x = x + left[int(records[index]["input"][1])]
        left[index] = x
    return x


def infer(record, flat, x):
    """Output in use after training, of an addition without what it adds."""
    if record["op"] == Op.SOFTMAX:
        return softmax(x)
    if record["op"] == Op.BATCHNORM:
        (gamma, beta), (mean, variance) = weights_of(record, flat), statistics_of(record, flat)
        y = gamma * (shaped(record, x) - mean) / np.sqrt(variance + float(record["arg"][0])) + beta
        return y.reshape(x.shape)
    return x if record["op"] == Op.DROPOUT else train(record, flat, x)[0]


def train(record, flat, x, mask=1.0):
    """Output in training, and the pullback; a dropout multiplies by `mask`, and an addition leaves adding to others."""
    if record["op"] == Op.DROPOUT:
        return x * mask, lambda d: (d * mask, [])
    y, pull = _layer(record, flat, shaped(record, x))

    def pull_rows(d):
        d, gradients = pull(d.reshape(y.shape))
        return d.reshape(x.shape), gradients

    return y.reshape(len(x), -1), pull_rows


def _layer(record, flat, x):
    op, first, weights = record["op"], float(record["arg"][0]), weights_of(record, flat)
    if op == Op.ADD:
        return x, lambda d: (d, [])
    if op == Op.ATTENTION:
        return attention(x, groups_of_record(record) * int(record["active"]) // int(record["units"]))
    if op in TABLES:
        return {Op.EMBEDDING: embedding, Op.POSITIONS: positions}[op](x, *weights)
    if op == Op.RESCALE:
        return _rescale(record, flat, x)
    if op == Op.DENSE:
        return _scaled(record, lambda w, *bias: dense(x, w.reshape(-1, w.shape[-1]), *bias), weights)
    if op in RECURRENT:
        return _recurrent(record, flat, x)
    if op == Op.CONV:
        inputs = int(record["fan_in"]) // groups_of_record(record) if groups_of_record(record) > 1 else x.shape[-1]
        window, groups = window_of_record(record), x.shape[-1] // inputs
        return _scaled(record, lambda w, *bias: conv(x, window, groups, w, *bias), weights)
    if op in NORMS:
        return {Op.BATCHNORM: batchnorm, Op.LAYERNORM: layernorm}[op](x, *weights, first)
    if op in (Op.MAXPOOL, Op.AVGPOOL):
        return {Op.MAXPOOL: maxpool, Op.AVGPOOL: avgpool}[op](x, window_of_record(record))
    if op in (Op.RELU, Op.LEAKY_RELU):
        return relu(x, first)
    return {Op.TANH: tanh, Op.SIGMOID: sigmoid, Op.GELU: gelu, Op.GLOBAL_AVGPOOL: global_avgpool}[op](x)


def _scaled(record, layer, weights):
    """A product with its weights times the gain, which their gradient meets as well."""
    gain, w = gain_of(record), weights[0]
    y, pull = layer(gain * w, *weights[1:])

    def pull_scaled(d):
        d, gradients = pull(d)
        return d, [gain * gradients[0].reshape(w.shape), *gradients[1:]]

    return y, pull_scaled


def _recurrent(record, flat, x):
    y, pull = sequences.recurrent(record, flat, x[:, 0])
    return (y[:, None] if record["flags"] & FLAG_SEQUENCES else y[:, -1]), pull


def _rescale(record, flat, x):
    start = int(record["offset"])
    scale, shift = flat[start : start + int(record["params"])].reshape(2, -1)
    times = x.shape[1] // len(scale)
    return x * np.tile(scale, times) + np.tile(shift, times), lambda d: (d * np.tile(scale, times), [])

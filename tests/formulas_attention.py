# SPDX-License-Identifier: Apache-2.0
"""Tokens, places and attention in float64; layers as in formulas.py over maps (n, height, width, features)."""

from __future__ import annotations

import numpy as np
from formulas import softmax


def embedding(x, table):
    """x (n, 1, steps, 1) whole numbers: rows of the table (vocabulary, U)."""
    tokens = x[..., 0].astype(int)

    def pull(d):
        gradient = np.zeros(table.shape)
        np.add.at(gradient, tokens, d)
        return np.zeros(x.shape), [gradient]

    return table[tokens], pull


def positions(x, table):
    """x + table (positions, U)."""
    return x + table.reshape(x.shape[1:]), lambda d: (d, [d.sum(0).reshape(table.shape)])


def attention(x, heads):
    """x (n, height, width, 3 U), for each head its queries, keys and values beside each other: Vaswani et al. 2017,
    equation 1, over all positions."""
    n, width = len(x), x.shape[-1] // 3
    parts = x.reshape(n, -1, heads, 3, width // heads).transpose(3, 0, 2, 1, 4)
    q, k, v = parts
    scale = 1 / np.sqrt(width // heads)
    p = softmax((scale * q @ k.swapaxes(2, 3)).reshape(-1, q.shape[2])).reshape(n, heads, q.shape[2], -1)

    def pull(d):
        d = d.reshape(n, -1, heads, width // heads).transpose(0, 2, 1, 3)
        dp = d @ v.swapaxes(2, 3)
        ds = scale * p * (dp - (p * dp).sum(-1, keepdims=True))
        found = np.array([ds @ k, ds.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ d])
        return found.transpose(1, 3, 2, 0, 4).reshape(x.shape), []

    return (p @ v).transpose(0, 2, 1, 3).reshape(*x.shape[:-1], width), pull

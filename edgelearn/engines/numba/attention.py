# SPDX-License-Identifier: Apache-2.0
"""The loops of attention and embeddings: B batch, T steps, H heads, U units of a head.

The scores of one head at a time are kept, and found again on the way back. Outputs come last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelearn.engines.numba.kernels import add_row, dot, kernel, matmul, matmul_nt, matmul_tn

_ZERO, _ONE = np.float32(0), np.float32(1)


@kernel
def _shares(q: Any, k: Any, scale: Any, p: Any) -> None:
    """p (T,T) = softmax(q k^T scale), row by row."""
    matmul_nt(q, k, p)
    for i in range(p.shape[0]):
        top = p[i].max()
        total = _ZERO
        for j in range(p.shape[1]):
            p[i, j] = np.exp((p[i, j] - top) * scale)
            total += p[i, j]
        for j in range(p.shape[1]):
            p[i, j] /= total


@kernel
def attend(x: Any, scale: Any, p: Any, y: Any) -> None:
    """y (B,T,H,U) from queries, keys and values x (B,T,H,3,U), by way of the scores p (T,T)."""
    for b in range(x.shape[0]):
        for h in range(x.shape[2]):
            _shares(x[b, :, h, 0], x[b, :, h, 1], scale, p)
            matmul(p, x[b, :, h, 2], y[b, :, h])


@kernel
def attend_back(x: Any, d: Any, scale: Any, p: Any, dp: Any, dx: Any) -> None:
    """dx (B,T,H,3,U) from the error d (B,T,H,U) of the output; p and dp (T,T) are worked in."""
    dx[...] = _ZERO
    for b in range(x.shape[0]):
        for h in range(x.shape[2]):
            q, k, v = x[b, :, h, 0], x[b, :, h, 1], x[b, :, h, 2]
            _shares(q, k, scale, p)
            matmul_tn(p, d[b, :, h], dx[b, :, h, 2])
            matmul_nt(d[b, :, h], v, dp)
            for i in range(p.shape[0]):
                mean = dot(p[i], dp[i])
                for j in range(p.shape[1]):
                    dp[i, j] = scale * p[i, j] * (dp[i, j] - mean)
            matmul(dp, k, dx[b, :, h, 0])
            matmul_tn(dp, q, dx[b, :, h, 1])


@kernel
def look_up(tokens: Any, table: Any, out: Any) -> None:
    """out (n,U) = the rows of table (vocabulary,stride) that tokens (n) name."""
    for i in range(tokens.size):
        row = table[np.int64(tokens[i])]
        for j in range(out.shape[1]):
            out[i, j] = row[j]


@kernel
def scatter(tokens: Any, d: Any, out: Any) -> None:
    """Rows of out (vocabulary,U) that tokens (n) name, += d (n,U)."""
    for i in range(tokens.size):
        add_row(_ONE, d[i], out[np.int64(tokens[i])])

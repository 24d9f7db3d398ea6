# SPDX-License-Identifier: Apache-2.0
"""The loops of eligibility traces of gated cells (Bellec et al. 2020, e-prop): what each weight has done to the state
so far, through the gate that keeps the state, not through the outputs that gates read. M samples, U units.

A step multiplies the state before by `keep` (M,U), and the inputs of three gates move it by `direct` (M,3U); where a
GRU's third gate reads h V, by `inner` (M,U) instead. `signal` (M,U) is the error of the state. Outputs come last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelearn.engines.numba.kernels import kernel

_ONE = np.float32(1)


@kernel
def gru_slopes(before: Any, gates: Any, keep: Any, direct: Any, inner: Any) -> None:
    """From gates (M,3U) and what r multiplied, which inner holds."""
    u = keep.shape[1]
    for b in range(keep.shape[0]):
        for i in range(u):
            z, r, n = gates[b, i], gates[b, u + i], gates[b, 2 * u + i]
            dn = (_ONE - z) * (_ONE - n * n)
            keep[b, i] = z
            direct[b, i] = (before[b, i] - n) * z * (_ONE - z)
            direct[b, u + i] = dn * inner[b, i] * r * (_ONE - r)
            direct[b, 2 * u + i] = dn
            inner[b, i] = dn * r


@kernel
def lstm_slopes(before: Any, d: Any, squashed: Any, gates: Any, keep: Any, direct: Any, signal: Any) -> None:
    """From gates (M,4U) and the error d (M,U) of the output; that of the output gate goes where its values were."""
    u = keep.shape[1]
    for b in range(keep.shape[0]):
        for k in range(u):
            i, f, j, o = gates[b, k], gates[b, u + k], gates[b, 2 * u + k], gates[b, 3 * u + k]
            t = squashed[b, k]
            keep[b, k], signal[b, k] = f, d[b, k] * o * (_ONE - t * t)
            direct[b, k] = j * i * (_ONE - i)
            direct[b, u + k] = before[b, k] * f * (_ONE - f)
            direct[b, 2 * u + k] = i * (_ONE - j * j)
            gates[b, 3 * u + k] = d[b, k] * t * o * (_ONE - o)


@kernel
def _follow(read: Any, keep: Any, slope: Any, signal: Any, trace: Any, sums: Any) -> None:
    for i in range(keep.size):
        trace[i] = keep[i] * trace[i] + slope[i] * read
        sums[i] += signal[i] * trace[i]


@kernel
def follow(
    reads: Any, keep: Any, direct: Any, inner: Any, is_inner: Any, signal: Any, traces: Any, gradient: Any
) -> None:
    """traces (rows,M,3,U) move on, and gradient (rows, gates U) gains what they say; reads (M,rows) is what each row of
    the weights is multiplied by. For rows that `is_inner` (rows) names, `inner` counts."""
    u = keep.shape[1]
    for row in range(traces.shape[0]):
        for b in range(keep.shape[0]):
            for gate in range(3):
                first = gate * u
                slope = inner[b] if gate == 2 and is_inner[row] else direct[b, first : first + u]
                sums = gradient[row, first : first + u]
                _follow(reads[b, row], keep[b], slope, signal[b], traces[row, b, gate], sums)

# SPDX-License-Identifier: Apache-2.0
"""The loops of normalisation: R rows, which are samples or the positions of their maps, U units.

Sums over rows go through `totals` (U) in float64, since a batch of maps has many. Outputs come last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelearn.engines.numba.kernels import kernel, sum_rows

_ZERO, _ONE = np.float32(0), np.float32(1)


@kernel
def statistics(x: Any, totals: Any, mean: Any, variance: Any) -> None:
    """Mean and biased variance of x (R,U) over the rows, in two passes."""
    share = _ONE / np.float32(x.shape[0])
    mean[:] = _ZERO
    sum_rows(x, totals, mean)
    mean *= share
    sums = totals[: mean.size]
    sums[:] = 0.0
    for i in range(x.shape[0]):
        for j in range(sums.size):
            difference = x[i, j] - mean[j]
            sums[j] += difference * difference
    for j in range(sums.size):
        variance[j] = np.float32(sums[j]) * share


@kernel
def normalise(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: Any, out: Any) -> None:
    """out = gamma (x - mean) / sqrt(variance + epsilon) + beta."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            factor = gamma[j] / np.sqrt(variance[j] + epsilon)
            out[i, j] = (x[i, j] - mean[j]) * factor + beta[j]


@kernel
def normalise_gradients(
    x: Any, mean: Any, variance: Any, epsilon: Any, d: Any, totals: Any, dgamma: Any, dbeta: Any
) -> None:
    """dgamma (U) = sum d xhat, dbeta (U) = sum d, with xhat the normalised input."""
    dbeta[:] = _ZERO
    sum_rows(d, totals, dbeta)
    sums = totals[: dgamma.size]
    sums[:] = 0.0
    for i in range(x.shape[0]):
        for j in range(sums.size):
            sums[j] += d[i, j] * ((x[i, j] - mean[j]) / np.sqrt(variance[j] + epsilon))
    for j in range(sums.size):
        dgamma[j] = np.float32(sums[j])


@kernel
def normalise_backward(
    x: Any, gamma: Any, mean: Any, variance: Any, epsilon: Any, dgamma: Any, dbeta: Any, d: Any
) -> None:
    """d = gamma / deviation (d - mean(d) - xhat mean(d xhat)): through the batch statistics too."""
    share = _ONE / np.float32(x.shape[0])
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            inverse = _ONE / np.sqrt(variance[j] + epsilon)
            xhat = (x[i, j] - mean[j]) * inverse
            d[i, j] = gamma[j] * inverse * (d[i, j] - (dbeta[j] + xhat * dgamma[j]) * share)


@kernel
def follow(batch: Any, momentum: Any, running: Any) -> None:
    """running = momentum * running + (1 - momentum) * batch."""
    for j in range(batch.size):
        running[j] = momentum * running[j] + (_ONE - momentum) * batch[j]


@kernel
def _row_statistics(row: Any, epsilon: Any) -> Any:
    """Mean and inverse deviation of one row."""
    share = _ONE / np.float32(row.size)
    mean = _ZERO
    for j in range(row.size):
        mean += row[j]
    mean *= share
    variance = _ZERO
    for j in range(row.size):
        variance += (row[j] - mean) * (row[j] - mean)
    return mean, _ONE / np.sqrt(variance * share + epsilon)


@kernel
def normalise_rows(x: Any, gamma: Any, beta: Any, epsilon: Any, out: Any) -> None:
    """Each row of out (R,U) = gamma xhat + beta, xhat with mean 0 and variance 1 over its own units."""
    for i in range(x.shape[0]):
        mean, inverse = _row_statistics(x[i], epsilon)
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - mean) * inverse * gamma[j] + beta[j]


@kernel
def normalise_rows_gradients(x: Any, epsilon: Any, d: Any, totals: Any, dgamma: Any, dbeta: Any) -> None:
    """dgamma (U) += sum d xhat, dbeta (U) += sum d."""
    sum_rows(d, totals, dbeta)
    sums = totals[: dgamma.size]
    sums[:] = 0.0
    for i in range(x.shape[0]):
        mean, inverse = _row_statistics(x[i], epsilon)
        for j in range(sums.size):
            sums[j] += d[i, j] * (x[i, j] - mean) * inverse
    for j in range(sums.size):
        dgamma[j] += np.float32(sums[j])


@kernel
def normalise_rows_backward(x: Any, gamma: Any, epsilon: Any, d: Any) -> None:
    """d = (g - mean(g) - xhat mean(g xhat)) / deviation with g = gamma d and means over the units of a row."""
    share = _ONE / np.float32(x.shape[1])
    for i in range(x.shape[0]):
        mean, inverse = _row_statistics(x[i], epsilon)
        plain, turned = _ZERO, _ZERO
        for j in range(x.shape[1]):
            plain += gamma[j] * d[i, j]
            turned += gamma[j] * d[i, j] * (x[i, j] - mean) * inverse
        for j in range(x.shape[1]):
            xhat = (x[i, j] - mean) * inverse
            d[i, j] = inverse * (gamma[j] * d[i, j] - (plain + xhat * turned) * share)

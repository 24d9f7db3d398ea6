# SPDX-License-Identifier: Apache-2.0
"""Low-rank keys and values of attention heads, from forward passes alone (after MatryoshkaKV, Lin et al. 2025): each
head caches the first coordinates of a rotated key or value, and a greedy search says how many.

Keys are projected by PCA, or so that scores against real queries suffer least; ranks nest, since a smaller one is a
prefix of a larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import BudgetError, DataError, UsageError

FloatArray = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Projection:
    """Down and up (d, d) of one head and its mean (d,): the cache holds ((x - mean) down)[:, :r], and the attention
    works with it through the first r columns of up: x ~ cached up[:, :r]' + mean."""

    down: FloatArray
    up: FloatArray
    mean: FloatArray

    def cached(self, x: FloatArray, rank: int) -> FloatArray:
        """What is kept of keys or values (n, d): (n, rank)."""
        centred: FloatArray = x - self.mean
        return centred @ self.down[:, :rank]

    def restored(self, cached: FloatArray) -> FloatArray:
        """(n, d) from what was kept."""
        out: FloatArray = cached @ self.up[:, : cached.shape[1]].T + self.mean
        return out


def pca(x: FloatArray) -> Projection:
    """Principal axes of keys or values (n, d), the widest first.

    Raises:
        DataError: fewer than two samples, or values that are not finite.
    """
    mean, centred = _centred(x)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1].astype(np.float32)
    return Projection(axes, axes, mean)


def query_aware(keys: FloatArray, queries: FloatArray) -> Projection:
    """For keys (n, d) that queries (m, d) are held against: of all projections of a rank the one whose scores q k' are
    closest in the least-squares sense. With L L' = Q'Q and K L = U S V', keys go down by L V and up by inverse(L)' V.

    Raises:
        DataError: as `pca`, or queries of another width.
    """
    mean, centred = _centred(keys)
    if queries.ndim != 2 or queries.shape[1] != keys.shape[1] or not np.isfinite(queries).all():
        raise DataError(f"queries {queries.shape} do not fit keys {keys.shape}: give finite (m, {keys.shape[1]})")
    scatter = queries.astype(np.float64).T @ queries.astype(np.float64)
    scatter += np.eye(len(scatter)) * 1e-6 * np.trace(scatter) / len(scatter)
    lower = np.linalg.cholesky(scatter)
    right = np.linalg.svd(centred @ lower, full_matrices=False)[2].T
    if right.shape[1] < len(lower):  # fewer samples than dimensions: any rest will do
        right = np.linalg.svd(right, full_matrices=True)[0]
    down, up = lower @ right, np.linalg.solve(lower.T, right)
    return Projection(down.astype(np.float32), up.astype(np.float32), mean)


def _centred(x: FloatArray) -> tuple[FloatArray, Float64]:
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise DataError(f"keys or values of shape {x.shape} say nothing: give finite (n, d), n at least 2")
    mean = x.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32), x.astype(np.float64) - mean


def attention(queries: FloatArray, keys: FloatArray, values: FloatArray) -> FloatArray:
    """softmax(Q K' / sqrt d) V of one head: (m, d), (n, d), (n, v) -> (m, v)."""
    scores = queries @ keys.T / np.float32(np.sqrt(queries.shape[1]))
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    out: FloatArray = (weights / weights.sum(axis=1, keepdims=True)) @ values
    return out


@dataclass(frozen=True, eq=False)
class Head:
    """Calibration samples of one attention head: queries (m, d), keys (n, d), values (n, v)."""

    queries: FloatArray
    keys: FloatArray
    values: FloatArray


@dataclass(frozen=True)
class Ranks:
    """Ranks of keys and values of each head, the bytes of the cache, and the relative error of the heads' outputs."""

    keys: tuple[int, ...]
    values: tuple[int, ...]
    cache_bytes: int
    error: float


class Compression:
    """Heads with their projections; `error` and `search` run attention forward, nothing else.

    Raises:
        UsageError: no heads.
        DataError: samples that do not fit together.
    """

    def __init__(self, heads: Sequence[Head], aware: bool = True) -> None:
        if not heads:
            raise UsageError("there is nothing to compress: give calibration samples of one head or more")
        self.heads = list(heads)
        self.key_projections = [query_aware(h.keys, h.queries) if aware else pca(h.keys) for h in heads]
        self.value_projections = [pca(h.values) for h in heads]
        self._exact = [attention(h.queries, h.keys, h.values) for h in heads]

    def output(self, head: int, key_rank: int, value_rank: int) -> FloatArray:
        """A head's output from compressed keys and values."""
        samples, keys, values = self.heads[head], self.key_projections[head], self.value_projections[head]
        return attention(
            samples.queries,
            keys.restored(keys.cached(samples.keys, key_rank)),
            values.restored(values.cached(samples.values, value_rank)),
        )

    def error(self, head: int, key_rank: int, value_rank: int) -> float:
        """Relative distance of a head's output from the exact one."""
        exact = self._exact[head]
        return float(np.linalg.norm(self.output(head, key_rank, value_rank) - exact) / np.linalg.norm(exact))

    def cache_bytes(self, keys: Sequence[int], values: Sequence[int], tokens: int, item_bytes: int = 4) -> int:
        """Of so many tokens."""
        return tokens * item_bytes * (sum(keys) + sum(values))

    def search(self, budget_bytes: int, tokens: int, step: int = 1, item_bytes: int = 4) -> Ranks:
        """Ranks that fit a budget: from full ranks on, always the one coordinate block of `step` goes whose loss raises
        the summed squared error of its head least.

        Raises:
            BudgetError: not even rank 1 everywhere fits.
            UsageError: a step or token count below 1.
        """
        if step < 1 or tokens < 1:
            raise UsageError(f"step {step} and {tokens} tokens cannot be: give 1 or more")
        ranks = [[h.keys.shape[1], h.values.shape[1]] for h in self.heads]
        errors = [0.0 for _ in self.heads]
        while self._bytes(ranks, tokens, item_bytes) > budget_bytes:
            choices = [
                (self._raised(head, ranks[head], which, step), head, which)
                for head in range(len(ranks))
                for which in (0, 1)
                if ranks[head][which] > 1
            ]
            if not choices:
                least = self._bytes([[1, 1] for _ in ranks], tokens, item_bytes)
                raise BudgetError(f"rank 1 everywhere takes {least:,} bytes for {tokens:,} tokens: raise the budget")
            _, head, which = min((found - errors[head], head, which) for found, head, which in choices)
            ranks[head][which] = max(1, ranks[head][which] - step)
            errors[head] = self.error(head, *ranks[head]) ** 2
        keys, values = (tuple(rank[which] for rank in ranks) for which in (0, 1))
        return Ranks(keys, values, self._bytes(ranks, tokens, item_bytes), float(np.sqrt(np.mean(errors))))

    def uniform(self, rank: int) -> float:
        """Error with one rank everywhere."""
        return float(np.sqrt(np.mean([self.error(head, rank, rank) ** 2 for head in range(len(self.heads))])))

    def _raised(self, head: int, rank: list[int], which: int, step: int) -> float:
        less = list(rank)
        less[which] = max(1, less[which] - step)
        return self.error(head, less[0], less[1]) ** 2

    def _bytes(self, ranks: list[list[int]], tokens: int, item_bytes: int) -> int:
        return self.cache_bytes([r[0] for r in ranks], [r[1] for r in ranks], tokens, item_bytes)

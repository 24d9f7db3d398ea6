# SPDX-License-Identifier: Apache-2.0
"""Compressed keys and values: exact at full rank, better the more is kept, found by a search that fits its budget."""

import numpy as np
import pytest

from edgelearn.adaptation import kvprojection
from edgelearn.errors import BudgetError, DataError, UsageError


def head(seed, keys=12, values=10, focus=1.0):
    """Keys, values and queries of uneven spread; queries look where keys are narrow."""
    rng = np.random.default_rng(seed)
    spread = np.exp(-np.arange(keys) / 3)
    turn = np.linalg.qr(rng.normal(size=(keys, keys)))[0]
    k = rng.normal(size=(200, keys)) * spread @ turn + 1
    q = rng.normal(size=(150, keys)) * spread[::-1] ** focus @ turn
    v = rng.normal(size=(200, values)) * np.exp(-np.arange(values) / 2)
    return kvprojection.Head(*(a.astype(np.float32) for a in (q, k, v)))


@pytest.mark.parametrize("aware", [True, False])
def test_full_rank_changes_nothing_and_less_is_worse(aware):
    found = kvprojection.Compression([head(0), head(1)], aware)
    assert found.error(0, 12, 10) < 1e-4
    errors = [found.error(0, 12, rank) for rank in (10, 6, 3, 1)]
    assert errors == sorted(errors)
    assert found.uniform(10) < found.uniform(2)


def test_query_aware_keys_keep_scores_that_pca_loses():
    samples = head(2)
    exact = samples.queries @ (samples.keys - samples.keys.mean(axis=0)).T
    for rank in (2, 4, 8):
        lost = []
        for projection in (kvprojection.pca(samples.keys), kvprojection.query_aware(samples.keys, samples.queries)):
            restored = projection.restored(projection.cached(samples.keys, rank)) - projection.mean
            lost.append(np.linalg.norm(samples.queries @ restored.T - exact))
        assert lost[1] < 0.97 * lost[0]


def test_query_aware_keys_of_few_samples_still_restore():
    samples = head(3)
    few = samples.keys[:5]
    projection = kvprojection.query_aware(few, samples.queries)
    assert projection.restored(projection.cached(few, 12)) == pytest.approx(few, abs=1e-3)


def test_the_search_fits_and_beats_one_rank_everywhere():
    found = kvprojection.Compression([head(seed, focus=seed / 2) for seed in range(3)])
    rank = 4
    budget = found.cache_bytes([rank] * 3, [rank] * 3, tokens=100)
    ranks = found.search(budget, tokens=100)
    assert ranks.cache_bytes <= budget == 100 * 4 * 24
    assert ranks.cache_bytes == found.cache_bytes(ranks.keys, ranks.values, 100)
    assert ranks.error <= found.uniform(rank) * 1.001
    assert found.search(10**9, tokens=100).keys == (12, 12, 12)


def test_what_cannot_be_compressed_is_refused():
    found = kvprojection.Compression([head(0)])
    with pytest.raises(BudgetError, match="rank 1 everywhere takes 8 bytes for 1 tokens"):
        found.search(7, tokens=1)
    with pytest.raises(UsageError, match="give 1 or more"):
        found.search(100, tokens=0)
    with pytest.raises(UsageError, match="nothing to compress"):
        kvprojection.Compression([])
    with pytest.raises(DataError, match="say nothing"):
        kvprojection.pca(np.zeros((1, 3), np.float32))
    with pytest.raises(DataError, match="queries .* do not fit keys"):
        kvprojection.query_aware(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32))

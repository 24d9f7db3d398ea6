# SPDX-License-Identifier: Apache-2.0
"""Old galleries and new queries: rotations, judgement, BT2."""

import numpy as np
import pytest

from edgelearn.adaptation import compatible
from edgelearn.engines.native import codes
from edgelearn.errors import DataError, UsageError
from edgelearn.rules import RULES


@pytest.fixture
def embeddings():
    """New and old embeddings (600, 16) of the same samples of six classes: the new turned, and a little better."""
    rng = np.random.default_rng(0)
    y = np.arange(600) % 6
    centres = rng.normal(size=(6, 16))
    shared = rng.normal(size=(600, 16))
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    old = centres[y] + 1.2 * shared
    new = (centres[y] + 0.8 * shared + 0.2 * rng.normal(size=(600, 16))) @ turn
    return new.astype(np.float32), old.astype(np.float32), y, turn


def test_procrustes_finds_the_rotation(embeddings):
    new, old, _, turn = embeddings
    found = compatible.procrustes(old @ turn.astype(np.float32), old)
    assert found == pytest.approx(turn.T, abs=1e-4)
    assert found @ found.T == pytest.approx(np.eye(16), abs=1e-5)
    narrow = compatible.procrustes(new, old[:, :8])
    assert narrow.shape == (16, 8)
    assert narrow.T @ narrow == pytest.approx(np.eye(8), abs=1e-5)


def test_new_queries_find_what_they_mean_in_the_old_gallery(embeddings):
    new, old, y, _ = embeddings
    rotation, found = compatible.compare(new, old, y, support=200)
    assert rotation.shape == (16, 16)
    assert found.raw < 0.5 * found.old
    assert found.compatible
    assert found.aligned >= found.old
    assert found.negative_flips <= 0.2
    assert compatible.compare(new[:, :12], old, y, support=200)[1].raw is None


def test_shares_of_codes_compare_without_alignment():
    rule = RULES["tp-ce"]
    table = np.stack([codes(rule, 7, 1, c, 32, 6) for c in range(6)]).astype(np.float64)
    h = np.random.default_rng(0).normal(size=(5, 32))
    raised = np.exp(h @ table.T / (rule.temperature * np.sqrt(32)))
    expected = np.sqrt(raised / raised.sum(axis=1, keepdims=True))
    found = compatible.code_shares(h.astype(np.float32), "tp-ce", 7, 1, 6)
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    for other in ("readout", "tp-ce+sim", "drtp"):
        with pytest.raises(UsageError, match="has no codes to compare by"):
            compatible.code_shares(found, other, 7, 1, 6)


def test_a_query_does_not_find_itself():
    x = np.eye(4, dtype=np.float32)
    y = np.array([0, 1, 2, 3])
    assert not compatible.matched(x, x, y, y).any()
    assert compatible.matched(x, x, y, y.copy()).all()


def test_blends_lead_from_one_query_to_the_other(embeddings):
    new, old, *_ = embeddings
    for share, end in ((0, old), (1, new)):
        assert compatible.blend(old, new, share) == pytest.approx(compatible.normalised(end), abs=1e-4)
    assert np.linalg.norm(compatible.blend(old, new, 0.5), axis=1) == pytest.approx(1)


def test_bt2_stays_orthogonal_and_compatible(embeddings):
    new, old, y, _ = embeddings
    trained = compatible.basis_transformation(new[:300], old[:300], y[:300], extra=4, reflectors=4, steps=100)
    rotation = trained.rotation.matrix()
    assert np.abs(rotation.T @ rotation - np.eye(20)).max() < 1e-4
    labels = y[300:]
    queries, gallery = trained.apply(new[300:]), trained.pad(old[300:])
    assert queries.shape == gallery.shape == (300, 20)
    across = compatible.matched(queries, gallery, labels, labels).mean()
    within = compatible.matched(gallery, gallery, labels, labels).mean()
    own = compatible.matched(queries, queries, labels, labels).mean()
    assert across >= within - 0.02
    assert own >= across - 0.05


def test_what_does_not_fit_is_refused(embeddings):
    new, old, y, _ = embeddings
    with pytest.raises(DataError, match="not of the same samples"):
        compatible.procrustes(new[:5], old)
    with pytest.raises(DataError, match="NaN or infinity"):
        compatible.procrustes(new * np.inf, old)
    with pytest.raises(DataError, match="too few"):
        compatible.compare(new, old, y, support=599)
    with pytest.raises(DataError, match="align them"):
        compatible.matched(new[:, :3], old, y, y)
    with pytest.raises(UsageError, match="give more extra ones"):
        compatible.basis_transformation(new[:, :4], old, y, extra=4)
    with pytest.raises(UsageError, match="an even number"):
        compatible.basis_transformation(new, old, y, reflectors=3)

# SPDX-License-Identifier: Apache-2.0
"""Nested embeddings: gradients, accuracy of every prefix beside heads trained alone, cascades, funnels, counts."""

from __future__ import annotations

import numpy as np
import pytest

import edgelearn as el
from edgelearn import engines
from edgelearn.mrl import DIMS, Matryoshka
from edgelearn.retrieval import Cascade, Funnel

SETTINGS = {"epochs": 30, "batch": 32, "lr": 3e-3}
SEEDS = range(2)


@pytest.fixture(scope="module")
def digits():
    """Features of handwritten digits behind a layer that target projection trained: (learned, y), (held out, y)."""
    datasets = pytest.importorskip("sklearn.datasets")
    found = datasets.load_digits()
    x, y = (found.data / 16).astype(np.float32), found.target
    held = np.arange(len(y)) % 4 == 3
    net = el.Net([el.Dense(128, "relu"), el.Dense(10)], input_shape=(64,), input=el.Input(shape=(64,), scale=1.0))
    net.fit(x[~held], y[~held], rule="tp-ce", epochs=20, batch=32, lr=5e-3)
    session = engines.load().open(net.graph.records, net.flat, engines.Config(targets=10, train=False))
    f = session.outputs(x, 0)
    return (f[~held], y[~held]), (f[held], y[held])


@pytest.fixture(scope="module")
def trained(digits):
    learned, _ = digits
    nested = [Matryoshka(seed=seed).fit(*learned, **SETTINGS) for seed in SEEDS]
    alone = {dim: [Matryoshka((dim,), seed=seed).fit(*learned, **SETTINGS) for seed in SEEDS] for dim in DIMS}
    return nested, alone


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_the_loss_has_the_gradient_it_states(shared, normalise):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((7, 5)), np.arange(7) % 3
    head = Matryoshka((2, 3, 6), shared=shared, normalise=normalise, weights=(0.5, 1.0, 2.0))
    head._begin(5, 3)
    head.parameters = {name: w.astype(np.float64) + 0.1 for name, w in head.parameters.items()}
    for name, gradient in head.loss(x, y)[1].items():
        w = head.parameters[name]
        for index in np.ndindex(w.shape):
            w[index] += 1e-5
            above = head.loss(x, y)[0]
            w[index] -= 2e-5
            below = head.loss(x, y)[0]
            w[index] += 1e-5
            assert gradient[index] == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-7)


def test_every_prefix_is_within_a_point_of_a_head_of_its_own_and_far_above_truncation(digits, trained):
    _, held = digits
    nested, alone = trained
    for dim in DIMS:
        mine = np.mean([head.score(*held, dim) for head in nested])
        own = np.mean([head.score(*held) for head in alone[dim]])
        assert mine > own - 0.01
    cut = []
    for head in alone[64]:
        z = head.embed(held[0])[:, :4]
        w, bias = head.parameters["head_64.weight"][:4], head.parameters["head_64.bias"]
        cut.append(((z @ w + bias).argmax(1) == held[1]).mean())
    assert np.mean([head.score(*held, 4) for head in nested]) > np.mean(cut) + 0.1


def test_one_shared_classifier_comes_close_with_fewer_weights(digits, trained):
    learned, held = digits
    shared = Matryoshka(shared=True).fit(*learned, **SETTINGS)
    assert min(shared.score(*held, dim) - trained[0][0].score(*held, dim) for dim in DIMS) > -0.04
    sizes = [sum(w.size for w in head.parameters.values()) for head in (shared, trained[0][0])]
    assert sizes[0] < sizes[1]


def test_normalised_prefixes_have_unit_length_each(digits):
    learned, held = digits
    head = Matryoshka(normalise=True).fit(*learned, epochs=3, batch=32)
    for dim in DIMS:
        assert np.linalg.norm(head.embed(held[0], dim), axis=1) == pytest.approx(1, abs=1e-5)
        assert head.embed(held[0], dim).shape == (len(held[0]), dim)


def test_a_cascade_answers_most_early_and_nearly_as_well(digits, trained):
    _, held = digits
    head = trained[0][0]
    half = slice(0, len(held[1]) // 2)
    cascade = Cascade.tuned(head, held[0][half], held[1][half])
    labels, dims = cascade.predict(held[0][half])
    assert (labels == held[1][half]).mean() >= head.score(held[0][half], held[1][half])
    rest = slice(len(held[1]) // 2, None)
    labels, dims = cascade.predict(held[0][rest])
    assert (labels == held[1][rest]).mean() > head.score(held[0][rest], held[1][rest]) - 0.02
    assert dims.mean() < 32
    assert set(dims) <= set(DIMS)


def test_a_cascade_that_trusts_no_prefix_answers_as_the_whole_embedding(digits, trained):
    _, held = digits
    head = trained[0][0]
    labels, dims = Cascade(head, (2.0, 2.0, 2.0, 2.0, 0.0)).predict(held[0])
    assert np.array_equal(labels, head.predict(held[0]))
    assert (dims == 64).all()


def test_a_funnel_finds_the_nearest_with_an_eighth_of_the_multiplications(digits, trained):
    learned, held = digits
    for head in trained[0]:
        gallery, queries = head.embed(learned[0]), head.embed(held[0])
        funnel = Funnel(gallery, DIMS)
        found = [funnel.search(query)[0] for query in queries]
        counted, funnel.multiplications = funnel.multiplications, 0
        nearest = [funnel.brute_force(query)[0] for query in queries]
        assert funnel.multiplications == len(queries) * gallery.size
        assert counted <= funnel.multiplications / 8
        assert np.mean(np.array(found) == nearest) >= 0.98
        true = ((gallery[None] - queries[:20, None]) ** 2).sum(-1).argmin(1)
        assert np.array_equal(true, nearest[:20])


def test_a_funnel_gives_k_in_order_and_all_where_the_list_is_long():
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((50, 8)).astype(np.float32)
    funnel = Funnel(gallery, (2, 8), shortlist=50)
    for query in rng.standard_normal((10, 8)).astype(np.float32):
        expected = ((gallery - query) ** 2).sum(1).argsort()[:5]
        assert np.array_equal(funnel.search(query, 5), expected)
        assert np.array_equal(funnel.brute_force(query, 5), expected)


def test_a_seed_makes_the_same_head_again(digits):
    learned, _ = digits
    one, other = (Matryoshka(seed=4).fit(*learned, epochs=2) for _ in range(2))
    assert all(np.array_equal(one.parameters[name], other.parameters[name]) for name in one.parameters)


X, Y = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 0, 1])


def tiny(**settings):
    return Matryoshka((2, 4)).fit(X, Y, **{"epochs": 1, **settings})


def test_training_that_diverges_is_refused_and_what_was_learned_before_is_kept():
    head = tiny()
    before = head.predict_proba(X)
    with pytest.raises(el.LearningError, match="training diverged: lower lr"), np.errstate(all="ignore"):
        head.fit(X, Y, epochs=3, batch=1, lr=1e30)
    assert np.array_equal(head.predict_proba(X), before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Matryoshka((8, 4)), "must ascend"),
        (lambda: Matryoshka(()), "must ascend"),
        (lambda: Matryoshka((4.5, 8)), "must ascend from 1 up: list whole numbers"),
        (lambda: Matryoshka("abc"), "must ascend"),
        (lambda: Matryoshka((4, 8), weights=(1, np.nan)), "2 dims need as many weights"),
        (lambda: tiny(epochs=0), "epochs 0, batch 64 and lr 0.003 must be above 0"),
        (lambda: tiny(batch=0), "must be above 0"),
        (lambda: tiny(lr=np.nan), "must be above 0"),
        (lambda: Cascade(Matryoshka((2, 4)), (0.5,)), "2 prefixes need as many thresholds"),
        (lambda: Cascade(Matryoshka((2, 4)), (0.5, np.nan)), "2 prefixes need as many thresholds"),
        (lambda: Cascade.tuned(tiny(), X, Y, max_drop=2), "max_drop 2 must be a share"),
        (lambda: Funnel(X, (3,)).search(X[0], k=0), "1 or more, not 0"),
        (lambda: Funnel(X, (3,), shortlist=2.5), "whole number from 1 up, not 2.5"),
        (lambda: Matryoshka((4, 8), weights=(1,)), "2 dims need as many weights"),
        (lambda: Matryoshka().predict(np.ones((1, 3))), "nothing was learned yet"),
        (
            lambda: Matryoshka((2, 4)).fit(np.ones((4, 3)), [0, 1, 0, 1], epochs=1).predict(np.ones((1, 3)), 3),
            "not among",
        ),
        (lambda: Funnel(np.ones((4, 8)), (2, 4)), "must ascend to 8"),
        (lambda: Funnel(np.ones((4, 8)), (2, 8), shortlist=0), "whole number from 1 up, not 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, words):
    with pytest.raises(el.UsageError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Matryoshka().fit(np.ones((4, 3)), [0, 1]), "do not fit 4 samples"),
        (lambda: Matryoshka().fit(np.ones((2, 3)), [0.5, 1]), "do not fit 2 samples"),
        (lambda: Matryoshka().fit(np.full((2, 3), np.nan), [0, 1]), "must be finite"),
        (lambda: Matryoshka((2,)).fit(np.ones((2, 3)), [0, 1], epochs=1).embed(np.ones((1, 4))), "width 4 given"),
        (lambda: Cascade.tuned(Matryoshka(), np.ones((0, 3)), []), "there are none"),
        (lambda: Cascade.tuned(tiny(), X, Y[:-1]), "do not fit 4 samples"),
        (lambda: tiny().score(X, Y[:-1]), "do not fit 4 samples"),
        (lambda: Matryoshka().fit(X, np.zeros(4, int)), "one class alone teaches nothing"),
        (lambda: Funnel(X, (3,)).search(X[:2]), "a query is one finite embedding"),
        (lambda: Funnel(X, (3,)).brute_force(X[0] * np.nan), "a query is one finite embedding"),
        (lambda: Funnel(np.full((4, 8), np.inf), (8,)), "finite embeddings"),
    ],
)
def test_data_that_cannot_be_learned_is_refused(make, words):
    with pytest.raises(el.DataError, match=words):
        make()

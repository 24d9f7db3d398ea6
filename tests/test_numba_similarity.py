# SPDX-License-Identifier: Apache-2.0
"""Similarity matching of the Numba engine against float64 and its differences."""

from __future__ import annotations

import formulas
import numpy as np
import pytest
from benches import open_net, samples
from nets import CLASSES

pytest.importorskip("numba")

from edgelearn import rules
from edgelearn.engines.numba import codes
from edgelearn.graph import build
from edgelearn.layers import Conv2D, Dense
from edgelearn.optim import Optimizer, OptimizerKind

RATE, STEP = 0.5, 1e-5
NETS = {"flat": ([Dense(9, "tanh"), Dense(CLASSES)], (6,)), "map": ([Conv2D(3, 2), Dense(CLASSES)], (4, 3, 1))}


def seen(name, x, w):
    """What the objective sees: the hidden layer, or the means of a grid of 2 x 2 over a map of 3 x 2."""
    if name == "flat":
        return np.tanh(x @ w[:54].reshape(6, 9) + w[54:])
    kernel, maps = w[:12].reshape(2, 2, 3), x.reshape(-1, 4, 3)
    shifted = [maps[:, i : i + 3, j : j + 2, None] * kernel[i, j] for i in range(2) for j in range(2)]
    y = sum(shifted) + w[12:]
    return np.stack([y[:, :2].mean(1), y[:, 1:].mean(1)], 1).reshape(len(x), -1)


def distance(q, y):
    """Mean square of the differences of similarity matrices, as published: centred, of unit length, all pairs."""
    matrices = []
    for v in (q, np.eye(CLASSES)[y]):
        v = v - v.mean(1, keepdims=True)
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        matrices.append(v @ v.T)
    return ((matrices[0] - matrices[1]) ** 2).mean()


def objective(name, rule, x, y, w, m):
    """Mean of the cross-entropy of scores q M, and the distance, by their shares."""
    q = seen(name, x, w)
    logits = q @ m / (rule.temperature * np.sqrt(q.shape[1]))
    p = formulas.softmax(logits)[np.arange(len(y)), y]
    return (1 - rule.similarity) * -np.log(p).mean() + rule.similarity * distance(q, y)


def slope(function, at):
    """Central differences at every entry of the array `at`, which the function reads."""
    found = np.zeros(at.size)
    for index in range(at.size):
        kept, flat = at.flat[index], at.reshape(-1)
        flat[index] = kept + STEP
        above = function()
        flat[index] = kept - STEP
        found[index] = (above - function()) / (2 * STEP)
        flat[index] = kept
    return found


@pytest.mark.parametrize("micro", [0, 4])
@pytest.mark.parametrize("name", list(NETS))
@pytest.mark.parametrize("kind", ["readout+sim", "tp-ce+sim"])
def test_all_that_is_learned_follows_the_gradient_of_one_objective(kind, name, micro):
    """Plain descent shows the gradients of weights and read-out; slices count by their sizes."""
    layers, shape = NETS[name]
    rule = rules.get(kind, similarity=0.7, temperature=0.8, grid=2)
    settings = {"rule": rule, "optimizer": Optimizer(OptimizerKind.SGD), "micro": micro, "last_group": 0}
    bench = open_net("numba", graph=build(layers, shape), **settings)
    x, y = samples(9, int(np.prod(shape)))
    bench.session.step(x, y, RATE)  # after which a read-out is not zero
    used, values = (63, 9) if name == "flat" else (15, 12)
    heads = bench.session.state[16:].view(np.float32)
    w, learned = bench.params[:used].astype(np.float64), heads.astype(np.float64)
    if kind == "readout+sim":
        m = learned.reshape(values, CLASSES)
    else:
        m = np.stack([codes(rule, bench.config.seed, 0, k, values, CLASSES) for k in range(CLASSES)], 1)
    parts = [slice(0, 9)] if not micro else [slice(0, 4), slice(4, 8), slice(8, 9)]

    def value():
        lengths = [part.stop - part.start for part in parts]
        losses = [objective(name, rule, x[part].astype(np.float64), y[part], w, m) for part in parts]
        return np.dot(lengths, losses) / len(x)

    gradients = [slope(value, w), slope(value, learned)]
    loss = value()
    assert bench.session.step(x, y, RATE).loss / len(x) == pytest.approx(loss, rel=2e-5)
    for before, gradient, after in zip((w, learned), gradients, (bench.params[:used], heads), strict=True):
        np.testing.assert_allclose(before - RATE * gradient, after, rtol=2e-5, atol=5e-6)
    assert heads.size == (values * CLASSES if kind == "readout+sim" else 0)


def test_one_sample_alone_is_like_itself():
    """Its similarity is 1 whatever it is, so that nothing but the read-out is left of the loss."""
    graph, rule = build(NETS["flat"][0], (6,)), rules.get("readout+sim", similarity=0.25)
    bench = open_net("numba", graph=graph, rule=rule, last_group=0)
    assert bench.session.step(*samples(1, 6), 0.05).loss == pytest.approx(0.75 * np.log(CLASSES), rel=1e-5)

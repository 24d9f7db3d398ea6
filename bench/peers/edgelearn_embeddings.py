# SPDX-License-Identifier: Apache-2.0
"""Nested embeddings of one seed, through the public SDK.

Job (JSON) on stdin: data (path), samples, seed. Result: accuracy in percent of the test samples by dimensions, of the
nested embedding (nested), with one classifier for all (shared), of heads of that size alone (alone) and of prefixes of
the whole one of these (truncated); of the cascade (cascade, with its mean dimensions); of the funnel (the share of
queries whose nearest it finds, and its share of the multiplications).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

import edgelearn as el
from edgelearn import engines
from edgelearn.mrl import DIMS, Matryoshka
from edgelearn.retrieval import Cascade, Funnel

QUERIES = 1000


def features(x: Any, y: Any, xt: Any, seed: int) -> tuple[Any, Any]:
    """Outputs of the last hidden layer of a net that learned x, for x and for xt."""
    net = el.load("mlp")
    net = el.Net(net.layers, input=net.input, train=net.train, seed=seed).fit(x, y, epochs=5, seed=seed)
    session = engines.load().open(net.graph.records, net.flat, engines.Config(targets=10, train=False, batch=64))
    return session.outputs(net.input.prepare(x), 1), session.outputs(net.input.prepare(xt), 1)


def truncated(head: Matryoshka, x: Any, y: Any, dim: int) -> float:
    """Accuracy of the first dimensions of an embedding that was trained as a whole, by its own classifier."""
    name = f"head_{head.dims[-1]}"
    scores = head.embed(x)[:, :dim] @ head.parameters[f"{name}.weight"][:dim] + head.parameters[f"{name}.bias"]
    return float((scores.argmax(1) == y).mean())


def retrieved(gallery: Any, queries: Any) -> dict[str, float]:
    """Queries whose nearest the funnel finds, and its multiplications, in shares of brute force."""
    funnel = Funnel(gallery, DIMS)
    found = [int(funnel.search(query)[0]) for query in queries]
    counted, funnel.multiplications = funnel.multiplications, 0
    nearest = [int(funnel.brute_force(query)[0]) for query in queries]
    return {
        "found": 100 * float(np.mean(np.array(found) == np.array(nearest))),
        "multiplications": counted / funnel.multiplications,
    }


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Train one nested embedding and what it is compared with."""
    with np.load(job["data"]) as data:
        x, y = data["x_train"][: job["samples"]], data["y_train"][: job["samples"]].astype(np.int64)
        xt, yt = data["x_test"], data["y_test"].astype(np.int64)
    learned, held = features(x, y, xt, job["seed"])
    settings: dict[str, Any] = {"epochs": 10, "lr": 3e-3}
    nested, shared = (Matryoshka(shared=s, seed=job["seed"]).fit(learned, y, **settings) for s in (False, True))
    alone = {dim: Matryoshka((dim,), seed=job["seed"]).fit(learned, y, **settings) for dim in DIMS}
    half = len(yt) // 2
    cascade = Cascade.tuned(nested, held[:half], yt[:half])
    labels, dims = cascade.predict(held[half:])
    return {
        "nested": {dim: 100 * nested.score(held, yt, dim) for dim in DIMS},
        "shared": {dim: 100 * shared.score(held, yt, dim) for dim in DIMS},
        "alone": {dim: 100 * alone[dim].score(held, yt) for dim in DIMS},
        "truncated": {dim: 100 * truncated(alone[DIMS[-1]], held, yt, dim) for dim in DIMS},
        "cascade": 100 * float((labels == yt[half:]).mean()),
        "whole": 100 * nested.score(held[half:], yt[half:]),
        "dims": float(dims.mean()),
        **retrieved(nested.embed(learned), nested.embed(held[:QUERIES])),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))

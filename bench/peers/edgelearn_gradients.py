# SPDX-License-Identifier: Apache-2.0
"""Our gradients of a net with one group of all blocks: what plain SGD takes off each weight, divided by its rate.

Job (JSON) on stdin: layers, shape, batch, path. Writes samples, labels, weights and gradients there; prints how many.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from edgelearn import engines, rules
from edgelearn.engines import Config
from edgelearn.engines.tokens import vocabulary
from edgelearn.graph import build
from edgelearn.layers import from_config
from edgelearn.optim import Optimizer, OptimizerKind
from edgelearn.sequences import steps_of

RATE = 1024.0
"""At rate 1, a gradient of 0.005 is read off a weight of 1.7 with an error of 1e-5 of itself, half of the last bit of
the weight. So large a step leaves nothing of the weight."""


def main(job: dict[str, Any]) -> dict[str, int]:
    """One step from weights with nothing left at zero or one, so that no term can go missing unseen."""
    rng, batch = np.random.default_rng(0), job["batch"]
    graph = build([from_config(table) for table in job["layers"]], tuple(job["shape"]))
    flat = graph.initial(0)
    for parameter in graph.parameters:
        if parameter.trainable and parameter.init in ("zeros", "ones"):
            parameter.view(flat)[...] += rng.normal(0, 0.1, parameter.shape)
    x = rng.standard_normal((batch, graph.features), np.float32)
    if vocabulary(graph.records):
        x = rng.integers(0, vocabulary(graph.records), x.shape).astype(np.float32)
    y = (np.arange(batch) % graph.outputs).astype(np.int32)
    before = flat.copy()
    settings = {"rule": rules.get("tp-l2"), "optimizer": Optimizer(OptimizerKind.SGD), "group": graph.blocks}
    settings["window"] = max(steps_of(graph.records), 1)
    config = Config(batch=batch, targets=graph.outputs, **settings)
    engines.load("native").open(graph.records, flat, config).step(x, y, RATE)
    trained = [p for p in graph.parameters if p.trainable]
    arrays = {f"weight{i}": p.view(before) for i, p in enumerate(trained)}
    arrays |= {f"gradient{i}": (p.view(before).astype(np.float64) - p.view(flat)) / RATE for i, p in enumerate(trained)}
    names = np.array([p.name for p in trained])
    np.savez(job["path"], x=x.reshape(batch, *job["shape"]), y=y, names=names, **arrays)
    return {"arrays": len(trained)}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))

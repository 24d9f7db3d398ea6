# SPDX-License-Identifier: Apache-2.0
"""Backends, rules, optimizers, samples and sessions that the tests of the backends share."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from math import prod

import numpy as np
import pytest
from nets import ALL_NETS, CLASSES, NETS, SEQUENCES

from edgelearn import engines, rules
from edgelearn.engines import ENTRY, Config, Run, Stats
from edgelearn.graph import build
from edgelearn.layers import (
    Embedding,
)
from edgelearn.optim import Optimizer, OptimizerKind, schedule

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(needs) is None, reason=f"{needs} is not installed"))
    for name, needs in (("native", "edgelearn._ffi"), ("numba", "numba"))
]

# Adam divides by |g| + epsilon: the usual 1e-8 turns the rounding of a gradient near zero into a whole step,
# and float32 and float64 part ways without either being wrong.
OPTIMIZERS = {
    "sgd": Optimizer(OptimizerKind.SGD),
    "momentum": Optimizer(OptimizerKind.MOMENTUM, momentum=0.8),
    "adam": Optimizer(OptimizerKind.ADAM, epsilon=1e-2),
}

RULES = list(rules.RULES)


def seeded(graph, seed=3):
    """Parameters with nothing left at zero or one, so that no term can go missing unseen."""
    flat = graph.initial(seed)
    return flat + np.random.default_rng(seed).uniform(0.01, 0.2, flat.size).astype(np.float32)


def mild(name, **overrides):
    """A rule whose objective is neither tiny nor saturated on nets this small, nor mostly one of similarities, whose
    slopes grow as features become alike."""
    return rules.get(name, **{"scale": 0.7, "temperature": 1.3, "huber": 0.6, "similarity": 0.5, **overrides})


def samples(n, features, seed=0, targets=None, kind=np.float32):
    """n samples, and labels, or targets of that width."""
    rng = np.random.default_rng([seed, n, features])
    x = rng.integers(0, 256, (n, features)) if kind is np.uint8 else rng.standard_normal((n, features))
    y = rng.standard_normal((n, targets)) if targets else rng.integers(0, CLASSES, n)
    return x.astype(kind), y.astype(np.float32 if targets else np.int32)


@dataclass
class Bench:
    """A session on a backend with the parameters it trains."""

    graph: object
    config: Config
    params: np.ndarray
    session: object

    def arrays(self):
        """Copies of all that learning may change."""
        return self.params.copy(), self.session.state.copy()

    def fit(self, x, y, steps, entry=ENTRY, **settings):
        """Stats of that many steps at rate 0.03, in batches as large as the session takes."""
        stats = Stats()
        run = {"schedule": schedule("constant", 0.03), "batch": self.config.batch, "steps": steps, **settings}
        self.session.fit(x, y, Run(**run), stats, entry)
        return stats


def open_net(backend, layers=None, shape=(6,), params=None, rescale=0, graph=None, **config):
    """A net opened on a backend; a regression loss leaves out the softmax."""
    defaults = {"rule": rules.get("tp-l2"), "optimizer": OPTIMIZERS["adam"], "targets": CLASSES, "batch": 33}
    settings = Config(**{**defaults, "seed": 0x1234567887654321, **config})
    softmax = settings.loss is rules.Loss.CROSS_ENTROPY
    graph = graph or build(list(layers or NETS["plain"]), shape, rescale, softmax)
    params = seeded(graph) if params is None else params
    session = engines.load(backend).open(graph.records, params, settings)
    return Bench(graph, settings, params, session)


def open_named(backend, name, **config):
    """A net of ALL_NETS or SEQUENCES opened on a backend."""
    layers, shape = (ALL_NETS | SEQUENCES)[name]
    return open_net(backend, layers, shape, **config)


def samples_for(name, n, **settings):
    """n samples for such a net: tokens for one that reads some."""
    layers, shape = (ALL_NETS | SEQUENCES)[name]
    x, y = samples(n, prod(shape), **settings)
    if isinstance(layers[0], Embedding):
        x = np.random.default_rng([n, 1]).integers(0, layers[0].input_dim, x.shape).astype(x.dtype)
    return x, y

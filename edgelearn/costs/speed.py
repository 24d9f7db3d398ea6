# SPDX-License-Identifier: Apache-2.0
"""How fast this machine is, measured: the rate that plans predict with."""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np

from edgelearn import engines, graph, layers
from edgelearn.optim import OptimizerKind, optimizer
from edgelearn.rules import RULES

_PROBE_SECONDS = 0.02
_WIDTH = 256


@lru_cache(maxsize=8)
def seconds_per_mac(backend: str, train: bool, batch: int, adaptive: bool = False) -> float:
    """Seconds per multiply-accumulate of one forward pass, in inference or in a local training step, measured on a
    256-256 layer for about 20 ms; `adaptive` stands for optimizers with stored moments."""
    net = graph.build([layers.Dense(_WIDTH, "relu"), layers.Dense(_WIDTH)], (_WIDTH,), softmax=False)
    kind = OptimizerKind.ADAM if adaptive else OptimizerKind.SGD
    config = engines.Config(
        rule=RULES["tp-l2"], batch=batch, targets=_WIDTH, train=train, optimizer=optimizer(kind.name)
    )
    session = engines.load(backend).open(net.records, net.initial(0), config)
    x, y = np.ones((batch, _WIDTH), np.float32), np.zeros(batch, np.int32)
    rounds, best, begun = 0, np.inf, time.perf_counter()
    while time.perf_counter() - begun < _PROBE_SECONDS or rounds < 3:
        start = time.perf_counter()
        if train:
            session.step(x, y, 1e-6)
        else:
            session.forward(x)
        best, rounds = min(best, time.perf_counter() - start), rounds + 1
    session.close()
    return float(best) / (net.macs * batch)

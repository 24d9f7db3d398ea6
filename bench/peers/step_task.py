# SPDX-License-Identifier: Apache-2.0
"""The step benchmark inside one contender's process: job (JSON) on stdin, result (a JSON line) on stdout.

Job: module, layers, batch, lr, seconds, options. A contender is a module of this package with a class
Trainer: prepare(x, labels) once a batch, step(*prepared) timed, probabilities(prepared x) for the loss.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

# Last on the path, so that an installed edgelearn is not hidden by the checkout's sources.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench.peers.resident import peak

BATCHES = 8
BLOCK_SECONDS = 0.02


def batches(inputs: int, classes: int, batch: int) -> list[tuple[Any, Any]]:
    """Batches of noisy class prototypes: x (batch, inputs) float32, labels (batch,) int32.

    Squared norms are near 100, as of digits scaled to 0..1, so that one learning rate suits every contender.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    scale = np.float32((100 / inputs * 3) ** 0.5)
    prototypes = rng.random((classes, inputs), np.float32)
    made = []
    for _ in range(BATCHES):
        labels = rng.integers(0, classes, batch).astype(np.int32)
        noise = rng.random((batch, inputs), np.float32)
        made.append(((prototypes[labels] * np.float32(0.8) + noise * np.float32(0.2)) * scale, labels))
    return made


def mean_loss(trainer: Any, prepared: list[tuple[Any, Any]], labels: list[Any]) -> float:
    """Cross-entropy over all batches, in nats per sample."""
    import numpy as np

    losses = [
        -np.log(np.maximum(np.asarray(trainer.probabilities(x))[np.arange(y.size), y], 1e-12)).mean()
        for (x, _), y in zip(prepared, labels, strict=True)
    ]
    return float(np.mean(losses))


def time_step(step: Callable[..., Any], prepared: Sequence[tuple[Any, Any]], seconds: float) -> float:
    """Microseconds per step: median over blocks of steps that each last about BLOCK_SECONDS."""
    feed = cycle(prepared)

    def block(steps: int) -> float:
        start = time.perf_counter()
        for x, y in islice(feed, steps):
            step(x, y)
        return (time.perf_counter() - start) / steps

    steps = 1
    while steps * (each := block(steps)) < BLOCK_SECONDS / 2:
        steps *= 2
    steps = max(round(BLOCK_SECONDS / each), 1)
    return median(block(steps) for _ in range(max(round(seconds / BLOCK_SECONDS), 3))) * 1e6


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Import, learn, check that the loss fell, and only then time.

    Raises:
        RuntimeError: the loss did not fall: what does not learn is not timed.
    """
    start = time.perf_counter()
    module = import_module(f"bench.peers.{job['module']}")
    import_seconds = time.perf_counter() - start
    trainer = module.Trainer(job["layers"], job["batch"], job["lr"], **job["options"])
    data = batches(job["layers"][0], job["layers"][-1], job["batch"])
    labels = [y for _, y in data]
    prepared = [trainer.prepare(x, y) for x, y in data]
    before = mean_loss(trainer, prepared, labels)
    for x, y in islice(cycle(prepared), 25 * BATCHES):
        trainer.step(x, y)
    after = mean_loss(trainer, prepared, labels)
    if not after < 0.9 * before:
        raise RuntimeError(f"{job['module']} does not learn: loss {before:.4f}, then {after:.4f}")
    us = time_step(trainer.step, prepared, job["seconds"])
    return {
        "us_per_step": us,
        "peak_rss_bytes": peak(),
        "import_seconds": import_seconds,
        "loss_before": before,
        "loss_after": after,
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))

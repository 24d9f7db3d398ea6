# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.weights`: trains the weights that ship, by the recipes of the accuracy table.

Writes models/<net>.safetensors. Instead of samples of the data the files hold noise, on which exports are compared.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.process import ROOT
from bench.tasks import ROWS, TASKS, Task, data_file

KEPT = 16


@dataclass(frozen=True)
class Weights:
    """A file of models/: the task and the rule that its weights come from, and what the data's licence asks for."""

    task: Task
    row: str
    source: str


SHIPPED = (
    Weights(TASKS["fashion_mnist/cnn-small"], "readout+sim", "Fashion-MNIST, (c) 2017 Zalando SE, MIT"),
    Weights(TASKS["fsdd_logmel/kws-conv1d"], "readout", "Free Spoken Digit Dataset, Z. Jackson et al., CC BY-SA 4.0"),
    Weights(TASKS["fsdd_logmel/kws-gru"], "readout", "Free Spoken Digit Dataset, Z. Jackson et al., CC BY-SA 4.0"),
)


def train(weights: Weights) -> float:
    """Train one net, write its file, return its accuracy on the test samples."""
    import edgelearn as el
    from edgelearn import data

    samples = data.load(data_file(weights.task.data))
    net = el.load(weights.task.definition, seed=0)
    net.adopt(samples)
    net.fit(samples.x_train, samples.y_train, seed=0, **weights.task.settings_of(ROWS[weights.row]))
    accuracy = net.score(samples.x_test, samples.y_test)
    origin: dict[str, Any] = {"data": weights.source, "accuracy": accuracy, "samples": "noise"}
    noise = np.random.default_rng(0).integers(0, 256, (KEPT, net.graph.features), np.uint8)
    net.restore(noise, origin)
    net.save(ROOT / "models" / f"{weights.task.model}.safetensors")
    return accuracy


def main() -> int:
    """All of them."""
    argparse.ArgumentParser(prog="python -m bench.weights", description=__doc__).parse_args()
    for weights in SHIPPED:
        print(f"{weights.task.name}, {weights.row}: {train(weights):.4f}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

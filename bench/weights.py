# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.weights`: trains the weights that ship, each by the recipe of its own model.

Writes models/<net>.safetensors. Instead of samples of the data the files hold noise, on which exports are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.process import ROOT
from bench.step import names
from bench.tasks import data_file

KEPT = 16
SPOKEN_DIGITS = "Free Spoken Digit Dataset, Z. Jackson et al., CC BY-SA 4.0"


@dataclass(frozen=True)
class Weights:
    """A file of models/: the net, the data that its weights come from, what is laid over the model's [train], and what
    the data's licence asks for."""

    model: str
    data: str
    source: str
    train: Mapping[str, Any] = field(default_factory=dict)


SHIPPED = {
    weights.model: weights
    for weights in (
        Weights(
            "cnn-small",
            "fashion_mnist",
            "Fashion-MNIST, (c) 2017 Zalando SE, MIT",
            {"augment": {"shift": 2, "flip": True}},
        ),
        Weights("kws-conv1d", "fsdd_logmel", SPOKEN_DIGITS),
        Weights("kws-gru", "fsdd_logmel", SPOKEN_DIGITS),
    )
}


def train(weights: Weights) -> float:
    """Train one net, write its file, return its accuracy on the test samples."""
    import edgelearn as el
    from edgelearn.inputs import data

    samples = data.load(data_file(weights.data))
    net = el.load(ROOT / "models" / f"{weights.model}.toml", seed=0)
    net.adopt(samples)
    net.fit(samples.x_train, samples.y_train, seed=0, **weights.train)
    accuracy = net.score(samples.x_test, samples.y_test)
    origin: dict[str, Any] = {"data": weights.source, "accuracy": accuracy, "samples": "noise"}
    noise = np.random.default_rng(0).integers(0, 256, (KEPT, net.graph.features), np.uint8)
    net.restore(noise, origin)
    net.save(ROOT / "models" / f"{weights.model}.safetensors")
    return accuracy


def main() -> int:
    """All of them, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m bench.weights", description=__doc__)
    parser.add_argument("--model", type=names, default=list(SHIPPED), help=f"of {', '.join(SHIPPED)}")
    for model in parser.parse_args().model:
        if model not in SHIPPED:
            parser.error(f"{model} does not ship: choose from {', '.join(SHIPPED)}")
        print(f"{model}: {train(SHIPPED[model]):.4f}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.gradients`: one group of all blocks is backpropagation, weight by weight, as PyTorch does it.

The nets of models/ and two with the windows, groups, activations and cells that they lack. Exits with 1 when a gradient
differs by more than 1e-5 of the largest in its array.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import process, report, venvs
from bench.tasks import parsed

LIMIT = 1e-5
SHAPES = {
    "mlp": [28, 28, 1],
    "cnn-small": [28, 28, 1],
    "vgg8": [32, 32, 3],
    "har-conv1d": [128, 9],
    "kws-conv1d": [49, 40],
    "har-gru": [128, 9],
    "kws-gru": [49, 40],
    "vit-tiny": [28, 28, 1],
    "text-tiny": [64],
}
MIXED: list[dict[str, Any]] = [
    {"type": "Conv2D", "filters": 8, "kernel_size": [2, 3], "strides": 2, "padding": "same", "activation": "gelu"},
    {"type": "MaxPool", "pool_size": 3, "strides": 2, "padding": "same"},
    {"type": "Conv2D", "filters": 12, "kernel_size": 3, "groups": 2, "padding": "same", "activation": "tanh"},
    {"type": "DepthwiseConv2D", "kernel_size": 3, "padding": "same", "activation": "sigmoid"},
    {"type": "Conv2D", "filters": 6, "kernel_size": 1, "use_bias": False},
    {"type": "BatchNormalization"},
    {"type": "GlobalAvgPool"},
    {"type": "Dense", "units": 5},
]


CELLS: list[dict[str, Any]] = [
    {"type": "LSTM", "units": 7, "return_sequences": True},
    {"type": "SimpleRNN", "units": 6, "activation": "relu", "return_sequences": True},
    {"type": "SimpleRNN", "units": 5, "use_bias": False, "return_sequences": True},
    {"type": "GRU", "units": 8, "use_bias": False},
    {"type": "Dense", "units": 5},
]


def nets() -> dict[str, tuple[list[dict[str, Any]], list[int]]]:
    """Layers and sample shape by name."""
    models = {
        name: (parsed(process.ROOT / "models" / f"{name}.toml")["layer"], shape) for name, shape in SHAPES.items()
    }
    return models | {"every window": (MIXED, [13, 11, 3]), "every cell": (CELLS, [19, 3])}


def measure(layers: list[dict[str, Any]], shape: list[int], folder: Path) -> dict[str, Any]:
    """Our gradients go to a file; PyTorch's, of the same weights and samples in float64, are held against them."""
    job = {"layers": layers, "shape": shape, "batch": 8, "path": str(folder / "gradients.npz")}
    process.run("edgelearn_gradients", job)
    return process.run("torch_gradients", job, "torch")


def section(rows: list[list[str]]) -> str:
    """The text of the page."""
    return f"""## Backpropagation as a special case: `python -m bench.gradients`

One step of plain SGD with one group of all blocks, through all steps of sequences, on 8 random samples: what each
weight moves by, divided by a rate so large that the rounding of the weight does not count, beside the gradient that
PyTorch finds in float64 ({venvs.installed("torch")}). Differences are shares of the largest gradient of their array;
{LIMIT:g} is allowed.

{report.table(["net", "arrays", "largest difference", "in", "verdict"], rows)}"""


def main() -> int:
    """Measure, print, write the section."""
    argparse.ArgumentParser(prog="python -m bench.gradients", description=__doc__).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (layers, shape) in nets().items():
            print(f"{name} ...", file=sys.stderr, flush=True)
            found = measure(layers, shape, Path(folder))
            verdict = "pass" if found["difference"] <= LIMIT else "miss"
            rows.append([name, str(found["arrays"]), f"{found['difference']:.1e}", found["where"], verdict])
    text = section(rows)
    print(text)
    report.write_section("bench.gradients", text)
    return int(any("miss" in row for row in rows))


if __name__ == "__main__":
    process.command(main)

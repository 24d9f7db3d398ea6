# SPDX-License-Identifier: Apache-2.0
"""A net as our files, and its weights for peers that write it, too.

Job (JSON) on stdin: layers, shape, folder. Writes ours.onnx, ours.tflite (int8), ours_int8.onnx, weights.npz and
samples.npy there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import edgelearn as el
from edgelearn.layers import from_config


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Arrays go in the order of the layers, each layer's as PyTorch has them: weight, bias, mean, variance."""
    folder, rng = Path(job["folder"]), np.random.default_rng(0)
    shape = tuple(job["shape"])
    net = el.Net([from_config(table) for table in job["layers"]], seed=0, input=el.Input(shape=shape, scale=1.0))
    x = rng.uniform(0, 1, (256, *shape)).astype(np.float32)
    for name, values in {**net.weights, **net.buffers}.items():
        if name.endswith((".bias", ".mean")):
            values += rng.normal(0, 0.1, values.shape).astype(np.float32)
        if name.endswith(".variance"):
            values *= rng.uniform(0.5, 2, values.shape).astype(np.float32)
    net.export(folder / "ours.onnx", samples=x)
    for name in ("ours.tflite", "ours_int8.onnx"):
        net.export(folder / name, dtype="int8", calibration=x, max_disagreement=1.0)
    arrays = [p.view(net.flat) for p in net.graph.parameters if not p.name.startswith("input.")]
    np.savez(folder / "weights.npz", **{f"array{i}": array for i, array in enumerate(arrays)})
    np.save(folder / "samples.npy", x)
    return {name: (folder / name).stat().st_size for name in ("ours.onnx", "ours.tflite")}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))

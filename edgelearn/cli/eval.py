# SPDX-License-Identifier: Apache-2.0
"""`edgelearn eval FILE DATA`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from edgelearn.cli import options

EXAMPLE = "edgelearn eval out/model.safetensors fashion_mnist.npz"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "eval", "measure a model or exported file on the test set of data", EXAMPLE)
    parser.add_argument("file", metavar="FILE", help=".safetensors, .onnx or .tflite")
    parser.add_argument("data", metavar="DATA", help=".npz or folder of classes, as for train")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer every test sample and count."""
    from edgelearn import data

    dataset = data.load(arguments.data)
    answer = _answerer(Path(arguments.file), dataset)
    start = time.perf_counter()
    outputs = answer(dataset.x_test)
    seconds = time.perf_counter() - start
    n = len(dataset.x_test)
    accuracy = _score(outputs, dataset)
    result = {"accuracy": accuracy, "n": n, "ms_per_sample": seconds / n * 1e3}
    name = "accuracy" if dataset.task == "classification" else "R squared"
    text = f"{name} {accuracy:.4f} on {n:,} samples, {result['ms_per_sample']:.4f} ms per sample"
    options.say(arguments, text, result)
    return 0


def _answerer(path: Path, dataset: Any) -> Any:
    """Samples to outputs, by the core or by the runtime of an exported file."""
    if path.suffix in (".onnx", ".tflite"):
        from edgelearn import runtimes

        return runtimes.load(path).run
    from edgelearn import loading

    net = loading.load(path)
    net.adopt(dataset)
    return net.forward


def _score(outputs: Any, dataset: Any) -> float:
    from edgelearn.metrics import accuracy, r_squared

    measure = accuracy if dataset.task == "classification" else r_squared
    return measure(outputs, dataset.y_test)

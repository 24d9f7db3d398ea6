# SPDX-License-Identifier: Apache-2.0
"""`edgelearn eval FILE DATA`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgelearn.cli import options
from edgelearn.errors import UsageError

EXAMPLE = "edgelearn eval out/model.safetensors fashion_mnist.npz"


EXPORTED = (".onnx", ".tflite", ".h")
"""Files that answer without a net."""


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "eval", "measure a model or exported file on the test set of data", EXAMPLE)
    parser.add_argument("file", metavar="FILE", help=".safetensors, .onnx, .tflite or .h")
    parser.add_argument("data", metavar="DATA", help=".npz or folder of classes, as for train")
    parser.add_argument("--width", metavar="W", help="of a submodel: one number, or one per hidden block, as 0.5,0.25")
    options.add_data(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Trained:
    """A model or an exported file: what it takes, samples (n, *shape) to outputs, and the names of its classes, which
    are their numbers where it has no words for them, and none before it is trained. The numbers of another tool may
    stand for any names."""

    input: Any
    answer: Callable[[Any], Any]
    names: list[str]
    is_ready: bool = True
    is_foreign: bool = False
    net: Any = None


def run(arguments: argparse.Namespace) -> int:
    """Answer every test sample and count."""
    path = Path(arguments.file)
    is_exported = path.suffix in EXPORTED
    if is_exported and arguments.width:
        raise UsageError(f"{path.name} has the width that it was exported with: leave out --width")
    trained = _exported(path) if is_exported else _model(path, arguments.width)
    dataset = options.load_data(
        arguments, arguments.data, trained.input, held_out=trained.is_ready, trained=trained.names
    )
    if not trained.is_ready:  # it takes from the training samples what it does not declare
        trained.net.adopt(dataset)
    start = time.perf_counter()
    outputs = trained.answer(dataset.x_test)
    seconds = time.perf_counter() - start
    n = len(dataset.x_test)
    accuracy = _score(outputs, _matched(dataset, trained))
    result = {"accuracy": accuracy, "n": n, "ms_per_sample": seconds / n * 1e3}
    name = "accuracy" if dataset.task == "classification" else "R squared"
    text = f"{name} {accuracy:.4f} on {n:,} samples, {result['ms_per_sample']:.4f} ms per sample"
    options.say(arguments, text, result)
    return 0


def _numbers(count: int) -> list[str]:
    """Names of classes that have only numbers."""
    return [str(number) for number in range(count)]


def _exported(path: Path) -> _Trained:
    """Answers come from the runtime of the file."""
    from edgelearn.export import runtimes

    runtime = runtimes.load(path)
    is_foreign = runtime.classes is None and "input" not in runtime.metadata
    names = runtime.classes or _numbers(runtime.outputs)
    return _Trained(runtime.input, runtime.run, names, is_foreign=is_foreign)


def _model(path: Path, width: str | None) -> _Trained:
    """Answers come from the core."""
    from edgelearn import loading

    net = options.cut(loading.load(path), width)
    is_ready = path.suffix == ".safetensors" and net.input.is_resolved
    names = (net.classes or _numbers(net.graph.outputs)) if is_ready else []
    return _Trained(net.input, net.forward, names, is_ready, net=net)


def _matched(dataset: Any, trained: _Trained) -> Any:
    """The data with its test labels numbered as the model does, by the names of the classes where both have them."""
    from edgelearn.inputs import labels

    names = trained.names
    if names and dataset.classes and not (trained.is_foreign and not set(dataset.classes) <= set(names)):
        y = labels.renumbered(dataset.y_test, dataset.classes, names)
        dataset = replace(dataset, y_test=y, classes=names)
    if trained.net is not None:
        trained.net.check_task(dataset)
    return dataset


def _score(outputs: Any, dataset: Any) -> float:
    from edgelearn.errors import DataError
    from edgelearn.metrics import accuracy, r_squared

    y = dataset.y_test
    if dataset.task == "regression":
        if outputs.shape != y.shape:
            raise DataError(
                f"the data has {y.shape[1]} values to predict, the file gives {outputs.shape[1]}: change one"
            )
        return r_squared(outputs, y)
    if y.max() >= outputs.shape[1]:
        raise DataError(f"the data has {y.max() + 1} classes, the file answers {outputs.shape[1]}: change one of them")
    return accuracy(outputs, y)

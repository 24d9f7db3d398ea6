# SPDX-License-Identifier: Apache-2.0
"""`edgelearn train MODEL DATA`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edgelearn.cli import options

EXAMPLE = "edgelearn train mlp fashion_mnist.npz --rule tp-ce --epochs 10 -o out"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "train", "train a model on data and write it to a folder", EXAMPLE)
    parser.add_argument(
        "model", metavar="MODEL", help="a name in models/, a .toml, or a .safetensors or .onnx to go on with"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help=".npz with x_train, y_train, x_test, y_test; or a folder with one sub-folder per class that holds .npy, "
        ".png, .jpg or .wav files",
    )
    options.add_data(parser)
    options.add_nested(parser)
    options.add_recipe(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, codes and order (default 0)")
    parser.add_argument(
        "--budget", metavar="ram=16MB", help="limits of the run: the batch shrinks, then the width of a nested net"
    )
    parser.add_argument("-o", "--output", default="out", metavar="DIR", help="for model.safetensors (default out)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, evaluate, save, report."""
    from edgelearn import cli, loading
    from edgelearn.training.progress import Progress

    net = loading.load(arguments.model, seed=arguments.seed, nested=options.nested_of(arguments))
    dataset = options.load_data(arguments, arguments.data, net.input)
    if "imported" in net.provenance and dataset.task == "classification":
        net = loading.load(arguments.model, loss="cross_entropy")  # files of other tools often end before the softmax
    net.adopt(dataset)
    folder = options.writable_folder(arguments.output)  # before training, and not for what cannot be trained
    settings = {**options.recipe_of(arguments), "seed": arguments.seed}
    plan = _plan(net, arguments, settings, len(dataset.x_train))
    settings["batch"] = plan.batch
    _say_uncached(net.recipe(**settings))
    net.fit(dataset.x_train, dataset.y_train, progress=Progress(), budget=_budget(arguments), **settings)
    width = net.provenance.get("trained_width")
    accuracy = net.trained.score(dataset.x_test, dataset.y_test)
    if net.nested and not net.history.validation:  # what was learned is no measure to choose by
        net.score_submodels(dataset.x_test, dataset.y_test)
    model = folder / "model.safetensors"
    net.provenance.update(data=Path(arguments.data).name, accuracy=accuracy, epochs=len(net.history.epochs))
    net.save(model)
    _plot(net, folder / "training.png")
    result = {
        "accuracy": accuracy,
        "rule": net.train["rule"],
        "seconds": net.history.seconds,
        "peak_training_bytes": plan.peak_bytes,
        "samples_per_s": net.history.samples_per_s,
        "model": str(model),
    }
    result.update({} if width is None else {"trained_width": width})
    result.update(_held_out(net.history), **({"cache_bytes": plan.cache_bytes} if plan.cache_bytes else {}))
    options.say(arguments, _text(net, result, len(dataset.x_test)), result)
    return cli.EXIT_INTERRUPTED if net.history.interrupted else 0


def _say_uncached(recipe: Any) -> None:
    """Why blocks run again every epoch, where nobody asked for that."""
    if recipe.schedule == "sequential" and recipe.cache == "auto" and recipe.cached == "none":
        why = "augment changes samples every epoch, so that earlier blocks run again instead of being read from disk"
        print(f"cache none: {why}", file=sys.stderr)


def _held_out(history: Any) -> dict[str, Any]:
    """What the kept epoch scored on a validation split, if there was one."""
    score = history.validation
    if score is None:
        return {}
    return {"validation_loss": score.loss, "validation_accuracy": score.accuracy, "best_epoch": history.kept}


def _plan(net: Any, arguments: argparse.Namespace, settings: dict[str, Any], samples: int) -> Any:
    """The plan of the run, under the budget if there is one."""
    budget = _budget(arguments)
    rest = {k: v for k, v in settings.items() if k != "batch"}
    batch = settings.get("batch")
    plan = net.plan(budget, batch=None if batch is None else min(batch, samples), samples=samples, **rest)
    return plan if plan.batch <= samples else net.plan(budget, batch=samples, samples=samples, **rest)


def _budget(arguments: argparse.Namespace) -> Any:
    from edgelearn.costs.budget import Budget

    return Budget.parse(arguments.budget) if arguments.budget else None


_REACHES = (("block", "blocks"), ("window", "windows"))
"""How far a gradient travels, and in what."""


def _plot(net: Any, path: Path) -> None:
    from importlib.util import find_spec

    if net.history.epochs and find_spec("matplotlib"):
        from edgelearn.training.plots import training

        training(net.history, path)


def _text(net: Any, result: dict[str, Any], held_out: int) -> str:
    name = "accuracy" if net.loss == "cross_entropy" else "R squared"
    epochs, kept = len(net.history.epochs), net.history.kept
    head = f"interrupted after {epochs} finished epochs; " if net.history.interrupted else ""
    head += f"weights of epoch {kept} of {epochs}; " if kept < epochs else ""
    reach = [f"{what} of {net.train[key]}" for key, what in _REACHES if net.train[key] > 1]
    shared = f" ({', '.join(reach)}: not backprop-free)" if reach else ""
    width = result.get("trained_width")
    if width is not None:
        head += f"the whole width does not fit the budget, so widths up to {width:g} were trained; at {width:g} "
    return (
        f"{head}{name} {result['accuracy']:.4f} on {held_out:,} held-out samples, rule {result['rule']}{shared}, "
        f"{result['seconds']:.1f} s, {result['samples_per_s']:,.0f} samples/s, "
        f"peak {result['peak_training_bytes']:,} bytes\nwrote {result['model']}"
    )

# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.accuracy`: what local learning costs in accuracy.

The reference is the same net trained by backpropagation in PyTorch, with the same optimizer, schedule, batch
and epochs. Exits with 1 when a rule misses its promise.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, product
from pathlib import Path
from statistics import median
from typing import Any

from bench import process, report, results, venvs
from bench.step import names

REFERENCE = "torch"
MODEL = process.ROOT / "models" / "mlp.toml"
TITLES = {
    REFERENCE: "backprop (PyTorch)",
    "backprop": "backprop (edgelearn, one group of all blocks)",
    "untrained": "untrained features",
}
RULES = ("backprop", "tp-l2", "tp-l1", "tp-huber", "drtp", "tp-ce", "readout", "untrained")
ALLOWED = {
    "tp-l2": {"fashion_mnist": 5.0, "mnist": 4.5},
    "tp-ce": {"fashion_mnist": 1.5, "mnist": 0.8},
    "readout": {"fashion_mnist": 0.5, "mnist": 0.4},
}
"""Points below backpropagation that are promised at most."""

Accuracies = dict[tuple[str, str], list[float]]
"""Percent of the test samples, seed by seed, by (data set, row)."""


@dataclass(frozen=True)
class Recipe:
    """What all rows share; `samples` None is the whole training set."""

    layers: tuple[int, ...] = (784, 256, 256, 10)
    epochs: int = 10
    batch: int = 64
    lr: float = 1e-3
    samples: int | None = None


QUICK = Recipe(epochs=2, samples=6000)


def data_folder() -> Path:
    """EDGELEARN_DATA, or ../shared/data beside the checkout."""
    return Path(os.environ.get("EDGELEARN_DATA", process.ROOT.parent / "shared" / "data"))


def data_file(name: str) -> Path:
    """The .npz of a data set.

    Raises:
        SystemExit: it is not there.
    """
    path = data_folder() / f"{name}.npz"
    if not path.is_file():
        sys.exit(f"no data set {name}: set EDGELEARN_DATA to the folder that holds {name}.npz")
    return path


def codes(rows: Sequence[str]) -> dict[str, str]:
    """Digest of what trains each row: when it changes, the row is measured again."""
    trainer = process.PEERS / "torch_accuracy.py"
    known = {REFERENCE: results.digest(trainer.read_bytes(), *venvs.REQUIREMENTS["torch"])}
    if any(row != REFERENCE for row in rows):
        identity = process.run("edgelearn_identity", {})
        script = process.PEERS / "edgelearn_accuracy.py"
        mine = results.digest(identity["digest"], MODEL.read_bytes(), script.read_bytes())
        known |= {row: mine for row in rows if row != REFERENCE}
    return known


def measure(row: str, data: str, seed: int, recipe: Recipe, threads: int) -> dict[str, Any]:
    """Train and score one net in a process of its own."""
    job = asdict(recipe) | {"data": str(data_file(data).resolve()), "seed": seed}
    if row == REFERENCE:
        return process.run("torch_accuracy", job | {"threads": threads}, "torch", threads)
    everything = row == "backprop"
    # A group of all blocks sees nothing but the output's own loss, so the rule's name has no say in it.
    local = {"rule": "tp-l2" if everything else row, "block": len(recipe.layers) - 1 if everything else 1}
    job |= local | {"model": str(MODEL), "threads": threads}
    return process.run("edgelearn_accuracy", job, None, threads)


def collect(rows: Sequence[str], args: argparse.Namespace, recipe: Recipe) -> Accuracies:
    """Train every net, seed by seed, all rows in turn; finished runs come from the ledger."""
    ledger, code = results.Ledger("accuracy", args.fresh), codes(rows)
    found: Accuracies = {}
    for data, seed, row in product(args.data, range(args.seeds), rows):
        key = asdict(recipe) | {"row": row, "data": data, "seed": seed, "code": code[row]}
        result = ledger.get(key)
        if result is None:
            result = measure(row, data, seed, recipe, args.threads)
            ledger.add(key, result)
        shown = result.get("failed") or f"{result['accuracy']:.2f} %"
        print(f"{data} seed {seed} {row}: {shown}", file=sys.stderr, flush=True)
        found.setdefault((data, row), []).append(result["accuracy"])
    return found


def lines(data: str, rows: Sequence[str], found: Accuracies, judge: bool) -> Iterator[list[str]]:
    """Table rows of one data set; `judge` holds them to what is promised."""
    reference = median(found[data, REFERENCE])
    for row in rows:
        values = found[data, row]
        middle = median(values)
        gap = reference - middle
        allowed = ALLOWED.get(row, {}).get(data) if judge else None
        yield [
            TITLES.get(row, row),
            f"{middle:.2f}" if middle else "failed",
            f"{gap:.2f}" if middle else "",
            "" if allowed is None else f"{allowed:.1f}",
            "" if allowed is None else ("pass" if gap <= allowed else "miss"),
            " ".join(f"{value:.2f}" if value else "failed" for value in values),
        ]


def section(recipe: Recipe, seeds: int, tables: Sequence[str]) -> str:
    """The text of the page."""
    shape = "-".join(map(str, recipe.layers))
    return f"""## Accuracy of local learning: `python -m bench.accuracy`

MLP {shape}, relu, no normalisation (models/mlp.toml), all training images, {recipe.epochs} epochs,
batch {recipe.batch}, Adam {recipe.lr:g}, cosine per step, {seeds} seeds.
Reference: {venvs.installed("torch")}.

Accuracy is the median over the seeds, in percent of the test images; the gap, in points, is to the median of
backpropagation in PyTorch. Untrained features: hidden blocks stay as initialised, the output layer is trained
alike. One group of all blocks is backpropagation in our core: a control, not counted as local learning.
"failed" is a run that the trainer itself ended because the loss diverged; it counts as 0 percent.

{chr(10).join(tables)}"""


def arguments() -> argparse.Namespace:
    """The command line; --quick shrinks whatever else is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("--data", type=names, default=["fashion_mnist", "mnist"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rules", type=names, default=list(RULES), help="our rows; empty: PyTorch only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one seed, 6000 images, 2 epochs; no verdict")
    parser.add_argument("--fresh", action="store_true", help="train again what was trained before")
    return parser.parse_args()


def main() -> int:
    """Train, print, and write the section when every row and seed of the promise was run."""
    args = arguments()
    recipe = QUICK if args.quick else Recipe()
    args.seeds = 1 if args.quick else args.seeds
    rows = [REFERENCE, *args.rules]
    found = collect(rows, args, recipe)
    head = ["trained by", "accuracy, %", "gap, points", "allowed", "verdict", "each seed"]
    judged = {data: list(lines(data, rows, found, not args.quick)) for data in args.data}
    tables = [f"{data}:\n\n{report.table(head, judged[data])}" for data in args.data]
    print("\n" + "\n".join(tables))
    if args.quick:
        return 0
    if set(rows) >= set(RULES):
        report.write_section("bench.accuracy", section(recipe, args.seeds, tables))
    return int(any("miss" in line for line in chain.from_iterable(judged.values())))


if __name__ == "__main__":
    process.command(main)

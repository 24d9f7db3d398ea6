# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.nested`: what nesting costs in accuracy.

Submodels of one nested net beside nets of the same widths that were trained alone with as many updates, and beside
prefixes of a net that was trained without nesting. Finished runs are kept; an interrupted command goes on where it was.
Exits with 1 when a promise is missed, with 3 when a run of the table is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from bench import process, report, results
from bench.runs import code_of
from bench.step import names
from bench.tasks import ROOT, data_file

WIDTHS = (0.125, 0.25, 0.5, 1.0)

WITHIN, ABOVE = 1.0, 20.0
"""Points: most that a nested net may be below one alone, least that its narrowest is above a truncated one."""


HEAD = """## Nested nets beside nets alone: `python -m bench.nested`

Submodels of nested nets, whose widths all learn from every batch, beside nets of these widths that learn from
the same batches alone, and beside prefixes of the full one of them (truncated). All test samples, in percent,
means over seeds.

"""


@dataclass(frozen=True)
class Task:
    """A model on the first samples of a data set, with so many hidden units and these settings over the model's own;
    of some nothing is promised."""

    name: str
    data: str
    model: str
    units: int | None
    samples: int
    settings: dict[str, Any] = field(default_factory=dict)
    promised: bool = True


def _dense(rule: str) -> Task:
    return Task(f"mlp-1024 {rule}", "fashion_mnist", "mlp", 1024, 60_000, {"rule": rule, "epochs": 10})


TASKS = {
    task.name: task
    for task in (
        _dense("tp-l2"),
        _dense("tp-ce"),
        _dense("readout"),
        Task("cnn-small", "fashion_mnist", "cnn-small", None, 60_000, {"epochs": 4}),
        Task("kws-gru", "fsdd_logmel", "kws-gru", None, 2_700, {"epochs": 20}, promised=False),
        Task("vit-tiny", "fashion_mnist", "vit-tiny", None, 12_000, {"epochs": 4}, promised=False),
    )
}
"""Two hours of one core; cnn-small with the ten epochs of its own would take another (`--samples`, `--epochs`)."""

KINDS: tuple[str | float, ...] = ("nested", *WIDTHS)


@dataclass(frozen=True)
class Bench:
    """What has been measured so far, by the code as it is now."""

    ledger: results.Ledger
    seeds: int
    samples: int | None
    epochs: int | None
    code: str

    def key(self, task: Task, kind: str | float, seed: int) -> dict[str, Any]:
        """Everything that a result depends on."""
        settings = task.settings | ({"epochs": self.epochs} if self.epochs else {})
        job = {"data": task.data, "model": task.model, "units": task.units, "kind": kind, "settings": settings}
        return job | {"seed": seed, "samples": self.samples or task.samples, "code": self.code}

    def result(self, task: Task, kind: str | float, seed: int) -> dict[str, Any] | None:
        """What a run gave, if it was made."""
        return self.ledger.get(self.key(task, kind, seed))

    def missing(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, str | float, int]]:
        """Runs that are not made yet, seed after seed."""
        for seed in range(self.seeds):
            for task in tasks:
                yield from ((task, kind, seed) for kind in KINDS if self.result(task, kind, seed) is None)

    def run(self, task: Task, kind: str | float, seed: int) -> None:
        """Train one net in a process of its own."""
        key = self.key(task, kind, seed)
        paths = {"data": str(data_file(task.data)), "model": str(ROOT / "models" / f"{task.model}.toml")}
        self.ledger.add(key, process.run("edgelearn_nested", key | paths))

    def done(self, task: Task) -> int:
        """How many seeds of a task have all of their runs."""
        seeds = range(self.seeds)
        whole = [all(self.result(task, kind, seed) is not None for kind in KINDS) for seed in seeds]
        return whole.index(False) if False in whole else self.seeds

    def mean(self, task: Task, kind: str | float, width: float, what: str = "accuracy") -> float:
        """Percent over the seeds that are done."""
        found = [self.result(task, kind, seed) for seed in range(self.done(task))]
        return mean(one[what][str(width)] for one in found if one)


@dataclass(frozen=True)
class Line:
    """A width of a task: nested, alone, truncated, in percent."""

    width: float
    nested: float
    alone: float
    truncated: float
    promised: bool = True

    def misses(self) -> list[str]:
        """What is promised and not kept."""
        if not self.promised:
            return []
        found = (
            [f"{self.alone - self.nested:.2f} below the same width alone"] if self.nested < self.alone - WITHIN else []
        )
        if self.width == WIDTHS[0] and self.nested < self.truncated + ABOVE:
            found.append(f"only {self.nested - self.truncated:.1f} above truncation")
        return found


def lines(bench: Bench, task: Task) -> list[Line]:
    """All widths, once a seed is done."""
    if not bench.done(task):
        return []
    return [
        Line(
            width,
            bench.mean(task, "nested", width),
            bench.mean(task, width, width),
            bench.mean(task, 1.0, width, "truncated"),
            task.promised,
        )
        for width in WIDTHS
    ]


def table(bench: Bench, task: Task) -> str:
    """A task in Markdown."""
    recipe = bench.key(task, "nested", 0)
    part = f"the first {recipe['samples']:,} samples of {task.data}, {recipe['settings']['epochs']} epochs"
    head = f"**{task.name}**, {part}, {bench.done(task)} of {bench.seeds} seeds\n\n"
    rows = "| width | nested | alone | difference | truncated | verdict |\n|---|---|---|---|---|---|\n"
    for line in lines(bench, task):
        verdict = "; ".join(line.misses()) or ("ok" if task.promised else "report")
        rows += f"| {line.width:g} | {line.nested:.2f} | {line.alone:.2f} | {line.nested - line.alone:+.2f} | "
        rows += f"{line.truncated:.2f} | {verdict} |\n"
    return head + rows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.nested", description=__doc__)
    parser.add_argument("--task", type=names, default=list(TASKS), help=f"of {', '.join(TASKS)}, or a part of a name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, help="of the training set, other than the tasks'; writes no page")
    parser.add_argument("--epochs", type=int, help="other than the tasks'; writes no page")
    parser.add_argument("--show", action="store_true", help="train nothing: show what there is, and what is missing")
    args = parser.parse_args()
    args.task = [task for name, task in TASKS.items() if any(part in name for part in args.task)]
    if not args.task:
        parser.error(f"no such task: choose from {', '.join(TASKS)}")
    return args


def work(bench: Bench, tasks: Sequence[Task]) -> None:
    """All runs that are missing, one by one."""
    wanted = list(bench.missing(tasks))
    for number, (task, kind, seed) in enumerate(wanted, 1):
        print(f"{number} of {len(wanted)}: {task.name} {kind} seed {seed}", file=sys.stderr, flush=True)
        bench.run(task, kind, seed)


def main() -> int:
    """Train what is missing, print, and write the tasks that have a seed to the page."""
    args = arguments()
    bench = Bench(results.Ledger("nested"), args.seeds, args.samples, args.epochs, code_of(ours=True))
    if not args.show:
        work(bench, args.task)
    for task in args.task:
        print(f"\n{table(bench, task)}", flush=True)
    missing = len(list(bench.missing(list(TASKS.values()))))
    done = [table(bench, task) for task in TASKS.values() if bench.done(task)]
    if done and not args.samples and not args.epochs:
        report.write_section("bench.nested", HEAD + "\n".join(done))
    misses = [miss for task in args.task for line in lines(bench, task) for miss in line.misses()]
    return 1 if misses else 3 if missing else 0


if __name__ == "__main__":
    process.command(main)

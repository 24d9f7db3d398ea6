# SPDX-License-Identifier: Apache-2.0
"""One run of the accuracy table: which nets are to be trained, what each depends on, and how one is trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import median
from typing import Any

from bench import process, results, venvs
from bench.tasks import GROUPS, REFERENCE, ROWS, Task, data_file, parsed

Result = dict[str, Any]
"""accuracy (percent of the test samples), seconds, parameters; `failed` with a reason where training gave up."""

TORCH_SCRIPTS = ("torch_accuracy", "torch_net", "torch_units", "torch_augment")


@dataclass(frozen=True)
class Run:
    """A net of a task, trained by a row's rule from a seed."""

    task: Task
    row: str
    seed: int

    def __hash__(self) -> int:
        return hash((self.task.name, self.row, self.seed))

    def __str__(self) -> str:
        return f"{self.task.name} {self.row} seed {self.seed}"


@dataclass(frozen=True)
class Bench:
    """What has been measured so far, by the code as it is now. `samples` and `epochs` make a quick run of it."""

    ledger: results.Ledger
    seeds: int = 3
    samples: int | None = None
    epochs: int | None = None
    code: dict[bool, str] = field(default_factory=lambda: {ours: code_of(ours) for ours in (False, True)})

    def recipe(self, run: Run) -> dict[str, Any]:
        """What the run is trained with."""
        row = ROWS[run.row]
        recipe = run.task.recipe() if row.rule is None else run.task.settings_of(row)
        return recipe if self.epochs is None else recipe | {"epochs": self.epochs}

    def key(self, run: Run) -> dict[str, Any]:
        """Everything that the result depends on."""
        rule, model = ROWS[run.row].rule, parsed(run.task.definition)
        rules = model["train"].get("rule", {})
        parts = [model["layer"], model.get("input"), rules.get(rule) if isinstance(rules, dict) else None]
        return {
            "task": run.task.name,
            "row": run.row,
            "seed": run.seed,
            "recipe": self.recipe(run),
            "model": results.digest(json.dumps(parts, sort_keys=True)),
            "samples": self.samples,
            "code": self.code[rule is not None],
        }

    def result(self, run: Run) -> Result | None:
        """Of a finished run."""
        return self.ledger.get(self.key(run))

    def screened(self, task: Task) -> range:
        """Seeds by which the rows of a task are compared."""
        return range(min(task.screened, self.seeds))

    def score(self, task: Task, row: str, seeds: range) -> float | None:
        """Median accuracy over seeds; None while one of them is missing."""
        found = [result for seed in seeds if (result := self.result(Run(task, row, seed)))]
        return median(result["accuracy"] for result in found) if len(found) == len(seeds) else None

    def winner(self, task: Task, group: str) -> str | None:
        """The row of a group that does best with the screened seeds; None while one of its runs is missing."""
        scores = {row: self.score(task, row, self.screened(task)) for row in task.rows if group in ROWS[row].groups}
        known = {row: score for row, score in scores.items() if score is not None}
        return max(known, key=known.__getitem__) if known and len(known) == len(scores) else None

    def repeated(self, task: Task) -> set[str]:
        """Rows that are run with every seed: the reference, winners, and what is promised by name."""
        winners = {self.winner(task, group) for group in GROUPS} - {None}
        return {REFERENCE, *winners, *(p for p in task.promises if p in ROWS)}

    def wanted(self, tasks: Iterable[Task], rows: Sequence[str]) -> Iterator[Run]:
        """All runs of the table as far as it is known yet which: the screened seeds, then the repeated rows."""
        for task in tasks:
            mine, first = [row for row in task.rows if row in rows], self.screened(task)
            yield from (Run(task, row, seed) for seed, row in product(first, mine))
            repeated, rest = self.repeated(task), range(len(first), self.seeds)
            yield from (Run(task, row, seed) for seed, row in product(rest, mine) if row in repeated)

    def undecided(self, task: Task, rows: Sequence[str]) -> int:
        """How many more runs there will be once the winners are known."""
        groups = [g for g in GROUPS if any(g in ROWS[row].groups for row in task.rows if row in rows)]
        return (self.seeds - len(self.screened(task))) * sum(self.winner(task, group) is None for group in groups)

    def estimate(self, run: Run) -> float:
        """Seconds that a run takes: as the same one from other seeds, as others of its task, or at a guess."""
        done = [(r, found["seconds"]) for r in self.siblings(run) if (found := self.result(r))]
        same = [seconds for r, seconds in done if r.row == run.row]
        return median(same or [seconds for _, seconds in done] or [run.task.seconds])

    def siblings(self, run: Run) -> list[Run]:
        """Runs of the same task."""
        return [Run(run.task, row, seed) for row, seed in product(run.task.rows, range(self.seeds))]

    def measure(self, run: Run) -> Result:
        """Train and score one net in a process of its own, on one thread.

        Raises:
            MeasurementError: it ended without a result, or trained another net than the reference.
        """
        job = {"data": str(data_file(run.task.data)), "seed": run.seed, "threads": 1, "samples": self.samples}
        if ROWS[run.row].rule is None:
            job |= {"definition": parsed(run.task.definition), "recipe": self.recipe(run)}
            return process.run("torch_accuracy", job, "torch")
        job |= {"model": str(run.task.definition), "settings": self.recipe(run)}
        return process.run("edgelearn_accuracy", job)

    def differs(self, task: Task) -> str | None:
        """The row that trained a net of another size than the reference, if one did."""
        sizes = {row: found["parameters"] for row in task.rows if (found := self.result(Run(task, row, 0)))}
        return next((row for row, size in sizes.items() if size != sizes.get(REFERENCE, size)), None)


def code_of(ours: bool) -> str:
    """Digest of what trains: when it changes, a row is measured again. Empty where edgelearn cannot be loaded."""
    scripts = ("edgelearn_accuracy",) if ours else TORCH_SCRIPTS
    files = results.digest_code(process.PEERS / f"{name}.py" for name in scripts)
    if not ours:
        return results.digest(files, *venvs.REQUIREMENTS["torch"])
    try:
        return results.digest(files, process.run("edgelearn_identity", {})["digest"])
    except process.MeasurementError as error:
        print(f"edgelearn's rows cannot be run: {error}", file=sys.stderr)
        return ""

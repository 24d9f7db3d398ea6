# SPDX-License-Identifier: Apache-2.0
"""The accuracy table: what was promised against what was measured, and the text of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench import report, venvs
from bench.runs import Bench, Run
from bench.tasks import GROUPS, REFERENCE, ROWS, TASKS, Task

NOT_RUN = "not run"


@dataclass(frozen=True)
class Verdict:
    """A promise of a task: the row that has to keep it, and how far it is below backpropagation, in points.

    `row` is None while a group has no winner yet, `gap` while a run is missing; `allowed` None is reported only.
    """

    task: Task
    promise: str
    row: str | None
    accuracy: float | None
    gap: float | None
    allowed: float | None

    def __str__(self) -> str:
        if self.gap is None:
            return NOT_RUN
        if self.allowed is None:
            return ""
        return "pass" if self.gap <= self.allowed else "miss"


def accuracies(bench: Bench, task: Task, row: str, seeds: int) -> list[float]:
    """Percent of the test samples, of the seeds that have been run."""
    found = (bench.result(Run(task, row, seed)) for seed in range(seeds))
    return [result["accuracy"] for result in found if result]


def reference_of(task: Task) -> Task:
    """The task that holds the reference of another."""
    return TASKS.get(task.beside, task)


def verdicts(bench: Bench, tasks: Sequence[Task]) -> Iterator[Verdict]:
    """Of all promises."""
    for task in tasks:
        seeds = range(bench.seeds)
        reference = bench.score(reference_of(task), REFERENCE, seeds)
        for promise, allowed in task.promises.items():
            row = bench.winner(task, promise) if promise in GROUPS else promise
            value = None if row is None else bench.score(task, row, seeds)
            # A hundredth of a percent is a sample of ten thousand; rounding must not cost a verdict.
            gap = None if value is None or reference is None else round(reference - value, 6)
            yield Verdict(task, promise, row, value, gap, allowed)


def summary(found: Sequence[Verdict]) -> str:
    """A line per promise."""
    head = ["data", "net", "promise", "kept by", "accuracy, %", "gap, points", "allowed", "verdict"]
    return report.table(head, [_line(v) for v in found])


def _line(v: Verdict) -> list[str]:
    title = "" if v.row is None else ROWS[v.row].title
    allowed = "report" if v.allowed is None else f"{v.allowed:.1f}"
    return [v.task.data, v.task.model, v.promise, title, _number(v.accuracy), _number(v.gap), allowed, str(v)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def rows(bench: Bench, task: Task) -> str:
    """A line per row of a task, with every seed."""
    head = ["trained by", "accuracy, %", "gap, points", "each seed", "minutes"]
    reference = accuracies(bench, reference_of(task), REFERENCE, bench.seeds)
    return report.table(head, [_row(bench, task, row, reference) for row in task.rows])


def _row(bench: Bench, task: Task, row: str, reference: list[float]) -> list[str]:
    values = accuracies(bench, task, row, bench.seeds)
    if not values:
        return [ROWS[row].title, NOT_RUN, "", "", ""]
    value = median(values)
    gap = f"{median(reference) - value:.2f}" if reference and value else ""
    runs = (bench.result(Run(task, row, seed)) for seed in range(bench.seeds))
    minutes = median(result["seconds"] / 60 for result in runs if result)
    seeds = " ".join(f"{v:.2f}" if v else "failed" for v in values)
    return [ROWS[row].title, f"{value:.2f}" if value else "failed", gap, seeds, f"{minutes:.1f}"]


def described(bench: Bench, task: Task) -> str:
    """The recipe that all rows of a task share, in a line."""
    recipe = task.recipe()
    changes = ", ".join(f"{k} {v}" if v is not True else k for k, v in recipe.get("augment", {}).items())
    found = bench.result(Run(task, task.rows[0], 0))
    size = f"{found['parameters']:,} weights, " if found else ""
    return (
        f"{size}{recipe['epochs']} epochs, batch {recipe['batch']}, {recipe['optimizer']} {recipe['lr']:g}, "
        f"{recipe['lr_schedule']}, {f'augmented by {changes}' if changes else 'no augmentation'}"
        + (f"; the reference is that of {task.beside}" if task.beside else "")
    )


def section(bench: Bench, tasks: Sequence[Task], missing: Sequence[Run]) -> str:
    """The text of the page."""
    tables = "\n".join(f"### {t.data}, {t.model}\n\n{described(bench, t)}:\n\n{rows(bench, t)}" for t in tasks)
    found = list(verdicts(bench, tasks))
    absent = (
        f'\n**{len(missing)} runs of this table are still missing; their cells say "{NOT_RUN}".**\n' if missing else ""
    )
    return f"""## Accuracy of local learning: `python -m bench.accuracy`
{absent}
The reference is the same net (models/*.toml), trained by backpropagation in PyTorch with the same optimizer, rate,
schedule, epochs, batch and augmentation: {venvs.installed("torch")}. Accuracy is the median over the seeds, in percent
of the test samples; the gap, in points, is to the median of that reference.

Of the rows of a group the best stands for it, chosen by one seed where a run takes long and judged by {bench.seeds};
a rule in the group "{GROUPS[0]}" learns nothing beside the layer itself. Rows with one seed are not judged, and their
gap is that of one seed. Untrained features:
hidden blocks stay as initialised, the output layer is trained alike. One group of all blocks is backpropagation in our
core, and through all steps in recurrent layers; block 2 lets two neighbours share a gradient, a window lets it go back
through some steps. All of these are controls, not counted as backprop-free.
"failed" is a run that the trainer itself ended because the loss diverged; it counts as 0 percent.

{summary(found)}
{tables}"""

# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.accuracy`: what local learning costs in accuracy.

The reference is the same net trained by backpropagation in PyTorch, with the same optimizer, schedule, batch, epochs
and augmentation. Finished runs are kept; an interrupted command goes on where it was. Exits with 1 when a promise is
missed, with 3 when a run of the table is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from bench import process, promises, report, results, venvs
from bench.runs import Bench, Run
from bench.step import names
from bench.tasks import REFERENCE, ROWS, TASKS, Task
from bench.workers import Workers, duration

QUICK = {"samples": 2000, "epochs": 1, "seeds": 1}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("--task", type=names, default=list(TASKS), help=f"of {', '.join(TASKS)}, or a part of a name")
    parser.add_argument("--rows", type=names, default=list(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, default=3, help="of backpropagation and the winners; one for the rest")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once, one thread each")
    parser.add_argument("--quick", action="store_true", help="one seed, 2000 samples, 1 epoch; nothing is written")
    parser.add_argument("--partial", action="store_true", help="write the page though runs are missing")
    parser.add_argument("--show", action="store_true", help="train nothing: show what there is, and what is missing")
    parser.add_argument("--fresh", action="store_true", help="train again what was trained before")
    args = parser.parse_args()
    args.task = [name for name in TASKS if any(part in name for part in args.task)]
    for row in (row for row in args.rows if row not in ROWS):
        parser.error(f"no row '{row}': choose from {', '.join(ROWS)}")
    if not args.task:
        parser.error(f"no such task: choose from {', '.join(TASKS)}")
    return args


def workers(bench: Bench, tasks: Sequence[Task], rows: Sequence[str], jobs: int) -> Workers:
    """For some rows of some tasks, the quickest task first."""
    order = sorted(tasks, key=lambda task: task.seconds)

    def more() -> float:
        return sum(bench.undecided(task, rows) * bench.estimate(Run(task, REFERENCE, 0)) for task in tasks)

    return Workers(bench, lambda: bench.wanted(order, rows), more, jobs)


def check_sizes(bench: Bench, tasks: Sequence[Task]) -> None:
    """Every row of a task must have trained the reference's net.

    Raises:
        MeasurementError: naming the first that did not.
    """
    for task in tasks:
        other = bench.differs(task)
        if other:
            raise process.MeasurementError(f"{task.name}: {other} trained a net of another size than {REFERENCE}")


def finish(bench: Bench, args: argparse.Namespace) -> int:
    """Print the chosen tasks; write the page from all of them when nothing is missing, or when asked to."""
    chosen = [TASKS[name] for name in args.task]
    for task in chosen:
        print(f"\n{task.name}: {promises.described(bench, task)}\n\n{promises.rows(bench, task)}")
    found = list(promises.verdicts(bench, chosen))
    print(promises.summary(found), flush=True)
    everything = list(TASKS.values())
    missing = workers(bench, everything, list(ROWS), 1).missing()
    for run in missing:
        print(f"not run: {run}", file=sys.stderr)
    if missing and not args.partial:
        print(f"{len(missing)} runs are missing, so the page stays as it is; --partial writes it", file=sys.stderr)
    else:
        report.write_section("bench.accuracy", promises.section(bench, everything, missing))
    misses = any(str(verdict) == "miss" for verdict in found)
    return 1 if misses else 3 if missing else 0


def main() -> int:
    """Train what is missing, print, and write the page when the whole table has been run."""
    args = arguments()
    ledger, tasks = results.Ledger("accuracy", args.fresh), [TASKS[name] for name in args.task]
    bench = Bench(ledger, **QUICK) if args.quick else Bench(ledger, args.seeds)
    if REFERENCE in args.rows:
        venvs.python_of("torch")
    work = workers(bench, tasks, args.rows, args.jobs)
    if not args.show:
        count, left = len(work.missing()), duration(work.seconds_left())
        print(f"{count} runs, about {left} with {args.jobs} at once", file=sys.stderr, flush=True)
        work.work()
    check_sizes(bench, tasks)
    if not args.quick:
        return finish(bench, args)
    for task in tasks:
        print(f"\n{task.name}, quick: no verdict\n\n{promises.rows(bench, task)}")
    return int(bool(work.failed))


if __name__ == "__main__":
    process.command(main)

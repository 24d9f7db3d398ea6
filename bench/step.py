# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.step`: time and memory of one training step of an MLP, ours beside backpropagation.

In rounds of all contenders, one process each; a ratio is taken inside a round, its median over the rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench import process, report, results, venvs

LEARNING_RATE = 0.01
SECONDS = 0.6
REFERENCE = "numpy"
RULES = ("tp-l2", "tp-ce", "readout")


@dataclass(frozen=True)
class Contender:
    """A row of the table: a module of bench/peers with its options, in a peer's environment (None: ours)."""

    name: str
    module: str
    venv: str | None
    options: dict[str, Any] = field(default_factory=dict)


def ours(rules: Sequence[str], threads: int) -> list[Contender]:
    """One contender per rule."""
    options = ({"rule": rule, "threads": threads} for rule in rules)
    return [Contender(f"edgelearn {o['rule']}", "edgelearn_step", None, o) for o in options]


def peers(threads: int) -> list[Contender]:
    """Everyone else; NumPy takes its threads from the environment, scikit-learn too."""
    return [
        Contender(REFERENCE, "numpy_step", "numpy"),
        Contender("numpy, np.matmul only", "numpy_step", "numpy", {"product": "matmul"}),
        Contender("PyTorch", "torch_step", "torch", {"threads": threads}),
        Contender("MNN", "mnn_step", "mnn", {"threads": threads}),
        Contender("scikit-learn", "sklearn_step", "sklearn"),
    ]


def available(contenders: Sequence[Contender]) -> list[Contender]:
    """Those whose environment can be made; says which cannot."""
    missing = set()
    for name in dict.fromkeys(c.venv for c in contenders if c.venv):
        if reason := venvs.missing(name):
            print(f"left out: {reason}", file=sys.stderr)
            missing.add(name)
    return [c for c in contenders if c.venv not in missing]


def one_round(contenders: Sequence[Contender], layers: list[int], batch: int, threads: int) -> dict[str, Any]:
    """Each contender once: its name to its measurement."""
    measured = {}
    for contender in contenders:
        job = {
            "module": contender.module,
            "layers": layers,
            "batch": batch,
            "lr": LEARNING_RATE,
            "seconds": SECONDS,
            "options": contender.options,
        }
        measured[contender.name] = process.run("step_task", job, contender.venv, threads)
    return measured


def rounds(contenders: Sequence[Contender], args: argparse.Namespace, batch: int, code: str) -> list[dict[str, Any]]:
    """All rounds of one batch size; finished ones come from the ledger."""
    ledger, done = results.Ledger("step", args.fresh), []
    for number in range(args.runs):
        key = {
            "layers": args.layers,
            "batch": batch,
            "threads": args.threads,
            "contenders": [c.name for c in contenders],
            "code": code,
            "round": number,
        }
        found = ledger.get(key)
        if found is None:
            found = one_round(contenders, args.layers, batch, args.threads)
            ledger.add(key, found)
        done.append(found)
        print(f"batch {batch}: round {number + 1} of {args.runs}", file=sys.stderr, flush=True)
    return done


def rows(measured: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row per contender: step time, ratio to the reference, memory, import time."""
    made = []
    for name in measured[0]:
        runs = [r[name] for r in measured]
        ratios = [r[REFERENCE]["us_per_step"] / r[name]["us_per_step"] for r in measured]
        made.append(
            [
                name,
                report.spread([r["us_per_step"] for r in runs], 1),
                report.spread(ratios, 2),
                f"{median(r['peak_rss_bytes'] for r in runs) / 2**20:.1f}",
                f"{median(r['import_seconds'] for r in runs):.2f}",
            ]
        )
    return made


def section(args: argparse.Namespace, tables: Sequence[str], machine: str) -> str:
    """The text of the page."""
    shape = "-".join(map(str, args.layers))
    threads = "1 thread" if args.threads == 1 else f"{args.threads} threads"
    return f"""## One training step: `python -m bench.step`

MLP {shape}, relu, softmax cross-entropy, plain SGD, float32, {threads}. {machine}.

Median of {args.runs} rounds (least to greatest). Each contender first shows that its loss falls, then is
timed on prepared arrays in a process of its own. "Times faster than NumPy" is a ratio inside a round. Peak
memory (VmHWM) is the whole process, interpreter and samples included. NumPy is backpropagation by hand with
every buffer allocated beforehand, its products by np.dot; np.matmul is as fast at batch 32, but at batch 1 it
forms the weight gradient without BLAS.

Peers: {venvs.installed(*dict.fromkeys(c.venv for c in peers(args.threads) if c.venv))}.

{chr(10).join(tables)}"""


def integers(text: str) -> list[int]:
    """`784,128,10` as numbers."""
    return [int(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """`a,b` as names; an empty text is none."""
    return [part for part in text.split(",") if part]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=__doc__)
    parser.add_argument("--layers", type=integers, default=[784, 128, 10], help="widths, input first")
    parser.add_argument("--batch", type=integers, default=[32, 1], help="one table each")
    parser.add_argument("--runs", type=int, default=5, help="rounds per batch size")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rules", type=names, default=list(RULES), help="ours; empty: peers only")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write the section; without our own rows nothing is written."""
    args = arguments()
    identity = process.run("edgelearn_identity", {}) if args.rules else {"digest": "", "isa": "not asked"}
    machine = report.machine(identity["isa"])
    contenders = available([*ours(args.rules, args.threads), *peers(args.threads)])
    scripts = results.digest_files(process.PEERS.glob("*step*.py"))
    code = results.digest(identity["digest"], scripts, report.cpu())
    head = ["", "us per step", "times faster than NumPy", "peak memory, MB", "import, s"]
    tables = []
    for batch in args.batch:
        made = report.table(head, rows(rounds(contenders, args, batch, code)))
        tables.append(f"Batch {batch}:\n\n{made}")
        print(tables[-1], flush=True)
    if args.rules:
        report.write_section("bench.step", section(args, tables, machine))
    return 0


if __name__ == "__main__":
    process.command(main)

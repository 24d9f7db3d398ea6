# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.adapt`: what adapting a frozen model on the device gains, and what it takes.

Finished measurements stay in bench/results/adapt.jsonl, so that an interrupted command goes on where it was; --draws
says how many draws of the 50 labelled samples there are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench import adapt_sections as sections
from bench import adapt_studies, process, report
from bench.adapt_ledger import DRAWS, Bench

STUDIES: dict[str, tuple[str, Callable[[Bench], str]]] = {
    "shift": ("Adapting to another domain", sections.shifts),
    "person": ("Adapting to another person", sections.persons),
    "speaker": ("Adapting to another speaker", sections.speakers),
    "outside": ("Adapting a backbone of another tool", sections.outside),
    "peft": ("Adapters to PEFT and back", sections.peft),
    "optimizer": ("Optimizer state in low rank", sections.optimizers),
    "classes": ("New classes from five samples", sections.classes),
    "retrieval": ("New queries in old galleries", sections.retrieval),
    "memory": ("Memory of adapting", sections.memory),
}


def main() -> int:
    """Measure, print, write a section for each study."""
    parser = argparse.ArgumentParser(prog="python -m bench.adapt", description=__doc__)
    parser.add_argument("--study", action="append", choices=STUDIES, help="only this one")
    parser.add_argument("--draws", type=int, help=f"of every study (default: {DRAWS})")
    parser.add_argument("--fresh", action="store_true", help="measure all again")
    arguments = parser.parse_args()
    if arguments.fresh:
        adapt_studies.clean()
    bench = Bench(arguments.draws, arguments.fresh)
    for name in arguments.study or STUDIES:
        title, study = STUDIES[name]
        text = f"## {title}: `python -m bench.adapt --study {name}`\n\n{study(bench)}"
        print(text)
        report.write_section(f"bench.adapt.{name}", text)
    return 0


if __name__ == "__main__":
    process.command(main)

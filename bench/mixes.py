# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.mixes`: submodels of one net under budgets.

A net of 256 mixes, all scored by one command for each budget, and one of 4,096, where the search is held against the
best of all. Exits with 1 when a choice is over its budget, or when a larger budget scores half a point less.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from typing import Any

from bench import process, report
from bench.tasks import data_file

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Of the multiply-adds between the narrowest net and the whole one."""

FALL = 0.005
"""Most that a larger budget may cost in accuracy."""


def run(blocks: int, units: int) -> dict[str, Any]:
    """One net of so many hidden layers."""
    print(f"{blocks} layers of {units} units", file=sys.stderr, flush=True)
    job = {"data": str(data_file("fashion_mnist")), "samples": 6000, "epochs": 4, "seed": 0, "shares": SHARES}
    return process.run("edgelearn_mixes", job | {"blocks": blocks, "units": units})


def misses(command: list[dict[str, Any]], searched: list[dict[str, Any]]) -> list[str]:
    """What is promised and not kept."""
    said = [f"{one['macs']:,} over {one['limit']:,}" for one in (*command, *searched) if one["macs"] > one["limit"]]
    said += [f"{one['over']} mixes were scored that do not fit" for one in searched if one["over"]]
    scores = [one["accuracy"] for one in command], [one["score"] for one in searched]
    said += [f"{b:.4f} after {a:.4f}" for rising in scores for a, b in pairwise(rising) if b < a - FALL]
    return said


def page(small: dict[str, Any], large: dict[str, Any]) -> str:
    """Both tables in Markdown."""
    text = (
        "## Mixes of widths under budgets: `python -m bench.mixes`\n\n"
        "Nested nets of dense layers, `readout`, the first 6,000 images of Fashion-MNIST, 4 epochs; 1,000 test images "
        "choose.\n\n"
        f"Four layers of 64 units, `edgelearn submodel FILE --data DATA --budget macs=..`: {small['mixes']} mixes are "
        "scored each time.\n\n"
        "| budget, multiply-adds | mixes that fit | widths | multiply-adds | accuracy |\n|---|---|---|---|---|\n"
    )
    for one in small["command"]:
        widths = ", ".join(f"{width:g}" for width in one["widths"][:-1])
        text += f"| {one['limit']:,} | {one['feasible']} of {one['considered']} | {widths} | {one['macs']:,} | "
        text += f"{100 * one['accuracy']:.1f} |\n"
    text += (
        f"\nSix layers of 32 units, {large['mixes']:,} mixes: the search beside the best of all that fit.\n\n"
        "| budget, multiply-adds | mixes that fit | mixes scored | over budget | found | best of all |\n"
        "|---|---|---|---|---|---|\n"
    )
    for one in large["searched"]:
        text += f"| {one['limit']:,} | {one['fitting']:,} | {one['scored']} | {one['over']} | "
        text += f"{100 * one['score']:.1f} | {100 * one['best']:.1f} |\n"
    found = misses(small["command"], large["searched"])
    return f"{text}\nVerdict: {'; '.join(found) or 'all promises kept'}.\n"


def main() -> int:
    """Run both, print and write the page."""
    argparse.ArgumentParser(prog="python -m bench.mixes", description=__doc__).parse_args()
    small, large = run(4, 64), run(6, 32)
    text = page(small, large)
    print(text)
    report.write_section("bench.mixes", text)
    return 1 if misses(small["command"], large["searched"]) else 0


if __name__ == "__main__":
    process.command(main)

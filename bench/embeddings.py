# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.embeddings`: what nesting an embedding of 64 costs in accuracy, and what a funnel saves.

Prefixes of one embedding beside embeddings of their sizes that were trained alone, and beside prefixes of one that was
trained as a whole. Finished seeds are kept. Exits with 1 when a promise is missed.
"""

from __future__ import annotations

import argparse
import sys
from statistics import mean
from typing import Any

from bench import process, report, results
from bench.runs import code_of
from bench.tasks import data_file

DIMS = ("4", "8", "16", "32", "64")
SAMPLES = 12_000

WITHIN, ABOVE = 1.0, 10.0
"""Points: most that a prefix may be below an embedding alone, least that the shortest is above truncation."""

FOUND, SHARE = 98.0, 1 / 8
"""Percent of queries whose nearest a funnel must find, with at most this share of the multiplications."""


def measured(seed: int, ledger: results.Ledger, code: str) -> dict[str, Any]:
    """The result of a seed, in a process of its own where it is not known yet."""
    key = {"data": "fashion_mnist", "samples": SAMPLES, "seed": seed, "code": code}
    if ledger.get(key) is None:
        print(f"seed {seed}", file=sys.stderr, flush=True)
        ledger.add(key, process.run("edgelearn_embeddings", key | {"data": str(data_file("fashion_mnist"))}))
    return ledger.get(key) or {}


def misses(found: list[dict[str, Any]]) -> list[str]:
    """What is promised and not kept."""
    said = []
    for dim in DIMS:
        below = mean(one["alone"][dim] - one["nested"][dim] for one in found)
        if below > WITHIN:
            said.append(f"{dim} dimensions are {below:.2f} below the same alone")
    above = mean(one["nested"]["4"] - one["truncated"]["4"] for one in found)
    if above < ABOVE:
        said.append(f"4 dimensions are only {above:.1f} above truncation")
    if min(one["found"] for one in found) < FOUND or max(one["multiplications"] for one in found) > SHARE:
        said.append("the funnel finds too few or multiplies too much")
    return said


def page(found: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    text = (
        "## Nested embeddings: `python -m bench.embeddings`\n\n"
        f"Features behind the two hidden layers of `mlp` (`tp-ce`, the first {SAMPLES:,} images of Fashion-MNIST, 5 "
        f"epochs), all\ntest images, in percent; means of {len(found)} seeds.\n\n"
        "| dimensions | nested | alone | difference | one classifier for all | truncated |\n|---|---|---|---|---|---|\n"
    )
    for dim in DIMS:
        nested, alone, shared, cut = (
            mean(one[what][dim] for one in found) for what in ("nested", "alone", "shared", "truncated")
        )
        text += f"| {dim} | {nested:.2f} | {alone:.2f} | {nested - alone:+.2f} | {shared:.2f} | {cut:.2f} |\n"
    cascade, whole, dims = (mean(one[what] for one in found) for what in ("cascade", "whole", "dims"))
    nearest, share = min(one["found"] for one in found), max(one["multiplications"] for one in found)
    text += (
        f"\n- The cascade, its thresholds chosen on one half of the test images, answers {cascade:.2f} % of the other "
        f"half right with\n  {dims:.1f} dimensions on average; all 64 answer {whole:.2f} %.\n"
        f"- The funnel finds the nearest of {SAMPLES:,} for {nearest:.1f} % of 1,000 queries with {share:.3f} of the "
        f"multiplications of\n  brute force (worst seed).\n"
        f"- Verdict: {'; '.join(misses(found)) or 'all promises kept'}.\n"
    )
    return text


def main() -> int:
    """Measure the seeds that are missing, print and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.embeddings", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="fewer than 3 write no page")
    seeds = parser.parse_args().seeds
    ledger, code = results.Ledger("embeddings"), code_of(ours=True)
    found = [measured(seed, ledger, code) for seed in range(seeds)]
    text = page(found)
    print(text)
    if seeds >= 3:
        report.write_section("bench.embeddings", text)
    return 1 if misses(found) else 0


if __name__ == "__main__":
    process.command(main)

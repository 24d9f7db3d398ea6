# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.latency`: how long submodels take here, beside what their plans say after calibration.

Runs `edgelearn bench calibrate`, then `edgelearn bench infer MODEL --width W` for submodels of every kind of layer.
Wants a quiet machine: a table that was measured under another load predicts for that load. Exits with 1 when fewer
than ten submodels are within 25 %, or cutting one takes more than a millisecond.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import edgelearn as el
from bench import process, report

MODELS = ("vgg8", "har-conv1d", "kws-conv1d", "har-gru", "kws-gru", "vit-tiny", "mlp")
WIDTHS = ("0.125", "0.25", "0.5", "1")
MIXES = (("vgg8", "0.25,0.25,0.5,0.5,0.5,1,1"), ("har-conv1d", "1,0.5,0.25"), ("har-gru", "0.5,1"))

WITHIN, LEAST, MOST_MS = 0.25, 10, 1.0
"""Of what is measured, as the most that a plan may be off, how many submodels must keep to it, and the most that
cutting one in memory may take."""


def command(*arguments: str) -> dict[str, Any]:
    """The result of an edgelearn command.

    Raises:
        MeasurementError: it failed.
    """
    line = [sys.executable, "-m", "edgelearn.cli", "bench", *arguments, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise process.MeasurementError(f"edgelearn bench {' '.join(arguments)}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def submodel(model: str, width: str) -> dict[str, Any]:
    """One row: planned and measured milliseconds of one sample."""
    print(f"{model} {width}", file=sys.stderr, flush=True)
    found = command("infer", model, "--width", width)["models"][0]
    return {"model": model, "width": width, **{key: found[key] for key in ("macs", "ms", "predicted_ms")}}


def cut_ms(name: str) -> float:
    """Milliseconds that cutting a submodel in memory takes: median of 100 views of every width."""
    model = el.load(name)
    net, spent = el.Net(model.layers, input=model.input, nested=True), []
    for width in 100 * [float(width) for width in WIDTHS]:
        start = time.perf_counter()
        net.submodel(width)
        spent.append(1000 * (time.perf_counter() - start))
    return median(spent)


def near(row: dict[str, Any]) -> bool:
    """Whether the plan is within 25 % of the measurement."""
    return bool(abs(row["predicted_ms"] / row["ms"] - 1) <= WITHIN)


def page(rows: Sequence[dict[str, Any]], cuts: dict[str, float], start: str) -> str:
    """The table in Markdown."""
    cells = [
        [row["model"], row["width"], f"{row['macs']:,}", *(f"{1000 * row[key]:.1f}" for key in ("predicted_ms", "ms"))]
        for row in rows
    ]
    for cell, row in zip(cells, rows, strict=True):
        cell += [f"{row['predicted_ms'] / row['ms']:.2f}", "yes" if near(row) else "no"]
    kept = sum(map(near, rows))
    ratios = [row["predicted_ms"] / row["ms"] for row in rows]
    head = ["model", "width", "multiply-adds", "planned, us", "measured, us", "ratio", f"within {WITHIN:.0%}"]
    return f"""## Planned and measured times: `python -m bench.latency`

One sample on one core, after `edgelearn bench calibrate` in the same run; medians of three processes each. {start}

{report.table(head, cells)}
{kept} of {len(rows)} submodels are within {WITHIN:.0%} ({LEAST} promised: {"pass" if kept >= LEAST else "miss"}); the
median ratio is {median(ratios):.2f}, the extremes {min(ratios):.2f} and {max(ratios):.2f}.

Cutting a submodel in memory, milliseconds: {", ".join(f"{name} {ms:.2f}" for name, ms in cuts.items())} \
({MOST_MS:g} promised: {"pass" if max(cuts.values()) <= MOST_MS else "miss"})."""


def main() -> int:
    """Calibrate, measure, print and write the page."""
    argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGELEARN_CALIBRATION"] = str(Path(folder) / "calibration.json")
        start = report.machine(command("calibrate")["isa"])
        pairs = [(model, width) for model in MODELS for width in WIDTHS] + list(MIXES)
        rows = [submodel(*pair) for pair in pairs]
    cuts = {name: cut_ms(name) for name in MODELS}
    text = page(rows, cuts, start)
    print(text)
    report.write_section("bench.latency", text)
    return 0 if sum(map(near, rows)) >= LEAST and max(cuts.values()) <= MOST_MS else 1


if __name__ == "__main__":
    process.command(main)

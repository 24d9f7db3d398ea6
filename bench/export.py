# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.export`: our files of cnn-small beside those of the big toolchains, in the same runtime and process.

int8 TFLite beside TensorFlow's converter, in LiteRT; float32 ONNX beside torch.onnx.export, in onnxruntime; int8 ONNX
beside that file as onnxruntime's own quantiser makes it int8. Exits with 1 when ours takes more than 1.05 of the time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import process, report, venvs
from bench.gradients import SHAPES
from bench.tasks import parsed

MODEL = "cnn-small"
LIMIT = 1.05
ROUNDS, SECONDS = 15, 0.2


@dataclass(frozen=True)
class Pair:
    """Our file beside that of a peer, which a script of bench/peers writes in an environment, or, where there is no
    name of one, in this."""

    ours: str
    theirs: str
    script: str
    venv: str
    title: str


PAIRS = (
    Pair("ours.tflite", "theirs.tflite", "tensorflow_export", "tensorflow", "int8 TFLite, TensorFlow's converter"),
    Pair("ours.onnx", "theirs.onnx", "torch_export", "torch_onnx", "float32 ONNX, torch.onnx.export"),
    Pair("ours_int8.onnx", "theirs_int8.onnx", "onnx_quantise", "", "int8 ONNX, torch.onnx.export and quantize_static"),
)


def measure(pair: Pair, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Have the peer write its file, then time both in turns."""
    suffix = Path(pair.theirs).suffix[1:]
    process.run(pair.script, job | {suffix: str(folder / pair.theirs)}, pair.venv or None)
    files = [str(folder / name) for name in (pair.ours, pair.theirs)]
    timing = {"files": files, "samples": job["samples"], "seconds": SECONDS, "rounds": ROUNDS}
    return process.run("runtime_pair", timing) | {"sizes": [Path(file).stat().st_size for file in files]}


def row(pair: Pair, found: dict[str, Any]) -> list[str]:
    """A line of the table."""
    ours, theirs = zip(*found["rounds"], strict=True)
    ratios = [a / b for a, b in found["rounds"]]
    sizes = [f"{size / 1024:.0f}" for size in found["sizes"]]
    verdict = "pass" if median(ratios) <= LIMIT else "miss"
    times = [report.spread(ours, 1), report.spread(theirs, 1), report.spread(ratios, 3)]
    return [pair.title, found["runtime"], *times, *sizes, f"{found['difference']:.1e}", verdict]


def section(rows: list[list[str]]) -> str:
    """The text of the page."""
    head = ["", "runtime", "ours, us", "theirs, us", "ours / theirs", "ours, KB", "theirs, KB", "difference", "<= 1.05"]
    return f"""## Exported files: `python -m bench.export`

{MODEL} with random weights, one sample at a time on one thread, both files in one process and timed in turns: median of
{ROUNDS} rounds (least to greatest); a ratio is taken inside a round. The difference is the largest of all outputs of 64
samples. {report.cpu()}; {venvs.installed(*(pair.venv for pair in PAIRS if pair.venv))}.

{report.table(head, rows)}"""


def main() -> int:
    """Measure, print, write the section."""
    argparse.ArgumentParser(prog="python -m bench.export", description=__doc__).parse_args()
    layers = parsed(process.ROOT / "models" / f"{MODEL}.toml")["layer"]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {"layers": layers, "shape": SHAPES[MODEL], "folder": name}
        job |= {"weights": str(folder / "weights.npz"), "samples": str(folder / "samples.npy")}
        job |= {"source": str(folder / "theirs.onnx")}  # what the pairs before write
        process.run("edgelearn_export", job)
        for pair in PAIRS:
            print(f"{pair.title} ...", file=sys.stderr, flush=True)
            rows.append(row(pair, measure(pair, job, folder)))
    text = section(rows)
    print(text)
    report.write_section("bench.export", text)
    return int(any("miss" in line for line in rows))


if __name__ == "__main__":
    process.command(main)

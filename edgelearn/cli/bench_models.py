# SPDX-License-Identifier: Apache-2.0
"""`edgelearn bench infer` and `edgelearn bench calibrate`: how long models take here, and the table that plans use."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgelearn.cli import options

INFER = "edgelearn bench infer out/model.safetensors --width 0.25"
CALIBRATE = "edgelearn bench calibrate"


def add(kinds: Any) -> None:
    """Declare both commands."""
    infer = options.command(kinds, "infer", "time models on one sample at a time, beside what plans say", INFER)
    infer.add_argument("files", nargs="+", metavar="FILE", help=".safetensors, a .toml, or a name in models/")
    infer.add_argument("--width", metavar="W", help="of nested models: one number, or one per hidden block")
    infer.add_argument("--board", metavar="B", help="whose plan stands beside it (default this machine)")
    infer.set_defaults(run=run_infer)
    calibrate = options.command(
        kinds, "calibrate", "measure the operations of this board, for plans to predict by", CALIBRATE
    )
    calibrate.add_argument("-o", "--output", metavar="FILE", help="where to keep the table (default: the user's cache)")
    calibrate.set_defaults(run=run_calibrate)


def run_infer(arguments: argparse.Namespace) -> int:
    """Time each file."""
    from edgelearn.calibration import latency_on

    latency = latency_on(arguments.board)
    found = [_timed(name, arguments.width, latency) for name in arguments.files]
    lines = [_line(one) for one in found]
    options.say(arguments, "\n".join(lines), {"models": found})
    return 0


def _timed(name: str, width: str | None, latency: Any) -> dict[str, Any]:
    from edgelearn import loading
    from edgelearn.calibration import of_graph

    net = options.cut(loading.load(name, nested=True if width and not name.endswith(".safetensors") else None), width)
    measured = of_graph(net.graph, net.flat) * 1e3
    predicted = None if latency is None else latency.seconds(net.graph) * 1e3
    return {"file": name, "widths": list(net.widths), "ms": measured, "predicted_ms": predicted, "macs": net.graph.macs}


def _line(one: dict[str, Any]) -> str:
    planned = one["predicted_ms"]
    beside = "run bench calibrate to have it predicted" if planned is None else f"planned {planned:.4g} ms"
    return f"{one['file']}: {one['ms']:.4g} ms per sample on one core, {beside}, {one['macs']:,} multiply-adds"


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Measure, keep, say."""
    from edgelearn import boards, calibration
    from edgelearn.progress import Counting

    board = boards.detect()
    table = calibration.measure(board, Counting("measured", "kinds of operations"))
    target = Path(arguments.output) if arguments.output else calibration.path()
    calibration.save(table, target)
    conv = table.kinds["conv"]
    rates = [2 * a * b * c / conv.at((a, b, c)) / 1e9 for a, b, c in ((64, 144, 16), (256, 576, 64))]
    text = (
        f"{board.name} on {table.isa}: convolutions {rates[0]:.1f} to {rates[1]:.1f} GFLOP/s, a call takes "
        f"{table.call * 1e6:.1f} us; wrote {target}, which plans for this machine read from now on"
    )
    result = {
        "board": board.name,
        "isa": table.isa,
        "file": str(target),
        "conv_gflops": rates,
        "call_us": table.call * 1e6,
    }
    options.say(arguments, text, result)
    return 0

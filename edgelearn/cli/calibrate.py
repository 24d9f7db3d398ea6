# SPDX-License-Identifier: Apache-2.0
"""`edgelearn bench calibrate`: how long operations take here, the table that plans use."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgelearn.cli import options

EXAMPLE = "edgelearn bench calibrate"


def add(kinds: Any) -> None:
    """Declare the command."""
    calibrate = options.command(
        kinds, "calibrate", "measure the operations of this board, for plans to predict by", EXAMPLE
    )
    calibrate.add_argument("-o", "--output", metavar="FILE", help="where to keep the table (default: the user's cache)")
    calibrate.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, keep, say."""
    from edgelearn.costs import boards, calibration
    from edgelearn.training.progress import Counting

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

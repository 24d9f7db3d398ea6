# SPDX-License-Identifier: Apache-2.0
"""`edgelearn boards [detect|check FILE]`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgelearn.cli import options
from edgelearn.errors import UsageError

EXAMPLE = "edgelearn boards check my-board.toml"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(
        commands, "boards", "list the boards that plans know, or say which this machine is", EXAMPLE
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("list", "detect", "check"),
        default="list",
        help="list (default); detect: this machine's profile; check FILE: whether a profile is complete",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="of a board, for check: a .toml as boards/*.toml")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print boards, one a line, and their figures with sources for one alone."""
    from edgelearn.costs import boards

    if (arguments.what == "check") != (arguments.file is not None):
        raise UsageError("boards check takes the file of one board: edgelearn boards check FILE")
    if arguments.what == "list":
        known = [boards.load(name) for name in dict.fromkeys(boards.names())]
        options.say(arguments, "\n".join(map(str, known)), {"boards": [asdict(board) for board in known]})
        return 0
    board = boards.detect() if arguments.what == "detect" else boards.check(Path(arguments.file))
    options.say(arguments, _text(board), asdict(board))
    return 0


def _text(board: Any) -> str:
    width = max(map(len, board.figures))
    lines = [f"  {name:{width}}  {_said(value):>24}  {board.sources[name]}" for name, value in board.figures.items()]
    return "\n".join([str(board), *lines])


def _said(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)

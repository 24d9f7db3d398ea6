# SPDX-License-Identifier: Apache-2.0
"""Options of the commands that talk to the daemon, and how they say versions."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgelearn.cli import options

if TYPE_CHECKING:
    from edgelearn.client import Client


def command(commands: options.Commands, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A command that talks to the daemon."""
    parser = options.command(commands, name, summary, example)
    parser.add_argument(
        "--daemon",
        metavar="ADDRESS",
        help="unix:PATH or HOST:PORT (default EDGELEARN_DAEMON, or unix:/run/edgelearn/api.sock)",
    )
    parser.add_argument("--token", metavar="T", help="for TCP (default EDGELEARN_TOKEN); it is in DIR/token")
    return parser


def client(arguments: argparse.Namespace) -> Client:
    """The daemon that was named."""
    from edgelearn.client import Client

    return Client(arguments.daemon, arguments.token)


def table(rows: Iterable[Iterable[Any]]) -> str:
    """Columns."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts)
    return "\n".join(lines)


def accuracy(version: Mapping[str, Any]) -> str:
    """What the gate measured, if it did."""
    after = version["metrics"].get("after")
    return "" if after is None else f"{after:.4f}"


def moment(seconds: float) -> str:
    """A time of day and date as people write it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def line(version: Any) -> str:
    """A version in a sentence."""
    return f"version {version.number} ({version.id[:12]})"

# SPDX-License-Identifier: Apache-2.0
"""`edgelearn rollback [VERSION]`."""

from __future__ import annotations

import argparse

from edgelearn.cli import options, remote

EXAMPLE = "edgelearn rollback"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = remote.command(commands, "rollback", "have the version answer that did before, or another", EXAMPLE)
    parser.add_argument(
        "version", metavar="VERSION", nargs="?", help="the beginning of its id (default: the one before)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Without a failed request."""
    with remote.client(arguments) as client:
        version = client.rollback(arguments.version)
    options.say(arguments, f"{remote.line(version)} answers again", version.to_json())
    return 0

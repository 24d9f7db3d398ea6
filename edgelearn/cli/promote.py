# SPDX-License-Identifier: Apache-2.0
"""`edgelearn promote VERSION`."""

from __future__ import annotations

import argparse

from edgelearn.cli import options, remote

EXAMPLE = "edgelearn promote 3fa91c"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = remote.command(commands, "promote", "have a version answer", EXAMPLE)
    parser.add_argument("version", metavar="VERSION", help="the beginning of its id, from edgelearn history")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """A person decided, so no gate is asked; one that does not answer is refused all the same."""
    with remote.client(arguments) as client:
        version = client.promote(arguments.version)
    options.say(arguments, f"{remote.line(version)} answers now; back: edgelearn rollback", version.to_json())
    return 0

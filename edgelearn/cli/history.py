# SPDX-License-Identifier: Apache-2.0
"""`edgelearn history`."""

from __future__ import annotations

import argparse

from edgelearn.cli import options, remote

EXAMPLE = "edgelearn history"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = remote.command(commands, "history", "list the daemon's versions, newest first", EXAMPLE)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default 20)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """A row each."""
    with remote.client(arguments) as client:
        versions = client.versions(arguments.limit)
    rows = [
        (
            v["number"],
            v["id"][:12],
            v["state"],
            remote.accuracy(v),
            remote.moment(v["created"]),
            v["reason"] or v["note"],
        )
        for v in versions
    ]
    text = remote.table([("", "id", "state", "accuracy", "when", "note"), *rows])
    options.say(arguments, text, {"versions": versions})
    return 0

# SPDX-License-Identifier: Apache-2.0
"""`edgelearn watch`."""

from __future__ import annotations

import argparse
import json

from edgelearn.cli import options, remote

EXAMPLE = "edgelearn watch"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = remote.command(commands, "watch", "print what happens at the daemon, until Ctrl-C", EXAMPLE)
    parser.add_argument("--once", action="store_true", help="print what is known by now, and end")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """A line for each event; with --json, each as an object."""
    with remote.client(arguments) as client:
        last = client.status()["last_event"] if arguments.once else None
        if last == 0:
            return 0
        for event in client.watch():
            text = f"{remote.moment(event['created'])}  {event['kind']:<16} {event['message']}"
            print(json.dumps(event) if arguments.json else text, flush=True)
            if last is not None and event["id"] >= last:
                break
    return 0

# SPDX-License-Identifier: Apache-2.0
"""`edgelearn cancel [JOB]`."""

from __future__ import annotations

import argparse

from edgelearn.cli import options, remote

EXAMPLE = "edgelearn cancel"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = remote.command(commands, "cancel", "end the daemon's training job; samples and versions stay", EXAMPLE)
    parser.add_argument("job", metavar="JOB", nargs="?", type=int, help="its number (default: the one under way)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """What it learned is learned again by the next job."""
    with remote.client(arguments) as client:
        job = client.cancel(arguments.job)
    is_cancelled = job["state"] == "cancelled"
    more = "train again: edgelearn samples --train" if is_cancelled else "it had come to its end before"
    options.say(arguments, f"job {job['id']} {job['state']}; {more}", job)
    return 0

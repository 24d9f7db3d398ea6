# SPDX-License-Identifier: Apache-2.0
"""`edgelearn push FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgelearn.cli import options, remote
from edgelearn.errors import ModelError

EXAMPLE = "edgelearn push out/model.safetensors --note 'evening clips'"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = remote.command(commands, "push", "send a model to the daemon, as a new version", EXAMPLE)
    parser.add_argument("file", metavar="FILE", help="a model.safetensors; the first one becomes live")
    parser.add_argument("--note", default="", metavar="TEXT", help="kept with the version")
    parser.add_argument("--promote", action="store_true", help="have it answer at once")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send it; it is tried there before it is taken."""
    path = Path(arguments.file)
    if not path.is_file():
        raise ModelError(f"cannot read {path}: give the path of a model.safetensors")
    with remote.client(arguments) as client:
        version = client.push(path, arguments.note)
        if arguments.promote:
            client.promote(version.id)
        live = client.status()["live"]
    answers = live is not None and live["id"] == version.id
    hint = "it answers" if answers else f"to have it answer: edgelearn promote {version.id[:12]}"
    options.say(arguments, f"{remote.line(version)} arrived; {hint}", version.to_json())
    return 0

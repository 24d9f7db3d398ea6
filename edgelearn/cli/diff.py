# SPDX-License-Identifier: Apache-2.0
"""`edgelearn diff A B`."""

from __future__ import annotations

import argparse
from typing import Any

from edgelearn.cli import options, remote

EXAMPLE = "edgelearn diff 3fa91c 77b02d"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = remote.command(commands, "diff", "say what one version does otherwise than another", EXAMPLE)
    parser.add_argument("first", metavar="A", help="the beginning of a version's id")
    parser.add_argument("second", metavar="B", help="that of another")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Metrics, then how far each array of weights moved."""
    with remote.client(arguments) as client:
        found = client.diff(arguments.first, arguments.second)
    options.say(arguments, _text(found), found)
    return 0


def _text(found: dict[str, Any]) -> str:
    metrics = [
        (name, f"{m['from']:.4g}", f"{m['to']:.4g}", f"{m['change']:+.4g}") for name, m in found["metrics"].items()
    ]
    layers = [
        (layer["name"], "another shape" if layer["change"] is None else f"moved by {layer['change']:.2%} of its size")
        for layer in found["layers"]
    ]
    parts = [remote.table([("metric", "from", "to", "change"), *metrics])] if metrics else []
    return "\n\n".join([*parts, remote.table(layers)])

# SPDX-License-Identifier: Apache-2.0
"""`edgelearn samples [DATA]`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from edgelearn.cli import options, remote

EXAMPLE = "edgelearn samples clips/ --train"

_AT_ONCE = 64


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = remote.command(commands, "samples", "send samples to the daemon, or list what it has", EXAMPLE)
    parser.add_argument("data", metavar="DATA", nargs="?", help=".npz or class folder, whose training samples are sent")
    options.add_data(parser)
    parser.add_argument("--add-class", metavar="NAME", help="let samples be of a new class; training adds it")
    parser.add_argument("--train", action="store_true", help="have it train on what is labelled by then")
    parser.add_argument("--label", metavar="L", help="list only samples with this label; '' for those without")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many are listed (default 20)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send or list, then train if asked to; what was sent is said before anything else can fail."""
    with remote.client(arguments) as client:
        result: dict[str, Any] = {}
        if arguments.add_class:
            client.add_class(arguments.add_class)
        if arguments.data:
            result["sent"] = _send(client, options.load_data(arguments, arguments.data, _input()))
            print(f"sent {result['sent']:,} samples, all of them on the daemon's disk", flush=True)
        listed = client.samples(arguments.limit, arguments.label)
        if arguments.train:
            result["job"] = client.train()["id"]
    options.say(arguments, _text(result, listed), {**result, **listed})
    return 0


def _input() -> Any:
    """How files become samples where nothing is declared; the daemon refuses other shapes than its model takes."""
    from edgelearn.inputs.frontend import Input

    return Input()


def _send(client: Any, dataset: Any) -> int:
    x, y, names = dataset.x_train, dataset.y_train, dataset.classes
    for start in range(0, len(x), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        labels = [names[index] for index in y[part]] if names else y[part]
        client.partial_fit(x[part], labels)
        if sys.stderr.isatty():
            print(f"\rsent {min(start + _AT_ONCE, len(x)):,} of {len(x):,}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return len(x)


def _text(result: dict[str, Any], listed: dict[str, Any]) -> str:
    counts = [(name or "(none)", f"{count:,}") for name, count in sorted(listed["counts"].items())]
    lines = [remote.table([("label", "samples"), *counts])] if counts else ["no samples yet"]
    if "sent" not in result and listed["samples"]:
        rows = [(s["id"], s["label"] or "", s["source"], remote.moment(s["created"])) for s in listed["samples"]]
        lines += ["", remote.table([("id", "label", "from", "when"), *rows])]
    if "job" in result:
        lines.append(f"job {result['job']} trains: edgelearn watch")
    return "\n".join(lines)

# SPDX-License-Identifier: Apache-2.0
"""`edgelearn status`."""

from __future__ import annotations

import argparse
from typing import Any

from edgelearn.cli import options, remote

EXAMPLE = "edgelearn status"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    remote.command(commands, "status", "say what the daemon does, and why", EXAMPLE).set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    with remote.client(arguments) as client:
        status = client.status()
    options.say(arguments, _text(status), status)
    return 0


def _text(status: dict[str, Any]) -> str:
    live, job, board = status["live"], status["job"], status["board"]
    rows = [("state", status["state"] + (f", {status['reason']}" if status["reason"] else ""))]
    rows.append(("model", f"{status['model']}, version {live['number']} ({live['id'][:12]})" if live else "none"))
    rows.append(("samples", f"{sum(status['samples'].values()):,}, {status['fresh']:,} new labels"))
    if job:
        rows.append(("job", f"{job['id']} {job['state']}, {_about(job, status['reason'])}"))
    if "temperature" in board:
        rows.append(("heat", f"{board['temperature']:.0f} degrees"))
    rows.append(("disk", f"{status['disk_free_bytes'] >> 20:,} MB free"))
    return remote.table(rows)


def _about(job: dict[str, Any], known: str) -> str:
    """Why a job is as it is, if that is not known, or else how far it has come."""
    news = job["reason"] if job["reason"] != known else ""
    return news or f"{job['done']:.0%} of its samples learned"

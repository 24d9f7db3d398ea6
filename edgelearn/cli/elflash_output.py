# SPDX-License-Identifier: Apache-2.0
"""What elflash says: text or JSON lines, and how far a transfer is: a bar on a terminal, a line per tenth elsewhere."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Verbs = Any
"""What argparse's add_subparsers returns; its class has no public name."""
_WIDTH, _NARROW, _BLINK = 24, 5, 0.1


def verb(verbs: Verbs, name: str, summary: str, example: str, run: Callable[[argparse.Namespace], int]) -> Any:
    """A verb whose help ends with an example."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)
    return parser


def say(arguments: argparse.Namespace, text: str, /, **result: Any) -> None:
    """Text for people, or one JSON object for programs."""
    if arguments.json:
        print(json.dumps(result), flush=True)
    elif text and not arguments.silent:
        print(text, flush=True)


def tell(arguments: argparse.Namespace, text: str) -> None:
    """A word on the way, on stderr."""
    if not arguments.silent and not arguments.json:
        print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as people write them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


def drawn(share: float, text: str, columns: int) -> str:
    """A bar and its text in one line of a terminal: the bar gives way first, then the end of the text."""
    width = min(_WIDTH, columns - len(text) - 4)
    full = int(width * share)
    line = f"[{'#' * full}{'.' * (width - full)}] {text}" if width >= _NARROW else text
    return line[: columns - 1]


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


class Bar:
    """Told how many bytes are there; `retries` gives what had to be sent again."""

    def __init__(self, arguments: argparse.Namespace, name: str, retries: Callable[[], int]) -> None:
        self._json, self._name, self._retries = arguments.json, name, retries
        self._quiet = arguments.silent or arguments.no_progress
        self._start = self._drawn = time.monotonic()
        self._first: int | None = None
        self._tenth = 0

    def __call__(self, done: int, total: int) -> None:
        """Show it."""
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        rate = (done - self._first) / (now - self._start) if now > self._start else 0.0
        over, tenth = done >= total, 10 * done // total
        moving = sys.stderr.isatty() and not self._json
        due = over or (now - self._drawn >= _BLINK if moving else tenth > self._tenth)
        if self._quiet or not due:
            return
        self._drawn, self._tenth = now, tenth
        if self._json:
            event = {"event": "progress", "file": self._name, "bytes": done, "of": total, "retries": self._retries()}
            print(json.dumps(event), flush=True)
            return
        eta = "" if over or not rate else f", ETA {clock((total - done) / rate)}"
        again = self._retries()
        retries = f", {again} {'retry' if again == 1 else 'retries'}" if again else ""
        speed = f", {rate / 1024:.1f} KiB/s" if rate else ""
        text = f"{self._name} {done:,} of {total:,} bytes{speed}{retries}{eta}"
        if moving:
            sys.stderr.write(f"\r\033[K{drawn(done / total, text, _columns())}" + ("\n" if over else ""))
        else:
            sys.stderr.write(f"{100 * done // total:3d} % {text}\n")
        sys.stderr.flush()

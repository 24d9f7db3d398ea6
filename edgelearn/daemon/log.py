# SPDX-License-Identifier: Apache-2.0
"""Lines for people and journald: `<priority>text key=value` on stderr under systemd, without the priority elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Any

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities of syslog, which journald reads in front of a line."""


def error(text: str, **fields: Any) -> None:
    """Something failed that should not."""
    line(ERROR, text, **fields)


def line(priority: int, text: str, **fields: Any) -> None:
    """One line, and one more for each line of a `trace`."""
    trace = fields.pop("trace", "")
    rest = "".join(f" {key}={value}" for key, value in fields.items())
    head = f"<{priority}>" if "JOURNAL_STREAM" in os.environ else ""
    whole = " ".join(f"{text}{rest}".splitlines())  # a note or name with a line end would pass for lines of our own
    lines = [whole, *str(trace).splitlines()]
    print("\n".join(head + part for part in lines), file=sys.stderr, flush=True)

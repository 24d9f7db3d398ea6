# SPDX-License-Identifier: Apache-2.0
"""What long sweeps measure, as docs/reliability.md. The page itself holds what is known: each sweep replaces its own
rows there, so that one can be run again alone and what others measured stays."""

import fcntl
import os
import platform
import re
import time
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"

HEAD = """# Reliability

Written by `make soak` (`tests/reliability.py`); every number was measured by the run that its section names, and each
section says when its latest row was written and where. `make test` runs a sample of each sweep with a fixed seed.
Tests: `tests/test_*cuts.py`, `tests/test_learner_streams.py`, `tests/test_daemon_*.py`.
"""


def seeds(most):
    """Seeds of a sweep; EDGELEARN_SOAK_SEEDS takes fewer."""
    return range(min(most, int(os.environ.get("EDGELEARN_SOAK_SEEDS", most))))


def record(title, words, columns, rows, keys=1):
    """Put rows of numbers and text under columns into a section of the page, in place of those with the same first
    `keys` cells; rows under other columns go."""
    with PAGE.open("r+") as page:
        fcntl.flock(page, fcntl.LOCK_EX)
        sections = parsed(page.read())
        new = [[_cell(cell) for cell in row] for row in rows]
        old = sections.get(title, {"columns": columns, "rows": []})
        known = old["rows"] if old["columns"] == columns else []
        kept = [row for row in known if row[:keys] not in [each[:keys] for each in new]]
        sections[title] = {"words": words, "columns": columns, "rows": [*kept, *new], "when": _here()}
        page.seek(0)
        page.truncate()
        page.write("\n".join([HEAD, *(_section(name, **each) for name, each in sections.items())]))


def parsed(text):
    """The sections of a page by their titles."""
    sections = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, words, table, *rest = part.strip().split("\n\n")
        columns, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        sections[title] = {"words": words, "columns": columns, "rows": rows, "when": "".join(rest)}
    return sections


def struck(what, how, operations):
    """Keep that every operation of something was struck, and that each check afterwards held."""
    words = (
        "Every operation on the file system (create, write, sync, rename, remove, make a folder, sync a folder) is "
        "struck once, in a run of its own: the power goes and what was not synced is lost, with or without the names; "
        "the process gets a SIGKILL; the operation is refused and the process lives on. Each run asserts that its cut "
        "fired, that the older or the newer version serves, that what was acknowledged is there, and that the same "
        "done again ends as if nothing had been."
    )
    columns = ["what", "how", "operations", "cuts that fired"]
    record("Cuts at every operation", words, columns, [[what, how, operations, operations]], keys=2)


def _here():
    """When and where a row was measured."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"Latest row: {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {found[1] if found else platform.machine()}."
    )


def _section(title, words, columns, rows, when):
    lines = [f"## {title}", "", words, "", _row(columns), _row(["---"] * len(columns)), *map(_row, rows), ""]
    return "\n".join([*lines, when, ""] if when else lines)


def _cell(cell):
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _row(cells):
    return "| " + " | ".join(cells) + " |"

# SPDX-License-Identifier: Apache-2.0
"""What long sweeps measure, as docs/reliability.md: each sweep keeps its section in build/reliability, and the page is
made of all of them, so that one sweep can be run again alone."""

import json
import os
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECTIONS = ROOT / "build" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"

HEAD = """# Reliability

Written by `make soak` (`tests/reliability.py`); every number was measured by the run that its section names. `make
test` runs a sample of each sweep with a fixed seed. Tests: `tests/test_*cuts.py`, `tests/test_learner_streams.py`.
"""


def seeds(most):
    """Seeds of a sweep; EDGELEARN_SOAK_SEEDS takes fewer."""
    return range(min(most, int(os.environ.get("EDGELEARN_SOAK_SEEDS", most))))


def record(name, title, words, columns, row, keys=1):
    """Keep a row of numbers and text under columns in a section, in place of the one with the same first `keys` cells,
    and write the page."""
    SECTIONS.mkdir(parents=True, exist_ok=True)
    path = SECTIONS / f"{name}.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [*(other for other in known if other[:keys] != row[:keys] and len(other) == len(columns)), row]
    path.write_text(json.dumps({"title": title, "words": words, "columns": columns, "rows": rows}, indent=1))
    found = [json.loads(each.read_text()) for each in sorted(SECTIONS.glob("*.json"))]
    PAGE.write_text("\n".join([HEAD, *(_section(**each) for each in found)]))


def struck(what, how, operations):
    """Keep that every operation of something was struck, and that each check afterwards held."""
    words = (
        "Every operation on the file system (create, write, sync, rename, remove, make a folder, sync a folder) is "
        "struck once, in a run of its own: the power goes and what was not synced is lost, with or without the names; "
        "the process gets a SIGKILL; the operation is refused and the process lives on. Each run asserts that its cut "
        "fired, that the older or the newer version serves, that what was acknowledged is there, and that the same "
        "done again ends as if nothing had been."
    )
    row = [what, how, operations, operations]
    record("cuts", "Cuts at every operation", words, ["what", "how", "operations", "cuts that fired"], row, keys=2)


def _section(title, words, columns, rows):
    lines = [f"## {title}", "", words, "", _row(columns), _row(["---"] * len(columns)), *map(_row, rows), ""]
    return "\n".join(lines)


def _row(cells):
    return "| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"

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


def record(name, title, words, columns, rows):
    """Keep a section, whose rows are lists of numbers and text under columns, and write the page."""
    SECTIONS.mkdir(parents=True, exist_ok=True)
    section = {"title": title, "words": words, "columns": columns, "rows": rows}
    (SECTIONS / f"{name}.json").write_text(json.dumps(section, indent=1))
    found = [json.loads(path.read_text()) for path in sorted(SECTIONS.glob("*.json"))]
    PAGE.write_text("\n".join([HEAD, *(_section(**each) for each in found)]))


def _section(title, words, columns, rows):
    lines = [f"## {title}", "", words, "", _row(columns), _row(["---"] * len(columns)), *map(_row, rows), ""]
    return "\n".join(lines)


def _row(cells):
    return "| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"

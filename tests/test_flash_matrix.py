# SPDX-License-Identifier: Apache-2.0
"""The matrix of docs/flashing.md names tests that there are, and has every row that concerns flashing."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "flashing.md").read_text()


def test_every_named_test_is_there():
    known = {name for path in ROOT.glob("tests/test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(named) > 30
    assert set(named) <= known


def test_every_row_is_there():
    rows = {int(n) for cell in re.findall(r"^\| ([\d, ]+) \|", PAGE, re.M) for n in cell.split(",")}
    assert {*range(1, 17), 20, 29, 30, 31} <= rows

# SPDX-License-Identifier: Apache-2.0
"""What `bench.adapt` has measured so far, by study and by the code that it measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.results import Ledger, digest_code

CODE = digest_code(
    [
        *(Path(__file__).parent / name for name in ("adapt_studies.py", "adapt_compatible.py", "shifts.py")),
        *sorted((Path(__file__).parent.parent / "edgelearn" / "adaptation").glob("*.py")),
        *sorted((Path(__file__).parent.parent / "edgelearn" / "adapters").glob("*.py")),
        Path(__file__).parent.parent / "edgelearn" / "heads.py",
    ]
)

DRAWS = {"shift": 5, "person": 1, "speaker": 1, "optimizer": 3, "classes": 3, "retrieval": 2}
"""Draws of the samples, or seeds, by study."""


class Bench:
    """Measures what the ledger does not know."""

    def __init__(self, draws: int | None, fresh: bool) -> None:
        self.ledger, self._draws = Ledger("adapt", fresh), draws

    def draws(self, study: str) -> int:
        """How many there are of a study."""
        return self._draws or DRAWS[study]

    def of(self, study: Callable[..., dict[str, Any]], **key: Any) -> dict[str, Any]:
        """A study's result."""
        entry = {"study": study.__name__, "code": CODE, **key}
        found = self.ledger.get(entry)
        if found is None:
            print(f"{study.__name__} {key} ...", file=sys.stderr, flush=True)
            found = study(**key)
            self.ledger.add(entry, found)
        return found

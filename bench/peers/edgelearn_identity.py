# SPDX-License-Identifier: Apache-2.0
"""Says which edgelearn is measured: a digest of what learning passes through, and the instruction set."""

from __future__ import annotations

import json
import sys
from pathlib import Path

# Last on the path, so that an installed edgelearn is not hidden by the checkout's sources.
sys.path.append(str(Path(__file__).resolve().parents[2]))

import edgelearn
from bench.results import digest_code
from edgelearn import engines

NOT_LEARNING = {"cli", "export", "daemon", "flash", "numba", "costs", "learning", "store", "adaptation", "plots.py"}

if __name__ == "__main__":
    package, isa = Path(edgelearn.__file__).parent, engines.load("native").isa
    files = [p for p in package.rglob("*.py") if NOT_LEARNING.isdisjoint(p.relative_to(package).parts)]
    # An editable installation keeps the extension elsewhere.
    files.append(Path(str(sys.modules["edgelearn._ffi"].__file__)))
    print(json.dumps({"digest": digest_code(files), "isa": isa}))

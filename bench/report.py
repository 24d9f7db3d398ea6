# SPDX-License-Identifier: Apache-2.0
"""docs/benchmarks.md: each command owns one marked section and rewrites no other."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.process import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Each section is written by the command it names. A timing means something only as a ratio to a peer of the
same run, so the timings of two sections are not to be compared.
"""


def machine(isa: str) -> str:
    """CPU, cores, instruction set, Python and load, in one line without names or paths of the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    return (
        f"{cpu()}, {cores} cores, {platform.machine()}, instruction set {isa}, {platform.system()}, "
        f"Python {platform.python_version()}, load {load:.1f} before the run"
    )


def cpu() -> str:
    """The name Linux gives the CPU, or else the board (Arm kernels name only that), or the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    pairs = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    return pairs.get("model name") or pairs.get("Model") or platform.machine()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column left, the others right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows)) + "\n"


def spread(values: Sequence[float], digits: int) -> str:
    """`median (least to greatest)`."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def write_section(name: str, body: str) -> None:
    """Replace the section `name` of the page, or append it; the page is replaced in one move."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{begin}\n{body.strip()}\n{end}\n"
    text = PAGE.read_text() if PAGE.is_file() else HEAD
    before, found, rest = text.partition(begin)
    after = rest.partition(end)[2].lstrip("\n") if found else ""
    if not found:
        before = before.rstrip("\n") + "\n\n"
    PAGE.parent.mkdir(exist_ok=True)
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(before + section + ("\n" + after if after else ""))
    temporary.replace(PAGE)

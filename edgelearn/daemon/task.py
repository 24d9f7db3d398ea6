# SPDX-License-Identifier: Apache-2.0
"""What the daemon and its training process agree on, without what either of them needs."""

from __future__ import annotations

from dataclasses import dataclass, field

DONE, REFUSED, INTERRUPTED = 0, 65, 75
"""Exit codes as in sysexits.h: Python itself ends with none of them; 75 means that it goes on when it is run again."""


@dataclass(frozen=True)
class Task:
    """What to do: learn the samples up to the label number `until`, in a data folder; `classes` may be new. The rest is
    `[train]` and `[keep]` of the configuration, in bytes."""

    folder: str
    until: int
    note: str = ""
    classes: list[str] = field(default_factory=list)
    replay: int = 2 << 20
    rehearsals: int = 6
    lr: float = 0.0
    min_samples: int = 50
    max_drop: float = 0.01
    checkpoint_seconds: float = 30.0
    keep_bytes: int = 64 << 20
    priority: str = "idle"
    write_budget: int = 0

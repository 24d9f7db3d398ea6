# SPDX-License-Identifier: Apache-2.0
"""A job, and the file that jobs are remembered in."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgelearn.durable import replacing, write_through
from edgelearn.errors import EdgelearnError
from edgelearn.store.versions import seal, unseal

KEPT = 50
"""Jobs that are remembered."""

ENDED = ("live", "kept", "refused", "failed", "cancelled")

ATTEMPTS = 3
"""Times that a training process may die, or outgrow its memory, before its job has failed."""


@dataclass
class Job:
    """One of them; its states are drawn in jobs.py. `until` is the number of the last label that it learns, `done` a
    share."""

    id: int
    state: str = ""
    reason: str = ""
    policy: str = "manual"
    note: str = ""
    until: int = 0
    created: float = 0.0
    done: float = 0.0
    samples: int = 0
    loss: float | None = None
    version: str | None = None
    attempts: int = 0

    @property
    def is_active(self) -> bool:
        """Whether it is still under way."""
        return self.state not in ENDED


def encoded(jobs: list[Job]) -> bytes:
    """Jobs as they are written."""
    return seal({"jobs": [asdict(job) for job in jobs]})


def write(path: Path, content: bytes) -> None:
    """Put them on the disk, or leave it where there is no room: what counts is in the versions."""
    with suppress(EdgelearnError), replacing(path) as partial:
        write_through(partial, [content])


def read(path: Path) -> list[Job]:
    """Jobs from the disk; none where they are damaged, for what counts is in the versions."""
    names = {f.name for f in fields(Job)}
    with suppress(OSError, EdgelearnError, KeyError, TypeError):
        return [Job(**{k: v for k, v in item.items() if k in names}) for item in unseal(path.read_bytes())["jobs"]]
    return []


def described(job: Job) -> dict[str, Any]:
    """A job for the API, which says whether it is still under way."""
    return {**asdict(job), "active": job.is_active}

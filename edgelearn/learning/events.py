# SPDX-License-Identifier: Apache-2.0
"""What happens to a learner, for whoever watches it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

KEPT = 1000
"""Latest events that are kept."""


@dataclass(frozen=True)
class Event:
    """Something that happened after `sample` samples. Kinds: refused, drift, kept (a version does not serve yet),
    shadow, promoted, rolled back, reset, resumed, damage."""

    kind: str
    message: str
    sample: int


class Events(deque[Event]):
    """The latest events; `watch` is told each as it happens, `sample` is how many samples came before."""

    def __init__(self, watch: Callable[[Event], None] | None = None) -> None:
        super().__init__(maxlen=KEPT)
        self._watch, self.sample = watch, 0

    def note(self, kind: str, message: str) -> None:
        """Something happened."""
        event = Event(kind, message, self.sample)
        self.append(event)
        if self._watch:
            self._watch(event)

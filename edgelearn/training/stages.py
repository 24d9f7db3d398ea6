# SPDX-License-Identifier: Apache-2.0
"""A run as a row of stages: each trains some groups of a net in a session of its own, on what the group before them
hands on. The interleaved schedule is one stage; the sequential one has a stage for each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Session
from edgelearn.training.cache import Cache, Cached
from edgelearn.training.checkpoint import Checkpoints
from edgelearn.training.feed import Feed
from edgelearn.training.history import History
from edgelearn.training.validation import Validation

Groups = tuple[int, int]
"""First and last group that a stage trains."""


@dataclass(frozen=True, eq=False)
class Stage:
    """Stage number `index` of a run: `session` trains `groups` on `feed`."""

    index: int
    session: Session
    groups: Groups
    feed: Feed
    validation: Validation | None


@dataclass(eq=False)
class Stages:
    """The stages of a run, one open at a time. `open_session` gets the groups to train.

    With a `cache`, a stage reads the outputs of the group before it from disk; without, samples go through all earlier
    groups every time. With `checkpoints`, what an earlier process finished is not done again.
    """

    open_session: Callable[[Groups], Session]
    groups: tuple[Groups, ...]
    feed: Feed
    validation: Validation | None = None
    cache: Cache | None = None
    checkpoints: Checkpoints | None = None
    _session: Session | None = None
    _cached: Cached | None = None

    @property
    def finished(self) -> int:
        """Stages that an earlier process has finished."""
        return self.checkpoints.finished if self.checkpoints else 0

    def begin(self, params: NDArray[np.float32]) -> History:
        """What happened in the finished stages; `params` are brought to where they ended.

        Raises:
            DataError: a file of the earlier process is damaged; nothing has changed.
        """
        if not self.checkpoints:
            return History()
        outputs = self.checkpoints.outputs
        if outputs and self.cache:
            outputs.verify(self.cache.folder)
            self._enter(self.cache, outputs)
        return self.checkpoints.restore(params)

    def open(self, index: int) -> Stage:
        """Close the stage before and open this one, its weights kept.

        Raises:
            LearningError: outputs that are not finite.
            OutputError: the outputs that it reads cannot be written.
        """
        self.close()
        first, last = self.groups[index]
        session = self.open_session((first, last))
        session.keep()
        self._session = session
        if self.cache and self.feed.entry.group < first:
            self._hand_on(self.cache, session, first)
        return Stage(index, session, (first, last), self.feed, self.validation)

    def finish(self, stage: int, params: NDArray[np.float32], history: History) -> None:
        """Take note that a stage is done; the last one ends the run, after which there is nothing to go on with.

        Raises:
            OutputError: the note cannot be written.
        """
        if self.checkpoints and stage + 1 < len(self.groups):
            self.checkpoints.save(stage + 1, params, history)

    def revert(self) -> None:
        """Bring the kept weights back. Between two stages they are the weights."""
        if self._session:
            self._session.revert()

    def close(self) -> None:
        """Let go of the open stage's session."""
        if self._session:
            self._session.close()
        self._session = None

    def _hand_on(self, cache: Cache, session: Session, first: int) -> None:
        """Write what group `first` reads; the older file goes when nothing names it any more."""
        older = self._cached
        cached = cache.write(session, self.feed.x, self.feed.entry, first - 1)
        if self.checkpoints:
            self.checkpoints.hand_on(cached)
        self._enter(cache, cached)
        if older:
            cache.remove(older)

    def _enter(self, cache: Cache, cached: Cached) -> None:
        x = cached.open(cache.folder)
        self.feed = self.feed.entering(x, cached.entry)
        self.validation = self.validation and self.validation.entering(x, cached.entry)
        self._cached = cached

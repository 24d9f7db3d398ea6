# SPDX-License-Identifier: Apache-2.0
"""The version of a store that answers, and how another takes its place: the pointer first, then the net."""

from __future__ import annotations

from edgelearn.errors import ModelError
from edgelearn.learning.rehearsal import Answers
from edgelearn.learning.step import Note
from edgelearn.loading import load
from edgelearn.net import Net
from edgelearn.store import Store
from edgelearn.store.versions import Version


class Serving:
    """What answers: `version` of `store`, by `answers`. `note` is told what cannot be loaded.

    A store's live version serves, or `net` as the first one of an empty store; one that cannot be loaded gives way to
    what was live before it.
    """

    def __init__(self, store: Store, net: Net, note: Note) -> None:
        self.store, self._note = store, note
        version = store.current()
        if version is None:
            version = store.activate(store.commit(net.to_bytes(), note="as it came").id)
        self.version, self.answers = self._loaded(version)

    @property
    def net(self) -> Net:
        """The net that answers."""
        return self.answers.net

    def promote(self, version_id: str) -> Version:
        """Have a version answer.

        Raises:
            UsageError: no such version.
            ModelError: it is damaged, no model, or one for other samples; what answers stays.
        """
        net = self._suitable(version_id)
        return self.take(self.store.activate(version_id), Answers(net))

    def rollback(self, version_id: str | None) -> Version:
        """Have the version answer that did before, or the one of an id.

        Raises:
            UsageError: no such version.
            ModelError: it is damaged or no model; what answers stays.
        """
        if version_id is not None:
            self._suitable(version_id)
        version = self.store.rollback(version_id)
        return self.take(version, self.of(version))

    def take(self, version: Version, answers: Answers) -> Version:
        """Answer by a version that the pointer names."""
        self.answers.close()
        self.version, self.answers = version, answers
        return version

    def of(self, version: Version) -> Answers:
        """The answers of a version.

        Raises:
            ModelError: it is damaged or no model.
        """
        return Answers(load(self.store.read(version.id)))

    def _loaded(self, version: Version) -> tuple[Version, Answers]:
        try:
            return version, self.of(version)
        except ModelError as error:
            self._note("damage", f"version {version.number} cannot be loaded: {error}")
            return self._loaded(self.store.rollback())

    def _suitable(self, version_id: str) -> Net:
        net = load(self.store.read(version_id))
        if net.input.features != self.net.input.features or net.loss != "cross_entropy":
            raise ModelError(f"version {version_id[:12]} is for other samples: make a learner of it in another folder")
        return net

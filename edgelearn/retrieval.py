# SPDX-License-Identifier: Apache-2.0
"""What prefixes of an embedding are good for: cascades of classifiers, and retrieval by a funnel (Kusupati et al. 2022,
section 4.2 and its adaptive retrieval). Multiplications are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.errors import DataError, UsageError
from edgelearn.mrl import Floats, Matryoshka, ascending, labels_of


@dataclass(frozen=True)
class Cascade:
    """Classifiers of ascending prefixes: a sample is answered by the first that is sure enough.

    `thresholds` are the probabilities that the prefixes' answers must reach; the last has none to reach.

    Raises:
        UsageError: another number of thresholds than prefixes, or one that is no number from 0 up.

    Example:
        >>> cascade = el.Cascade.tuned(head, held_out, y_held_out)  # thresholds from samples that were not learned
        >>> labels, dims = cascade.predict(x)
        >>> dims.mean()  # most samples take a few dimensions only
    """

    head: Matryoshka
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.thresholds) != len(self.head.dims) or not all(t >= 0 for t in self.thresholds):
            raise UsageError(
                f"{len(self.head.dims)} prefixes need as many thresholds of 0 or more, not {self.thresholds}: have "
                "Cascade.tuned choose them"
            )

    @classmethod
    def tuned(cls, head: Matryoshka, x: ArrayLike, y: ArrayLike, max_drop: float = 0.0) -> Cascade:
        """Thresholds chosen on held-out features x (n, I) and labels y (n,): for each prefix the lowest at which those
        that it answers are right as often as the whole embedding is on them, less `max_drop`.

        Raises:
            DataError: no samples, or labels that do not fit them.
            UsageError: a `max_drop` that is no share of the answers.
        """
        if not len(np.asarray(y)):
            raise DataError("thresholds are chosen on held-out samples and there are none: pass some")
        if not 0 <= max_drop < 1:
            raise UsageError(f"max_drop {max_drop} must be a share of the answers, from 0 to below 1: as 0.01")
        labels = labels_of(y, len(np.asarray(x)))
        whole = head.predict(x) == labels
        left, found = np.ones(len(labels), np.bool_), []
        for dim in head.dims[:-1]:
            p = head.predict_proba(x, dim)
            threshold = _lowest(p.max(1)[left], (p.argmax(1) == labels)[left], whole[left], max_drop)
            found.append(threshold)
            left &= p.max(1) < threshold
        return cls(head, (*found, 0.0))

    def predict(self, x: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Labels (n,), and the dimensions (n,) that each sample took; errors as those of the head's `embed`."""
        rows = np.asarray(x, np.float32)
        labels, dims = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        open_rows = np.arange(len(rows))
        for dim, threshold in zip(self.head.dims, self.thresholds, strict=True):
            if not len(open_rows):
                break
            p = self.head.predict_proba(rows[open_rows], dim)
            sure = p.max(1) >= threshold
            labels[open_rows[sure]], dims[open_rows[sure]] = p.argmax(1)[sure], dim
            open_rows = open_rows[~sure]
        return labels, dims


def _lowest(confidence: Floats, right: NDArray[np.bool_], whole: NDArray[np.bool_], max_drop: float) -> float:
    """The lowest threshold above which the prefix is right as often as the whole; above 1 where there is none."""
    order = np.argsort(-confidence, kind="stable")
    gain = np.cumsum(right[order].astype(np.int64) - whole[order].astype(np.int64))
    counts = np.arange(1, len(order) + 1)
    good = np.flatnonzero(gain >= -max_drop * counts)
    last = good[-1] if len(good) else -1
    while 0 <= last < len(order) - 1 and confidence[order[last + 1]] == confidence[order[last]]:
        last = next((i for i in good[::-1] if i < last), -1)  # samples of one confidence stand or fall together
    return float(confidence[order[last]]) if last >= 0 else 2.0


@dataclass
class Funnel:
    """An index of embeddings that is searched by prefixes: all by the shortest, the best of them by the next.

    Args:
        gallery: (n, D) embeddings.
        dims: sizes of the prefixes, ascending to D.
        shortlist: how many the first prefix hands on; each further one half as many. Left out, an eighth of all.

    `multiplications` counts those of all searches so far.

    Raises:
        UsageError: sizes that do not ascend to D, or an empty shortlist.
        DataError: embeddings that are not finite.

    Example:
        >>> funnel = el.Funnel(head.embed(x), head.dims)
        >>> funnel.search(head.embed(query)[0], k=3)  # places in x of the three nearest
        >>> funnel.multiplications  # an eighth of what brute_force takes, or less
    """

    gallery: Floats
    dims: Sequence[int]
    shortlist: int | None = None
    multiplications: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.gallery = np.ascontiguousarray(self.gallery, np.float32)
        if self.gallery.ndim != 2 or not len(self.gallery) or not np.isfinite(self.gallery).all():
            raise DataError("a gallery holds finite embeddings (n, D): repair it")
        self.dims = ascending(self.dims)
        if self.dims[-1] != self.gallery.shape[1]:
            raise UsageError(f"dims {self.dims} must ascend to {self.gallery.shape[1]}: end with the whole embedding")
        self.shortlist = max(1, len(self.gallery) // 8) if self.shortlist is None else self.shortlist
        if not isinstance(self.shortlist, Integral) or self.shortlist < 1:
            raise UsageError(f"a shortlist holds a whole number from 1 up, not {self.shortlist!r}: correct it")
        self._halves: dict[int, Floats] = {dim: 0.5 * (self.gallery[:, :dim] ** 2).sum(1) for dim in self.dims}

    def search(self, query: ArrayLike, k: int = 1) -> NDArray[np.int64]:
        """Places in the gallery of the k nearest embeddings (by distance) to a query (D,), the nearest first.

        Raises:
            DataError: a query that is not one finite embedding.
            UsageError: a k below 1.
        """
        q = self._query(query, k)
        keep, among = int(self.shortlist or 1), np.arange(len(self.gallery))
        for dim in self.dims:
            near = self._nearness(q, among, dim)
            last = dim == self.dims[-1]
            count = min(max(k, 1 if last else keep), len(among))
            best = np.argpartition(-near, count - 1)[:count] if count < len(among) else np.arange(len(among))
            among, keep = among[best], max(k, keep // 2)
            near = near[best]
        return among[np.argsort(-near, kind="stable")][:k]

    def brute_force(self, query: ArrayLike, k: int = 1) -> NDArray[np.int64]:
        """The same by the whole embedding of all; errors as `search`."""
        q = self._query(query, k)
        near = self._nearness(q, np.arange(len(self.gallery)), self.dims[-1])
        return np.argsort(-near, kind="stable")[:k]

    def _query(self, query: ArrayLike, k: int) -> Floats:
        q = np.asarray(query, np.float32)
        if q.shape != self.gallery.shape[1:] or not np.isfinite(q).all():
            raise DataError(f"a query is one finite embedding {self.gallery.shape[1:]}, not {q.shape}: pass one by one")
        if not isinstance(k, Integral) or k < 1:
            raise UsageError(f"a search gives 1 or more, not {k}: raise k")
        return q

    def _nearness(self, q: Floats, among: NDArray[np.int64], dim: int) -> Floats:
        """Higher is nearer: the dot product less half the squared length, which the index keeps."""
        self.multiplications += len(among) * dim
        rows = self.gallery if len(among) == len(self.gallery) else self.gallery[among]
        halves = self._halves[dim] if len(among) == len(self.gallery) else self._halves[dim][among]
        near: Floats = rows[:, :dim] @ q[:dim] - halves
        return near

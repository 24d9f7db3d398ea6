# SPDX-License-Identifier: Apache-2.0
"""Embeddings that stay comparable: after an update, new queries still find what they mean in an old gallery.

By default in closed form (orthogonal Procrustes, Schoenemann 1966); BT2 (Zhou et al. 2023) is learned. Nets that learn
by fixed codes of one seed (tp-*) point at the same places: `code_shares` of them compare as they are, with no sample to
align by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelearn.adapters import lowrank
from edgelearn.adapters.householder import Householder
from edgelearn.adapters.local import batches, softmax
from edgelearn.engines.native import codes
from edgelearn.errors import DataError, UsageError
from edgelearn.rules import RULES

FloatArray = NDArray[np.float32]
Labels = NDArray[np.integer]


def procrustes(new: FloatArray, old: FloatArray) -> FloatArray:
    """The rotation R (d_new, d_old) with orthonormal rows or columns for which new R is closest to old: embeddings
    (n, d) of the same samples, a few hundred of them.

    Raises:
        DataError: other numbers of samples, or values that are not finite.
    """
    if len(new) != len(old) or not len(new) or new.ndim != 2 or old.ndim != 2:
        raise DataError(f"embeddings {new.shape} and {old.shape} are not of the same samples: embed one set with both")
    if not (np.isfinite(new).all() and np.isfinite(old).all()):
        raise DataError("embeddings hold NaN or infinity: embed the samples again")
    left, _, right = np.linalg.svd(new.astype(np.float64).T @ old.astype(np.float64), full_matrices=False)
    out: FloatArray = (left @ right).astype(np.float32)
    return out


def code_shares(h: FloatArray, rule: str, seed: int, block: int, classes: int) -> FloatArray:
    """(n, classes): how close embeddings (n, d) behind a block are to each class's code, as the root of the share that
    tp-ce gives it. Cosines of them are Bhattacharyya coefficients, and mean the same for all nets of these codes.

    `seed` is that of `fit`, `block` counts from 0.

    Raises:
        UsageError: a rule without fixed codes of whole layers.
    """
    known = RULES.get(rule)
    if known is None or not rule.startswith("tp-") or known.similarity:
        raise UsageError(f"rule '{rule}' has no codes to compare by: train with tp-ce or tp-l2, or align by procrustes")
    table = np.stack([codes(known, seed, block, c, h.shape[1], classes) for c in range(classes)])
    out: FloatArray = np.sqrt(softmax(h @ table.T / np.float32(known.temperature * np.sqrt(h.shape[1]))))
    return out


def normalised(x: FloatArray) -> FloatArray:
    """Rows of length 1; a row of zeros stays one."""
    out: FloatArray = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return out


def blend(old: FloatArray, aligned: FloatArray, share: float) -> FloatArray:
    """On the way from old queries to aligned ones along the sphere (slerp), by `share`."""
    a, b = normalised(old), normalised(aligned)
    angle = np.arccos(np.clip((a * b).sum(axis=1, keepdims=True), -1, 1))
    sine = np.maximum(np.sin(angle), 1e-6)
    out: FloatArray = normalised((np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / sine)
    return out


def matched(
    queries: FloatArray, gallery: FloatArray, query_labels: Labels, gallery_labels: Labels
) -> NDArray[np.bool_]:
    """Whether each query's nearest neighbour by cosine has its label; where both are the same set, a query does not
    find itself.

    Raises:
        DataError: embeddings of other widths.
    """
    if queries.shape[1] != gallery.shape[1]:
        raise DataError(
            f"queries of {queries.shape[1]} values cannot look in a gallery of {gallery.shape[1]}: align them"
        )
    closeness = normalised(queries) @ normalised(gallery).T
    if len(queries) == len(gallery) and query_labels is gallery_labels:
        np.fill_diagonal(closeness, -np.inf)
    out: NDArray[np.bool_] = gallery_labels[closeness.argmax(axis=1)] == query_labels
    return out


@dataclass(frozen=True)
class Compatibility:
    """Shares of queries whose nearest neighbour has their label: old queries, new ones as they are, new ones aligned,
    all in the old gallery. `negative_flips` were right before and are wrong aligned. An update is compatible when
    `aligned` is above `old`."""

    old: float
    raw: float | None
    aligned: float
    negative_flips: float

    @property
    def compatible(self) -> bool:
        """Whether the old gallery serves new queries at least as well."""
        return self.aligned >= self.old


def compare(new: FloatArray, old: FloatArray, y: Labels, support: int) -> tuple[FloatArray, Compatibility]:
    """Align by the first `support` samples and judge on the rest, each a query and all of them the gallery: the
    rotation, and what it does. `raw` is None for embeddings of other widths.

    Raises:
        DataError: too few samples, or embeddings that are not of the same ones.
    """
    if not 1 < support < len(y) - 1:
        raise DataError(f"{support} of {len(y)} samples to align by leave too few: give more samples")
    rotation = procrustes(new[:support], old[:support])
    a, b, labels = new[support:], old[support:], y[support:]
    before, after = matched(b, b, labels, labels), matched(a @ rotation, b, labels, labels)
    raw = float(matched(a, b, labels, labels).mean()) if a.shape[1] == b.shape[1] else None
    flips = float((before & ~after).mean())
    return rotation, Compatibility(float(before.mean()), raw, float(after.mean()), flips)


@dataclass(frozen=True, eq=False)
class BasisTransformation:
    """BT2's trained map: the new embedding next to `extra` learned dimensions, rotated so that the first d_old
    coordinates match the old embedding and the rest keeps what is new. Old galleries are padded with zeros."""

    extra: FloatArray
    rotation: Householder
    start: FloatArray
    old: int

    def apply(self, new: FloatArray) -> FloatArray:
        """(n, d_new) -> (n, d_new + extra), parts of length 1 each."""
        rotated = self.rotation.apply(_widened(new, self.extra)) @ self.start
        return np.hstack([normalised(rotated[:, : self.old]), normalised(rotated[:, self.old :])])

    def pad(self, old: FloatArray) -> FloatArray:
        """Gallery embeddings (n, d_old) for queries of `apply`."""
        width = self.start.shape[1] - self.old
        return np.hstack([normalised(old), np.zeros((len(old), width), np.float32)])


def _widened(new: FloatArray, extra: FloatArray) -> FloatArray:
    """The new embedding and `extra` dimensions of it."""
    return np.hstack([normalised(new), normalised(new @ extra)])


def basis_transformation(
    new: FloatArray,
    old: FloatArray,
    y: Labels,
    *,
    extra: int = 32,
    reflectors: int = 16,
    steps: int = 300,
    lr: float = 1e-3,
    seed: int = 0,
) -> BasisTransformation:
    """Train BT2 on embeddings of the same samples (n, d_new), (n, d_old) and their labels: cross-entropy against the
    old class means, and the cosine to the old embedding; the rotation begins at Procrustes and stays orthogonal.

    Raises:
        DataError: embeddings that are not of the same samples.
        UsageError: more old dimensions than there will be, or steps, rate or sizes that cannot be meant.
    """
    if extra < 1 or reflectors < 2 or reflectors % 2 or steps < 1 or not 0 < lr < np.inf:
        raise UsageError("extra, steps and lr are positive, reflectors an even number from 2 on: correct them")
    if old.shape[1] > new.shape[1] + extra:
        raise UsageError(f"{old.shape[1]} old dimensions do not fit into {new.shape[1] + extra}: give more extra ones")
    rng = np.random.default_rng(seed)
    widths = (rng.normal(size=(new.shape[1], extra)) / np.sqrt(new.shape[1])).astype(np.float32)
    wide = _widened(new, widths)
    start = _completed(procrustes(wide, normalised(old)))
    rotation = Householder.fresh(wide.shape[1], reflectors, rng)
    classes, labels = np.unique(y, return_inverse=True)
    means = normalised(np.stack([normalised(old)[labels == c].mean(axis=0) for c in range(len(classes))]))
    state = lowrank.optimizer("adam").state(rotation.weights["reflectors"].shape, 1)
    for step, part in zip(range(steps), batches(len(y), 128, seed), strict=False):
        rate = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
        error = _bt2_error(
            rotation.apply(wide[part]) @ start[:, : old.shape[1]], normalised(old[part]), means, labels[part]
        )
        back = (error @ start[:, : old.shape[1]].T / len(part)).astype(np.float32)
        gradient = rotation.gradients(wide[part], back)["reflectors"]
        state.step(rotation.weights["reflectors"], gradient, rate)
        rotation.after_step()
    return BasisTransformation(widths, rotation, start, old.shape[1])


def _bt2_error(seen: FloatArray, old: FloatArray, means: FloatArray, y: Labels) -> FloatArray:
    """Gradient of cross-entropy against class means (temperature 0.1) and of 10 (1 - cosine), back through the
    normalisation: BT2's weights of the two are 1 and 10."""
    length = np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-12)
    unit = seen / length
    share = softmax(unit @ means.T / np.float32(0.1))
    share[np.arange(len(y)), y] -= 1
    back = share @ means / np.float32(0.1) - 10 * old
    out: FloatArray = ((back - unit * (back * unit).sum(axis=1, keepdims=True)) / length).astype(np.float32)
    return out


def _completed(columns: FloatArray) -> FloatArray:
    """Orthonormal columns (d, k) made a whole rotation (d, d), the given ones first."""
    complement = np.linalg.svd(columns.astype(np.float64), full_matrices=True)[0][:, columns.shape[1] :]
    return np.hstack([columns, complement.astype(np.float32)])

# SPDX-License-Identifier: Apache-2.0
"""Matryoshka heads: one embedding whose prefixes are embeddings themselves (Kusupati et al. 2022, section 3).

The embedding and its classifiers are one local layer: the losses of all prefixes are added up, and no gradient leaves
it. n samples, I features, D dimensions, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.errors import DataError, LearningError, UsageError
from edgelearn.philox import uniform

Floats = NDArray[np.float32]

DIMS = (4, 8, 16, 32, 64)

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass
class Matryoshka:
    """An embedding of features with a classifier for each of its prefixes.

    Args:
        dims: sizes of the prefixes, ascending; the last is the whole embedding.
        shared: one classifier, of which a prefix uses the first rows and the same bias (MRL-E); else one for each.
        normalise: give each prefix unit length, for comparing embeddings by angle.
        weights: of the losses of the prefixes; left out, all are 1.
        seed: of the initial weights and of the order of samples.

    Raises:
        UsageError: dims that do not ascend, or weights that do not fit them.

    Example:
        >>> head = el.Matryoshka((4, 8, 16)).fit(features, y)  # of a frozen backbone, or of a net's last block
        >>> head.score(held_out, y_held_out, dim=4)  # by the first four dimensions alone
        >>> gallery = head.embed(features)  # gallery[:, :4] is what an embedding of 4 would be
    """

    dims: Sequence[int] = DIMS
    shared: bool = False
    normalise: bool = False
    weights: Sequence[float] | None = None
    seed: int = 0
    parameters: dict[str, Floats] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.dims = ascending(self.dims)
        given = np.asarray([1.0] * len(self.dims) if self.weights is None else self.weights, np.float64)
        if given.shape != (len(self.dims),) or not np.isfinite(given).all() or given.min() < 0 or not given.any():
            raise UsageError(f"{len(self.dims)} dims need as many weights of 0 or more: give one for each")
        self.weights = tuple(given.tolist())

    def fit(self, x: ArrayLike, y: ArrayLike, *, epochs: int = 20, batch: int = 64, lr: float = 3e-3) -> Matryoshka:
        """Learn from features x (n, I) and labels y (n,) 0 .. K-1, with Adam at a rate that falls to 0 as a cosine.

        Raises:
            DataError: features that are not finite, labels that do not fit them, or one class alone.
            UsageError: no epoch, no batch, or a rate that is not above 0.
            LearningError: training diverged; what was learned before is kept.
        """
        if min(epochs, batch) < 1 or not 0 < lr < math.inf:
            raise UsageError(f"epochs {epochs}, batch {batch} and lr {lr} must be above 0: correct them")
        rows = _features(x)
        labels = labels_of(y, len(rows))
        if len(np.unique(labels)) < 2:
            raise DataError("one class alone teaches nothing: add samples of another")
        before = self.parameters
        self._begin(rows.shape[1], int(labels.max()) + 1)
        moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in self.parameters.items()}
        rng, step = np.random.default_rng(self.seed), 0
        total = epochs * -(-len(rows) // batch)
        for _ in range(epochs):
            order = rng.permutation(len(rows))
            for start in range(0, len(rows), batch):
                part = order[start : start + batch]
                loss, gradients = self.loss(rows[part], labels[part])
                if not math.isfinite(loss):
                    self.parameters = before
                    raise LearningError("training diverged: lower lr, or scale the features")
                step += 1
                rate = lr * 0.5 * (1 + np.cos(np.pi * (step - 1) / total))
                for name, gradient in gradients.items():
                    _adam(self.parameters[name], gradient, moments[name], rate, step)
        return self

    def loss(self, x: Floats, y: NDArray[np.integer]) -> tuple[float, dict[str, Floats]]:
        """Mean over samples of the sum of the prefixes' cross-entropies, and its gradient by parameter."""
        z = x @ self.parameters["embedding.weight"] + self.parameters["embedding.bias"]
        dz, gradients, total = np.zeros_like(z), {n: np.zeros_like(w) for n, w in self.parameters.items()}, 0.0
        assert self.weights is not None
        for weight, dim in zip(self.weights, self.dims, strict=True):
            h, length = self._prefix(z, dim)
            w, bias = self._classifier(dim)
            p = _softmax(h @ w + bias)
            total -= weight * float(np.log(p[np.arange(len(y)), y] + 1e-30).mean())
            p[np.arange(len(y)), y] -= 1
            p *= weight / len(y)
            name = self._name(dim)
            gradients[f"{name}.weight"][:dim] += h.T @ p
            gradients[f"{name}.bias"] += p.sum(0)
            dz[:, :dim] += _back(p @ w.T, h, length)
        gradients["embedding.weight"] = x.T @ dz
        gradients["embedding.bias"] = dz.sum(0)
        return total, gradients

    def embed(self, x: ArrayLike, dim: int | None = None) -> Floats:
        """The first `dim` dimensions (n, dim) of the embedding of features x (n, I); all of them by default.

        Raises:
            UsageError: a size that is not among `dims`, or nothing was learned.
            DataError: features of another width, or not finite.
        """
        return self._prefix(self._whole(x), self._known(dim))[0]

    def predict_proba(self, x: ArrayLike, dim: int | None = None) -> Floats:
        """Probabilities (n, K) by the classifier of a prefix; errors as `embed`."""
        dim = self._known(dim)
        w, bias = self._classifier(dim)
        return _softmax(self._prefix(self._whole(x), dim)[0] @ w + bias)

    def predict(self, x: ArrayLike, dim: int | None = None) -> NDArray[np.int64]:
        """Labels (n,); errors as `embed`."""
        best: NDArray[np.int64] = self.predict_proba(x, dim).argmax(1)
        return best

    def score(self, x: ArrayLike, y: ArrayLike, dim: int | None = None) -> float:
        """Accuracy; errors as `embed`, and DataError for labels that do not fit."""
        found = self.predict(x, dim)
        return float((found == labels_of(y, len(found))).mean())

    def _begin(self, features: int, classes: int) -> None:
        whole = self.dims[-1]
        shapes = {"embedding": (features, whole)}
        shapes |= {self._name(dim): (whole if self.shared else dim, classes) for dim in self.dims}
        self.parameters = {}
        for index, (name, shape) in enumerate(shapes.items()):
            bound = np.float32(np.sqrt(3.0 / shape[0]))
            drawn = uniform(self.seed, index, shape[0] * shape[1]).reshape(shape)
            self.parameters[f"{name}.weight"] = (drawn * bound).astype(np.float32)
            self.parameters[f"{name}.bias"] = np.zeros(shape[1], np.float32)

    def _name(self, dim: int) -> str:
        return "head" if self.shared else f"head_{dim}"

    def _classifier(self, dim: int) -> tuple[Floats, Floats]:
        name = self._name(dim)
        return self.parameters[f"{name}.weight"][:dim], self.parameters[f"{name}.bias"]

    def _prefix(self, z: Floats, dim: int) -> tuple[Floats, Floats | None]:
        """A prefix, and what it was divided by where it is normalised."""
        h = z[:, :dim]
        if not self.normalise:
            return h, None
        length = np.sqrt((h * h).sum(1, keepdims=True)) + np.float32(1e-12)
        return h / length, length

    def _known(self, dim: int | None) -> int:
        if not self.parameters:
            raise UsageError("nothing was learned yet: call fit first")
        if dim is not None and dim not in self.dims:
            raise UsageError(f"{dim} is not among the dims of this embedding: choose one of {self.dims}")
        return self.dims[-1] if dim is None else dim

    def _whole(self, x: ArrayLike) -> Floats:
        rows, weight = _features(x), self.parameters["embedding.weight"]
        if rows.shape[1] != len(weight):
            raise DataError(f"features of width {rows.shape[1]} given, the embedding takes {len(weight)}: pass those")
        z: Floats = rows @ weight + self.parameters["embedding.bias"]
        return z


def ascending(dims: Any) -> tuple[int, ...]:
    """Sizes of prefixes.

    Raises:
        UsageError: no whole numbers that ascend from 1 up.
    """
    found = tuple(dims) if isinstance(dims, Iterable) else (dims,)
    whole = all(isinstance(d, Integral) for d in found)
    if not found or not whole or any(a >= b for a, b in pairwise((0, *found))):
        raise UsageError(f"dims {dims} must ascend from 1 up: list whole numbers, sorted")
    return tuple(map(int, found))


def labels_of(y: ArrayLike, count: int) -> NDArray[np.int64]:
    """Labels of so many samples.

    Raises:
        DataError: another number of them, or no whole numbers from 0 up.
    """
    labels = np.asarray(y)
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(
            f"labels of shape {labels.shape} do not fit {count} samples: give a whole number from 0 up for each"
        )
    return labels.astype(np.int64)


def _features(x: ArrayLike) -> Floats:
    rows = np.asarray(x, np.float32)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise DataError(f"features must be finite and of shape (n, I), not {rows.shape}: flatten and repair them")
    return rows


def _softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(1, keepdims=True))
    p: Floats = e / e.sum(1, keepdims=True)
    return p


def _back(d: Floats, h: Floats, length: Floats | None) -> Floats:
    """From the error of a prefix as the classifier sees it to that of the embedding."""
    if length is None:
        return d
    out: Floats = (d - h * (d * h).sum(1, keepdims=True)) / length
    return out


def _adam(w: Floats, gradient: Floats, moments: tuple[Floats, Floats], rate: float, step: int) -> None:
    """Kingma & Ba 2015, algorithm 1, in place."""
    first, second = moments
    first += (1 - _BETA1) * (gradient - first)
    second += (1 - _BETA2) * (gradient * gradient - second)
    mean, spread = first / (1 - _BETA1**step), second / (1 - _BETA2**step)
    w -= np.float32(rate) * mean / (np.sqrt(spread) + _EPSILON)

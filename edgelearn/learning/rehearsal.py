# SPDX-License-Identifier: Apache-2.0
"""A copy of the serving net that learns from a stream: new samples mixed with kept ones, its weights averaged over
steps."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import engines
from edgelearn.engines import Config, Session
from edgelearn.errors import ModelError, UsageError
from edgelearn.layers import Dense
from edgelearn.learning.replay import Reservoir
from edgelearn.net import Net
from edgelearn.net.planning import config_of, smallest_batch

BATCH = 64
"""Samples of a step, at most half of them new."""

AVERAGED = 0.99
"""How much of the averaged weights a step leaves: about the last hundred steps count. At a constant rate the average
is some points better than the last step's weights (docs/decisions.md)."""

Rows = NDArray[Any]
Labels = NDArray[np.int32]


class Answers:
    """A net's probabilities for rows as engines take them, (n, features), in parts that take little memory."""

    def __init__(self, net: Net) -> None:
        self.net = net
        config = Config(batch=BATCH, targets=net.graph.outputs, train=False)
        self._session = engines.load(net.recipe().backend).open(net.graph.records, net.flat, config)

    def probabilities(self, rows: Rows) -> NDArray[np.float32]:
        """Shape (n, classes).

        Raises:
            ModelError: they are not finite.
        """
        outputs = self._session.forward(rows)
        if not np.isfinite(outputs).all():
            raise ModelError("the net's outputs are not finite, so its weights are damaged: load or train it again")
        return outputs

    def labels(self, rows: Rows) -> NDArray[np.int64]:
        """Indices of the likeliest classes (n,)."""
        best: NDArray[np.int64] = self.probabilities(rows).argmax(axis=1)
        return best

    def close(self) -> None:
        """Let go of the memory."""
        self._session.close()


class Rehearsal:
    """Learns from `net`'s weights on, leaving `net` as it is.

    `lr` is the constant rate, the recipe's where it is None; `steps` is how many steps a portion of new samples brings
    about: they are in the first, all others are of kept ones, which they are among by then.
    """

    def __init__(self, net: Net, lr: float | None, steps: int) -> None:
        self.net, self.steps, self.taken = copy.deepcopy(net), steps, 0
        self.average = self.net.flat.copy()
        self._run = self.net.recipe(lr=lr, batch=BATCH)
        self._session: Session = self._open()

    def _open(self) -> Session:
        run = replace(self._run, class_weights="none")
        config = config_of(self.net, run, BATCH)
        return engines.load(run.backend).open(self.net.graph.records, self.net.flat, config)

    @property
    def state(self) -> NDArray[np.uint8]:
        """What the optimizer keeps, writable."""
        return self._session.state

    def learn(self, rows: Rows, labels: Labels, kept: Reservoir, effort: int = 1) -> float | None:
        """Learn rows (n, features), n up to half a batch, with kept samples; returns the mean loss, None where there
        are too few samples for a step.

        Raises:
            LearningError: a loss that is not finite; the weights are those before.
        """
        loss, samples, new = 0.0, 0, len(rows)
        for _ in range(self.steps * effort):
            more, answers = kept.draw(BATCH - new)
            x, y = np.concatenate([rows[:new], more]), np.concatenate([labels[:new], answers])
            if len(x) < smallest_batch(self.net):
                return None
            stats = self._session.step(x, y, self._run.lr)
            loss, samples, new = loss + stats.loss, samples + stats.samples, 0
            self.taken += 1
            keep = min(AVERAGED, (1 + self.taken) / (10 + self.taken))  # the first steps count at once
            self.average += np.float32(1 - keep) * (self.net.flat - self.average)
        return loss / samples

    def result(self) -> Net:
        """A net of the averaged weights."""
        net = copy.deepcopy(self.net)
        net.flat[...] = self.average
        return net

    def close(self) -> None:
        """Let go of the memory."""
        self._session.close()


def check_learnable(net: Net) -> None:
    """Whether a net can be rehearsed from a stream.

    Raises:
        UsageError: it is a regression.
        ModelError: its input is not known yet.
    """
    if net.loss != "cross_entropy":
        raise UsageError("a learner is for classes, and this net predicts values: use net.partial_fit")
    if not net.input.is_resolved:
        raise ModelError("the net's input is not known yet: fit it first, or declare [input] shape and scale")


def with_class(net: Net, name: str | None) -> Net:
    """A copy of `net` with one more class. What it answers for the others stays as it is, but for the little
    probability that the new one takes: its weights are zero, its bias is two below the least.

    Raises:
        ModelError: its last layer is not a Dense one, or the class has no name among others, or a name twice.
    """
    place = max(i for i, layer in enumerate(net.layers) if hasattr(layer, "units"))
    last, outputs = net.layers[place], net.graph.outputs
    if not isinstance(last, Dense) or last.units != outputs:
        raise ModelError(f"a class is added to a Dense layer at the end, not to {last!r}: end the net with Dense")
    names = _with_name(net.classes, name, outputs)
    layers = [*net.layers[:place], replace(last, units=outputs + 1), *net.layers[place + 1 :]]
    about: dict[str, Any] = {
        "loss": net.loss,
        "input": net.input,
        "train": net.train,
        "classes": names,
        "nested": net.nested,
    }
    grown = Net(layers, seed=net.seed, **about)
    for old, new in zip(net.graph.parameters, grown.graph.parameters, strict=True):
        view, values = new.view(grown.flat), old.view(net.flat)
        if old.shape == new.shape:
            view[...] = values
        else:
            view[...] = values.min() - 2 if view.ndim == 1 else 0
            view[..., :outputs] = values
    grown.restore(net.samples, net.provenance)
    return grown


def with_classes(net: Net, known: Net) -> Net:
    """`net` with all classes that `known` has; itself where it has them."""
    while net.graph.outputs < known.graph.outputs:
        net = with_class(net, known.classes[net.graph.outputs] if known.classes else None)
    return net


def _with_name(known: list[str] | None, name: str | None, outputs: int) -> list[str] | None:
    if name is None and known is None:
        return None
    names = known or [str(index) for index in range(outputs)]
    if not isinstance(name, str) or not name or name in names:
        raise ModelError(f"{name!r} is no name for a class beside {', '.join(names)}: give another text")
    return [*names, name]

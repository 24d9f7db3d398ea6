# SPDX-License-Identifier: Apache-2.0
"""A net, a recipe and data, checked and joined into what a Trainer drives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import augment, engines, labels, rules
from edgelearn.augment import Augmenter, Space
from edgelearn.data import Dataset
from edgelearn.engines import Session
from edgelearn.errors import UsageError
from edgelearn.feed import Feed, Gathered, Whole
from edgelearn.history import Callback
from edgelearn.planning import smallest_batch
from edgelearn.recipe import Recipe
from edgelearn.structure import Structure
from edgelearn.trainer import Trainer
from edgelearn.validation import Validation, split


@dataclass(frozen=True, eq=False)
class Fitting:
    """What a run learns from and is held against."""

    run: Recipe
    loss: rules.Loss
    feed: Feed
    validation: Validation | None
    class_weights: tuple[float, ...] | None

    @property
    def batch(self) -> int:
        """The recipe's batch, as far as there are samples."""
        return min(self.run.batch, len(self.feed.answers))

    def trainer(self, session: Session, params: NDArray[np.float32], callbacks: Iterable[Callback]) -> Trainer:
        """The run on a session that trains `params`."""
        return Trainer(
            session=session,
            params=params,
            feed=self.feed,
            schedule=self.run.rate_schedule(),
            loss=self.loss,
            epochs=self.run.epochs,
            batch=self.batch,
            seed=self.run.seed,
            order=self.run.schedule,
            callbacks=tuple(callbacks),
            learns_hidden=self.run.local_rule().objective is not rules.Objective.UNTRAINED,
            validation=self.validation,
            patience=self.run.patience,
            class_weights=self.class_weights,
        )


def fitting(net: Structure, run: Recipe, data: Dataset) -> Fitting:
    """A run of the net on a dataset that it has adopted.

    Raises:
        UsageError: an augmentation or class weights that are not for these samples or this task.
        DataError: too few samples to hold any out, class weights of another length than there are outputs.
    """
    x, y = net.input.prepare(data.x_train), data.y_train
    augmenter = _augmenter(net, run, x)
    learned, held = np.arange(len(x)), None
    if run.validation:
        learned, out = split(y, run.validation, run.seed, stratified=data.task == "classification")
        held = Validation(x, y, out, rules.loss(net.loss), run.local_rule().huber)
    feed: Feed = Whole(x, y)
    if augmenter or held:
        order = engines.load(run.backend).order
        feed = Gathered(x, y, learned, order, augmenter, smallest_batch(net))
    return Fitting(run, rules.loss(net.loss), feed, held, class_weights(net, run, y[learned]))


def class_weights(net: Structure, run: Recipe, y: NDArray[Any]) -> tuple[float, ...] | None:
    """The recipe's weights of the classes of labels y (n,), None where all are 1.

    Raises:
        UsageError: a regression has no classes.
        DataError: another number of weights than outputs.
    """
    if run.class_weights != "none" and net.loss != "cross_entropy":
        raise UsageError("class_weights are for classes, which a regression does not have: leave them out")
    return labels.class_weights(run.class_weights, y, net.graph.outputs)


def _augmenter(net: Structure, run: Recipe, x: NDArray[Any]) -> Augmenter | None:
    chain = augment.parse(run.augment)
    if not chain:
        return None
    classifies = net.loss == "cross_entropy"
    space = Space(net.sample_shape, x.dtype, net.input.pairs(), classifies, chain.fill)
    return Augmenter(chain, space, run.seed)

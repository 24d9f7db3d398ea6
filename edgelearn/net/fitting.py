# SPDX-License-Identifier: Apache-2.0
"""A net, a recipe and data, checked and joined into what a Trainer drives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import augment, engines, rules
from edgelearn.augment import Augmenter, Space
from edgelearn.costs.budget import Budget
from edgelearn.engines import Session
from edgelearn.errors import DataError, OutputError, UsageError
from edgelearn.inputs import labels
from edgelearn.inputs.data import Dataset
from edgelearn.net.planning import cache_bytes, cached_shapes, config_of, planner, smallest_batch, stages_of
from edgelearn.net.structure import Structure
from edgelearn.sequences import section_of
from edgelearn.training import checkpoint
from edgelearn.training.cache import Cache, temporary_parent
from edgelearn.training.checkpoint import Checkpoints
from edgelearn.training.feed import Feed, Gathered, Whole
from edgelearn.training.history import Callback
from edgelearn.training.recipe import Recipe
from edgelearn.training.stages import Groups, Stages
from edgelearn.training.trainer import Trainer
from edgelearn.training.validation import Validation, split


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

    def trainer(self, stages: Stages, params: NDArray[np.float32], callbacks: Iterable[Callback]) -> Trainer:
        """The run on sessions that train `params`."""
        return Trainer(
            stages=stages,
            params=params,
            schedule=self.run.rate_schedule(),
            loss=self.loss,
            epochs=self.run.epochs,
            batch=self.batch,
            seed=self.run.seed,
            callbacks=tuple(callbacks),
            patience=self.run.patience,
            class_weights=self.class_weights,
        )

    @contextmanager
    def stages(self, net: Structure) -> Iterator[Stages]:
        """The stages of the run on the net's weights; at the end the sessions are closed, and what was on disk for
        this run alone is gone.

        Raises:
            UsageError: `cache_dir` holds another run.
            DataError: what it holds is damaged.
            OutputError: the folder cannot be written, or has too little space.
        """
        engine, groups = engines.load(self.run.backend), stages_of(net, self.run)

        def opened(groups: Groups) -> Session:
            weights = self.class_weights
            config = config_of(net, self.run, self.batch, keep=True, class_weights=weights, groups=groups)
            return engine.open(net.graph.records, net.flat, config)

        plain = Stages(opened, groups, self.feed, self.validation)
        with self._folder() as folder:
            stages = plain if folder is None else self._on_disk(net, plain, folder)
            try:
                yield stages
            finally:
                stages.close()

    @contextmanager
    def _folder(self) -> Iterator[Path | None]:
        if self.run.cache_dir is not None:
            folder = Path(self.run.cache_dir)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot make folder {folder} ({error.strerror}): give another cache_dir") from error
            yield folder
        elif self.run.cached == "none":
            yield None
        else:
            import tempfile  # no other schedule needs one

            with tempfile.TemporaryDirectory(prefix="edgelearn-", dir=temporary_parent()) as name:
                yield Path(name)

    def _on_disk(self, net: Structure, stages: Stages, folder: Path) -> Stages:
        checkpoints = Checkpoints(folder, self._identity(net)) if self.run.cache_dir is not None else None
        if self.run.cached == "none":
            return replace(stages, checkpoints=checkpoints)
        channels = {group: channels for group, (_, channels) in cached_shapes(net, self.run).items()}
        cache = Cache(folder, self.run.cached, channels, self.batch)
        cache.require_space(cache_bytes(net, self.run, len(self.feed.x)))
        return replace(stages, checkpoints=checkpoints, cache=cache)

    def _identity(self, net: Structure) -> checkpoint.Identity:
        """What the weights at the end are a function of; the number of threads is not in it."""
        answers = self.feed.y if isinstance(self.feed, Gathered) else self.feed.answers
        arrays = {"samples": self.feed.x, "answers": answers, "net": net.graph.records}
        arrays["initial weights"] = net.flat
        return checkpoint.identity(arrays, {**self.run.to_table(), "backend": self.run.backend, "loss": net.loss})


def fitting(net: Structure, run: Recipe, data: Dataset, budget: Budget | None = None) -> Fitting:
    """A run of the net on a dataset that it has adopted, within a budget.

    Raises:
        UsageError: an augmentation or class weights that are not for these samples or this task.
        DataError: too few samples to hold any out or to normalise a batch, class weights of another length than there
            are outputs.
        BudgetError: it does not fit; the nearest that does is named.
    """
    _check_padding(net, run)
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
    fitted = Fitting(run, rules.loss(net.loss), feed, held, class_weights(net, run, y[learned]))
    smallest = smallest_batch(net)
    if fitted.batch < smallest:
        raise DataError("BatchNormalization cannot learn from one sample: use a batch of at least 2")
    if budget is not None:
        planner(net, run, samples=len(x)).require(fitted.batch, budget, smallest)
    return fitted


def _check_padding(net: Structure, run: Recipe) -> None:
    """Raise UsageError for settings in which padding could not be told any more."""
    if net.padding is None:
        return
    if run.augment:
        raise UsageError("augmentation would change the padding that Masking looks for: leave out one of them")
    stepped = net.graph.records["block"][section_of(net.graph.records)]
    if any(first * run.block in stepped for first in cached_shapes(net, run)):
        raise UsageError("outputs on disk do not tell padding: leave out the sequential schedule, or set cache to none")


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

# SPDX-License-Identifier: Apache-2.0
"""el.Net, the object that people hold: joins what it is, answers and is cut into with training, files and export.

scikit-learn's verbs, numpy in and out. Samples go in as the data holds them; scaling is inside.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn import engines, modelfile
from edgelearn.costs.budget import Budget, known
from edgelearn.engines import Config, Session
from edgelearn.engines.tokens import check_tokens
from edgelearn.errors import UsageError
from edgelearn.inputs.frontend import Input
from edgelearn.layers import AnyLayer, to_config
from edgelearn.nested import Grid
from edgelearn.net.fitting import class_weights, fitting
from edgelearn.net.planning import config_of, smallest_batch
from edgelearn.net.slices import Slice
from edgelearn.net.streams import Stream
from edgelearn.net.submodels import OF_WHOLE, Nestable
from edgelearn.training.feed import parts
from edgelearn.training.history import Callback, History
from edgelearn.training.recipe import Recipe, recipe

if TYPE_CHECKING:
    from edgelearn.export import Report

_KEPT_SAMPLES = 16
"""Training samples that travel with a net, so that an export can be compared on real ones."""


class Net(Nestable):
    """A net of layers that learns by local rules.

    Args:
        layers: from the input on; the last has one unit per class, or per value to predict.
        input_shape: shape of one sample; left out, it comes from the first data.
        seed: of the initial weights.
        loss: of the output: cross_entropy, mse or huber; left out, float targets mean mse, anything else classes.
        input: scaling and layout, as `[input]` of a model's .toml.
        train: defaults of `fit`, as `[train]` of a model's .toml.
        classes: names of the classes, in the order of the outputs.
        nested: True trains submodels of 1/8, 1/4, 1/2 of the width inside the net, to be cut by `submodel`; a list is
            another grid of widths, a nested.Nested says more.

    Raises:
        ModelError: layers that do not form a net, or that do not take the widths.
        UsageError: widths that are no grid.
    """

    def __init__(
        self,
        layers: Iterable[AnyLayer],
        input_shape: tuple[int, ...] | int | None = None,
        *,
        seed: int = 0,
        loss: str | None = None,
        input: Input | None = None,
        train: Mapping[str, Any] | None = None,
        classes: list[str] | None = None,
        nested: Grid = None,
    ) -> None:
        self.train = dict(train or {})
        self.history = History()
        self.provenance: dict[str, Any] = {}
        self.samples: NDArray[Any] | None = None
        self._training: tuple[Config, Session] | None = None
        shape = (input_shape,) if isinstance(input_shape, int) else input_shape
        declared = Input(shape=tuple(shape) if shape is not None else None)
        super().__init__(layers, input or declared, seed, loss, classes, nested)

    def __repr__(self) -> str:
        inside = ", ".join(repr(layer) for layer in self.layers)
        whole = f"Net([{inside}], input_shape={self.input.shape}, loss={self.loss!r})"
        skip = f", skip={list(self.slice.skipped)}" if self.slice and self.slice.skipped else ""
        return f"{whole}.submodel({list(self.widths[:-1])}{skip}): {self.sharing}" if self.slice else whole

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles go without sessions; they are opened again when needed."""
        return {**self.__dict__, "_inference": None, "_training": None}

    def _build(self) -> None:
        """A session holds the old layout, so it ends with it."""
        super()._build()
        if self._training:
            self._training[1].close()
        self._training = None

    # Learning

    def recipe(self, **settings: Any) -> Recipe:
        """How `fit` would train with these settings.

        Raises:
            UsageError: a setting that cannot be meant.
            ModelError: an unknown rule.
        """
        run = recipe(self.train, regression=self.loss != "cross_entropy", **settings)
        return run.uncached("nested training draws widths anew in every step") if self.nested else run

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        budget: Budget | None = None,
        progress: Callback | None = None,
        callbacks: Iterable[Callback] = (),
        **settings: Any,
    ) -> Net:
        """Train on samples x (n, *shape) and labels y (n,), or targets (n,) or (n, k). With a Masking in front of the
        net, x may be a list of sequences (steps, features) of several lengths.

        `settings` are those of `[train]`: rule, epochs, batch, lr, optimizer, lr_schedule, warmup, schedule
        ("interleaved", or "sequential" with cache and cache_dir), block, augment (such as {"flip": True, "shift": 2}),
        validation (a share to hold out), patience (epochs without improvement on it, after which the best epoch comes
        back), class_weights ("balanced", or a list), seed, threads, backend, and the rule's own scale, temperature,
        huber, codes.
        `budget` is held before the first step. A nested net that does not fit whole trains its widest prefix that does;
        provenance["trained_width"] says which, and a later `fit` under a larger budget goes on with all of it.
        `progress` and `callbacks` get a `history.Moment`. `history` holds
        what happened. Ctrl-C keeps the last finished epoch, with patience the best.

        Raises:
            DataError: samples or labels that cannot be learned; nothing has changed.
            UsageError: a setting that cannot be meant, alone or for these samples; nothing has changed.
            BudgetError: the run does not fit; the nearest that does is named.
            LearningError: training diverged or learned nothing; the last good epoch is kept.
            OutputError: the outputs of blocks cannot be written to disk; the blocks before keep what they learned.
        """
        data, budget = self.dataset(x, y), known(budget)
        with self.as_before_if_refused():
            self.adopt(data)
            run = self.recipe(**settings)
            part = self.widest(budget, run, len(data.x_train))
            if part is not self:
                part.fit(x, y, budget=budget, progress=progress, callbacks=callbacks, **settings)
                self.history, self.train, self.samples = part.history, part.train, part.samples
                self.take_scores(part)
                return self
            fitted = fitting(self, run, data, budget)
        watching = (*([progress] if progress else []), *callbacks)
        with fitted.stages(self) as stages:
            self.history = fitted.trainer(stages, self._flat, watching).fit()
        self.train = {**self.train, **run.to_table()}
        self._keep_samples(data.x_train)
        if self.nested:
            self.score_fitted(data.x_train, data.y_train, fitted.validation.rows if fitted.validation else None)
        return self

    def _keep_samples(self, x: NDArray[Any]) -> None:
        """A few samples as the data holds them, (n, features) uint8 or float32."""
        some = x[:: max(1, len(x) // _KEPT_SAMPLES)][:_KEPT_SAMPLES]
        kind = np.uint8 if x.dtype == np.uint8 else np.float32
        self.samples = some.reshape(len(some), -1).astype(kind)

    def partial_fit(self, x: ArrayLike, y: ArrayLike, **settings: Any) -> Net:
        """One pass over x in its order, at the constant rate `lr`; optimizer state lives on between calls. Samples are
        learned as they are: what `[train]` says of augment, validation and balanced class weights is for `fit`.

        Raises:
            DataError: as `fit`, except that one class alone is allowed.
            UsageError: one of these settings.
            LearningError: a loss that is not finite.
        """
        for name in set(settings) & {"augment", "validation", "patience"}:
            raise UsageError(f"partial_fit takes samples as they are: call fit, or leave out {name}")
        if settings.get("class_weights") == "balanced":
            raise UsageError("a part of the samples does not show how common a class is: give class_weights as a list")
        data = self.dataset(x, y, several=False)
        with self.as_before_if_refused():
            if self._graph is None or self.input.scale is None:
                self.adopt(data)
            run = self.recipe(**settings)
            self.check_task(data)
            weights = None if run.class_weights == "balanced" else class_weights(self, run, data.y_train)
        session = self._session(run, config_of(self, run, run.batch, class_weights=weights))
        rows = self.input.prepare(data.x_train)
        check_tokens(self.graph.records, self._flat, rows)  # all of them, before the first part is learned
        for part in parts(len(rows), run.batch, smallest_batch(self)):
            session.step(rows[part], data.y_train[part], run.lr)
        return self

    def _session(self, run: Recipe, config: Config) -> Session:
        """The session that learns part by part; a new one where the settings are others than of the last part."""
        if self._training is None or self._training[0] != config:
            self._training = (config, engines.load(run.backend).open(self.graph.records, self._flat, config))
        return self._training[1]

    # Submodels

    def _cut(self, cut: Slice) -> Net:
        small = copy.copy(self)  # sessions stay behind
        small.adopt_slice(cut)
        known = {key: value for key, value in self.provenance.items() if key not in OF_WHOLE}
        skipped = {"skipped": list(cut.skipped)} if cut.skipped else {}
        small.history, small.provenance = History(), {**known, "widths": list(cut.widths), **skipped}
        return small

    def _plain(self, layers: list[AnyLayer]) -> Net:
        plain = Net(layers, loss=self._loss, input=self.input, train=self.train, classes=self.classes)
        plain.samples, plain.provenance = self.samples, dict(self.provenance)
        return plain

    def stream(self, batch: int = 1, **settings: Any) -> Stream:
        """So many streams through this net, each with a kept state; `settings` as for `fit`, for what they learn.

        Raises:
            ModelError: a net that streams cannot go through.
            UsageError: settings that they have no use for.
        """
        return Stream(self, self.recipe(**settings), batch)

    # Leaving

    def save(self, path: str | Path) -> None:
        """Write model.safetensors: architecture, input, recipe, classes, provenance and weights. A submodel becomes a
        plain net.

        Raises:
            OutputError: the file cannot be written; an older one is untouched.
        """
        modelfile.write(Path(path), (self.compact() if self.slice else self)._model())

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        return b"".join(modelfile.parts((self.compact() if self.slice else self)._model()))

    def restore(self, samples: NDArray[Any] | None, provenance: Mapping[str, Any]) -> None:
        """Take kept samples and provenance from a model file."""
        self.samples = samples
        self.provenance = dict(provenance)

    def _model(self) -> modelfile.Model:
        return modelfile.Model(
            layers=[to_config(layer) for layer in self.layers],
            graph=self.graph,
            params=self._flat,
            input=self.input.to_config(),
            train=self.train,
            classes=self.classes,
            loss=self.loss,
            provenance=self.provenance,
            samples=self.samples,
            nested=self.nested.to_table() if self.nested else None,
        )

    def export(
        self,
        path: str | Path,
        *,
        dtype: str = "float32",
        calibration: ArrayLike | None = None,
        samples: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        verify: bool = True,
        metadata: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Report | None:
        """Write X.onnx, X.tflite or X.h (C arrays), run it on `samples` and compare before it takes its name.

        `dtype` "int8" takes its ranges from `calibration`, some training samples; 100 to 500 are plenty. `samples`
        left out, they are those of `calibration`. Both left out, they are the few training samples that the net
        keeps. `labels` of the samples bring accuracies into the report. The file's metadata holds what `[input]`
        says, so that folders of images or sounds can be read for it. `options` are those of `exporting.Options`: io,
        method, max_disagreement.
        Returns the verification report, or None with `verify=False`.

        Raises:
            VerificationError: the runtime gave other answers; nothing was written.
            DataError: calibration samples that are missing, of another shape, or all alike.
            OutputError: the file cannot be written.
            ModelError: an unknown format, or its packages are missing.
        """
        from edgelearn.net import exporting  # not before it is needed: training must stay small

        wanted = exporting.Options(dtype=dtype, verify=verify, **options)
        if calibration is None:
            calibration = exporting.kept(self.samples, self.provenance, dtype)
        compared = calibration if samples is None else samples
        known = None if labels is None or compared is None else self.dataset(compared, labels, several=False).y_train
        given = exporting.Samples(calibration, compared, known)
        written, about = self.compact() if self.slice else self, metadata or {}
        return exporting.run(written, Path(path), wanted, given, forward=self.forward, train=self.train, metadata=about)

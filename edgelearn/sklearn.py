# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's estimators over nets that learn by local rules, for pipelines, searches and cross-validation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.costs.budget import Budget
from edgelearn.errors import DataError, ModelError
from edgelearn.inputs.frontend import Input
from edgelearn.layers import AnyLayer, Dense
from edgelearn.loading import load
from edgelearn.net import Net

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ModelError("scikit-learn 1.6 or later is missing: pip install 'edgelearn[sklearn]'") from error


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators are.

    Args:
        hidden: units of hidden Dense layers.
        activation: of those.
        model: a name in models/ or a path of a .toml whose layers, input and recipe are used instead; its last layer
            must have as many units as there are classes or targets.
        rule: the local rule; None is the model's own.
        epochs, batch, lr, optimizer: as in `Net.fit`; None is the model's own.
        budget: what training may use, such as "ram=16MB"; held before the first step.
        backend: native or numba.
        random_state: seed of weights and order; None is 0.
    """

    _loss: str | None = None

    def __init__(
        self,
        hidden: Sequence[int] = (128,),
        *,
        activation: str = "relu",
        model: str | Path | None = None,
        rule: str | None = None,
        epochs: int | None = 60,
        batch: int | None = 16,
        lr: float | None = 1e-2,
        optimizer: str | None = None,
        budget: str | None = None,
        backend: str = "native",
        random_state: int | None = None,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.model = model
        self.rule = rule
        self.epochs = epochs
        self.batch = batch
        self.lr = lr
        self.optimizer = optimizer
        self.budget = budget
        self.backend = backend
        self.random_state = random_state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """joblib brings pickles back over a file that must not be written to; sessions need their own weights."""
        super().__setstate__(state)
        net: Net | None = getattr(self, "net_", None)
        if net is not None and not net.flat.flags.writeable:
            self.net_ = copy.deepcopy(net)

    @property
    def _seed(self) -> int:
        return 0 if self.random_state is None else int(self.random_state)

    def _made(self, outputs: int) -> Net:
        if self.model is not None:
            return load(self.model, seed=self._seed, loss=self._loss)
        layers: list[AnyLayer] = [Dense(units, self.activation) for units in self.hidden]
        scaled = Input(standardise=True)
        return Net([*layers, Dense(outputs)], seed=self._seed, input=scaled, loss=self._loss)

    def _train(self, x: NDArray[Any], y: NDArray[Any], outputs: int) -> None:
        budget = Budget.parse(self.budget) if self.budget else None
        self.net_ = self._made(outputs)
        self.net_.fit(x, y, budget=budget, epochs=self.epochs, seed=self._seed, **self._settings())
        self.n_iter_ = len(self.net_.history.epochs)

    def _settings(self) -> dict[str, Any]:
        names = ("rule", "batch", "lr", "optimizer", "backend")
        return {name: getattr(self, name) for name in names}

    def _rows(self, x: Any) -> NDArray[np.float32]:
        check_is_fitted(self)
        rows: NDArray[np.float32] = validate_data(self, x, dtype=np.float32, reset=False)
        return rows


class EdgeClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A classifier by local rules: fit, partial_fit, predict, predict_proba, score.

    X is (n, features), scaled to mean 0 and spread 1 inside; y holds labels of any kind. After fit, `net_` is the
    Net, to save, export or hand to a Learner; `classes_` are the labels.
    """

    def fit(self, X: Any, y: Any) -> EdgeClassifier:
        """Train on X (n, features) and labels y (n,).

        Raises:
            DataError: one class only. scikit-learn's own ValueErrors: NaN, wrong shapes.
            BudgetError: the run does not fit.
            LearningError: training diverged or learned nothing.
        """
        x, labels = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(labels)
        self.classes_, indices = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"all labels are of one class, {self.classes_[0]!r}: give samples of at least two classes")
        self._train(x, indices.astype(np.int32), len(self.classes_))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> EdgeClassifier:
        """One pass over X (n, features) and labels y (n,). The first call needs all `classes`, and scales by its X.

        Raises:
            ValueError: no classes yet, or a label that is not among them.
        """
        first = not hasattr(self, "net_")
        x, labels = validate_data(self, X, y, dtype=np.float32, reset=first)
        check_classification_targets(labels)
        if first:
            if classes is None:
                raise ValueError("the first partial_fit must know all classes: pass classes=")
            self.classes_ = np.unique(classes)
            self.net_ = self._made(len(self.classes_))
        places = np.searchsorted(self.classes_, labels).clip(0, len(self.classes_) - 1)
        if (self.classes_[places] != labels).any():
            raise ValueError("y holds labels that are not among the classes: pass all of them to the first partial_fit")
        self.net_.partial_fit(x, places.astype(np.int32), **self._settings())
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities (n, classes), in the order of `classes_`."""
        rows = self._rows(X)
        outputs = self.net_.forward(rows).astype(np.float64)
        proba: NDArray[np.float64] = outputs / outputs.sum(axis=1, keepdims=True)
        return proba

    def predict(self, X: Any) -> NDArray[Any]:
        """Labels (n,)."""
        rows = self._rows(X)
        labels: NDArray[Any] = self.classes_[self.net_.forward(rows).argmax(axis=1)]
        return labels


class EdgeRegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A regressor by local rules: fit, predict, score.

    X is (n, features) and y (n,) or (n, k), both scaled to mean 0 and spread 1 inside. After fit, `net_` is the Net,
    whose outputs are y less `shift_`, over `scale_`.
    """

    _loss = "mse"

    def fit(self, X: Any, y: Any) -> EdgeRegressor:
        """Train on X (n, features) and targets y.

        Raises:
            scikit-learn's own ValueErrors: NaN, wrong shapes.
            BudgetError: the run does not fit.
            LearningError: training diverged or learned nothing.
        """
        said = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 2}
        x, targets = validate_data(self, X, y, dtype=np.float32, **said)
        rows = np.asarray(targets, np.float64).reshape(len(targets), -1)
        self.shift_, spread = rows.mean(axis=0), rows.std(axis=0)
        self.scale_ = np.where(spread > 0, spread, 1.0)
        self._flat = np.ndim(targets) == 1
        self._train(x, ((rows - self.shift_) / self.scale_).astype(np.float32), rows.shape[1])
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Values, (n,) or (n, k) as y was."""
        rows = self._rows(X)
        values: NDArray[np.float64] = self.net_.forward(rows) * self.scale_ + self.shift_
        return values[:, 0] if self._flat else values

    def __sklearn_tags__(self) -> Any:
        """Several targets are fine."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's own checks of estimators, and what people do with them: pipelines, searches, pickles."""

import pickle

import numpy as np
import pytest

import edgelearn as el

pytest.importorskip("sklearn")

from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from edgelearn.sklearn import EdgeClassifier, EdgeRegressor


@parametrize_with_checks([EdgeClassifier(hidden=(32,)), EdgeRegressor(hidden=(32,))])
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


def halves(bunch):
    return train_test_split(bunch.data, bunch.target, random_state=0, test_size=0.4)


def test_labels_are_those_that_were_given_in_a_pipeline_and_a_search():
    x, xt, y, yt = halves(load_iris())
    names = np.array(["setosa", "versicolor", "virginica"])
    search = GridSearchCV(EdgeClassifier(random_state=0), {"hidden": [(16,), (32, 16)]}, cv=2)
    assert make_pipeline(StandardScaler(), search).fit(x, names[y]).score(xt, names[yt]) > 0.85
    assert set(search.predict(xt)) <= set(names)
    assert search.best_estimator_.net_.graph.outputs == 3
    assert search.predict_proba(xt).shape == (60, 3)


def test_digits_are_learned_better_than_by_untrained_features():
    x, xt, y, yt = halves(load_digits())
    scores = {rule: EdgeClassifier(rule=rule, epochs=15).fit(x, y).score(xt, yt) for rule in (None, "untrained")}
    assert scores[None] > 0.95
    assert scores[None] > scores["untrained"]


def test_values_are_predicted_in_the_units_that_were_given():
    x, xt, y, yt = halves(load_diabetes())
    assert EdgeRegressor((32,)).fit(x, 1000 * y).score(xt, 1000 * yt) > 0.3
    both = EdgeRegressor((32,)).fit(x, np.stack([y, -y], axis=1))
    assert both.predict(xt).shape == (len(xt), 2)
    assert np.corrcoef(*both.predict(xt).T)[0, 1] < -0.9


def test_parts_come_one_after_the_other():
    x, xt, y, yt = halves(load_digits())
    learner = EdgeClassifier((64,))
    for start in range(0, len(x), 200):
        learner.partial_fit(x[start : start + 200], y[start : start + 200], classes=range(10))
    assert learner.score(xt, yt) > 0.75


def test_the_same_seed_gives_the_same_net_also_after_a_pickle():
    x, xt, y, _ = halves(load_iris())
    first, again, other = (EdgeClassifier(epochs=5, random_state=s).fit(x, y).predict_proba(xt) for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    kept = pickle.loads(pickle.dumps(EdgeClassifier(epochs=5, random_state=3).fit(x, y)))
    assert np.array_equal(kept.predict_proba(xt), first)


def test_a_model_by_name_brings_its_layers_and_its_recipe():
    x, y = load_digits(return_X_y=True)
    model = EdgeClassifier(model="digits", epochs=2, batch=None, lr=None, rule=None).fit(x, y)
    assert [layer.units for layer in model.net_.layers] == [layer.units for layer in el.load("digits").layers]
    assert cross_val_score(EdgeClassifier(epochs=5), x[:500], y[:500], cv=2).min() > 0.7


def test_a_net_goes_on_learning_in_a_learner():
    x, _, y, _ = halves(load_digits())
    with el.Learner(EdgeClassifier(epochs=5).fit(x[:500], y[:500]).net_) as learner:
        assert learner.partial_fit(x[500:], y[500:]).learned > 400


REFUSED = [
    (lambda x, y: EdgeClassifier().fit(x, np.zeros(len(y))), ValueError, "all labels are of one class"),
    (lambda x, y: EdgeClassifier().fit(np.where(x > 1, np.nan, x), y), ValueError, "NaN"),
    (lambda x, y: EdgeClassifier().fit(x, y + 0.5), ValueError, "Unknown label type"),
    (lambda x, y: EdgeClassifier().partial_fit(x, y), ValueError, "pass classes="),
    (lambda x, y: EdgeClassifier().partial_fit(x, y, classes=[0, 1]), ValueError, "pass all of them to the first"),
    (lambda x, y: EdgeClassifier(budget="ram=1KB").fit(x, y), el.BudgetError, "ram"),
    (lambda x, y: EdgeClassifier(rule="magic").fit(x, y), el.ModelError, "magic"),
    (lambda x, y: EdgeClassifier(lr=-1).fit(x, y), el.UsageError, "rate"),
    (lambda x, y: EdgeClassifier(model="nothing").fit(x, y), el.ModelError, "nothing"),
    (lambda x, y: EdgeRegressor().fit(x, np.full(len(y), np.inf)), ValueError, "infinity"),
    (lambda x, y: EdgeRegressor().fit(x[:1], y[:1]), ValueError, "1 sample"),
]


@pytest.mark.parametrize(("act", "error", "words"), REFUSED)
def test_what_cannot_be_learned_is_refused(act, error, words):
    with pytest.raises(error, match=words):
        act(*load_iris(return_X_y=True))

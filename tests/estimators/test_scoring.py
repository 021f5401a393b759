"""The log-likelihood as a scorer: searches, pipelines, transformed targets, weights and metadata routing."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, PowerTransformer, StandardScaler

import pyro_probmix as pm
from tests.estimators.cases import SMALL

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])


def test_a_grid_search_chooses_by_log_likelihood(diabetes: Any) -> None:
    X, y = diabetes
    grid = {"method": ["erm", "probmix"], "beta": [0.0, 0.1]}
    search = GridSearchCV(pm.ProbMixRegressor(**SMALL), grid, scoring=pm.log_likelihood_scorer, cv=2)
    search.fit(X, y)
    found = search.cv_results_["mean_test_score"]
    assert search.best_score_ == max(found)
    assert np.isfinite(found).all()
    steps = Pipeline([("scale", StandardScaler()), ("none", "passthrough"), ("model", pm.ProbMixRegressor(**SMALL))])
    behind = {f"model__{name}": values for name, values in grid.items()}
    other = GridSearchCV(steps, behind, scoring=pm.log_likelihood_scorer, cv=2, error_score="raise").fit(X, y)
    np.testing.assert_allclose(other.cv_results_["mean_test_score"], found, rtol=1e-5)  # features are scaled anyway
    best = search.best_estimator_.log_likelihood(X, y)
    assert pm.log_likelihood_scorer(search, X, y) == pytest.approx(best)


def test_the_scorer_names_what_predicts_no_density(diabetes: Any) -> None:
    with pytest.raises(TypeError, match=r"estimator: expected a fitted ProbMixRegressor.* got LinearRegression"):
        pm.log_likelihood_scorer(make_pipeline(StandardScaler(), LinearRegression()).fit(*diabetes), *diabetes)


def test_the_scorer_is_one_object_that_can_be_copied(diabetes: Any) -> None:
    model = pm.ProbMixRegressor(**SMALL).fit(*diabetes)
    again = pickle.loads(pickle.dumps(pm.log_likelihood_scorer))
    assert again(model, *diabetes) == pm.log_likelihood_scorer(model, *diabetes)
    assert repr(again) == "log_likelihood_scorer"
    assert clone(GridSearchCV(model, {}, scoring=again)).scoring is not None


# Transformed targets.


@pytest.mark.parametrize(
    "transformer",
    [
        StandardScaler(),
        PowerTransformer("box-cox"),
        FunctionTransformer(np.log, np.exp),
        FunctionTransformer(np.sqrt, np.square),
        FunctionTransformer(lambda y: -3 * y, lambda t: -t / 3),
    ],
    ids=["standard", "box-cox", "log", "square root", "negative"],
)
def test_a_density_of_transformed_targets_is_one_of_targets(transformer: Any, skewed: Any) -> None:
    X, y = skewed
    inner = pm.ProbMixRegressor("erm", **SMALL)
    model = TransformedTargetRegressor(inner, transformer=transformer).fit(X, y)

    def density(values: Any) -> Any:
        """Of each value for the first row, by the distribution function of the inner regressor."""
        p = model.regressor_.predict_distribution(X[:1])
        step = 1e-5 * values
        ends = [model.transformer_.transform((values + sign * step)[:, None])[:, 0] for sign in (-1, 1)]
        low, high = (pm.distributions.cdf(p, end[:, None]).numpy()[:, 0] for end in ends)
        return np.abs(high - low) / (2 * step)

    values = np.quantile(y, [0.1, 0.3, 0.5, 0.7, 0.9])
    found = [pm.log_likelihood_scorer(model, X[:1], np.array([value])) for value in values]
    np.testing.assert_allclose(found, np.log(density(values)), rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("error")
def test_a_target_at_the_end_of_a_transform_is_named(skewed: Any) -> None:
    X, y = skewed
    y = np.where(np.arange(len(y)) == 7, 0.0, y)
    model = TransformedTargetRegressor(
        pm.ProbMixRegressor("erm", **SMALL), func=np.sqrt, inverse_func=np.square, check_inverse=False
    )
    with pytest.raises(ValueError, match=r"y: expected targets near which the transform is defined, .* \(row 7\)"):
        pm.log_likelihood_scorer(model.fit(X, y), X, y)


def test_the_units_of_transformed_targets_are_their_own(diabetes: Any) -> None:
    X, y = diabetes
    direct = pm.ProbMixRegressor("erm", **SMALL).fit(X, y).log_likelihood(X, y)
    scaled = TransformedTargetRegressor(pm.ProbMixRegressor("erm", **SMALL), transformer=StandardScaler()).fit(X, y)
    assert pm.log_likelihood_scorer(scaled, X, y) == pytest.approx(direct, rel=1e-8)
    both = np.stack([y, y**2], -1)
    direct = pm.ProbMixRegressor("erm", **SMALL).fit(X, both).log_likelihood(X, both)
    turn = FunctionTransformer(lambda t: t @ np.array([[2.0, 0.0], [0.0, -0.5]]), check_inverse=False)
    turned = TransformedTargetRegressor(pm.ProbMixRegressor("erm", **SMALL), transformer=turn, check_inverse=False)
    assert pm.log_likelihood_scorer(turned.fit(X, both), X, both) == pytest.approx(
        turned.regressor_.log_likelihood(X, both * [2.0, -0.5]), rel=1e-8
    )
    behind = make_pipeline(StandardScaler(), scaled)
    assert np.isfinite(cross_val_score(behind, X, y, scoring=pm.log_likelihood_scorer, cv=2, error_score="raise")).all()


# Weights.


def test_a_search_with_weights_is_scored_with_them(diabetes: Any) -> None:
    X, y = diabetes
    weight = np.where(np.arange(120) % 2, 4.0, 1.0)
    search = GridSearchCV(pm.ProbMixRegressor("erm", **SMALL), {"beta": [0.0]}, scoring=pm.log_likelihood_scorer, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search.fit(X, y, sample_weight=weight)
    found = [search.cv_results_[f"split{k}_test_score"][0] for k in range(2)]
    expected = []
    for test in (slice(0, 60), slice(60, 120)):
        train = np.delete(np.arange(120), test)
        model = clone(search.estimator).fit(X[train], y[train], sample_weight=weight[train])
        weights = weight[test] if VERSION >= (1, 9) else None  # earlier ones fit with them, and score without
        expected.append(model.log_likelihood(X[test], y[test], sample_weight=weights))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("scored", [True, False])
def test_weights_are_routed_where_they_are_asked_for(scored: bool, diabetes: Any) -> None:
    X, y = diabetes
    weight = np.where(np.arange(120) % 2, 4.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        model = pm.ProbMixRegressor("erm", **SMALL).set_fit_request(sample_weight=True)
        scorer = pm.log_likelihood_scorer.set_score_request(sample_weight=scored)
        search = GridSearchCV(model, {"beta": [0.0]}, scoring=scorer, cv=2).fit(X, y, sample_weight=weight)
        inner = clone(model).fit(X[60:], y[60:], sample_weight=weight[60:])
        expected = inner.log_likelihood(X[:60], y[:60], sample_weight=weight[:60] if scored else None)
        assert search.cv_results_["split0_test_score"][0] == pytest.approx(expected)
        undecided = GridSearchCV(model, {"beta": [0.0]}, scoring=pm.log_likelihood_scorer, cv=2)
        with pytest.raises(ValueError, match="sample_weight"):  # as for any scorer of scikit-learn
            undecided.fit(X, y, sample_weight=weight)

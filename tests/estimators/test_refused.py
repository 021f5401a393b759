"""Settings and targets that are refused, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.exceptions import NotFittedError

import pyro_probmix as pm
from pyro_probmix.estimators import score
from tests.estimators.cases import SMALL


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "mixop"}, 'method: expected one of "erm", "mixup", .* got "mixop"'),
        ({"hidden_features": ()}, "network: expected one with a hidden layer for ManifoldProbMix"),
        ({"alpha": 0}, r"alpha: expected a number in \(0, inf\), got 0"),
        ({"beta": -1}, "beta: expected"),
        ({"num_members": 0}, "num_members: expected"),
        ({"num_samples": 0}, "num_samples: expected"),
        ({"validation_fraction": 1.0}, r"validation_fraction: expected a number in \[0, 1\), got 1.0"),
        ({"validation_fraction": 0.999}, "validation_fraction: expected one that leaves rows to train on, got 0.999"),
        ({"method": None}, 'method: expected one of "erm", .* got None'),
        ({"device": "nowhere"}, "device: expected one that is here, such as cpu, got 'nowhere'"),
        ({"num_neighbors": 500}, "num_neighbors: expected"),
        ({"epochs": 0}, "epochs: expected"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"learning_rate": -1}, "learning_rate: expected"),
        ({"fusion": "cubic"}, 'fusion: expected one of "log-linear", "linear", "numerical"'),
        ({"method": "erm", "fusion": "linear"}, 'fusion: expected "log-linear" for ERM'),
        ({"likelihood": "mixture", "num_components": 0}, "num_components: expected"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str, diabetes: Any) -> None:
    """First of all by their own name: a user of one estimator has made no replica."""
    model = pm.ProbMixRegressor(**SMALL | settings)
    with pytest.raises(ValueError, match=f"^{message}"):
        model.fit(*diabetes)
    with pytest.raises(NotFittedError):
        model.predict(diabetes[0])


@pytest.mark.parametrize("name", ["alpha", "validation_fraction"])
def test_settings_that_are_no_numbers_are_named(name: str, diabetes: Any) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected a number in .*, got None"):
        pm.ProbMixRegressor(**SMALL | {name: None}).fit(*diabetes)


def test_a_loss_that_is_not_finite_leaves_nothing_fitted(diabetes: Any) -> None:
    model = pm.ProbMixRegressor("erm", **SMALL | {"learning_rate": 1e200})
    with pytest.raises(ValueError, match=r"learning_rate: .* smaller one \(loss: .* epoch 0"):
        model.fit(*diabetes)
    with pytest.raises(NotFittedError):
        model.predict(diabetes[0])


def test_labels_and_features_have_one_length(diabetes: Any) -> None:
    X, y = diabetes
    model = pm.ProbMixRegressor(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.log_likelihood(X, y[:-1])


@pytest.mark.parametrize("outputs", [1, 2])
def test_labels_that_would_broadcast_are_refused(outputs: int, diabetes: Any) -> None:
    X, y = diabetes
    one, several = y, np.stack([y] * outputs, -1)
    model = pm.ProbMixRegressor("erm", **SMALL)
    for fitted, other in ((one, several), (several, one)):
        with pytest.raises(ValueError, match=r"y: expected shape .* as in fit"):
            model.fit(X, fitted).log_likelihood(X, other)


def test_labels_of_one_column_are_labels(iris: Any) -> None:
    X, y = iris
    model = pm.ProbMixClassifier("erm", **SMALL).fit(X, y)
    column = pandas.DataFrame({"label": y})
    assert model.log_likelihood(X, column) == pytest.approx(model.log_likelihood(X, y))
    regressor = pm.ProbMixRegressor("erm", **SMALL).fit(X, y.astype(float))
    assert np.isfinite(regressor.log_likelihood(X, pandas.Series(y.astype(float))))  # which is read-only


@pytest.mark.parametrize("kind", [np.asarray, pandas.Series, list])
def test_labels_of_a_regression_are_sent_to_the_classifier(kind: Any) -> None:
    y = kind(["1.5", "b", "c"] * 4)
    message = "^y: expected numbers, got text such as 'b'; ProbMixClassifier takes labels$"
    with pytest.raises(ValueError, match=message):
        pm.ProbMixRegressor("erm", **SMALL).fit(np.ones((12, 2)), y)


@pytest.mark.parametrize(
    ("likelihood", "bad", "message"),
    [
        ("normal", np.nan, "y contains NaN"),
        ("gamma", 0.0, r'^y: expected positive numbers for likelihood "gamma", got others in 1 of 120 rows \(row r3\)'),
        ("lognormal", -1.0, r"^y: expected positive numbers .* \(row r3\)"),
        ("poisson", 0.5, r"^y: expected counts .* \(row r3\)"),
    ],
)
def test_targets_without_a_density_are_named_in_fit_and_in_scores(likelihood: str, bad: float, message: str) -> None:
    """In few words and by the names of rows, whatever the distribution would have said of its tensors."""
    rng = np.random.default_rng(0)
    X = pandas.DataFrame(rng.normal(size=(120, 2)), columns=["a", "b"], index=[f"r{i}" for i in range(120)])
    y = rng.poisson(3, 120) + 1.0
    model = pm.ProbMixRegressor("erm", likelihood=likelihood, **SMALL).fit(X, y)
    other = np.where(np.arange(120) == 3, bad, y)
    named = pandas.Series(other, X.index)
    for call in (
        lambda: model.log_likelihood(X, other),
        lambda: score(model, X, named),
        lambda: model.fit(X, other),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=r"y: expected shape \(120,\), as in fit, got \(120, 1\)"):
        pm.ProbMixRegressor("erm", **SMALL).fit(X, y).log_likelihood(X, y[:, None])


@pytest.mark.parametrize("unit", [1e300, 1e-300])
def test_targets_without_a_variance_are_refused(unit: float, diabetes: Any) -> None:
    with pytest.raises(ValueError, match=r"^y: expected numbers of at most 1e\+150 that differ by more than 1e-150"):
        pm.ProbMixRegressor("erm", **SMALL).fit(diabetes[0], diabetes[1] * unit)


def test_dates_are_no_targets(diabetes: Any) -> None:
    for days in (pandas.date_range("2020", periods=120), np.arange(120).astype("m8[h]")):
        with pytest.raises(ValueError, match=r"^y: expected numbers, got dates or durations"):
            pm.ProbMixRegressor("erm", **SMALL).fit(diabetes[0], days)

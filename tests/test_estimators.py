"""The scikit-learn estimators: its own checks; units, members, noise and scores are what they are said to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyro_probmix as pm
from pyro_probmix.estimators import base, members

METHODS = ("erm", "mixup", "manifold_mixup", "probmix", "manifold_probmix")
SMALL: dict[str, Any] = {"hidden_features": (8,), "epochs": 3, "num_samples": 5, "random_state": 0}
CHECKED: dict[str, Any] = SMALL | {"epochs": 12, "batch_size": 16, "learning_rate": 0.03, "patience": None}


@pytest.fixture(scope="module")
def diabetes() -> tuple[Any, Any]:
    X, y = load_diabetes(return_X_y=True)
    return X[:120], y[:120]


@pytest.fixture(scope="module")
def iris() -> tuple[Any, Any]:
    X, y = load_iris(return_X_y=True)
    return X[::3], y[::3]


NOT_MEANT = {
    "check_sample_weight_equivalence_on_dense_data": "a row of weight two and two rows are drawn into other batches"
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [pm.ProbMixRegressor(**CHECKED), pm.ProbMixClassifier(**CHECKED)], expected_failed_checks=lambda _: NOT_MEANT
)
def test_what_scikit_learn_asks_of_an_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


# What is predicted.


@pytest.mark.parametrize("method", METHODS)
def test_the_units_of_the_target_change_nothing_else(method: str, diabetes: Any) -> None:
    X, y = diabetes
    model = pm.ProbMixRegressor(method, **SMALL).fit(X, y)
    moved = pm.ProbMixRegressor(method, **SMALL).fit(X, 1000 * y - 7)
    for ours, theirs, shift in zip(model.predict(X, True), moved.predict(X, True), (7, 0), strict=True):
        np.testing.assert_allclose(theirs, 1000 * ours - shift, rtol=1e-9)
    expected = model.log_likelihood(X, y) - np.log(1000)
    assert moved.log_likelihood(X, 1000 * y - 7) == pytest.approx(expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_prediction_is_the_equal_mixture_of_members_and_samples(method: str, diabetes: Any) -> None:
    X, y = diabetes
    model = pm.ProbMixRegressor(method, num_members=3, **SMALL).fit(X, y)
    x = torch.as_tensor(model.preparation_.transform(X))
    with torch.no_grad():
        members = [member.predictive(x, 4000) for member in model.models_]
    mean = sum(p.mean for p in members) / 3
    second = sum(p.variance + p.mean**2 for p in members) / 3
    found, deviation = model.set_params(num_samples=4000).predict(X, return_std=True)
    np.testing.assert_allclose(found, mean, rtol=0.02)
    np.testing.assert_allclose(deviation, (second - mean**2).sqrt(), rtol=0.05)
    log_prob = model.predict_distribution(X).log_prob(torch.as_tensor(y))
    assert model.log_likelihood(X, y) == pytest.approx(float(log_prob.mean()))


@pytest.mark.parametrize("method", ["erm", "manifold_probmix"])
def test_a_density_has_rows_and_quantiles_whatever_the_method(method: str, diabetes: Any) -> None:
    X, y = diabetes
    p = pm.ProbMixRegressor(method, **SMALL).fit(X, y).predict_distribution(X[:9])
    torch.testing.assert_close(p[2:5].log_prob(torch.as_tensor(y[2:5])), p.log_prob(torch.as_tensor(y[:9]))[2:5])
    torch.testing.assert_close(p.cdf(p.icdf(torch.full((9,), 0.9))), torch.full((9,), 0.9, dtype=torch.float64))
    assert p.entropy().shape == (9,)


@pytest.mark.parametrize("kind", [pm.ProbMixRegressor, pm.ProbMixClassifier])
def test_rows_do_not_depend_on_others_nor_on_blocks(kind: Any, iris: Any, monkeypatch: Any) -> None:
    X, y = iris
    model = kind(num_members=2, **SMALL).fit(X, y)
    predict = getattr(model, "predict_proba", model.predict)
    expected, score = predict(X), model.log_likelihood(X, y)
    np.testing.assert_allclose(predict(X[7:9]), expected[7:9])
    monkeypatch.setattr(base, "_NUMBERS_AT_ONCE", 16 * 5 * 8)  # eight rows
    np.testing.assert_allclose(predict(X), expected)
    assert model.log_likelihood(X, y) == pytest.approx(score)


def test_probabilities_are_of_the_classes_in_their_order(iris: Any) -> None:
    X, y = iris
    names = np.array(["virginica", "setosa", "versicolor"])[y]
    model = pm.ProbMixClassifier("probmix", **SMALL | {"epochs": 60, "learning_rate": 0.02}).fit(X, names)
    assert list(model.classes_) == ["setosa", "versicolor", "virginica"]
    probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(probabilities))
    far = model.predict_log_proba(1e4 * X)
    assert far.min() < -800
    assert np.isfinite(far).all(), "there the probability itself is zero"
    assert (model.predict(X) == model.classes_[probabilities.argmax(-1)]).all()
    assert model.score(X, names) > 0.8
    rows = np.searchsorted(model.classes_, names)
    expected = np.log(probabilities[np.arange(len(X)), rows]).mean()
    assert model.log_likelihood(X, names) == pytest.approx(expected)
    assert model.log_likelihood(X[:2], ["setosa", "tulip"]) == -np.inf


def test_several_outputs_have_their_own_units() -> None:
    X, y = load_diabetes(return_X_y=True)
    both = np.stack([y, 1e-3 * X[:, 2] + 5], -1)[:200]
    model = pm.ProbMixRegressor("probmix", **SMALL | {"epochs": 60, "learning_rate": 0.02}).fit(X[:200], both)
    mean, deviation = model.predict(X[:200], return_std=True)
    assert mean.shape == deviation.shape == both.shape
    assert (np.abs(mean - both).mean(0) < both.std(0)).all()
    assert model.predict_distribution(X[:5]).event_shape == (2,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_decide_the_precision(dtype: Any, diabetes: Any) -> None:
    X, y = diabetes
    model = pm.ProbMixRegressor(**SMALL).fit(X.astype(dtype), y)
    assert next(model.models_[0].parameters()).dtype == torch.from_numpy(X.astype(dtype)).dtype
    np.testing.assert_allclose(model.predict(X.astype(dtype)), model.predict(X), rtol=1e-5)


def test_targets_keep_their_digits_beside_features_in_single_precision(diabetes: Any) -> None:
    X, y = diabetes
    near, far = (pm.ProbMixRegressor(**SMALL).fit(X.astype(np.float32), y + shift) for shift in (0, 2**31))
    np.testing.assert_allclose(far.predict(X) - 2**31, near.predict(X), rtol=1e-3)
    assert far.log_likelihood(X, y + 2**31) == pytest.approx(near.log_likelihood(X, y), rel=1e-4)


def test_features_are_found_by_name(diabetes: Any) -> None:
    X, y = diabetes
    frame = pandas.DataFrame(X, columns=[f"column {k}" for k in range(10)])
    model = pm.ProbMixRegressor(**SMALL).fit(frame, y)
    assert list(model.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[frame.columns[::-1]])


# How it is trained.


def test_members_hold_back_other_rows(monkeypatch: Any) -> None:
    seen: list[Any] = []
    fit_replicas = members.fit_replicas

    def record(make_model: Any, data: Any, **arguments: Any) -> Any:
        seen.extend(zip(data, arguments["validation"], strict=True))
        return fit_replicas(make_model, data, **arguments)

    monkeypatch.setattr(members, "fit_replicas", record)
    X = np.arange(20.0)[:, None]
    pm.ProbMixRegressor("erm", num_members=6, **SMALL).fit(X, X[:, 0])
    held_out = [set(y.tolist()) for _, (_, y) in seen]
    assert [len(rows) for rows in held_out] == [4] * 6
    assert len(set.union(*held_out[:5])) == 20  # of five, no row twice
    assert held_out[5] == held_out[0]
    assert all(len(set(y.tolist()) | rows) == 20 for ((_, y), _), rows in zip(seen, held_out, strict=True))


def test_the_last_epoch_is_kept_where_no_rows_are_held_back(diabetes: Any) -> None:
    model = pm.ProbMixRegressor(validation_fraction=0, **SMALL).fit(*diabetes)
    assert model.histories_[0].best_epoch == 2
    assert model.histories_[0].validation_loss == []


def test_neighbours_are_mixed(diabetes: Any) -> None:
    X, y = diabetes
    local = pm.ProbMixRegressor("probmix", num_neighbors=3, **SMALL)
    assert not np.allclose(local.fit(X, y).predict(X), clone(local).set_params(num_neighbors=None).fit(X, y).predict(X))


def test_a_fixed_random_state_repeats_a_fit_and_disturbs_none(diabetes: Any) -> None:
    X, y = diabetes
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (pm.ProbMixRegressor(**SMALL).fit(X, y).predict(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert not np.allclose(first, pm.ProbMixRegressor(**SMALL | {"random_state": 1}).fit(X, y).predict(X))


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
    search = GridSearchCV(steps, behind, scoring=pm.log_likelihood_scorer, cv=2, error_score="raise").fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], found, rtol=1e-5)  # features are scaled anyway


def test_the_scorer_names_what_predicts_no_density(diabetes: Any) -> None:
    with pytest.raises(TypeError, match=r"estimator: expected a fitted ProbMixRegressor.* got LinearRegression"):
        pm.log_likelihood_scorer(make_pipeline(StandardScaler(), LinearRegression()).fit(*diabetes), *diabetes)


def test_fitted_members_predict_whatever_the_settings_are_now(iris: Any) -> None:
    X, y = iris
    model = pm.ProbMixClassifier("erm", num_members=2, **SMALL).fit(X, y)
    expected = model.predict_proba(X)
    model.set_params(num_members=0, hidden_features=None, device="nowhere")
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    with pytest.raises(ValueError, match="num_samples: expected"):
        model.set_params(num_samples=0).predict(X)


# What is refused.


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
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str, diabetes: Any) -> None:
    model = pm.ProbMixRegressor(**SMALL | settings)
    with pytest.raises(ValueError, match=message):
        model.fit(*diabetes)
    with pytest.raises(NotFittedError):
        model.predict(diabetes[0])


@pytest.mark.parametrize("name", ["alpha", "validation_fraction"])
def test_settings_that_are_no_numbers_are_named(name: str, diabetes: Any) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected a number in .*, got None"):
        pm.ProbMixRegressor(**SMALL | {name: None}).fit(*diabetes)


def test_a_loss_that_is_not_finite_leaves_nothing_fitted(diabetes: Any) -> None:
    model = pm.ProbMixRegressor("erm", **SMALL | {"learning_rate": 1e200})
    with pytest.raises(ValueError, match=r"learning_rate: .* member 0"):
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

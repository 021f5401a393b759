"""Weights of rows and of classes: what a row of weight two is, in the risk, in the validation loss and in scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils import compute_sample_weight

import pyro_probmix as pm
from tests.estimators.cases import SMALL

EXACT: dict[str, Any] = SMALL | {"batch_size": None, "validation_fraction": 0, "epochs": 20}


@pytest.fixture
def mirrored() -> tuple[Any, Any, Any]:
    """Rows that come in pairs x and −x of one weight, so that weights change neither mean nor scale of a feature."""
    rng = np.random.default_rng(0)
    half = np.sign(rng.normal(size=(20, 3)))
    X = np.concatenate([half, -half])
    weight = np.tile(np.where(np.arange(20) < 8, 2.0, 1.0), 2)
    return X, X[:, 0] + 0.3 * rng.normal(size=40), weight


@pytest.mark.parametrize("likelihood", ["normal", "lognormal", "gamma", "poisson", "mixture"])
def test_a_row_of_weight_two_is_two_rows(likelihood: str, mirrored: Any) -> None:
    X, y, weight = mirrored
    y = {"poisson": np.floor(np.exp(y)), "lognormal": np.exp(y), "gamma": np.exp(y)}.get(likelihood, y)
    twice = np.repeat(np.arange(40), weight.astype(int))
    model = pm.ProbMixRegressor("erm", likelihood=likelihood, **EXACT)
    weighted = model.fit(X, y, sample_weight=weight).predict_quantiles(X)
    np.testing.assert_allclose(weighted, model.fit(X[twice], y[twice]).predict_quantiles(X), rtol=1e-6, atol=1e-9)
    mean = model.predict(X)
    assert not np.allclose(mean, model.fit(X, y).predict(X), rtol=1e-3)


@pytest.mark.parametrize("method", ["mixup", "probmix"])
def test_an_edge_has_the_product_of_two_weights(method: str, mirrored: Any) -> None:
    X, y, weight = mirrored
    likelihood = pm.nn.NormalLikelihood()
    network = pm.nn.MLP(3, [8], likelihood.num_outputs).double()
    model = pm.models.assemble(method, network, 8, likelihood, coefficient=pm.GaussJacobi(0.5, 0.5, 8), beta=0.1)
    x, labels, weights = (torch.as_tensor(t) for t in (X, y, weight))

    def mean_risk(rows: Any, own: Any) -> float:
        """Over all partners of all rows."""
        total = counted = 0.0
        for shift in range(len(rows)):
            partner = (torch.arange(len(rows)) + shift) % len(rows)
            edge = own[rows] * own[rows][partner]
            batch = pm.PairBatch(x[rows], labels[rows], partner, weight=own[rows])
            total, counted = total + float(model.risk(batch).detach()) * len(rows), counted + float(edge.sum())
        return total / counted

    twice = torch.repeat_interleave(torch.arange(40), weights.long())
    ones = torch.ones_like(weights)
    expected = mean_risk(twice, ones)
    assert mean_risk(torch.arange(40), weights) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("method", ["erm", "manifold_probmix"])
def test_rows_without_weight_are_not_there(method: str, diabetes: Any) -> None:
    X, y = diabetes
    weight = (np.arange(120) % 3 > 0).astype(float)
    model = pm.ProbMixRegressor(method, **SMALL)
    without = model.fit(X[weight > 0], y[weight > 0], sample_weight=weight[weight > 0]).predict(X)
    y = np.where(weight > 0, y, np.nan_to_num(1e9))
    np.testing.assert_array_equal(model.fit(X, y, sample_weight=weight).predict(X), without)


@pytest.mark.parametrize("kind", [pm.ProbMixRegressor, pm.ProbMixClassifier])
@pytest.mark.parametrize("method", ["erm", "manifold_probmix"])
def test_equal_weights_are_none(kind: Any, method: str, iris: Any) -> None:
    X, y = iris
    model = kind(method, **SMALL | {"num_members": 2})
    expected = model.fit(X, y).predict(X)
    np.testing.assert_allclose(model.fit(X, y, sample_weight=np.full(len(y), 3.0)).predict(X), expected)


def test_validation_losses_are_weighted(diabetes: Any) -> None:
    X, y = diabetes
    weight = np.where(np.arange(120) % 2, 5.0, 1.0)
    model = pm.ProbMixRegressor("erm", **SMALL | {"epochs": 1}).fit(X, y, sample_weight=weight)
    order = np.random.RandomState(0)
    order.randint(2**31 - 1)
    held_out = order.permutation(120)[:24]
    nll = -model.log_likelihood(X[held_out], y[held_out], sample_weight=weight[held_out])
    scale = float(model.models_[0].likelihood.y_scale)
    assert model.histories_[0].validation_loss[0] == pytest.approx(nll - np.log(scale), rel=1e-9)


def test_scores_are_weighted(iris: Any) -> None:
    X, y = iris
    twice = np.arange(len(y)).repeat(np.where(y == 1, 3, 1))
    weight = np.where(y == 1, 3.0, 1.0)
    for model in (pm.ProbMixRegressor(**SMALL), pm.ProbMixClassifier(**SMALL)):
        model.fit(X, y)
        expected = model.log_likelihood(X[twice], y[twice])
        assert model.log_likelihood(X, y, sample_weight=weight) == pytest.approx(expected)
        assert pm.log_likelihood_scorer(model, X, y, sample_weight=weight) == pytest.approx(expected)


# Classes.


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 4.0, 2: 0.5}, {1: 3.0}])
def test_class_weights_are_weights_of_their_rows(class_weight: Any, iris: Any) -> None:
    X, y = iris[0][:40], iris[1][:40]  # of the last class there are few
    weight = compute_sample_weight(class_weight, y)
    own = np.linspace(1, 2, 40)
    by_class = pm.ProbMixClassifier("manifold_probmix", class_weight=class_weight, **SMALL)
    by_row = pm.ProbMixClassifier("manifold_probmix", **SMALL)
    np.testing.assert_allclose(
        by_class.fit(X, y).predict_proba(X), by_row.fit(X, y, sample_weight=weight).predict_proba(X)
    )
    weighted = by_class.fit(X, y, sample_weight=own).predict_proba(X)
    np.testing.assert_allclose(weighted, by_row.fit(X, y, sample_weight=own * weight).predict_proba(X))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(120), "sample_weight: expected weights that are not all zero"),
        (-np.ones(120), "sample_weight: expected numbers of at least 0, got others in 120 of 120 rows"),
        (np.ones(3), r"sample_weight: expected shape \(120,\), one a row, got \(3,\)"),
        (np.full(120, np.nan), "sample_weight contains NaN"),
    ],
)
def test_what_is_no_weight_is_refused(weight: Any, message: str, diabetes: Any) -> None:
    with pytest.raises(ValueError, match=message):
        pm.ProbMixRegressor("erm", **SMALL).fit(*diabetes, sample_weight=weight)


@pytest.mark.parametrize("class_weight", ["even", 3.0])
def test_what_is_no_class_weight_is_refused(class_weight: Any, iris: Any) -> None:
    with pytest.raises(ValueError, match='class_weight: expected "balanced", weights by label, or None, got'):
        pm.ProbMixClassifier("erm", class_weight=class_weight, **SMALL).fit(*iris)


@pytest.mark.parametrize("weight", [-1.0, np.nan])
def test_the_weight_of_a_class_is_named(weight: float, iris: Any) -> None:
    with pytest.raises(ValueError, match=r"^class_weight\[1\]: expected a number in \[0, inf\)"):
        pm.ProbMixClassifier("erm", class_weight={1: weight}, **SMALL).fit(*iris)


def test_the_weight_of_an_unknown_class_is_named(iris: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^class_weight: expected weights of the classes 0, 1, 2, got one of 'setosa'$"
    ):
        pm.ProbMixClassifier("erm", class_weight={"setosa": 2.0}, **SMALL).fit(*iris)

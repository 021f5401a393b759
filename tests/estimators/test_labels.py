"""Labels of a classifier: several at once, soft ones, and classes that have an order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pyro.distributions as dist
import pytest
import torch
from sklearn.datasets import make_multilabel_classification

import pyro_probmix as pm
from pyro_probmix.estimators import OrdinalLikelihood, prediction_table
from tests.estimators.cases import METHODS, SMALL, fitted_again


@pytest.fixture(scope="module")
def several() -> tuple[Any, Any]:
    X, y = make_multilabel_classification(90, 5, n_classes=4, random_state=0)
    return X, y


@pytest.fixture(scope="module")
def graded() -> tuple[Any, Any]:
    """Five grades of a number with noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 3))
    return X, np.digitize(X[:, 0] + 0.3 * rng.logistic(size=150), [-1.5, -0.5, 0.5, 1.5])


# Several at once.


@pytest.mark.parametrize("method", METHODS)
def test_several_labels_are_each_there_or_not(method: str, several: Any) -> None:
    X, y = several
    learnt = SMALL | {"epochs": 60, "learning_rate": 0.05, "validation_fraction": 0}
    model = pm.ProbMixClassifier(method, **learnt).fit(X, y)
    probabilities = model.predict_proba(X)
    assert probabilities.shape == y.shape
    np.testing.assert_array_equal(model.predict(X), (probabilities > 0.5).astype(int))
    assert list(model.classes_) == [0, 1, 2, 3]
    assert (model.predict(X) == y).mean() > 0.7
    np.testing.assert_array_equal(fitted_again(model).predict_proba(X), probabilities)
    if method in ("erm", "probmix"):  # no embedding is drawn, that labels would share
        log_prob = np.where(y, np.log(probabilities), np.log1p(-probabilities)).sum(-1)
        assert model.log_likelihood(X, y) == pytest.approx(log_prob.mean())


def test_a_table_of_several_labels_has_no_class(several: Any) -> None:
    X, y = several
    model = pm.ProbMixClassifier("erm", **SMALL).fit(X, pandas.DataFrame(y, columns=list("abcd")))
    table = prediction_table(model, X)
    assert list(table.columns) == ["p[a]", "p[b]", "p[c]", "p[d]"]
    np.testing.assert_array_equal(table, model.predict_proba(X))


# Soft ones.


def test_soft_labels_that_are_nearly_hard_are_labels(iris: Any) -> None:
    X, y = iris
    exact: dict[str, Any] = SMALL | {"batch_size": None, "validation_fraction": 0, "epochs": 30}
    soft = np.eye(3)[y] * (1 - 3e-9) + 1e-9
    hard = pm.ProbMixClassifier("erm", **exact).fit(X, y)
    model = pm.ProbMixClassifier("erm", **exact).fit(X, soft)
    np.testing.assert_allclose(model.predict_proba(X), hard.predict_proba(X), rtol=1e-4)
    assert model.log_likelihood(X, soft) == pytest.approx(hard.log_likelihood(X, y), rel=1e-4)
    assert model.log_likelihood(X, y) == pytest.approx(hard.log_likelihood(X, y), rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_soft_labels_are_learnt(method: str) -> None:
    rng = np.random.default_rng(0)
    X = np.sign(rng.normal(size=(300, 1)))
    soft = np.where(X > 0, [[0.7, 0.2, 0.1]], [[0.1, 0.3, 0.6]])
    frame = pandas.DataFrame(soft, columns=["low", "middle", "high"])
    options = SMALL | {"epochs": 60, "learning_rate": 0.02, "beta": 0.0, "alpha": 0.02}
    model = pm.ProbMixClassifier(method, **options).fit(X, frame)
    assert list(model.classes_) == ["low", "middle", "high"]
    np.testing.assert_allclose(model.predict_proba(X), soft, atol=0.06)
    assert set(model.predict(X)) == {"low", "high"}
    expected = (soft * model.predict_log_proba(X)).sum(-1).mean()
    assert model.log_likelihood(X, soft) == pytest.approx(expected)
    np.testing.assert_array_equal(fitted_again(model).predict_proba(X), model.predict_proba(X))


# In an order.


def test_the_ordinal_likelihood_is_pyros() -> None:
    likelihood = OrdinalLikelihood(5).double()
    raw = torch.linspace(-5, 5, 11, dtype=torch.float64).unsqueeze(-1)
    expected = dist.OrderedLogistic(raw.squeeze(-1), likelihood.cutpoints.detach())
    with torch.no_grad():
        p = likelihood(raw)
        torch.testing.assert_close(p.probs, expected.probs)
        far = likelihood(torch.full((1, 1), 900.0, dtype=torch.float64))
    assert bool(far.logits.isfinite().all())
    assert float(far.logits[0, 0]) == pytest.approx(float(likelihood.cutpoints.detach()[0]) - 900)


@pytest.mark.parametrize("method", METHODS)
def test_grades_are_learnt_in_their_order(method: str, graded: Any) -> None:
    X, y = graded
    model = pm.ProbMixClassifier(method, likelihood="ordinal", **SMALL | {"epochs": 60, "learning_rate": 0.02})
    model.fit(X, y)
    assert model.likelihood_ == "ordinal"
    assert np.abs(model.predict(X) - y).mean() < 0.7
    np.testing.assert_allclose(model.predict_proba(X).sum(-1), 1)
    assert (np.diff(model.models_[0].likelihood.cutpoints.detach()) > 0).all()
    np.testing.assert_array_equal(fitted_again(model).predict_proba(X), model.predict_proba(X))


def test_an_ordered_category_says_its_order(graded: Any) -> None:
    X, y = graded
    names = ["poor", "fair", "good", "very good", "excellent"]
    grades = pandas.Series(pandas.Categorical.from_codes(y, names, ordered=True))
    model = pm.ProbMixClassifier("erm", likelihood="ordinal", **SMALL | {"epochs": 20}).fit(X, grades)
    assert list(model.classes_) == names
    with pytest.warns(UserWarning, match="column-vector"):
        assert (
            list(pm.ProbMixClassifier("erm", likelihood="ordinal", **SMALL).fit(X, grades.to_frame()).classes_) == names
        )
    by_number = pm.ProbMixClassifier("erm", likelihood="ordinal", **SMALL | {"epochs": 20}).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), by_number.predict_proba(X))
    assert model.log_likelihood(X, grades) == pytest.approx(by_number.log_likelihood(X, y))
    assert model.score(X, np.asarray(grades)) == pytest.approx(by_number.score(X, y))
    with pytest.raises(ValueError, match=r'y: expected numbers or an ordered category .* likelihood "ordinal"'):
        model.fit(X, np.asarray(grades))


# What is refused.


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([[0.5, 0.5], [0.4, 0.5], [0.0, 1.0], [2.0, -1.0]]), r"others in 2 of 4 rows \(rows 1, 3\)"),
        (np.array([["a", "b"]] * 4), "y: expected labels of shape .* got <U1"),
        (np.array([0.1, 0.2, 0.3, 0.4]), "Unknown label type"),
        (np.array([1, 1, 1, 1]), "y: expected at least two classes, got one class, 1"),
        (np.array([1, 2, np.nan, 1]), "y contains NaN"),
        (np.array(["a", "b", None, "a"]), r"^y: expected a label in each row, got None in 1 of 4 rows \(row 2\)"),
    ],
)
def test_what_is_no_label_is_refused(y: Any, message: str) -> None:
    with pytest.raises((ValueError), match=message):
        pm.ProbMixClassifier("erm", **SMALL).fit(np.arange(4.0)[:, None], y)


def test_labels_of_another_kind_than_in_fit_are_refused(several: Any, iris: Any) -> None:
    X, y = several
    model = pm.ProbMixClassifier("erm", **SMALL).fit(X, y)
    for other in (y[:, 0], y[:, :2]):
        with pytest.raises(ValueError, match=r"y: expected .* as in fit"):
            model.log_likelihood(X, other)
    with pytest.raises(ValueError, match='likelihood: expected "categorical" for several labels'):
        pm.ProbMixClassifier("erm", likelihood="ordinal", **SMALL).fit(X, y)
    with pytest.raises(ValueError, match="class_weight: expected None for a matrix of labels"):
        pm.ProbMixClassifier("erm", class_weight="balanced", **SMALL).fit(X, y)

"""Features of tables: missing numbers, categories, dates, and names, as the preparation of tables has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV

import pyro_probmix as pm
from pyro_probmix.tables import TableWarning
from tests.estimators.cases import SMALL

LEARNT: dict[str, Any] = SMALL | {"epochs": 60, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def homes() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    towns = np.array(["Bonn", "Rome", "Oslo"])
    town = rng.integers(3, size=150)
    frame = pandas.DataFrame(
        {
            "area": rng.normal(70, 20, 150),
            "town": towns[town],
            "built": pandas.Timestamp("2000-01-01") + pandas.to_timedelta(rng.integers(9000, size=150), "D"),
            "balcony": rng.integers(2, size=150).astype(bool),
        }
    )
    frame.loc[::10, "area"] = np.nan
    return frame, np.array([1.0, 5.0, 9.0])[town] + 0.1 * rng.normal(size=150)


def test_a_mixed_table_is_learnt(homes: Any) -> None:
    X, y = homes
    model = pm.ProbMixRegressor("erm", **LEARNT).fit(X[:100], y[:100])
    assert list(model.feature_names_in_) == list(X.columns)
    assert model.n_features_in_ == 4
    assert model.score(X[100:], y[100:]) > 0.9
    quality = np.where(y > 4, "dear", "cheap")
    classifier = pm.ProbMixClassifier("erm", **LEARNT).fit(X[:100], quality[:100])
    assert classifier.score(X[100:], quality[100:]) > 0.9
    search = GridSearchCV(pm.ProbMixRegressor("erm", **SMALL), {"beta": [0.0]}, scoring=pm.log_likelihood_scorer, cv=2)
    assert np.isfinite(search.fit(X, y).best_score_)


def test_missing_numbers_of_an_array_are_said_to_be_missing() -> None:
    X, y = load_diabetes(return_X_y=True)
    X[::3, 2] = np.nan
    model = pm.ProbMixRegressor("erm", **SMALL).fit(X, y)
    assert model.preparation_.num_features == 11
    assert np.isfinite(model.predict(X)).all()
    with pytest.warns(TableWarning, match="x4"):
        model.predict(np.where(np.arange(10) == 4, np.nan, X[:5]))


def test_what_is_new_at_prediction_is_said(homes: Any) -> None:
    X, y = homes
    model = pm.ProbMixRegressor("erm", **SMALL).fit(X, y)
    with pytest.warns(TableWarning, match="Paris"):
        found = model.predict(X[:5].assign(town="Paris"))
    assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X[["town", "area", "built", "balcony"]])


def test_kinds_are_handed_on() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(4, size=(60, 2)).astype(float)
    model = pm.ProbMixRegressor("erm", kinds={0: "category"}, **SMALL).fit(X, X[:, 0])
    assert model.preparation_.num_features == 5
    with pytest.raises(ValueError, match="kind"):
        pm.ProbMixRegressor("erm", kinds={0: "colour"}, **SMALL).fit(X, X[:, 0])


def test_columns_may_be_named_by_numbers(homes: Any) -> None:
    X, y = homes
    frame = X.set_axis(range(4), axis=1)
    model = pm.ProbMixRegressor("erm", **SMALL).fit(frame, y)
    np.testing.assert_array_equal(model.predict(frame), pm.ProbMixRegressor("erm", **SMALL).fit(X, y).predict(X))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
def test_arrays_and_frames_of_numbers_are_the_same_rows(diabetes: Any) -> None:
    X, y = diabetes
    frame = pandas.DataFrame(X, columns=[f"x{k}" for k in range(10)])
    from_array = pm.ProbMixRegressor("erm", kinds=dict.fromkeys(range(10), "number"), **SMALL).fit(X, y)
    from_frame = pm.ProbMixRegressor("erm", kinds=dict.fromkeys(frame.columns, "number"), **SMALL).fit(frame, y)
    expected = from_array.predict(X)
    for model, rows in ((from_array, frame), (from_frame, frame), (from_frame, X)):
        np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-9)

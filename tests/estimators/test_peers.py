"""Other packages take the estimators as they are: MAPIE, skpro and optuna, each where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.datasets import load_diabetes
from sklearn.model_selection import cross_val_score

import pyro_probmix as pm
from tests.estimators.cases import SMALL

pytestmark = pytest.mark.filterwarnings("default")  # those of other packages are theirs


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any]:
    return load_diabetes(return_X_y=True)


def test_mapie_makes_conformal_intervals_and_sets(rows: Any) -> None:
    regression = pytest.importorskip("mapie.regression")
    classification = pytest.importorskip("mapie.classification")
    X, y = rows
    model = pm.ProbMixRegressor("erm", **SMALL)
    conformal = regression.SplitConformalRegressor(model, confidence_level=0.9, prefit=False)
    conformal.fit(X[:200], y[:200]).conformalize(X[200:320], y[200:320])
    _, intervals = conformal.predict_interval(X[320:])
    inside = (intervals[:, 0, 0] <= y[320:]) & (y[320:] <= intervals[:, 1, 0])
    assert 0.8 < inside.mean() <= 1
    labels = np.where(y > 140, "high", "low")
    conformal = classification.SplitConformalClassifier(
        pm.ProbMixClassifier("erm", **SMALL), confidence_level=0.9, prefit=False
    )
    conformal.fit(X[:200], labels[:200]).conformalize(X[200:320], labels[200:320])
    assert conformal.predict_set(X[320:])[1].shape == (122, 2, 1)


def test_skpro_wraps_mean_and_standard_deviation(rows: Any) -> None:
    wrapper = pytest.importorskip("skpro.regression.adapters.sklearn")
    X, y = rows
    names = [f"x{k}" for k in range(X.shape[1])]
    features, target = pandas.DataFrame(X, columns=names), pandas.DataFrame({"y": y})  # a Series gives n × n
    model = wrapper.SklearnProbaReg(pm.ProbMixRegressor("erm", **SMALL)).fit(features[:300], target[:300])
    found = model.predict_proba(features[300:])
    assert found.shape == (142, 1)
    expected = pm.ProbMixRegressor("erm", **SMALL).fit(X[:300], y[:300]).predict(X[300:], return_std=True)
    np.testing.assert_allclose(found.mean().to_numpy()[:, 0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(found.var().to_numpy()[:, 0]), expected[1], rtol=1e-6)


def test_optuna_searches_by_the_scorer(rows: Any) -> None:
    optuna = pytest.importorskip("optuna")
    X, y = rows[0][:100], rows[1][:100]

    def objective(trial: Any) -> float:
        model = pm.ProbMixRegressor(**SMALL).set_params(beta=trial.suggest_float("beta", 1e-3, 0.1, log=True))
        return float(cross_val_score(model, X, y, cv=2, scoring=pm.log_likelihood_scorer).mean())

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=2)
    assert study.best_value == max(trial.value for trial in study.trials)

"""Predictions: units, members, noise, blocks and precision are what they are said to be."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from sklearn.datasets import load_diabetes

import pyro_probmix as pm
from pyro_probmix.estimators import base
from tests.estimators.cases import METHODS, SMALL


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


@pytest.mark.filterwarnings("ignore:columns dropped")
def test_a_column_that_was_dropped_is_not_needed_whatever_its_name(diabetes: Any) -> None:
    X, y = diabetes
    frame = pandas.DataFrame(X, columns=[f" column {k}" for k in range(10)])
    model = pm.ProbMixRegressor("erm", **SMALL).fit(frame.assign(**{" the same ": 1.0}), y)
    np.testing.assert_array_equal(model.predict(frame), model.predict(frame.assign(**{" the same ": 2.0})))


def test_a_frame_without_rows_is_refused_as_an_array_is(diabetes: Any) -> None:
    X, y = diabetes
    frame = pandas.DataFrame(X)
    model = pm.ProbMixRegressor("erm", **SMALL).fit(frame, y)
    for predict in (model.predict, model.predict_quantiles, model.predict_distribution):
        with pytest.raises(ValueError, match=r"^X: expected rows, got none$"):
            predict(frame[:0])
        with pytest.raises(ValueError, match=r"0 sample\(s\)"), pytest.warns(UserWarning, match="feature names"):
            predict(X[:0])


def test_fitted_members_predict_whatever_the_settings_are_now(iris: Any) -> None:
    X, y = iris
    model = pm.ProbMixClassifier("erm", num_members=2, **SMALL).fit(X, y)
    expected = model.predict_proba(X)
    model.set_params(num_members=0, hidden_features=None, device="nowhere")
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    with pytest.raises(ValueError, match="num_samples: expected"):
        model.set_params(num_samples=0).predict(X)


# Quantiles and intervals.


@pytest.mark.parametrize("likelihood", ["normal", "gamma", "negative_binomial"])
def test_quantiles_and_intervals_are_those_of_the_density(likelihood: str, skewed: Any, monkeypatch: Any) -> None:
    X, y = skewed[0][:20], skewed[1][:20]
    y = np.floor(5 * y) if likelihood == "negative_binomial" else y
    model = pm.ProbMixRegressor(likelihood=likelihood, **SMALL).fit(X, y)
    p = model.predict_distribution(X)
    for at_once in (base._NUMBERS_AT_ONCE, 3 * 5 * 8):  # all rows, and three or fewer
        monkeypatch.setattr(base, "_NUMBERS_AT_ONCE", at_once)
        quantiles = model.predict_quantiles(X, [0.1, 0.5, 0.9])
        np.testing.assert_allclose(quantiles, pm.quantile(p, [0.1, 0.5, 0.9]).T, rtol=1e-9)
        np.testing.assert_allclose(model.predict_quantiles(X, 0.5)[:, 0], quantiles[:, 1])
        for kind in ("central", "hdi"):
            ends = model.predict_interval(X, 0.8, kind)
            np.testing.assert_allclose(ends, np.stack(pm.interval(p, 0.8, kind), -1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("q", [0.0, 1.0, [0.5, 1.5], [], [[0.5]], [np.nan]])
def test_shares_that_have_no_quantile_are_named(q: Any, diabetes: Any) -> None:
    model = pm.ProbMixRegressor("erm", **SMALL).fit(*diabetes)
    with pytest.raises(ValueError, match=r"q: expected numbers in \(0, 1\), got"):
        model.predict_quantiles(diabetes[0], q)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, r"level: expected a number in \(0, 1\)"),
        ({"kind": "widest"}, 'kind: expected one of "central"'),
    ],
)
def test_what_is_no_interval_is_named(options: Any, message: str, diabetes: Any) -> None:
    model = pm.ProbMixRegressor("erm", **SMALL).fit(*diabetes)
    with pytest.raises(ValueError, match=message):
        model.predict_interval(diabetes[0], **options)


MANY_ROWS = """
import re
import numpy as np
import pyro_probmix as pm

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1e6


rng = np.random.default_rng(0)
X = rng.normal(size=(100_000, 20))
y = X[:, 0] + rng.normal(size=len(X))
model = pm.ProbMixRegressor(epochs=1, batch_size=2048, num_samples=20, hidden_features=(64,), random_state=0).fit(X, y)
before = peak()
model.predict(X, return_std=True)
model.log_likelihood(X, y)
model.predict_quantiles(X[::5], [0.05, 0.5, 0.95])
print(before, peak())
"""


@pytest.mark.slow
def test_many_rows_take_bounded_memory() -> None:
    if sys.platform != "linux":
        pytest.skip("the peak of a process is read from where Linux tells it, its parent's apart")
    done = subprocess.run([sys.executable, "-c", MANY_ROWS], capture_output=True, text=True, check=True)
    fitted, predicted = map(float, done.stdout.split())  # in GB, of which the libraries take about a half
    assert fitted < 1.5
    assert predicted < 1.5


MANY_DRAWS = """
import re
import numpy as np
import pyro_probmix as pm

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1e6


X = np.random.default_rng(0).normal(size=(20_000, 10))
model = pm.ProbMixRegressor(likelihood="mixture", epochs=1, random_state=0).fit(X[:64], X[:64, 0])
peaks = [peak()]
model.log_likelihood(X, X[:, 0])
peaks.append(peak())
model.predict_distribution(X)
print(*peaks, peak())
"""


def test_the_draws_of_many_rows_are_not_in_memory_at_once() -> None:
    """The coordinates of the 100 embedding samples of each row alone are two gigabytes."""
    if sys.platform != "linux":
        pytest.skip("the peak of a process is read from where Linux tells it, its parent's apart")
    done = subprocess.run([sys.executable, "-c", MANY_DRAWS], capture_output=True, text=True, check=True)
    fitted, scored, whole = map(float, done.stdout.split())
    assert scored - fitted < 0.15
    assert whole - fitted < 0.5

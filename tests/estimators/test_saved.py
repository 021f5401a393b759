"""A fitted estimator as settings and tensors: predictions are equal to the last bit, and nothing else is let in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
import torch

import pyro_probmix as pm
from tests.estimators.cases import METHODS, SMALL, fitted_again

KINDS = [pm.ProbMixRegressor, pm.ProbMixClassifier]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_equal_to_the_last_bit(kind: Any, method: str, dtype: Any, iris: Any) -> None:
    X, y = iris[0].astype(dtype), iris[1]
    model = kind(method, num_members=2, **SMALL).fit(X, y)
    again = fitted_again(model)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.log_likelihood(X, y) == model.log_likelihood(X, y)
    assert again.get_params() == model.get_params()
    assert again.histories_ == model.histories_
    assert fitted_again(again).fitted_settings() == model.fitted_settings()
    refitted = again.fit(X, y)
    np.testing.assert_array_equal(refitted.predict(X), model.predict(X))


@pytest.mark.parametrize("labels", [["b", "a", "c"], [7, 3, 5], [True, False, True], [1.0, 2.0, 5.0]])
def test_classes_keep_their_type(labels: Any, iris: Any) -> None:
    X, y = iris
    model = pm.ProbMixClassifier("erm", **SMALL).fit(X, np.array(labels)[y])
    again = fitted_again(model)
    np.testing.assert_array_equal(again.classes_, model.classes_)
    assert again.predict(X).dtype == model.predict(X).dtype


def test_tables_are_prepared_as_before() -> None:
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"size": rng.normal(size=40), "town": rng.choice(["Bonn", "Rome", "Oslo"], 40)})
    frame.loc[::7, "size"] = np.nan
    y = rng.normal(size=40)
    model = pm.ProbMixRegressor(**SMALL, kinds={"town": "category"}).fit(frame, y)
    again = fitted_again(model)
    np.testing.assert_array_equal(again.predict(frame), model.predict(frame))
    assert list(again.feature_names_in_) == ["size", "town"]
    assert again.kinds == {"town": "category"}


@pytest.mark.parametrize("state", [np.random.RandomState(0), np.random.default_rng(0), None])
def test_a_random_state_that_is_no_integer_is_left_out(state: Any, iris: Any) -> None:
    model = pm.ProbMixRegressor("erm", **SMALL | {"random_state": state}).fit(*iris)
    assert fitted_again(model).random_state is None


# What is refused.


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the settings at a place."""

    def change(settings: dict[str, Any]) -> None:
        for key in path[:-1]:
            settings = settings[key]
        settings[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("estimator", value="ProbMixClassifier"), 'estimator: expected one of "ProbMixRegressor"'),
        (put("surprise", value=1), "settings: expected .* surprise"),
        (lambda settings: settings.pop("network"), "settings: expected"),
        (put("params", "surprise", value=1), "params: expected those of ProbMixRegressor"),
        (put("n_features_in_", value=0), "n_features_in_: expected an integer >= 1"),
        (put("n_features_in_", value="4"), "n_features_in_: expected an integer"),
        (put("feature_names_in_", value=["a"]), "feature_names_in_: expected 4 names"),
        (put("num_members", value=10**12), "tensors: expected at least"),
        (put("network", "hidden_features", value=[10**9, 10**9]), "tensors: expected at least"),
        (put("network", "hidden_features", value=["8"]), "network.hidden_features: expected an integer"),
        (put("network", "hidden_features", value=[9]), "tensors: expected 0.encoder"),
        (put("network", "method", value="exec"), "method: expected one of"),
        (put("network", "alpha", value="0.2"), "network.alpha: expected a number"),
        (put("network", "dtype", value="float16"), 'network.dtype: expected one of "float32", "float64"'),
        (put("network", "dtype", value="float32"), "tensors: expected 0.encoder.* got .*float64"),
        (put("network", "num_features", value=5), "network.num_features: expected 4, got 5"),
        (put("network", "surprise", value=5), "settings: expected those of a fitted estimator"),
        (put("own", "target", "name", value="exec"), "likelihood: expected one of"),
        (put("own", "target", "how", value="log"), 'target scaling: expected one of "standard"'),
        (put("own", "target", "scale", value=0.0), "target scale: expected finite numbers"),
        (put("own", "target", "shape", value=[2]), r"target shift: expected finite numbers of shape \(2,\)"),
        (put("own", "target", "num_components", value=10**12), "tensors: expected at least"),
        (put("own", value=[]), "own: expected"),
        (put("preparation", value={}), "."),
        (put("histories", value=[{"loss": 1}]), "settings: expected those of a fitted estimator"),
    ],
)
def test_settings_of_another_estimator_are_named(change: Any, message: str, iris: Any) -> None:
    model = pm.ProbMixRegressor(**SMALL).fit(*iris)
    settings = json.loads(json.dumps(model.fitted_settings()))
    change(settings)
    with pytest.raises(ValueError, match=message):
        pm.ProbMixRegressor.from_fitted(settings, model.fitted_tensors())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("0.decoder.2.weight", None, "'0.decoder.2.weight' missing"),
        ("0.surprise", torch.zeros(1), "'0.surprise' unknown"),
        ("0.decoder.2.weight", torch.zeros(3), r"expected 0.decoder.2.weight of \(2, 8\), torch.float64, got \(\(3,\)"),
        ("0.decoder.2.weight", torch.full((2, 8), torch.nan).double(), "finite numbers in 0.decoder.2.weight"),
        ("0.decoder.2.weight", "text", "expected tensors by name"),
    ],
)
def test_tensors_of_another_estimator_are_named(name: str, value: Any, message: str, iris: Any) -> None:
    model = pm.ProbMixRegressor(likelihood="normal", **SMALL).fit(*iris)
    tensors: dict[str, Any] = dict(model.fitted_tensors())
    assert "0.decoder.2.weight" in tensors
    tensors[name] = value
    if value is None:
        del tensors[name]
    with pytest.raises(ValueError, match=message):
        pm.ProbMixRegressor.from_fitted(model.fitted_settings(), tensors)


@pytest.mark.parametrize(
    "classes", [{"dtype": "O", "values": [1, 2, 3]}, {"dtype": "<i8", "values": ["a"]}, {"dtype": "surprise"}, []]
)
def test_classes_of_no_type_are_named(classes: Any, iris: Any) -> None:
    model = pm.ProbMixClassifier(**SMALL).fit(*iris)
    settings = model.fitted_settings()
    settings["own"]["classes"] = classes
    with pytest.raises(ValueError, match="classes: expected labels and their dtype"):
        pm.ProbMixClassifier.from_fitted(settings, model.fitted_tensors())


def test_settings_that_json_has_no_types_for_are_named(iris: Any) -> None:
    model = pm.ProbMixRegressor("erm", **SMALL).fit(*iris).set_params(kinds=object())
    with pytest.raises(TypeError, match="kinds: expected numbers, text, or sequences or mappings of these, got object"):
        model.fitted_settings()

"""Estimators as folders: predictions are equal to the last bit, in a process that has nothing but the library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pyro_probmix as pm
from pyro_probmix.persistence import SETTINGS, WEIGHTS, read_settings
from tests.persistence.test_hostile import seal

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
X[3, 1] = np.nan
FRAME = pd.DataFrame(
    {"size": X[:, 0], "town": np.array(["Bonn", "Rome", "Oslo", "Bonn"])[np.arange(40) % 4], "age": X[:, 1]}
)
Y = np.exp(X[:, 0]) + 0.1
QUICK = {"epochs": 2, "random_state": 0, "num_samples": 5, "hidden_features": (8, 4)}
ESTIMATORS = {
    "numbers": (lambda: pm.ProbMixRegressor(num_members=2, **QUICK), X, Y),
    "a frame": (lambda: pm.ProbMixRegressor("probmix", kinds={"town": "category"}, **QUICK), FRAME, Y),
    "several outputs": (lambda: pm.ProbMixRegressor("erm", **QUICK), X, np.stack([Y, -Y], 1)),
    "single precision": (lambda: pm.ProbMixRegressor("mixup", **QUICK), X.astype(np.float32), Y),
    "any likelihood": (lambda: pm.ProbMixRegressor("manifold_mixup", likelihood="auto", **QUICK), X, Y),
    "counts": (lambda: pm.ProbMixRegressor("erm", likelihood="negative_binomial", **QUICK), X, np.round(Y)),
    "classes": (lambda: pm.ProbMixClassifier(class_weight="balanced", **QUICK), FRAME, FRAME["town"].to_numpy()),
    "ordered classes": (lambda: pm.ProbMixClassifier("erm", likelihood="ordinal", **QUICK), X, np.arange(40) % 3),
}


def predictions(estimator, rows):
    if hasattr(estimator, "classes_"):
        return [estimator.predict(rows), estimator.predict_proba(rows)]
    return [*estimator.predict(rows, return_std=True), estimator.predict_quantiles(rows, [0.1, 0.5])]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_predicts_the_same_to_the_last_bit(name, tmp_path):
    make, rows, y = ESTIMATORS[name]
    estimator = make().fit(rows, y)
    pm.save(estimator, tmp_path / "model")
    loaded = pm.load(tmp_path / "model")
    assert type(loaded) is type(estimator)
    assert loaded.get_params() == estimator.get_params()
    for ours, theirs in zip(predictions(loaded, rows), predictions(estimator, rows), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.log_likelihood(rows, y) == estimator.log_likelihood(rows, y)


PLAIN = """
import sys
sys.modules.update(dict.fromkeys(["pandas", "typer", "rich", "matplotlib", "jinja2", "pyarrow", "pooch"]))
import numpy as np, pyro_probmix as pm
model = pm.load(sys.argv[1])
print(repr(model.predict(np.linspace(-1, 1, 6).reshape(2, 3)).tolist()))
"""


def test_it_loads_where_there_is_the_library_alone(tmp_path):
    estimator = pm.ProbMixRegressor(**QUICK).fit(X, Y)
    pm.save(estimator, tmp_path / "model")
    command = [sys.executable, "-W", "error::UserWarning:pyro_probmix", "-c", PLAIN, str(tmp_path / "model")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == estimator.predict(np.linspace(-1, 1, 6).reshape(2, 3)).tolist()


def test_what_is_told_of_it_comes_back(tmp_path):
    estimator = pm.ProbMixRegressor(**QUICK).fit(FRAME, Y)
    pm.save(estimator, tmp_path / "model", about={"targets": ["price"]})
    settings = read_settings(tmp_path / "model")
    assert settings["about"] == {"targets": ["price"]}
    assert settings["fitted"]["feature_names_in_"] == ["size", "town", "age"]
    assert {"pyro-probmix", "torch", "safetensors"} <= set(settings["versions"])
    with pytest.raises(ValueError, match=r"into: expected none for .*, which holds an estimator"):
        pm.load(tmp_path / "model", into=estimator.models_[0])


def test_an_estimator_that_cannot_be_written_down_is_refused(tmp_path):
    own = pm.ProbMixRegressor("erm", likelihood=pm.nn.NormalLikelihood(), **QUICK).fit(X, Y)
    with pytest.raises(TypeError, match="likelihood: expected one by name"):
        pm.save(own, tmp_path / "model")
    with pytest.raises(ValueError, match="not fitted"):
        pm.save(pm.ProbMixRegressor(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


HOSTILE = {
    "absurd widths": (
        lambda f: f["network"].__setitem__("hidden_features", [10**7, 10**7]),
        "tensors: expected at least",
    ),
    "absurdly many layers": (lambda f: f["network"].__setitem__("hidden_features", [1] * 1000), "tensors: expected"),
    "absurdly many members": (lambda f: f.__setitem__("num_members", 10**9), "tensors: expected at least"),
    "other columns": (lambda f: f.__setitem__("feature_names_in_", ["size", "town", "sex"]), "columns: expected those"),
    "an unknown method": (lambda f: f["network"].__setitem__("method", "os"), "expected one of .* got .os"),
    "an unknown parameter": (lambda f: f["params"].__setitem__("run", "touch x"), "params: expected those of"),
    "an unknown kind": (lambda f: f["preparation"]["columns"][0].__setitem__("kind", "exec"), "exec"),
    "infinite scale": (
        lambda f: f["own"]["target"].__setitem__("scale", {"__float__": "inf"}),
        "target scale: expected",
    ),
    "no preparation": (lambda f: f.__setitem__("preparation", None), "settings.json: "),
    "another likelihood": (lambda f: f["own"]["target"].__setitem__("name", "eval"), "expected one of .* got .eval"),
    "absurdly many samples": (
        lambda f: f["params"].__setitem__("num_samples", 10**12),
        "num_samples: expected at most",
    ),
    "fewer tensors": (lambda f: f.__setitem__("num_members", 2), "tensors: expected"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_estimator_is_refused_by_name(name, tmp_path):
    change, expected = HOSTILE[name]
    folder = tmp_path / "model"
    pm.save(pm.ProbMixRegressor(**QUICK).fit(FRAME, Y), folder)
    fitted = json.loads((folder / SETTINGS).read_text())["fitted"]
    change(fitted)
    seal(folder, fitted=fitted)
    with pytest.raises(ValueError, match=expected) as caught:
        pm.load(folder)
    assert SETTINGS in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert sorted(path.name for path in folder.iterdir()) == [SETTINGS, WEIGHTS]

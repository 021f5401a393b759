"""A method and a metric of the user's by their names: in ``assemble``, the estimators, comparisons and the command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console
from sklearn.model_selection import GridSearchCV
from typer.testing import CliRunner

import pyro_probmix as pm
from pyro_probmix.cli import app
from pyro_probmix.datasets import load
from pyro_probmix.experiments import compare, import_plugins, settings_for
from pyro_probmix.models import assemble, register_method

HERE = Path(__file__).parent
METHODS = ("erm", "second_layer", "local_second_layer")
QUICK: dict[str, Any] = {"epochs": 3, "hidden_features": (8, 4), "num_samples": 3}


def comparison(name: str = "diabetes", **options: Any) -> Any:
    data = load(name)
    return compare(data, METHODS, replace(settings_for(data), splits=2, **QUICK), progress=False, **options)


def test_the_second_hidden_layer_is_interpolated(extensions: SimpleNamespace) -> None:
    likelihood, x, y = pm.nn.NormalLikelihood(scale=1.0), torch.randn(6, 2), torch.randn(6)
    network = pm.nn.MLP(2, [5, 4, 3], 1)
    half = dist.Delta(torch.tensor(0.5))
    model = assemble("second_layer", network, 5, likelihood, coefficient=half, beta=0.1)
    assert type(model) is extensions.second_layer.SecondLayer
    batch = pm.CompleteGraph(6).pair_batch(x, y)
    embedding = network[:4](x)
    mixed = network[4:](0.5 * (embedding + embedding[batch.partner])).squeeze(-1)
    expected = -dist.Normal(mixed, 1.0).log_prob(0.5 * (y + y[batch.partner])).mean()
    torch.testing.assert_close(model.risk(batch), expected)


def test_the_estimators_know_the_method(extensions: SimpleNamespace) -> None:
    X, y = load("diabetes").x, load("diabetes").y
    model = pm.ProbMixRegressor(random_state=0, epochs=3, hidden_features=(8, 4))
    search = GridSearchCV(model, {"method": ["erm", "second_layer"]}, scoring=pm.log_likelihood_scorer, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    fitted = model.set_params(method="second_layer").fit(X, y)
    assert type(fitted.models_[0]) is extensions.second_layer.SecondLayer
    scores = pm.evaluate(fitted.predict_distribution(X), torch.as_tensor(y))
    assert scores["mean_error"] == pytest.approx(np.abs(fitted.predict(X) - y).mean())
    with pytest.raises(ValueError, match='got "third_layer"'):
        model.set_params(method="third_layer").fit(X, y)


def test_comparisons_show_both(extensions: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[Figure] = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **options: savefig(drawn.append(self) or self, *args, **options)
    )
    found = comparison(out=tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())["methods"]
    assert list(written) == list(METHODS)
    for metrics in written.values():
        assert list(metrics) == ["nll", "crps", "rmse", "mean_error"]
        assert np.divide(metrics["mean_error"], metrics["rmse"]) == pytest.approx(0.8, abs=0.15)  # in the same units
    assert written["second_layer"] != written["local_second_layer"]
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(*found.tables())
    shown = console.export_text()
    assert "MAE of" in shown
    assert shown.count("\n  Second layer ") == shown.count("\n  Local Second layer ") >= 1
    labels = [axes.get_xlabel() for axes in drawn[0].axes]
    assert labels[-1] == "MAE of the mean (units of the target), lower is better"
    ticks = [text.get_text() for text in drawn[0].axes[0].get_yticklabels()]
    assert ticks == ["ERM", "Second layer", "Local Second layer"]


def test_a_metric_without_a_meaning_is_not_shown(extensions: SimpleNamespace) -> None:
    assert list(comparison("iris").metrics) == ["nll", "accuracy", "brier", "ece"]
    assert list(comparison("toy-regression").metrics) == ["nll", "crps", "rmse", "mse", "mean_error"]


@pytest.mark.slow
def test_the_command_and_its_processes_know_plugins(tmp_path: Path) -> None:
    numbers = []
    for jobs in ("1", "2"):
        options = ["--methods", "second_layer,local_second_layer", "--splits", "2", "--epochs", "3", "--jobs", jobs]
        plugins = [
            part for name in ("second_layer", "absolute_error") for part in ("--plugin", str(HERE / f"{name}.py"))
        ]
        command = [sys.executable, "-m", "pyro_probmix.cli", "compare", "diabetes", *options, *plugins]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / jobs)],
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Second layer" in done.stdout
        numbers.append(json.loads((tmp_path / jobs / "results.json").read_text())["methods"]["local_second_layer"])
    assert list(numbers[0]) == ["nll", "crps", "rmse", "mean_error"]
    for metric, values in numbers[0].items():
        np.testing.assert_allclose(numbers[1][metric], values, rtol=1e-5)


@pytest.mark.parametrize("command", [["compare"], ["reproduce", "table1"]])
@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("nowhere.py", "error: --plugin: expected a module or a file, got nowhere.py, which is not there"),
        ("no_such_module", "error: No module named 'no_such_module'"),
        ("colorsys.py", "error: --plugin: expected a file whose name no other module has, got colorsys.py"),
    ],
)
def test_a_plugin_that_is_not_there(
    command: list[str], plugin: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('must not run')")
    done = CliRunner().invoke(app, [*command, "--plugin", plugin])
    assert done.exit_code == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_a_name_has_one_owner(extensions: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r'name: expected one that is free, got "second_layer" of <class'):

        @register_method("second_layer")
        class Other(extensions.second_layer.SecondLayer):
            pass

    with pytest.raises(TypeError, match="other: expected a class of models with from_network, got <class"):
        register_method("other")(torch.nn.Linear)
    for name in ("local_other", "second layer", "", 3):
        with pytest.raises(ValueError, match="name: expected an identifier that does not begin with"):
            register_method(name)  # type: ignore[arg-type]
    import_plugins([str(HERE / "second_layer.py")])  # again, which changes nothing
    assert extensions.second_layer.SecondLayer is pm.models.METHODS["second_layer"].model

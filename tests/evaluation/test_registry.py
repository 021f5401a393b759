"""Metrics by name: which are known, what their values mean, and what a user adds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.evaluation import METRICS, find_metric, register_metric

N = 12


def normals(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Puts the metrics back that a test adds to."""
    kept = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(kept)


def absolute_error(p: Any, y: Tensor) -> Tensor:
    return (y - p.mean).abs()


def test_a_registered_metric_is_averaged_over_the_labels_seen() -> None:
    register_metric("absolute", units="y")(absolute_error)
    p, y = dist.Normal(normals(N, 2), 1.0).to_event(1), normals(N, 2)
    assert pm.evaluate(p, y)["absolute"] == pytest.approx(mean_absolute_error(y, p.mean), rel=1e-12)
    seen = torch.arange(N) % 3 > 0
    assert pm.evaluate(p.mask(seen), y)["absolute"] == pytest.approx(
        mean_absolute_error(y[seen], p.mean[seen]), rel=1e-12
    )
    assert "absolute" not in pm.evaluate(
        dist.SkewLogistic(torch.zeros(1), torch.ones(1)), torch.zeros(1)
    )  # without a mean


def test_a_metric_of_all_rows_is_left_out_where_rows_are_masked() -> None:
    register_metric("worst", units="y")(lambda p, y: absolute_error(p, y).max())
    p, y = dist.Normal(torch.zeros(3), 1.0), torch.tensor([1.0, -4.0, 2.0])
    assert pm.evaluate(p, y)["worst"] == 4.0
    assert list(pm.evaluate(p.mask(y < 0), y)) == ["nll", "crps", "rmse"]
    with pytest.raises(ValueError, match='got "worst": it is one number for all rows, of which some labels are masked'):
        pm.evaluate(p.mask(y < 0), y, ["worst"])
    with pytest.raises(ValueError, match='got "worst": it is one number for all rows'):
        pm.evaluate(p, y, ["worst"], reduction="none")


def test_metrics_are_chosen_by_name() -> None:
    loc, y = normals(N), normals(N)
    p = dist.Normal(loc, 1.0)
    scores = pm.evaluate(p, y, ["mse", "nll"])
    assert list(scores) == ["mse", "nll"]
    assert scores["mse"] == pytest.approx(mean_squared_error(y, loc), rel=1e-12)
    with pytest.raises(ValueError, match=r'metrics: expected one of "nll", "crps", .*, got "log-loss"'):
        pm.evaluate(p, y, ["log-loss"])


@pytest.mark.parametrize(
    ("p", "y", "name", "message"),
    [
        (dist.Normal(torch.zeros(2), 1.0), [0, 0], "accuracy", "expected .* over classes, got Normal"),
        (dist.Normal(torch.zeros(2), 1.0), [0, 0], "ece_classwise", "expected .* over classes, got Normal"),
        (dist.Categorical(torch.ones(2, 3)), [0, 2], "crps", "expected .* numbers, got Categorical over classes"),
        (
            dist.Categorical(torch.ones(2, 3)),
            [0, 2],
            "coverage@0.5",
            "expected .* numbers, got Categorical over classes",
        ),
        (
            dist.Normal(torch.zeros(2), 1.0),
            [0, 0],
            "energy_score",
            "y is a single number, whose energy score is its CRPS",
        ),
        (dist.Bernoulli(torch.ones(2) / 2), [0, 1], "rmse", "expected .* numbers, got Bernoulli over classes"),
    ],
)
def test_a_metric_asked_for_that_does_not_fit_is_refused(p: Any, y: Any, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f'metrics: expected ones that fit p, got "{name}": {message}'):
        pm.evaluate(p, y, ["nll", name])


@pytest.mark.parametrize(
    "name",
    ["nll", "crps", "rmse", "mse", "mae", "pinball@0.2", "interval_score", "coverage", "width", "pit", "sharpness"],
)
def test_units_tell_the_value_for_rescaled_labels(name: str) -> None:
    loc, scale, y = normals(N), torch.rand(N, dtype=torch.float64) + 0.1, normals(N)
    value = pm.evaluate(dist.Normal(loc, scale), y, [name])[name]
    expected = pm.evaluate(dist.Normal(7 + 30 * loc, 30 * scale), 7 + 30 * y, [name])[name]
    assert find_metric(name).rescaled(value, 30.0) == pytest.approx(expected, rel=1e-9)
    assert METRICS["accuracy"].rescaled(0.8, 30.0) == 0.8


def test_metrics_are_shown_with_units_and_direction() -> None:
    shown = {name: (metric.heading, metric.axis) for name, metric in METRICS.items()}
    assert shown == {
        "nll": ("NLL (nats)", "NLL (nats), lower is better"),
        "crps": ("CRPS", "CRPS (units of the target), lower is better"),
        "rmse": ("RMSE", "RMSE (units of the target), lower is better"),
        "mse": ("MSE", "MSE (squared units of the target), lower is better"),
        "mae": ("MAE", "MAE (units of the target), lower is better"),
        "pinball": ("pinball loss", "pinball loss (units of the target), lower is better"),
        "interval_score": ("interval score", "interval score (units of the target), lower is better"),
        "coverage": ("coverage", "coverage, best at 0.9"),
        "width": ("width", "width (units of the target), lower is better"),
        "pit": ("PIT distance", "PIT distance, lower is better"),
        "qce": ("QCE", "QCE, lower is better"),
        "sharpness": ("sharpness", "sharpness (units of the target), lower is better"),
        "energy_score": ("energy score", "energy score (units of the target), lower is better"),
        "accuracy": ("accuracy", "accuracy, higher is better"),
        "brier": ("Brier score", "Brier score, lower is better"),
        "ece": ("ECE", "ECE, lower is better"),
        "ece_adaptive": ("adaptive ECE", "adaptive ECE, lower is better"),
        "ece_classwise": ("class-wise ECE", "class-wise ECE, lower is better"),
    }


def test_what_values_mean_is_told_without_the_name() -> None:
    told = {name: find_metric(name).meaning for name in ("rmse", "accuracy", "coverage@0.5")}
    assert told == {
        "rmse": "units of the target, lower is better",
        "accuracy": "higher is better",
        "coverage@0.5": "best at 0.5",
    }


def test_what_cannot_be_registered_is_refused() -> None:
    with pytest.raises(ValueError, match=r'name: expected one that is free, got "rmse" of <function'):
        register_metric("rmse", units="y")(absolute_error)
    with pytest.raises(ValueError, match=r'units: expected one of "nats", "y", .*, got "metres"'):
        register_metric("absolute", units="metres")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'better: expected one of "lower", "higher", "level", got "smaller"'):
        register_metric("absolute", better="smaller")  # type: ignore[arg-type]
    for _ in range(2):  # as when a cell of a notebook is run again
        register_metric("absolute", units="y")(absolute_error)


def test_what_is_no_name_of_a_metric_is_refused() -> None:
    with pytest.raises(TypeError, match="metrics: expected names of metrics, got 3"):
        pm.evaluate(dist.Normal(torch.zeros(2), 1.0), torch.ones(2), 3)  # type: ignore[call-overload]

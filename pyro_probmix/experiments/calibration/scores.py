"""How good predictions are, as they are and recalibrated on rows that were set aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pyro_probmix.distributions import linear_pool
from pyro_probmix.evaluation import (
    ConformalInterval,
    IsotonicRecalibration,
    TemperatureScaling,
    VarianceScaling,
    evaluate,
    find_metric,
)
from pyro_probmix.experiments.splits import Split

__all__ = ["LEVEL", "METRICS_OF", "WAYS", "predictive", "score_recalibrated"]

LEVEL = 0.9
"""Of intervals whose coverage is told."""

_INTERVAL = f"coverage@{LEVEL}", f"width@{LEVEL}"

METRICS_OF = {
    "regression": ("nll", "crps", "rmse", "qce", *_INTERVAL),
    "classification": ("nll", "brier", "accuracy", "ece"),
}
"""What predictions are scored by."""

WAYS: dict[str, dict[str, Any]] = {
    "regression": {"variance": VarianceScaling, "isotonic": IsotonicRecalibration},
    "classification": {"temperature": TemperatureScaling},
}
"""How densities are recalibrated, by name."""


def predictive(models: Sequence[Any], x: Tensor, num_samples: int) -> Any:
    """What trained models predict, mixed in equal parts."""
    members = [model.predictive(x, num_samples=num_samples) for model in models]
    return members[0] if len(members) == 1 else linear_pool(members)


def score_recalibrated(models: Sequence[Any], split: Split, num_samples: int) -> dict[str, float]:
    """Test metrics of the equal mixture of trained models, in the units of the data.

    Those after recalibration have its name behind theirs, as in ``"nll after variance"``; conformal intervals are no
    density, and have coverage and width alone.
    """
    task = "classification" if split.y_scaler is None else "regression"
    metrics = [find_metric(name) for name in METRICS_OF[task]]
    (held_x, held_y), (x, y) = split.calibration, split.test
    held, p = predictive(models, held_x, num_samples), predictive(models, x, num_samples)
    found = evaluate(p, y, metrics)
    for way, calibration in WAYS[task].items():
        scores = evaluate(calibration().fit(held, held_y)(p), y, metrics)
        found |= {f"{name} after {way}": value for name, value in scores.items()}
    if task == "regression":
        lower, upper = ConformalInterval(LEVEL).fit(held, held_y)(p)
        inside = ((lower <= y) & (y <= upper)).double().mean()
        found |= dict(
            zip(
                (f"{name} after conformal" for name in _INTERVAL),
                (float(inside), float((upper - lower).double().mean())),
            )
        )
    return {name: find_metric(name.partition(" ")[0]).rescaled(value, split.y_scale) for name, value in found.items()}

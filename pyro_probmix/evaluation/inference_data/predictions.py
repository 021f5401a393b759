"""What one network, an ensemble or an estimator predicts, for ArviZ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_probmix._checks import check_finite
from pyro_probmix._random import seeded
from pyro_probmix.distributions import LinearPool
from pyro_probmix.distributions.held_tensors import reference_tensor
from pyro_probmix.evaluation.inference_data.arrays import (
    ROW,
    Coords,
    Groups,
    as_input,
    exported,
    is_discrete,
    table,
    whole,
)
from pyro_probmix.models import DensityModel
from pyro_probmix.training import Replicas

__all__ = ["predictions"]

_NUMBERS_AT_ONCE = 2**24
"""Draws of components that are in memory at a time."""


def predictions(model: Any, x: Any, y: Any, num_samples: int, seed: int) -> tuple[Groups, Coords]:
    """Groups with draws of y at x, and with x and y as they are, and the coordinates of their dimensions."""
    inputs = table("x", x)
    p, drawn = _draws(model, x, num_samples, seed)
    shape, classes = p.batch_shape + p.event_shape, getattr(model, "classes_", None)
    values = exported(drawn, is_discrete(p))
    if classes is not None:
        values = table("classes_", classes[values]).values
    dims = {"x": [ROW, *(f"x_dim_{d}" for d in range(inputs.values.ndim - 1))]}
    if inputs.values.ndim == 2:
        dims["x"][1] = "feature"
    dims["y"] = [ROW, *(f"y_dim_{d}" for d in range(len(shape) - 1))]
    names = getattr(model, "feature_names_in_", None) if inputs.columns is None else inputs.columns
    coords = {ROW: inputs.index, "feature": None if names is None else names.astype(str)}
    draws, given = {"y": (["chain", "draw", *dims["y"]], values[None])}, {"x": (dims["x"], inputs.values)}
    if y is None:
        return {"predictions": draws, "predictions_constant_data": given}, coords
    labels = table("y", y)
    if labels.values.shape != shape:
        raise ValueError(f"y: expected shape {tuple(shape)}, got {labels.values.shape}")
    if labels.values.dtype.kind == "f":
        check_finite("y", torch.tensor(labels.values, device="cpu"))
    if len(shape) == 2:
        coords["y_dim_0"] = labels.columns
    observed = whole("y", labels.values) if is_discrete(p) and classes is None else labels.values
    data = {"y": (dims["y"], observed)}
    return {"posterior_predictive": draws, "observed_data": data, "constant_data": given}, coords


@torch.no_grad()
def _draws(model: Any, x: Any, num_samples: int, seed: int) -> tuple[Any, Tensor]:
    """The predictive density, and draws of it."""
    if hasattr(model, "predict_distribution"):
        p = model.predict_distribution(x)
    elif isinstance(model, Replicas):
        p = model.ensemble(as_input("x", x, model.models[0]), seed=seed)
    elif isinstance(model, DensityModel):
        x = as_input("x", x, model)
        if model.draws_embedding:  # each y given an embedding of its own
            with seeded(seed, x.device):
                p = model.predictive(x, num_samples, seed=None)
                return p, p.components.sample().movedim(1, 0)
        p = model.predictive(x)
    else:
        raise TypeError(
            "model: expected a ready model, replicas, an estimator or an MCMC, or a Pyro model beside its guide, got "
            f"{type(model).__name__}"
        )
    size = (p.weights.shape if isinstance(p, LinearPool) else p.batch_shape).numel() * p.event_shape.numel()
    with seeded(seed, reference_tensor([p]).device):
        blocks = torch.arange(num_samples).split(max(1, _NUMBERS_AT_ONCE // max(1, size)))
        return p, torch.cat([p.sample(torch.Size([len(block)])) for block in blocks])

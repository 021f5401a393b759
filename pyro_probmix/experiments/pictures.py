"""A trained toy model on a grid, in the units of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_probmix.datasets import TOY_REGIONS, Dataset
from pyro_probmix.experiments.settings import ExperimentSettings
from pyro_probmix.experiments.splits import Split

__all__ = ["HEIGHTS", "Picture", "take_picture"]

Array = NDArray[np.float64]

HEIGHTS = np.linspace(-120.0, 270.0, 196)
"""Targets at which the density of a toy regression is pictured."""

_CHUNK = 1000
_HALF_WIDTH = 3.6


@dataclass(frozen=True)
class Picture:
    """A trained toy model on a grid, with its training rows (validation rows included) and its test rows.

    The mean of a classification are the class probabilities ``(m, num_classes)``; densities are at :data:`HEIGHTS`.
    """

    grid: Array
    mean: Array
    deviation: Array | None
    density: Array | None
    train: tuple[Array, Array]
    test: tuple[Array, Array]


def take_picture(model: Any, split: Split, settings: ExperimentSettings, data: Dataset) -> Picture:
    """The model on a line or a square, with the rows of its split."""
    if data.task == "regression":
        grid = np.linspace(TOY_REGIONS["train"][0] - 0.5, TOY_REGIONS["test"][1] + 0.5, 401)[:, None]
    else:
        side = np.linspace(-_HALF_WIDTH, _HALF_WIDTH, 121)
        grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    heights = torch.as_tensor((HEIGHTS - split.y_shift) / split.y_scale, dtype=torch.float32)

    def predict(x: Tensor) -> tuple[Tensor, ...]:
        p = model.predictive(x, num_samples=settings.num_samples)
        if data.task == "classification":
            return (torch.stack([p.log_prob(torch.tensor(k)).exp() for k in range(data.num_classes)], dim=-1),)
        density = torch.stack([p.log_prob(y.expand(len(x))).exp() for y in heights], dim=-1)
        return p.mean * split.y_scale + split.y_shift, p.stddev * split.y_scale, density / split.y_scale

    parts = [predict(x) for x in split.standardise(grid).split(_CHUNK)]
    mean, *rest = (torch.cat(found).double().numpy() for found in zip(*parts, strict=True))
    deviation, density = (rest[0], rest[1].T) if rest else (None, None)
    x, y = (torch.cat(both) for both in zip(split.train, split.validation, strict=True))
    return Picture(grid, mean, deviation, density, split.own_units(x, y), split.own_units(*split.test))

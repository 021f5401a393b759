"""A trained toy model on a grid, in the units of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import NDArray

from pyro_probmix.datasets import TOY_REGIONS, Dataset
from pyro_probmix.distributions import class_probabilities
from pyro_probmix.experiments.settings import ExperimentSettings
from pyro_probmix.experiments.splits import Split

__all__ = ["SIDE", "Picture", "take_picture"]

Array = NDArray[np.float64]

SIDE = np.linspace(-3.6, 3.6, 121)
"""Either feature of the grid of a classification."""

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Picture:
    """What a trained toy model predicts on a grid, with its training rows (validation rows included) and test rows.

    The density is of y in its own units; of a classification, over the square of :data:`SIDE`, row by row.
    """

    grid: Array
    p: Any
    train: tuple[Array, Array]
    test: tuple[Array, Array]


def take_picture(model: Any, split: Split, settings: ExperimentSettings, data: Dataset) -> Picture:
    """The model on a line or a square, with the rows of its split."""
    if data.task == "regression":
        grid = np.linspace(TOY_REGIONS["train"][0] - 0.5, TOY_REGIONS["test"][1] + 0.5, 401)[:, None]
    else:
        grid = np.stack(np.meshgrid(SIDE, SIDE), axis=-1).reshape(-1, 2)
    inputs, num_samples = split.standardise(grid), settings.num_samples
    generator = torch.Generator(inputs.device).manual_seed(0)
    noise = model.draw_noise(inputs[:1], (num_samples, 1), generator)  # the same at each place, for smooth curves

    def predict(x: torch.Tensor) -> Any:
        return model.predictive(x, num_samples, noise=None if noise is None else noise.expand(-1, len(x), -1))

    if data.task == "classification":
        parts = [class_probabilities(predict(x)) for x in inputs.split(_ROWS_AT_ONCE)]
        p: Any = dist.Categorical(torch.cat(parts))
    else:
        own_units = dist.transforms.AffineTransform(split.y_shift, split.y_scale)
        p = dist.TransformedDistribution(predict(inputs), own_units)
    x, y = (torch.cat(both) for both in zip(split.train, split.validation, strict=True))
    return Picture(grid, p, split.own_units(x, y), split.own_units(*split.test))

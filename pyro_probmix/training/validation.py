"""The embedding noise of validation losses, of any number of rows in bounded memory."""

from __future__ import annotations

from torch import Tensor

from pyro_probmix._random import seeded
from pyro_probmix.models import DensityModel
from pyro_probmix.training.history import VALIDATION_SAMPLES

__all__ = ["NOISE_AT_ONCE", "validation_noise"]

NOISE_AT_ONCE = 2**25
"""Numbers of noise that are kept; rows behind those that have so many have the same noise again."""


def validation_noise(model: DensityModel, x: Tensor) -> Tensor | None:
    """The noise that ``predictive`` draws by default for validation data, of as many of the first rows as is kept.

    Returns:
        Of shape ``(S, rows) + event_shape``; None of a model that draws no Normal embedding.
    """
    with seeded(0, x.device):
        one = model.draw_noise(x[:1], (1, 1))
    if one is None:
        return None
    rows = min(len(x), max(1, NOISE_AT_ONCE // (VALIDATION_SAMPLES * one.numel())))
    with seeded(0, x.device):
        return model.draw_noise(x[:rows], (VALIDATION_SAMPLES, rows))

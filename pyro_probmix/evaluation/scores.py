"""Scores of single rows: of the density, its quantiles, its mean and its median."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_probmix._random import seeded
from pyro_probmix.distributions import interval, median, quantile
from pyro_probmix.evaluation.labels import check_numbers, seen_labels, unmasked
from pyro_probmix.ops.blocks import BLOCK
from pyro_probmix.ops.devices import double
from pyro_probmix.ops.sums import unsqueeze_right

__all__ = ["absolute_error", "energy_score", "interval_score", "pinball_loss", "squared_error", "surprise"]

NUM_DRAWS, NUM_SHIFTS = 1000, 20


def surprise(p: Any, y: Tensor) -> Tensor:
    """−log p(y), in nats."""
    return -p.log_prob(y)


def squared_error(p: Any, y: Tensor) -> Tensor:
    """The squared distance from the mean."""
    check_numbers(p)
    return (y.cpu().double() - p.mean.cpu().double()).square()


def absolute_error(p: Any, y: Tensor) -> Tensor:
    """The distance from the median."""
    check_numbers(p)
    return (y - median(p)).abs()


def pinball_loss(p: Any, y: Tensor, level: float = 0.5) -> Tensor:
    r""":math:`(1\{y < q\} - l)\,(q - y)` of the quantile q of level l."""
    check_numbers(p)
    above = y - quantile(p, level)
    return torch.maximum(level * above, (level - 1) * above)


def interval_score(p: Any, y: Tensor, level: float = 0.9) -> Tensor:
    r"""The width of the central interval of level l, and :math:`\frac{2}{1-l}` times how far the label is outside."""
    check_numbers(p)
    low, high = interval(p, level)
    outside = (low - y).clamp(min=0) + (y - high).clamp(min=0)
    return high - low + 2 / (1 - level) * outside


def energy_score(p: Any, y: Tensor) -> Tensor:
    r""":math:`\mathbb{E}\|Y - y\| - \frac12 \mathbb{E}\|Y - Y'\|` of whole vectors, unbiased.

    The averages are over 1000 draws of one seed, and over pairs of them that are up to 20 places apart. Outputs that
    are masked do not count.
    """
    check_numbers(p)
    if not p.event_shape:
        raise NotImplementedError("y is a single number, whose energy score is its CRPS")
    rows = len(p.batch_shape)
    seen = seen_labels(p)
    seen = unsqueeze_right(seen, y.dim() - seen.dim()).expand(y.shape).reshape(-1, p.event_shape.numel()).to(y.device)
    with seeded(0, y.device):
        draws = unmasked(p).sample((NUM_DRAWS,)).reshape(NUM_DRAWS, *seen.shape)
    size = max(1, BLOCK // (NUM_DRAWS * seen.shape[-1]))
    columns = (draws.split(size, 1), y.reshape(seen.shape).split(size), seen.split(size))
    found = torch.cat([_energy(*(double(t) for t in block)) for block in zip(*columns, strict=True)])
    return found.reshape(y.shape[:rows])


def _energy(draws: Tensor, y: Tensor, seen: Tensor) -> Tensor:
    draws, y = draws * seen, y * seen
    spread = [(draws - draws.roll(shift, 0)).norm(dim=-1).mean(0) for shift in range(1, NUM_SHIFTS + 1)]
    return (draws - y).norm(dim=-1).mean(0) - 0.5 * torch.stack(spread).mean(0)

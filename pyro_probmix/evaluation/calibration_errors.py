"""How far a predictive density is from what comes: transforms, levels, and how wide it is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_probmix.distributions import interval
from pyro_probmix.evaluation.labels import check_numbers

__all__ = [
    "coverage",
    "distance_from_uniform",
    "quantile_calibration_error",
    "standard_deviation",
    "width",
]

LEVELS = [k / 20 for k in range(1, 20)]
"""Levels of the quantiles that :func:`quantile_calibration_error` looks at."""


def distance_from_uniform(values: Tensor) -> Tensor:
    r""":math:`\sup_u |F_n(u) - u|` of transforms, the distance of Kolmogorov and Smirnov."""
    from scipy import stats  # here, for it is slow to import

    return values.new_tensor(stats.ks_1samp(values.flatten().numpy(), stats.uniform.cdf).statistic)


def quantile_calibration_error(values: Tensor) -> Tensor:
    """|share of transforms not above a level − level|, the mean over the levels 0.05, 0.1, …, 0.95."""
    values = values.flatten()
    levels = values.new_tensor(LEVELS)
    shares = (values.unsqueeze(-1) <= levels).double().mean(0)
    return (shares - levels).abs().mean() + 0 * values.sum()


def coverage(p: Any, y: Tensor, level: float = 0.9) -> Tensor:
    """Whether labels are in the central interval of that level; of counts it holds this share of the mass or more."""
    check_numbers(p)
    low, high = interval(p, level)
    inside = ((low <= y) & (y <= high)).double()
    return inside + 0 * (high - low)


def width(p: Any, y: Tensor, level: float = 0.9) -> Tensor:
    """The width of the central interval of that level."""
    check_numbers(p)
    low, high = interval(p, level)
    return high - low


def standard_deviation(p: Any, y: Tensor) -> Tensor:
    """The predictive standard deviation."""
    check_numbers(p)
    return p.variance.sqrt()

"""Isotonic recalibration of quantiles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent

from pyro_probmix._checks import check_integer
from pyro_probmix.distributions import RecalibratedDistribution, marginals
from pyro_probmix.distributions.cumulative.scalar import law_of
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.evaluation.calibration.held_out import Calibration, of_output

__all__ = ["IsotonicRecalibration"]

GAP = 1e-6  # between knots, however many labels have one value of the distribution function


class IsotonicRecalibration(Calibration):
    r"""A density whose distribution function F is made right by a monotone map R, chosen on held-out rows.

    .. math:: \tilde F(y) = R(F(y)), \qquad \tilde p(y) = R'(F(y))\, p(y), \qquad \tilde Q(q) = Q(R^{-1}(q))

    The isotonic regression of how often F(y) of the held-out labels came to lie below a value is their empirical
    distribution function. R is it at the levels :math:`\sin^2(\pi k / 2K)`, k = 0, ..., K, which are closest where
    intervals end, and linear between them, mixed with the identity as if there were one label more, spread evenly. So
    R′ is positive everywhere and the result has the support of p, and its tails up to a factor. One map an output; the
    order of quantiles stays, their levels change.

    Args:
        num_bins: K, number of linear pieces of R, at least 2; default: twice the cube root of the number of labels.

    Attributes:
        knots: where R bends, of shape ``event_shape + (num_bins + 1,)`` and in float64.
        levels: R there, of the same shape.
        num_rows: number of rows that it was fitted on.

    Raises:
        TypeError: by ``fit``, if p is no distribution, or of classes, counts or angles.
        ValueError: by ``fit``, if shapes do not match, or a label is NaN, outside the support, or missing.

    Source: Kuleshov, Fenner and Ermon, "Accurate Uncertainties for Deep Learning Using Calibrated Regression" (2018).

    Example:
        >>> p, y = dist.Normal(torch.zeros(200), 1.0), torch.linspace(-4, 4, 200)  # far too sure
        >>> q = pm.IsotonicRecalibration().fit(p, y)(p)
        >>> for law in (p, q):
        ...     lower, upper = pm.interval(law, 0.9)
        ...     print(((lower <= y) & (y <= upper)).float().mean())
        tensor(0.4100)
        tensor(0.8800)
    """

    takes = "numbers"
    instead = "TemperatureScaling is for classes, ConformalInterval for counts, whose F is no continuous function"

    knots: Tensor
    levels: Tensor

    def __init__(self, num_bins: int | None = None) -> None:
        if num_bins is not None:
            check_integer("num_bins", num_bins, minimum=2)
        self.num_bins = num_bins

    def _fit(self, p: Any, y: Tensor, seen: Tensor) -> None:
        with torch.no_grad():
            u = law_of(_independent(p)).cdf(y.double())
        values = of_output(u, seen, p.event_shape)
        size = self.num_bins or max(2, round(2 * min(map(len, values)) ** (1 / 3)))
        maps = [_monotone(own.cpu(), size) for own in values]
        self.knots, self.levels = (
            torch.stack(part).reshape(p.event_shape + (size + 1,)) for part in zip(*maps, strict=True)
        )

    def _apply(self, p: Any) -> Any:
        return RecalibratedDistribution(_independent(p), self.knots, self.levels).to_event(len(p.event_shape))


def _independent(p: Any) -> Any:
    """The outputs of ``p``, which must be independent, along its batch."""
    inner = resolved(p)
    while isinstance(inner, Independent):
        inner = resolved(inner.base_dist)
    if inner.event_shape:
        raise ValueError(
            f"p: expected one output a row, or independent ones, got a joint law, {type(inner).__name__} of event "
            f"shape {tuple(inner.event_shape)}; take marginals(p) of fit and call"
        )
    return marginals(p)


def _monotone(u: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Knots and levels of R from values of F, in ``size`` pieces."""
    share = (0.5 * math.pi * torch.linspace(0, 1, size + 1, dtype=torch.float64)).sin().square()
    room = GAP * torch.arange(size + 1)
    knots = torch.quantile(u, share)
    knots[0], knots[-1] = 0, 1
    knots = torch.minimum((knots - room).cummax(0).values + room, 1 - room.flip(0))
    levels = (len(u) * share + knots) / (len(u) + 1)
    levels[-1] = 1
    return knots, levels

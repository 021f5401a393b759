"""Variance scaling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_probmix.distributions import affine, marginals, median, quantile
from pyro_probmix.evaluation.calibration.held_out import Calibration, of_output

__all__ = ["VarianceScaling"]

# Of the scale's logarithm, about that of the typical residual: the best and its neighbours bracket the lowest NLL.
STEPS = np.linspace(-5, 5, 41)
FAR = 1e30  # nats, for an infinite loss, with which parabolas cannot be drawn


class VarianceScaling(Calibration):
    r"""A density stretched about its mean by one scale for each output, chosen on held-out rows.

    .. math:: \tilde y = m + s (y - m), \qquad \tilde p(y) = \tfrac1s\, p\bigl(m + (y - m) / s\bigr)

    m is the predictive mean of a row, or its median where there is no mean. s has the lowest mean NLL of the held-out
    labels, of each output by its marginal: for a Normal the root mean square of the standardised residuals. A Normal
    stays a Normal, a mixture a mixture of its stretched components; others become an
    :class:`~pyro_probmix.distributions.AffineDistribution`, the support being stretched too: of a density of positive
    numbers below the mean, for s > 1, beyond zero.

    Attributes:
        scale: s, of shape ``event_shape`` and in float64; above 1 where p is too sure.
        num_rows: number of rows that it was fitted on.

    Raises:
        TypeError: by ``fit``, if p is no distribution, or of classes, counts or angles.
        ValueError: by ``fit``, if shapes do not match, or a label is NaN, outside the support, or missing.

    Source: Laves et al., "Well-Calibrated Regression Uncertainty in Medical Imaging with Deep Learning" (2020).

    Example:
        >>> p = dist.Normal(torch.zeros(4), 1.0)
        >>> scaling = pm.VarianceScaling().fit(p, torch.tensor([-2.0, 2.0, -2.0, 2.0]))
        >>> scaling.scale
        tensor(2.0000, dtype=torch.float64)
        >>> scaling(dist.Normal(torch.tensor([5.0]), 1.0))
        Normal(loc: tensor([5.]), scale: tensor([2.0000]))
    """

    takes = "numbers"
    instead = "TemperatureScaling is for classes, ConformalInterval for counts too"

    scale: Tensor

    def _fit(self, p: Any, y: Tensor, seen: Tensor) -> None:
        from scipy.optimize import minimize_scalar  # here, for it is slow to import

        own = marginals(p)
        with torch.no_grad():
            center, spread = _center(own), _spread(own)
            first = torch.stack(
                [_typical(ratio) for ratio in of_output((y - center).abs() / spread, seen, p.event_shape)]
            )

            def losses(scale: Tensor) -> list[float]:
                """The mean NLL of each output by its own scale, infinite where a label has no density."""
                each = scale.reshape(p.event_shape).to(y.device)
                log_prob = affine(own, center * (1 - each), each).log_prob(y)
                means = (-float(values.double().mean()) for values in of_output(log_prob, seen, p.event_shape))
                return [math.inf if math.isnan(mean) else mean for mean in means]

            table = np.array([losses(first * math.exp(step)) for step in STEPS])
            best = table.argmin(0)
            _check_found(table, best)
            steps = torch.zeros_like(first)
            for d, place in enumerate(best):

                def loss(step: float, d: int = d) -> float:
                    steps[d] = step
                    return min(losses(first * steps.exp())[d], FAR)

                found = minimize_scalar(
                    loss, bounds=(STEPS[place - 1], STEPS[place + 1]), method="bounded", options={"xatol": 1e-10}
                )
                steps[d] = found.x
        self.scale = (first * steps.exp()).reshape(p.event_shape)

    def _apply(self, p: Any) -> Any:
        center = _center(marginals(p))
        scale = self.scale.to(center)
        return affine(p, center * (1 - scale), scale)


def _center(own: Any) -> Tensor:
    """The mean of each output of each row, or the median where there is none."""
    try:
        mean: Tensor = own.mean
    except NotImplementedError:
        return median(own)
    exists = mean.isfinite()
    return mean if bool(exists.all()) else torch.where(exists, mean, median(own))


def _spread(own: Any) -> Tensor:
    """The standard deviation, or where there is none what the distance of the quartiles would make it of a Normal."""
    try:
        deviation: Tensor = own.variance.sqrt()
        exists = deviation.isfinite()
    except NotImplementedError:
        deviation = exists = torch.zeros((), dtype=torch.bool)
    if bool(exists.all()):
        return deviation
    low, high = quantile(own, torch.tensor([0.25, 0.75]))
    return torch.where(exists.to(low.device), deviation.to(low), (high - low) / 1.349)


def _typical(ratio: Tensor) -> Tensor:
    """The scale that a Normal would have by the median of the residuals, or by their mean where that is zero."""
    typical = ratio.double().cpu().median() / 0.6745
    typical = typical if typical > 0 else ratio.double().cpu().mean()
    if not 0 < typical < math.inf:
        raise ValueError("y: expected labels that differ from the predictive mean, got none")
    return typical


def _check_found(table: np.ndarray, best: np.ndarray) -> None:
    """Refuse losses, of shape (steps, outputs), that are infinite for all scales or fall beyond the last."""
    if not np.isfinite(table.min(0)).all():
        raise ValueError("y: expected labels that some scale gives a density, got others")
    if bool(((best == 0) | (best == len(STEPS) - 1)).any()):
        raise ValueError("y: expected a finite scale of lowest NLL, got one that falls for ever")

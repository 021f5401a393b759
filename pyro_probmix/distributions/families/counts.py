"""Families on the counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.corrected import Poisson
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    masked_sum,
    register_family,
    restore_members,
)

__all__ = ["PoissonFamily"]

LARGE_RATE = 100


@register_family(torch.distributions.Poisson)
class PoissonFamily(ExponentialFamily):
    """Poisson: η = log rate, T(y) = y, h(y) = 1/y!."""

    constructor = Poisson
    cancels = True
    names = ("rate",)
    parameter_dims = (0,)
    natural_dims = (0,)

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        # A rate of zero is legal; its logarithm, −∞, must not make a gradient of 0 · ∞.
        zero = parameters[0] == 0
        return (parameters[0].masked_fill(zero, 1).log().masked_fill(zero, -math.inf),)

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return (eta[0].exp(),)

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        wide, shares = self.widened(parameters, weights)
        rate = masked_sum([self.to_natural(p, *component)[0] for component in wide], shares).exp()
        rate = self.narrowed(rate, weights[0])
        return restore_members((rate,), parameters, weights, self.parameter_dims)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return parameters[0]

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y,)

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        return (p.mean,)

    def base_measure(self, p: Distribution, y: Tensor) -> Tensor:
        return -(y + 1).lgamma()

    def expected_base_measure(self, p: Distribution) -> Tensor:
        # No closed form. Small rates: the sum over all counts of any mass; large: the series of the entropy.
        rate = self.parameters(p)[0]
        small, large = rate.clamp(torch.finfo(rate.dtype).tiny, LARGE_RATE), rate.clamp(min=LARGE_RATE)
        counts = torch.arange(LARGE_RATE + 15 * math.isqrt(LARGE_RATE), dtype=rate.dtype, device=rate.device)
        log_factorial = (counts + 1).lgamma()
        mass = dist.Poisson(small.unsqueeze(-1), validate_args=False).log_prob(counts).exp()
        entropy = 0.5 * (2 * math.pi * math.e * large).log() - (1 / 12 + (1 / 24 + 19 / 360 / large) / large) / large
        series = entropy + large * (large.log() - 1)
        return -torch.where(rate < LARGE_RATE, (mass * log_factorial).sum(-1), series)

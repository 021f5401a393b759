"""Families on the positive half-line that are linear in their usual parameters."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.corrected import Gamma
from pyro_probmix.distributions.exponential_family import ExponentialFamily, register_family

__all__ = ["ExponentialDistributionFamily", "GammaFamily"]


@register_family(torch.distributions.Exponential)
class ExponentialDistributionFamily(ExponentialFamily):
    """Exponential: η = −rate, T(y) = y, h = 1."""

    constructor = dist.Exponential
    names = ("rate",)
    parameter_dims = (0,)
    natural_dims = (0,)
    linear = True

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (-parameters[0],)

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return (-eta[0],)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return -parameters[0].log()

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y,)

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        return (p.mean,)


@register_family(torch.distributions.Gamma)
class GammaFamily(ExponentialFamily):
    """Gamma: η = (concentration − 1, −rate), T(y) = (log y, y), h = 1."""

    constructor = Gamma
    cancels = True
    names = ("concentration", "rate")
    parameter_dims = (0, 0)
    natural_dims = (0, 0)
    linear = True

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters[0] - 1, -parameters[1]

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return eta[0] + 1, -eta[1]

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        concentration, rate = parameters
        return concentration.lgamma() - concentration * rate.log()

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return y.log(), y

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        concentration, rate = self.parameters(p)
        return concentration.digamma() - rate.log(), concentration / rate

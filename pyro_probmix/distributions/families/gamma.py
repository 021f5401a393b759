"""Relatives of the Gamma: one parameter of it held, or its reciprocal."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.corrected import Chi2, InverseGamma
from pyro_probmix.distributions.exponential_family import ExponentialFamily, register_family

__all__ = ["Chi2Family", "InverseGammaFamily"]


@register_family(torch.distributions.Chi2)
class Chi2Family(ExponentialFamily):
    """Chi2: η = df/2 − 1, T(y) = log y, log h(y) = −y/2."""

    constructor = Chi2
    cancels = True
    names = ("df",)
    parameter_dims = (0,)
    natural_dims = (0,)
    linear = True

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (0.5 * parameters[0] - 1,)

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return (2 * (eta[0] + 1),)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        concentration = 0.5 * parameters[0]
        return concentration.lgamma() + math.log(2) * concentration

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y.log(),)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return ((0.5 * p.df).digamma() + math.log(2),)

    def base_measure(self, p: Distribution, y: Tensor) -> Tensor:
        return -0.5 * y

    def expected_base_measure(self, p: Any) -> Tensor:
        return -0.5 * p.df


@register_family(dist.InverseGamma, torch.distributions.InverseGamma)
class InverseGammaFamily(ExponentialFamily):
    """InverseGamma: η = (−concentration − 1, −rate), T(y) = (log y, 1/y), h = 1."""

    constructor = InverseGamma
    cancels = True
    names = ("concentration", "rate")
    parameter_dims = (0, 0)
    natural_dims = (0, 0)
    linear = True

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return -parameters[0] - 1, -parameters[1]

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return -eta[0] - 1, -eta[1]

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        concentration, rate = parameters
        return concentration.lgamma() - concentration * rate.log()

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return y.log(), y.reciprocal()

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        concentration, rate = self.parameters(p)
        return rate.log() - concentration.digamma(), concentration / rate

"""The Gamma and its relatives: one parameter of it held, or its reciprocal."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.exponential_family import ExponentialFamily, Tensors, register_family

__all__ = ["Chi2Family", "ExponentialDistributionFamily", "GammaFamily", "InverseGammaFamily"]


@register_family(torch.distributions.Exponential)
class ExponentialDistributionFamily(ExponentialFamily):
    """Exponential: η = −rate, T(y) = y, h = 1."""

    constructor = dist.Exponential
    linear = ((-1, 0),)

    def log_normalizer(self, rate: Tensor) -> Tensor:
        return -rate.log()

    def expected_sufficient_statistics(self, rate: Tensor) -> Tensors:
        return (rate.reciprocal(),)


@register_family(torch.distributions.Gamma)
class GammaFamily(ExponentialFamily):
    """Gamma: η = (concentration − 1, −rate), T(y) = (log y, y), h = 1."""

    constructor = corrected_class(dist.Gamma)
    cancels = True
    linear = ((1, -1), (-1, 0))

    def log_normalizer(self, concentration: Tensor, rate: Tensor) -> Tensor:
        return concentration.lgamma() - concentration * rate.log()

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return y.log(), y

    def expected_sufficient_statistics(self, concentration: Tensor, rate: Tensor) -> Tensors:
        return concentration.digamma() - rate.log(), concentration / rate


@register_family(torch.distributions.Chi2)
class Chi2Family(ExponentialFamily):
    """Chi2: η = df/2 − 1, T(y) = log y, log h(y) = −y/2."""

    constructor = corrected_class(dist.Chi2)
    cancels = True
    linear = ((0.5, -1),)

    def log_normalizer(self, df: Tensor) -> Tensor:
        concentration = 0.5 * df
        return concentration.lgamma() + math.log(2) * concentration

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (y.log(),)

    def expected_sufficient_statistics(self, df: Tensor) -> Tensors:
        return ((0.5 * df).digamma() + math.log(2),)

    def log_base_measure(self, y: Tensor) -> Tensor:
        return -0.5 * y

    def expected_log_base_measure(self, df: Tensor) -> Tensor:
        return -0.5 * df


@register_family(dist.InverseGamma, torch.distributions.InverseGamma)
class InverseGammaFamily(GammaFamily):
    """InverseGamma: η = (−concentration − 1, −rate), T(y) = (log y, 1/y), h = 1; A is the Gamma's."""

    constructor = corrected_class(dist.InverseGamma)
    linear = ((-1, -1), (-1, 0))

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return y.log(), y.reciprocal()

    def expected_sufficient_statistics(self, concentration: Tensor, rate: Tensor) -> Tensors:
        return rate.log() - concentration.digamma(), concentration / rate

"""Families on the unit interval and the simplex that are linear in their concentrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.corrected import Beta, Dirichlet
from pyro_probmix.distributions.exponential_family import ExponentialFamily, register_family
from pyro_probmix.distributions.log_space_beta import LogSpaceBeta

__all__ = ["BetaFamily", "DirichletFamily"]


@register_family(torch.distributions.Beta)
class BetaFamily(ExponentialFamily):
    """Beta: η = (concentration1 − 1, concentration0 − 1), T(y) = (log y, log(1 − y)), h = 1."""

    constructor = Beta
    cancels = True
    names = ("concentration1", "concentration0")
    parameter_dims = (0, 0)
    natural_dims = (0, 0)
    linear = True

    def build(self, p: Distribution, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        if not isinstance(p, LogSpaceBeta):
            return super().build(p, parameters, **fixed)
        member = LogSpaceBeta(
            parameters[0], parameters[1], validate_args=False
        )  # whose draws are right however small they are
        member._validate_args = p._validate_args
        return member

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters[0] - 1, parameters[1] - 1

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return eta[0] + 1, eta[1] + 1

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        a, b = parameters
        return a.lgamma() + b.lgamma() - (a + b).lgamma()

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return y.log(), (-y).log1p()

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        a, b = self.parameters(p)
        total = (a + b).digamma()
        return a.digamma() - total, b.digamma() - total


@register_family(torch.distributions.Dirichlet)
class DirichletFamily(ExponentialFamily):
    """Dirichlet: η = concentration − 1, T(y) = log y, h = 1."""

    constructor = Dirichlet
    cancels = True
    names = ("concentration",)
    parameter_dims = (1,)
    natural_dims = (1,)
    linear = True

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (parameters[0] - 1,)

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return (eta[0] + 1,)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        concentration = parameters[0]
        return concentration.lgamma().sum(-1) - concentration.sum(-1).lgamma()

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y.log(),)

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        concentration = self.parameters(p)[0]
        return (concentration.digamma() - concentration.sum(-1, keepdim=True).digamma(),)

"""Families on the unit interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.exponential_family import ExponentialFamily, masked_sum, register_family
from pyro_probmix.distributions.families._numerics import log_sinhc, sinhc_slope

__all__ = ["ContinuousBernoulliFamily", "KumaraswamyFamily"]

EULER = 0.5772156649015329


@register_family(torch.distributions.ContinuousBernoulli)
class ContinuousBernoulliFamily(ExponentialFamily):
    r"""ContinuousBernoulli: η = logits, T(y) = y, h = 1, :math:`A = \log\frac{e^\eta - 1}{\eta}`.

    PyTorch's own log_prob is that of probabilities held between ε and 1 − ε; this is not.
    """

    constructor = dist.ContinuousBernoulli
    names = ("logits",)
    parameter_dims = (0,)
    natural_dims = (0,)

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return eta

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        return (masked_sum([logits for (logits,) in parameters], weights),)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        half = 0.5 * parameters[0]
        return half + log_sinhc(half.square())

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y,)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        half = 0.5 * p.logits
        return (0.5 * (1 + half * sinhc_slope(half.square())),)

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        member = super().build(p, parameters, **fixed)
        member._lims = p._lims
        return member


@register_family(torch.distributions.Kumaraswamy)
class KumaraswamyFamily(ExponentialFamily):
    r"""Kumaraswamy of equal concentration1, a: η = concentration0 − 1,
    :math:`T = \log(1-y^a)`, :math:`h = a y^{a-1}`."""

    constructor = dist.Kumaraswamy
    names = ("concentration0",)
    parameter_dims = (0,)
    natural_dims = (0,)
    fixed = ("concentration1",)
    linear = True

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (parameters[0] - 1,)

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return (eta[0] + 1,)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return -parameters[0].log()

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        return ((-torch.expm1(p.concentration1 * y.log())).log(),)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return (-p.concentration0.reciprocal(),)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return p.concentration1.log() + torch.xlogy(p.concentration1 - 1, y)

    def expected_base_measure(self, p: Any) -> Tensor:
        log_mean = -((p.concentration0 + 1).digamma() + EULER) / p.concentration1
        return p.concentration1.log() + (p.concentration1 - 1) * log_mean

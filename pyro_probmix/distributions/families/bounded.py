"""Families on the unit interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl

from pyro_probmix.distributions.corrected import ContinuousBernoulli, Kumaraswamy, corrected
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    exponential_family,
    masked_sum,
    register_family,
)
from pyro_probmix.ops.special import log_sinhc

__all__ = ["ContinuousBernoulliFamily", "KumaraswamyFamily"]

EULER = 0.5772156649015329


@register_family(torch.distributions.ContinuousBernoulli)
class ContinuousBernoulliFamily(ExponentialFamily):
    r"""ContinuousBernoulli: η = logits, T(y) = y, h = 1, :math:`A = \log\frac{e^\eta - 1}{\eta}`."""

    constructor = ContinuousBernoulli
    names = ("logits",)
    parameter_dims = (0,)
    natural_dims = (0,)
    bounded = True

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
        return (corrected(p).mean,)

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        member = super().build(p, parameters, **fixed)
        member._lims = p._lims
        return member


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
@register_kl(ContinuousBernoulli, torch.distributions.ContinuousBernoulli)
@register_kl(torch.distributions.ContinuousBernoulli, ContinuousBernoulli)
def _kl(p: Any, q: Any) -> Tensor:
    """In place of PyTorch's, which takes log(1 − probs) for what it is between ε and 1 − ε."""
    return exponential_family(p).expected_log_ratio(p, p, q)


@register_family(torch.distributions.Kumaraswamy)
class KumaraswamyFamily(ExponentialFamily):
    r"""Kumaraswamy of equal concentration1, a: η = concentration0 − 1,
    :math:`T = \log(1-y^a)`, :math:`h = a y^{a-1}`."""

    constructor = Kumaraswamy
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

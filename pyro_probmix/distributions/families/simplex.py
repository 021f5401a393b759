"""Families on the unit interval and the simplex."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import register_kl

from pyro_probmix.distributions.corrected import corrected, corrected_class
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    Tensors,
    exponential_family,
    register_family,
)
from pyro_probmix.distributions.log_space_beta import LogSpaceBeta
from pyro_probmix.ops.special import EULER, log_sinhc

__all__ = ["BetaFamily", "ContinuousBernoulliFamily", "DirichletFamily", "KumaraswamyFamily"]


@register_family(torch.distributions.Beta)
class BetaFamily(ExponentialFamily):
    """Beta: η = (concentration1 − 1, concentration0 − 1), T(y) = (log y, log(1 − y)), h = 1."""

    constructor = corrected_class(dist.Beta)
    cancels = True
    linear = ((1, -1), (1, -1))

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        if isinstance(p, LogSpaceBeta):  # whose draws are right however small they are
            vars(self)["constructor"] = LogSpaceBeta

    def log_normalizer(self, concentration1: Tensor, concentration0: Tensor) -> Tensor:
        return concentration1.lgamma() + concentration0.lgamma() - (concentration1 + concentration0).lgamma()

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return y.log(), (-y).log1p()

    def expected_sufficient_statistics(self, concentration1: Tensor, concentration0: Tensor) -> Tensors:
        total = (concentration1 + concentration0).digamma()
        return concentration1.digamma() - total, concentration0.digamma() - total


@register_family(torch.distributions.Dirichlet)
class DirichletFamily(ExponentialFamily):
    """Dirichlet: η = concentration − 1, T(y) = log y, h = 1."""

    constructor = corrected_class(dist.Dirichlet)
    cancels = True
    linear = ((1, -1),)

    def log_normalizer(self, concentration: Tensor) -> Tensor:
        return concentration.lgamma().sum(-1) - concentration.sum(-1).lgamma()

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (y.log(),)

    def expected_sufficient_statistics(self, concentration: Tensor) -> Tensors:
        return (concentration.digamma() - concentration.sum(-1, keepdim=True).digamma(),)


@register_family(torch.distributions.ContinuousBernoulli)
class ContinuousBernoulliFamily(ExponentialFamily):
    r"""ContinuousBernoulli: η = logits, T(y) = y, h = 1, :math:`A = \log\frac{e^\eta - 1}{\eta}`."""

    constructor = corrected_class(dist.ContinuousBernoulli)
    linear = True
    infinite_eta = True
    bounded = True

    def log_normalizer(self, logits: Tensor) -> Tensor:
        half = 0.5 * logits
        return half + log_sinhc(half.square())

    def expected_sufficient_statistics(self, logits: Tensor) -> Tensors:
        return (corrected(self.p).mean,)

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        member = super().build(parameters, **fixed)
        member._lims = self.p._lims
        return member


@register_kl(ContinuousBernoulliFamily.constructor, ContinuousBernoulliFamily.constructor)
@register_kl(ContinuousBernoulliFamily.constructor, torch.distributions.ContinuousBernoulli)
@register_kl(torch.distributions.ContinuousBernoulli, ContinuousBernoulliFamily.constructor)
def _kl(p: Any, q: Any) -> Tensor:
    """In place of PyTorch's, which takes log(1 − probs) for what it is between ε and 1 − ε."""
    form = exponential_family(p)
    return form.expected_log_ratio(form, exponential_family(q))


@register_family(torch.distributions.Kumaraswamy)
class KumaraswamyFamily(ExponentialFamily):
    r"""Kumaraswamy of equal concentration1, a: η = concentration0 − 1,
    :math:`T = \log(1-y^a)`, :math:`h = a y^{a-1}`."""

    constructor = corrected_class(dist.Kumaraswamy)
    fixed = ("concentration1",)
    linear = ((1, -1),)

    def log_normalizer(self, concentration0: Tensor) -> Tensor:
        return -concentration0.log()

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return ((-torch.expm1(self.p.concentration1 * y.log())).log(),)

    def expected_sufficient_statistics(self, concentration0: Tensor) -> Tensors:
        return (-concentration0.reciprocal(),)

    def log_base_measure(self, y: Tensor) -> Tensor:
        a = self.p.concentration1
        return a.log() + torch.xlogy(a - 1, y)

    def expected_log_base_measure(self, concentration0: Tensor) -> Tensor:
        a = self.p.concentration1
        log_mean = -((concentration0 + 1).digamma() + EULER) / a
        return a.log() + (a - 1) * log_mean

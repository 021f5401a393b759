"""Families of one scale: linear in a power of it, or in its exponential."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.corrected import Weibull
from pyro_probmix.distributions.exponential_family import ExponentialFamily, register_family, restore_members
from pyro_probmix.distributions.families._numerics import log_weighted_sum

__all__ = ["AsymmetricLaplaceFamily", "GumbelFamily", "HalfNormalFamily", "LaplaceFamily", "WeibullFamily"]

EULER = 0.5772156649015329


class _LogPoolFamily(ExponentialFamily):
    """Families whose natural parameters are negative exponentials, pooled by their logarithms."""

    def logs(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        """log(−η)."""
        raise NotImplementedError

    def from_logs(self, p: Any, *logs: Tensor) -> tuple[Tensor, ...]:
        """The usual parameters from log(−η)."""
        raise NotImplementedError

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return tuple(-t.exp() for t in self.logs(p, *parameters))

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return self.from_logs(p, *[(-t).log() for t in eta])

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        logs = zip(*[self.logs(p, *component) for component in parameters], strict=True)
        pooled = self.from_logs(p, *[log_weighted_sum(terms, weights) for terms in logs])
        return restore_members(pooled, parameters, weights, self.parameter_dims)


@register_family(torch.distributions.HalfNormal)
class HalfNormalFamily(_LogPoolFamily):
    """HalfNormal: η = −1/(2 scale²), T(y) = y², h = 1 on y ≥ 0."""

    constructor = dist.HalfNormal
    names = ("scale",)
    parameter_dims = (0,)
    natural_dims = (0,)

    def logs(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (-2 * parameters[0].log() - math.log(2),)

    def from_logs(self, p: Any, *logs: Tensor) -> tuple[Tensor, ...]:
        return ((-0.5 * (logs[0] + math.log(2))).exp(),)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return parameters[0].log() + 0.5 * math.log(math.pi / 2)

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y.square(),)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return (p.scale.square(),)

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        return self.normalizer(q, q.scale) + 0.5 * (p.scale / q.scale).square()


@register_family(torch.distributions.Laplace)
class LaplaceFamily(_LogPoolFamily):
    """Laplace of equal loc: η = −1/scale, T(y) = |y − loc|, h = 1."""

    constructor = dist.Laplace
    names = ("scale",)
    parameter_dims = (0,)
    natural_dims = (0,)
    fixed = ("loc",)

    def logs(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (-parameters[0].log(),)

    def from_logs(self, p: Any, *logs: Tensor) -> tuple[Tensor, ...]:
        return ((-logs[0]).exp(),)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return (2 * parameters[0]).log()

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        return ((y - p.loc).abs(),)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return (p.scale,)

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        return self.normalizer(q, q.scale) + p.scale / q.scale


@register_family(dist.AsymmetricLaplace)
class AsymmetricLaplaceFamily(_LogPoolFamily):
    """AsymmetricLaplace of equal loc: η = −(1/left, 1/right), T(y) = ((loc − y)₊, (y − loc)₊), h = 1.

    The scales of the two sides are left = scale · asymmetry and right = scale / asymmetry.
    """

    constructor = dist.AsymmetricLaplace
    names = ("scale", "asymmetry")
    parameter_dims = (0, 0)
    natural_dims = (0, 0)
    fixed = ("loc",)

    def logs(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        scale, asymmetry = (t.log() for t in parameters)
        return -scale - asymmetry, asymmetry - scale

    def from_logs(self, p: Any, *logs: Tensor) -> tuple[Tensor, ...]:
        left, right = logs
        return (-0.5 * (left + right)).exp(), (0.5 * (right - left)).exp()

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        scale, asymmetry = parameters
        return scale.log() + (asymmetry + asymmetry.reciprocal()).log()

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        return (p.loc - y).clamp(min=0), (y - p.loc).clamp(min=0)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        left, right = p.left_scale, p.right_scale
        return left / (1 + right / left), right / (1 + left / right)

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        left, right = self.moments(p)
        return self.normalizer(q, q.scale, q.asymmetry) + left / q.left_scale + right / q.right_scale


@register_family(torch.distributions.Gumbel)
class GumbelFamily(_LogPoolFamily):
    r"""Gumbel of equal scale: :math:`\eta = -e^{loc/scale}`, :math:`T(y) = e^{-y/scale}`, :math:`h = T/scale`."""

    constructor = dist.Gumbel
    names = ("loc",)
    parameter_dims = (0,)
    natural_dims = (0,)
    fixed = ("scale",)

    def logs(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (parameters[0] / p.scale,)

    def from_logs(self, p: Any, *logs: Tensor) -> tuple[Tensor, ...]:
        return (logs[0] * p.scale,)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        return -parameters[0] / p.scale

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        return ((-y / p.scale).exp(),)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return ((-p.loc / p.scale).exp(),)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return -y / p.scale - p.scale.log()

    def expected_base_measure(self, p: Any) -> Tensor:
        return -p.loc / p.scale - EULER - p.scale.log()

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        distance = (q.loc - p.loc) / p.scale
        return EULER + p.scale.log() - distance + distance.exp()


@register_family(torch.distributions.Weibull)
class WeibullFamily(_LogPoolFamily):
    r"""Weibull of equal concentration k: :math:`\eta = -scale^{-k}`, :math:`T(y) = y^k`, :math:`h(y) = k y^{k-1}`."""

    constructor = Weibull
    names = ("scale",)
    parameter_dims = (0,)
    natural_dims = (0,)
    fixed = ("concentration",)

    def logs(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (-p.concentration * parameters[0].log(),)

    def from_logs(self, p: Any, *logs: Tensor) -> tuple[Tensor, ...]:
        return ((-logs[0] / p.concentration).exp(),)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        return p.concentration * parameters[0].log()

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        return (y.pow(p.concentration),)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return (p.scale.pow(p.concentration),)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return p.concentration.log() + torch.xlogy(p.concentration - 1, y)

    def expected_base_measure(self, p: Any) -> Tensor:
        log_mean = p.scale.log() - EULER / p.concentration
        return p.concentration.log() + (p.concentration - 1) * log_mean

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        power = (p.scale / q.scale).pow(p.concentration)
        return self.normalizer(q, q.scale) + power - self.expected_base_measure(p)

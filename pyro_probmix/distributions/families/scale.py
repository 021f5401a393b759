"""Families of one scale: linear in a power of it, or in its exponential."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.exponential_family import ExponentialFamily, Members, Tensors, register_family
from pyro_probmix.distributions.families._numerics import log_weighted_sum
from pyro_probmix.ops.special import EULER
from pyro_probmix.ops.sums import restore_members

__all__ = ["AsymmetricLaplaceFamily", "GumbelFamily", "HalfNormalFamily", "LaplaceFamily", "WeibullFamily"]


class _LogPoolFamily(ExponentialFamily):
    """Families whose natural parameters are negative exponentials, pooled by their logarithms."""

    def logs(self, *parameters: Any, **by_name: Any) -> Tensors:
        """log(−η) from the usual parameters."""
        raise NotImplementedError

    def from_logs(self, *logs: Any, **by_name: Any) -> Tensors:
        """The usual parameters from log(−η)."""
        raise NotImplementedError

    def to_natural(self, *parameters: Any, **by_name: Any) -> Tensors:
        return tuple(-t.exp() for t in self.logs(*parameters))

    def from_natural(self, *eta: Any, **by_name: Any) -> Tensors:
        return self.from_logs(*[(-t).log() for t in eta])

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        if not simplex:
            return super().pool(members, weights, simplex)
        logs = zip(*[self.logs(*member) for member in members], strict=True)
        pooled = self.from_logs(*[log_weighted_sum(terms, weights) for terms in logs])
        return restore_members(pooled, members, weights, self.parameter_dims)


@register_family(torch.distributions.HalfNormal)
class HalfNormalFamily(_LogPoolFamily):
    """HalfNormal: η = −1/(2 scale²), T(y) = y², h = 1 on y ≥ 0."""

    constructor = dist.HalfNormal

    def logs(self, scale: Tensor) -> Tensors:
        return (-2 * scale.log() - math.log(2),)

    def from_logs(self, log: Tensor) -> Tensors:
        return ((-0.5 * (log + math.log(2))).exp(),)

    def log_normalizer(self, scale: Tensor) -> Tensor:
        return scale.log() + 0.5 * math.log(math.pi / 2)

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (y.square(),)

    def expected_sufficient_statistics(self, scale: Tensor) -> Tensors:
        return (scale.square(),)

    def cross_entropy(self, other: Any) -> Tensor:
        p, q = self.p, other.p
        return other.log_normalizer(q.scale) + 0.5 * (p.scale / q.scale).square()


@register_family(torch.distributions.Laplace)
class LaplaceFamily(_LogPoolFamily):
    """Laplace of equal loc: η = −1/scale, T(y) = |y − loc|, h = 1."""

    constructor = dist.Laplace
    fixed = ("loc",)

    def logs(self, scale: Tensor) -> Tensors:
        return (-scale.log(),)

    def from_logs(self, log: Tensor) -> Tensors:
        return ((-log).exp(),)

    def log_normalizer(self, scale: Tensor) -> Tensor:
        return (2 * scale).log()

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return ((y - self.p.loc).abs(),)

    def expected_sufficient_statistics(self, scale: Tensor) -> Tensors:
        return (scale,)

    def cross_entropy(self, other: Any) -> Tensor:
        p, q = self.p, other.p
        return other.log_normalizer(q.scale) + p.scale / q.scale


@register_family(dist.AsymmetricLaplace)
class AsymmetricLaplaceFamily(_LogPoolFamily):
    """AsymmetricLaplace of equal loc: η = −(1/left, 1/right), T(y) = ((loc − y)₊, (y − loc)₊), h = 1.

    The scales of the two sides are left = scale · asymmetry and right = scale / asymmetry.
    """

    constructor = dist.AsymmetricLaplace
    fixed = ("loc",)

    def logs(self, scale: Tensor, asymmetry: Tensor) -> Tensors:
        log_scale, log_asymmetry = scale.log(), asymmetry.log()
        return -log_scale - log_asymmetry, log_asymmetry - log_scale

    def from_logs(self, left: Tensor, right: Tensor) -> Tensors:
        return (-0.5 * (left + right)).exp(), (0.5 * (right - left)).exp()

    def log_normalizer(self, scale: Tensor, asymmetry: Tensor) -> Tensor:
        return scale.log() + (asymmetry + asymmetry.reciprocal()).log()

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (self.p.loc - y).clamp(min=0), (y - self.p.loc).clamp(min=0)

    def expected_sufficient_statistics(self, scale: Tensor, asymmetry: Tensor) -> Tensors:
        left, right = self.p.left_scale, self.p.right_scale
        return left / (1 + right / left), right / (1 + left / right)

    def cross_entropy(self, other: Any) -> Tensor:
        p, q = self.p, other.p
        left, right = self.expected_sufficient_statistics(p.scale, p.asymmetry)
        return other.log_normalizer(q.scale, q.asymmetry) + left / q.left_scale + right / q.right_scale


@register_family(torch.distributions.Gumbel)
class GumbelFamily(_LogPoolFamily):
    r"""Gumbel of equal scale: :math:`\eta = -e^{loc/scale}`, :math:`T(y) = e^{-y/scale}`, :math:`h = T/scale`."""

    constructor = dist.Gumbel
    fixed = ("scale",)

    def logs(self, loc: Tensor) -> Tensors:
        return (loc / self.p.scale,)

    def from_logs(self, log: Tensor) -> Tensors:
        return (log * self.p.scale,)

    def log_normalizer(self, loc: Tensor) -> Tensor:
        return -loc / self.p.scale

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return ((-y / self.p.scale).exp(),)

    def expected_sufficient_statistics(self, loc: Tensor) -> Tensors:
        return ((-loc / self.p.scale).exp(),)

    def log_base_measure(self, y: Tensor) -> Tensor:
        return -y / self.p.scale - self.p.scale.log()

    def expected_log_base_measure(self, loc: Tensor) -> Tensor:
        return -loc / self.p.scale - EULER - self.p.scale.log()

    def cross_entropy(self, other: Any) -> Tensor:
        p, q = self.p, other.p
        distance = (q.loc - p.loc) / p.scale
        return EULER + p.scale.log() - distance + distance.exp()


@register_family(torch.distributions.Weibull)
class WeibullFamily(_LogPoolFamily):
    r"""Weibull of equal concentration k: :math:`\eta = -scale^{-k}`, :math:`T(y) = y^k`, :math:`h(y) = k y^{k-1}`."""

    constructor = corrected_class(dist.Weibull)
    fixed = ("concentration",)

    def logs(self, scale: Tensor) -> Tensors:
        return (-self.p.concentration * scale.log(),)

    def from_logs(self, log: Tensor) -> Tensors:
        return ((-log / self.p.concentration).exp(),)

    def log_normalizer(self, scale: Tensor) -> Tensor:
        return self.p.concentration * scale.log()

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (y.pow(self.p.concentration),)

    def expected_sufficient_statistics(self, scale: Tensor) -> Tensors:
        return (scale.pow(self.p.concentration),)

    def log_base_measure(self, y: Tensor) -> Tensor:
        return self.p.concentration.log() + torch.xlogy(self.p.concentration - 1, y)

    def expected_log_base_measure(self, scale: Tensor) -> Tensor:
        log_mean = scale.log() - EULER / self.p.concentration
        return self.p.concentration.log() + (self.p.concentration - 1) * log_mean

    def cross_entropy(self, other: Any) -> Tensor:
        p, q = self.p, other.p
        power = (p.scale / q.scale).pow(p.concentration)
        return other.log_normalizer(q.scale) + power - self.expected_log_base_measure(p.scale)

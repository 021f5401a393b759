"""Normal families: linear in precision and precision-weighted mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.linalg import solve_triangular

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    masked_sum,
    register_family,
    restore_members,
    sum_products,
    unsqueeze_right,
)
from pyro_probmix.distributions.families._normal_pool import Normal, pool_of_normals
from pyro_probmix.distributions.families._numerics import cholesky

__all__ = ["LogNormalFamily", "MultivariateNormalFamily", "NormalFamily"]

LOG_2PI = math.log(2 * math.pi)


@register_family(torch.distributions.Normal)
class NormalFamily(ExponentialFamily):
    r"""Normal: :math:`\eta = (\mu/\sigma^2, -1/(2\sigma^2))`, :math:`T(y) = (y, y^2)`, h = 1."""

    constructor = Normal
    names = ("loc", "scale")
    parameter_dims = (0, 0)
    natural_dims = (0, 0)

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        loc, scale = parameters
        precision = scale.square().reciprocal()
        return loc * precision, -0.5 * precision

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        variance = -0.5 / eta[1]
        return eta[0] * variance, variance.sqrt()

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        loc, scale = parameters
        return 0.5 * (loc / scale).square() + scale.log() + 0.5 * LOG_2PI

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return y, y.square()

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        loc, scale = self.parameters(p)
        return loc, loc.square() + scale.square()

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        locs_and_scales = [component[i].to(weights[0].dtype) for i in (0, 1) for component in parameters]
        aligned, shape = list(weights), weights[0].shape
        if any(t.shape != shape for t in (*locs_and_scales, *weights)):
            locs_and_scales = list(torch.broadcast_tensors(*locs_and_scales, *weights)[: 2 * len(weights)])
            dims = locs_and_scales[0].dim()
            aligned = [w.reshape((1,) * (dims - w.dim()) + w.shape) for w in weights]
        return pool_of_normals(*locs_and_scales, *aligned)

    def pooling_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        parameters = _about_pooled_mean(self, p, parameters, weights)
        mean, pooled = self.pool(p, parameters, weights)
        _, scales = _bounded_scales(parameters, weights)
        terms = [
            0.5 * ((loc - mean) / scale).square() + (scale / pooled).log()
            for (loc, _), scale in zip(parameters, scales, strict=True)
        ]
        return masked_sum(terms, weights)

    def product(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        return self.pool(p, parameters, weights)

    def product_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        surplus = reduce(torch.add, weights) - 1
        _, pooled = self.pool(p, parameters, weights)
        return self.pooling_normalizer(p, parameters, weights) + surplus * (pooled.log() + 0.5 * LOG_2PI)

    def cross_entropy(self, p: Distribution, q: Distribution) -> Tensor:
        (p_loc, p_scale), (loc, scale) = self.parameters(p), self.parameters(q)
        squares = ((p_loc - loc) / scale).square() + (p_scale / scale).square()
        return 0.5 * (squares + LOG_2PI) + scale.log() - self.expected_base_measure(p)


@register_family(torch.distributions.LogNormal)
class LogNormalFamily(NormalFamily):
    r"""LogNormal: the Normal's η and A with :math:`T(y) = (\log y, \log^2 y)` and h(y) = 1/y."""

    constructor = dist.LogNormal

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return y.log(), y.log().square()

    def base_measure(self, p: Distribution, y: Tensor) -> Tensor:
        return -y.log()

    def expected_base_measure(self, p: Distribution) -> Tensor | float:
        return -self.parameters(p)[0]


@register_family(torch.distributions.MultivariateNormal)
class MultivariateNormalFamily(ExponentialFamily):
    r"""MultivariateNormal: :math:`\eta = (\Sigma^{-1}\mu, -\Sigma^{-1}/2)`, T(y) = (y, yyᵀ), h = 1."""

    constructor = dist.MultivariateNormal
    names = ("loc", "scale_tril")
    parameter_dims = (1, 2)
    natural_dims = (1, 2)

    def outside(self, p: Distribution, parameters: Sequence[Tensor]) -> str | None:
        return not_definite(parameters[1]) or super().outside(p, parameters)

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        loc, scale_tril = parameters
        precision = torch.cholesky_inverse(scale_tril)
        return (precision @ loc.unsqueeze(-1)).squeeze(-1), -0.5 * precision

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        scale_tril = _inverse_factor(-eta[1] - eta[1].mT)
        return (scale_tril @ (scale_tril.mT @ eta[0].unsqueeze(-1))).squeeze(-1), scale_tril

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        loc, scale_tril = parameters
        return 0.5 * (_solve(scale_tril, loc).square() + LOG_2PI).sum(-1) + _log_determinant(scale_tril)

    def diverges(self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        return no_precision([self.to_natural(p, *component)[1] for component in parameters], weights)

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return y, y.unsqueeze(-1) * y.unsqueeze(-2)

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        loc, scale_tril = self.parameters(p)
        return loc, scale_tril @ scale_tril.mT + loc.unsqueeze(-1) * loc.unsqueeze(-2)

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        # In the coordinates of the tightest component that takes part, y = m + L x, which are constants: what
        # all covariances have in common is never inverted. There, Lₖ⁻¹ L is the root of the k-th precision.
        with torch.no_grad():
            center, unit, smallest = *parameters[0], weights[0].new_full((), math.inf)
            for w, (loc, scale_tril) in zip(weights, parameters, strict=True):
                size = torch.where(w != 0, _log_determinant(scale_tril), math.inf)
                tighter = size < smallest
                center = torch.where(unsqueeze_right(tighter, 1), loc, center)
                unit = torch.where(unsqueeze_right(tighter, 2), scale_tril, unit)
                smallest = torch.minimum(size, smallest)
            largest = torch.finfo(unit.dtype).max ** 0.45
        roots, shifts = [], []
        for loc, scale_tril in parameters:
            root = solve_triangular(scale_tril, unit, upper=False).clamp(-largest, largest)
            roots.append(root.mT @ root)
            shift = _solve(scale_tril, loc - center).clamp(-largest, largest)
            shifts.append((root.mT @ shift.unsqueeze(-1)).squeeze(-1))
        (precision, shift) = (
            sum_products(terms, [unsqueeze_right(w, dim) for w in weights]) for terms, dim in ((roots, 2), (shifts, 1))
        )
        scale_tril = _inverse_factor(precision)
        offset = unit @ (scale_tril @ (scale_tril.mT @ shift.unsqueeze(-1)))
        pooled = center + offset.squeeze(-1), unit @ scale_tril
        return restore_members(pooled, parameters, weights, self.parameter_dims)

    def pooling_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        parameters = _about_pooled_mean(self, p, parameters, weights)
        mean, unit = self.pool(p, parameters, weights)
        terms = [
            0.5 * _solve(scale_tril, loc - mean).square().sum(-1) + _log_determinant(scale_tril)
            for loc, scale_tril in parameters
        ]
        return masked_sum(terms, weights) - _log_determinant(unit)

    def cross_entropy(self, p: Distribution, q: Distribution) -> Tensor:
        (p_loc, p_scale_tril), (loc, scale_tril) = self.parameters(p), self.parameters(q)
        distance = _solve(scale_tril, p_loc - loc).square() + LOG_2PI
        spread = solve_triangular(scale_tril, p_scale_tril, upper=False).square().sum((-2, -1))
        return 0.5 * (distance.sum(-1) + spread) + _log_determinant(scale_tril)


def _about_pooled_mean(
    family: ExponentialFamily,
    p: Distribution,
    parameters: Sequence[Sequence[Tensor]],
    weights: Sequence[Tensor],
) -> list[tuple[Tensor, Tensor]]:
    """The components moved so that their pool is about the origin, where nothing large cancels."""
    with torch.no_grad():
        mean, _ = family.pool(p, parameters, weights)
    return [(loc - mean, scale) for loc, scale in parameters]


def _bounded_scales(parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The smallest scale that takes part, and all scales, those of weight zero held within reach of it."""
    scales = [scale for _, scale in parameters]
    with torch.no_grad():
        # Infinity, added at weight zero: a selection that broadcasts would take several times as long.
        absent = [torch.zeros_like(w).masked_fill(w == 0, math.inf) for w in weights]
        unit = reduce(torch.minimum, [scale + a for scale, a in zip(scales, absent, strict=True)])
        bound = unit / torch.finfo(unit.dtype).max ** 0.25
        missing = [(bound - scale).clamp(min=0) for scale in scales]
    return unit, [scale + m for scale, m in zip(scales, missing, strict=True)]


def _solve(scale_tril: Tensor, vector: Tensor) -> Tensor:
    return solve_triangular(scale_tril, vector.unsqueeze(-1), upper=False).squeeze(-1)


def _log_determinant(scale_tril: Tensor) -> Tensor:
    return scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def not_definite(factor: Tensor) -> str | None:
    """What is wrong with the precision whose :func:`cholesky` this is made of, or None."""
    bad = factor.isnan().any(-1).any(-1)
    return f"a precision that is not positive-definite{at_index(bad)}" if bad.any() else None


def no_precision(terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Where −Σₖ wₖ tₖ of matrices is not positive definite, or is but for rounding."""
    shares = [unsqueeze_right(w, 2) for w in weights]
    size = reduce(torch.add, [(w * t).abs() for w, t in zip(shares, terms, strict=True)])
    unit = size.diagonal(dim1=-2, dim2=-1).rsqrt()
    scaled = -sum_products(terms, shares) * unit.unsqueeze(-1) * unit.unsqueeze(-2)
    noise = 4 * torch.finfo(unit.dtype).eps * unit.shape[-1]
    identity = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    return torch.linalg.cholesky_ex(scaled - noise * identity).info != 0


def _inverse_factor(precision: Tensor) -> Tensor:
    """The lower Cholesky factor of the inverse, without inverting: flip, factor, flip back."""
    factor = cholesky(precision.flip(-2, -1)).flip(-2, -1).mT
    identity = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    return solve_triangular(factor, identity, upper=False)

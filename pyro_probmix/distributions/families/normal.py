"""Normal families: linear in precision and precision-weighted mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.linalg import solve_triangular

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.exponential_family import ExponentialFamily, Members, Tensors, register_family
from pyro_probmix.distributions.families._normal_pool import Normal, pool_of_normals
from pyro_probmix.distributions.families._numerics import inverse_factor, log_determinant, times
from pyro_probmix.ops.special import LOG_2PI
from pyro_probmix.ops.sums import masked_sum, restore_members, sum_products, unsqueeze_right, weighted_sums

__all__ = [
    "LogNormalFamily",
    "MultivariateNormalFamily",
    "NormalFamily",
    "NormalVectorFamily",
    "no_precision",
    "pool_of_multivariate_normals",
]


@register_family(torch.distributions.Normal)
class NormalFamily(ExponentialFamily):
    r"""Normal: :math:`\eta = (\mu/\sigma^2, -1/(2\sigma^2))`, :math:`T(y) = (y, y^2)`, h = 1."""

    constructor = Normal

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        loc, scale = parameters
        if self.constructor is not Normal or loc.shape != scale.shape:
            return super().build(parameters)
        return Normal.of(loc, scale, self.p._validate_args)

    def to_natural(self, loc: Tensor, scale: Tensor) -> Tensors:
        precision = scale.square().reciprocal()
        return loc * precision, -0.5 * precision

    def from_natural(self, shift: Tensor, minus_half_precision: Tensor) -> Tensors:
        variance = -0.5 / minus_half_precision
        return shift * variance, variance.sqrt()

    def log_normalizer(self, loc: Tensor, scale: Tensor) -> Tensor:
        return 0.5 * (loc / scale).square() + scale.log() + 0.5 * LOG_2PI

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return y, y.square()

    def expected_sufficient_statistics(self, loc: Tensor, scale: Tensor) -> Tensors:
        return loc, loc.square() + scale.square()

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        aligned, shape, dtype = list(weights), weights[0].shape, weights[0].dtype
        locs_and_scales = [member[i] for i in (0, 1) for member in members]
        if any(t.dtype != dtype for t in locs_and_scales):
            locs_and_scales = [t.to(dtype) for t in locs_and_scales]
        if any(t.shape != shape for t in (*locs_and_scales, *weights)):
            locs_and_scales = list(torch.broadcast_tensors(*locs_and_scales, *weights)[: 2 * len(weights)])
            dims = locs_and_scales[0].dim()
            aligned = [w.reshape((1,) * (dims - w.dim()) + w.shape) for w in weights]
        return pool_of_normals(*locs_and_scales, *aligned)

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        with torch.no_grad():  # about the pooled mean nothing large cancels
            center, _ = self.pool(members, weights)
        members = [(loc - center, scale) for loc, scale in members]
        mean, pooled = self.pool(members, weights)
        scales = _bounded([scale for _, scale in members], weights)
        terms = [
            0.5 * ((loc - mean) / scale).square() + (scale / pooled).log()
            for (loc, _), scale in zip(members, scales, strict=True)
        ]
        xi = masked_sum(terms, weights)
        return xi if simplex else xi + (reduce(torch.add, weights) - 1) * (pooled.log() + 0.5 * LOG_2PI)

    def cross_entropy(self, other: Any) -> Tensor:
        (p_loc, p_scale), (loc, scale) = self.parameters, other.parameters
        squares = ((p_loc - loc) / scale).square() + (p_scale / scale).square()
        return 0.5 * (squares + LOG_2PI) + scale.log() - self.expected_log_base_measure(p_loc, p_scale)


@register_family(torch.distributions.LogNormal)
class LogNormalFamily(NormalFamily):
    r"""LogNormal: the Normal's η and A with :math:`T(y) = (\log y, \log^2 y)` and h(y) = 1/y."""

    constructor = dist.LogNormal

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return y.log(), y.log().square()

    def log_base_measure(self, y: Tensor) -> Tensor:
        return -y.log()

    def expected_log_base_measure(self, loc: Tensor, scale: Tensor) -> Tensor:
        return -loc


class NormalVectorFamily(ExponentialFamily):
    r""":math:`\eta = (\Sigma^{-1}\mu, -\Sigma^{-1}/2)`, T(y) = (y, yyᵀ), h = 1; a factor of Σ comes second."""

    def domain_error(self, parameters: Sequence[Tensor], inside: bool = False) -> str | None:
        bad = parameters[1].isnan().any(-1).any(-1)  # as `cholesky` has it
        wrong = f"a precision that is not positive-definite{at_index(bad)}" if bad.any() else None
        return wrong or super().domain_error(parameters, inside)

    def diverges(self, members: Members, weights: Sequence[Tensor]) -> Tensor:
        return no_precision([self.to_natural(*member)[1] for member in members], weights)

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return y, y.unsqueeze(-1) * y.unsqueeze(-2)


@register_family(torch.distributions.MultivariateNormal)
class MultivariateNormalFamily(NormalVectorFamily):
    r"""MultivariateNormal: :math:`\eta = (\Sigma^{-1}\mu, -\Sigma^{-1}/2)`, T(y) = (y, yyᵀ), h = 1."""

    constructor = dist.MultivariateNormal

    def to_natural(self, loc: Tensor, scale_tril: Tensor) -> Tensors:
        precision = torch.cholesky_inverse(scale_tril)
        return times(precision, loc), -0.5 * precision

    def from_natural(self, shift: Tensor, minus_half_precision: Tensor) -> Tensors:
        scale_tril = inverse_factor(-minus_half_precision - minus_half_precision.mT)
        return times(scale_tril, scale_tril.mT, shift), scale_tril

    def log_normalizer(self, loc: Tensor, scale_tril: Tensor) -> Tensor:
        return 0.5 * (_solve(scale_tril, loc).square() + LOG_2PI).sum(-1) + log_determinant(scale_tril)

    def expected_sufficient_statistics(self, loc: Tensor, scale_tril: Tensor) -> Tensors:
        return loc, scale_tril @ scale_tril.mT + loc.unsqueeze(-1) * loc.unsqueeze(-2)

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        return pool_of_multivariate_normals(members, weights) if simplex else super().pool(members, weights, simplex)

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        if not simplex:
            return super().pooling_normalizer(members, weights, simplex)
        with torch.no_grad():  # about the pooled mean nothing large cancels
            center, _ = self.pool(members, weights)
        members = [(loc - center, scale_tril) for loc, scale_tril in members]
        mean, unit = self.pool(members, weights)
        terms = [
            0.5 * _solve(scale_tril, loc - mean).square().sum(-1) + log_determinant(scale_tril)
            for loc, scale_tril in members
        ]
        return masked_sum(terms, weights) - log_determinant(unit)

    def cross_entropy(self, other: Any) -> Tensor:
        (p_loc, p_scale_tril), (loc, scale_tril) = self.parameters, other.parameters
        distance = _solve(scale_tril, p_loc - loc).square() + LOG_2PI
        spread = solve_triangular(scale_tril, p_scale_tril, upper=False).square().sum((-2, -1))
        return 0.5 * (distance.sum(-1) + spread) + log_determinant(scale_tril)


def pool_of_multivariate_normals(members: Members, weights: Sequence[Tensor]) -> Tensors:
    """Loc and scale_tril of a pool from those of its members and weights on the simplex."""
    # In the coordinates of the tightest component that takes part, y = m + L x, which are constants: what
    # all covariances have in common is never inverted. There, Lₖ⁻¹ L is the root of the k-th precision.
    with torch.no_grad():
        center, unit, smallest = *members[0], weights[0].new_full((), math.inf)
        for w, (loc, scale_tril) in zip(weights, members, strict=True):
            size = torch.where(w != 0, log_determinant(scale_tril), math.inf)
            tighter = size < smallest
            center = torch.where(unsqueeze_right(tighter, 1), loc, center)
            unit = torch.where(unsqueeze_right(tighter, 2), scale_tril, unit)
            smallest = torch.minimum(size, smallest)
        largest = torch.finfo(unit.dtype).max ** 0.45
    etas = []
    for loc, scale_tril in members:
        root = solve_triangular(scale_tril, unit, upper=False).clamp(-largest, largest)
        shift = _solve(scale_tril, loc - center).clamp(-largest, largest)
        etas.append((times(root.mT, shift), root.mT @ root))
    shift, precision = weighted_sums(etas, weights, (1, 2))
    scale_tril = inverse_factor(precision)
    loc = center + times(unit, scale_tril, scale_tril.mT, shift)
    return restore_members((loc, unit @ scale_tril), members, weights, (1, 2))


def _bounded(scales: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """The scales, those of weight zero held within reach of the smallest that takes part."""
    with torch.no_grad():
        # Infinity, added at weight zero: a selection that broadcasts would take several times as long.
        absent = [torch.zeros_like(w).masked_fill(w == 0, math.inf) for w in weights]
        unit = reduce(torch.minimum, [scale + a for scale, a in zip(scales, absent, strict=True)])
        bound = unit / torch.finfo(unit.dtype).max ** 0.25
        missing = [(bound - scale).clamp(min=0) for scale in scales]
    return [scale + m for scale, m in zip(scales, missing, strict=True)]


def _solve(scale_tril: Tensor, vector: Tensor) -> Tensor:
    return solve_triangular(scale_tril, vector.unsqueeze(-1), upper=False).squeeze(-1)


def no_precision(terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Where −Σₖ wₖ tₖ of matrices is not positive definite, or is but for rounding."""
    shares = [unsqueeze_right(w, 2) for w in weights]
    size = reduce(torch.add, [(w * t).abs() for w, t in zip(shares, terms, strict=True)])
    unit = size.diagonal(dim1=-2, dim2=-1).rsqrt()
    scaled = -sum_products(terms, shares) * unit.unsqueeze(-1) * unit.unsqueeze(-2)
    noise = 4 * torch.finfo(unit.dtype).eps * unit.shape[-1]
    identity = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    return torch.linalg.cholesky_ex(scaled - noise * identity).info != 0

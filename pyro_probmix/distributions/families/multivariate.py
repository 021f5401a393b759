"""Multivariate normal families with a covariance of a structure that a pool keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.utils import lazy_property
from torch.linalg import solve_triangular

from pyro_probmix.distributions.exponential_family import Members, Tensors, register_family
from pyro_probmix.distributions.families._numerics import cholesky, inverse_factor, times
from pyro_probmix.distributions.families.normal import NormalVectorFamily
from pyro_probmix.ops.autocast import without_autocast
from pyro_probmix.ops.special import LOG_2PI
from pyro_probmix.ops.sums import masked_sum, restore_members

__all__ = ["LowRankMultivariateNormal", "LowRankMultivariateNormalFamily"]


class LowRankMultivariateNormal(dist.LowRankMultivariateNormal):
    """Pyro's LowRankMultivariateNormal, whose density is in full precision, and prepared for only where it is needed.

    No host waits for its Cholesky factor. The covariance is W Wᵀ + diag(cov_diag), W the ``cov_factor``.
    """

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None) -> None:
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc, self.cov_diag = (t.expand(batch_shape + t.shape[-1:]) for t in (loc, cov_diag))
        self.cov_factor = cov_factor.expand(batch_shape + cov_factor.shape[-2:])
        self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag = cov_factor, cov_diag
        Distribution.__init__(self, batch_shape, loc.shape[-1:], validate_args=validate_args)

    @lazy_property
    def _capacitance_tril(self) -> Tensor:
        factor, diag = self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag
        with without_autocast(factor):  # to the last bit what PyTorch has
            inner = (factor.mT / diag.unsqueeze(-2)) @ factor
            return cholesky(_identity(inner) + inner)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(LowRankMultivariateNormal, _instance)
        shape = torch.Size(batch_shape)
        vars(new).update(
            {name: vars(self)[name] for name in vars(self) if name.startswith(("_unbroadcasted", "_capacitance"))}
        )
        new.loc, new.cov_diag = (t.expand(shape + self.event_shape) for t in (self.loc, self.cov_diag))
        new.cov_factor = self.cov_factor.expand(shape + self.cov_factor.shape[-2:])
        Distribution.__init__(new, shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        with without_autocast(self.loc):
            return super().log_prob(value)


@register_family(torch.distributions.LowRankMultivariateNormal)
class LowRankMultivariateNormalFamily(NormalVectorFamily):
    r"""LowRankMultivariateNormal: :math:`\eta = (\Sigma^{-1}\mu, -\Sigma^{-1}/2)`, T(y) = (y, yyᵀ), h = 1.

    A pool's rank is the sum of the components' ranks, by Woodbury's identity, and no d × d matrix is formed. The
    factor's columns are those of the components, in their order: those of a component of weight zero vanish, those
    of one of weight one are its own. Natural parameters and their way back are dense, and so
    are pools of weights off the simplex.
    """

    constructor = LowRankMultivariateNormal
    natural_dims = (1, 2)

    def mismatch(self, other: Any) -> str | None:
        return None  # the ranks may differ

    def to_natural(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor) -> Tensors:
        root = _whitened(cov_factor, cov_diag)
        precision = cov_diag.reciprocal().diag_embed() - root @ root.mT
        return times(precision, loc), -0.5 * precision

    def from_natural(self, shift: Tensor, minus_half_precision: Tensor) -> Tensors:
        precision = -minus_half_precision - minus_half_precision.mT
        scale_tril = inverse_factor(precision)
        loc = times(scale_tril, scale_tril.mT, shift)
        # Half of what is below the covariance's smallest eigenvalue goes to the diagonal, the rest is of full rank.
        diag = (0.5 / precision.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)).expand(loc.shape)
        return loc, cholesky(scale_tril @ scale_tril.mT - diag.diag_embed()), diag

    def log_normalizer(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor) -> Tensor:
        distance = _distance(loc, cov_factor, cov_diag)
        return 0.5 * (distance + loc.shape[-1] * LOG_2PI + _log_det(cov_factor, cov_diag))

    def expected_sufficient_statistics(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor) -> Tensors:
        return loc, self.p.covariance_matrix + loc.unsqueeze(-1) * loc.unsqueeze(-2)

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        if not simplex:
            return super().pool(members, weights, simplex)
        # Σ wₖ Σₖ⁻¹ = Δ − U C⁻¹ Uᵀ with a diagonal Δ, the capacitances C and U = [√wₖ Dₖ⁻¹ Wₖ]; all in units of the
        # smallest diagonal that takes part. Then Σ̃ = Δ⁻¹ + Δ⁻¹ U (C − Uᵀ Δ⁻¹ U)⁻¹ Uᵀ Δ⁻¹.
        loc, factor, diag, weight = _stacked(members, weights)
        with torch.no_grad():
            unit, tightest = torch.where(weight.unsqueeze(-1) != 0, diag, math.inf).min(0)
            center = loc.gather(0, tightest.unsqueeze(0)).squeeze(0)
            unit_root, largest = unit.sqrt(), torch.finfo(unit.dtype).max ** 0.25
        loc = ((loc - center) / unit_root).clamp(-largest, largest)
        factor = (factor / unit_root.unsqueeze(-1)).clamp(-largest, largest)
        diag = (diag / unit).clamp(min=1 / largest)
        shares = weight.unsqueeze(-1) / diag
        variance = shares.sum(0).reciprocal()
        white = _whitened(factor, diag)
        pull = (weight.unsqueeze(-1) * (loc / diag - times(white, white.mT, loc))).sum(0)
        # A root's slope at weight zero is infinite, that of its square is not: it is held at the root of a number that
        # changes nothing.
        root = torch.where(weight == 0, weight + torch.finfo(weight.dtype).tiny ** 0.5, weight).sqrt()
        columns = root[..., None, None] * factor / diag.unsqueeze(-1)
        others = torch.stack(
            [reduce(torch.add, [*shares[:k], *shares[k + 1 :]], shares[k] * 0) for k in range(len(shares))]
        )
        blocks = factor.mT @ ((others * variance / diag).unsqueeze(-1) * factor)
        columns = columns.movedim(0, -2).flatten(-2)
        spread = variance.unsqueeze(-1) * columns
        inner = _inner(columns.mT @ spread, blocks)
        factor = solve_triangular(cholesky(inner), spread.mT, upper=False).mT
        shift = variance * pull + times(factor, factor.mT, pull)
        kept = [k * blocks.shape[-1] + j for k, (_, own, _) in enumerate(members) for j in range(own.shape[-1])]
        if len(kept) < factor.shape[-1]:  # ranks differ: without the columns of zeros
            factor = torch.cat([factor[..., k : k + 1] for k in kept], -1)
        pooled = center + unit_root * shift, unit_root.unsqueeze(-1) * factor, unit * variance
        padded, first = [], 0
        for loc, own, diag in members:
            last, filled = first + own.shape[-1], pooled[1].detach().clone()
            filled[..., first:last] = own.detach()
            padded.append((loc, filled, diag))
            first = last
        return restore_members(pooled, padded, weights, self.parameter_dims)

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        if not simplex:
            return super().pooling_normalizer(members, weights, simplex)
        mean, factor, diag = self.pool(members, weights)
        loc, factors, diags, _ = _stacked(members, weights)
        terms = _distance(loc - mean, factors, diags) + _log_det(factors, diags)
        return 0.5 * (masked_sum(list(terms), weights) - _log_det(factor, diag))

    def cross_entropy(self, other: Any) -> Tensor:
        p, q = self.p, other.p
        root = _whitened(q.cov_factor, q.cov_diag)
        spread = (p.cov_diag / q.cov_diag).sum(-1) + (p.cov_factor.square() / q.cov_diag.unsqueeze(-1)).sum((-2, -1))
        taken = (root.square() * p.cov_diag.unsqueeze(-1)).sum((-2, -1))
        taken = taken + (root.mT @ p.cov_factor).square().sum((-2, -1))
        distance = _distance(p.loc - q.loc, q.cov_factor, q.cov_diag)
        log_det = p.loc.shape[-1] * LOG_2PI + _log_det(q.cov_factor, q.cov_diag)
        return 0.5 * (spread - taken + distance + log_det)


def _capacitance(factor: Tensor, diag: Tensor) -> Tensor:
    """The Cholesky factor of 1 + Wᵀ D⁻¹ W."""
    scaled = factor / diag.sqrt().unsqueeze(-1)
    inner = scaled.mT @ scaled
    return cholesky(_identity(inner) + inner)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _whitened(factor: Tensor, diag: Tensor) -> Tensor:
    """B with (D + W Wᵀ)⁻¹ = D⁻¹ − B Bᵀ."""
    scaled = factor / diag.unsqueeze(-1)
    return solve_triangular(_capacitance(factor, diag), scaled.mT, upper=False).mT


def _log_det(factor: Tensor, diag: Tensor) -> Tensor:
    return 2 * _capacitance(factor, diag).diagonal(dim1=-2, dim2=-1).log().sum(-1) + diag.log().sum(-1)


def _distance(x: Tensor, factor: Tensor, diag: Tensor) -> Tensor:
    """xᵀ (D + W Wᵀ)⁻¹ x."""
    taken = times(_whitened(factor, diag).mT, x)
    return (x.square() / diag).sum(-1) - taken.square().sum(-1)


def _inner(product: Tensor, blocks: Tensor) -> Tensor:
    """C − Uᵀ Δ⁻¹ U from the product; its diagonal blocks are 1 + blocks, in which nothing cancels."""
    size, rank = len(blocks), blocks.shape[-1]
    own = torch.eye(size, dtype=torch.bool, device=product.device)[:, None, :, None]
    apart = product.unflatten(-1, (size, rank)).unflatten(-3, (size, rank))
    inner = torch.where(own, blocks.movedim(0, -3).unsqueeze(-2), -apart).flatten(-4, -3).flatten(-2)
    return _identity(inner) + inner


def _stacked(members: Members, weights: Sequence[Tensor]) -> Tensors:
    """Locations, factors with zeros for missing columns, diagonals and weights; components are the first dimension.

    Where the weight is zero they are constants.
    """
    rank = max(factor.shape[-1] for _, factor, _ in members)
    factors = [F.pad(f, (0, rank - f.shape[-1])) if f.shape[-1] < rank else f for _, f, _ in members]
    batches = [t.shape[:-1] for loc, _, diag in members for t in (loc, diag)] + [w.shape for w in weights]
    shape = torch.broadcast_shapes(*[f.shape[:-2] for f in factors], *batches)
    loc, diag = (torch.stack([own[i].expand(shape + own[i].shape[-1:]) for own in members]) for i in (0, 2))
    factor = torch.stack([f.expand(shape + f.shape[-2:]) for f in factors])
    weight = torch.stack([w.expand(shape) for w in weights])
    removed = (weight == 0).unsqueeze(-1)
    loc, diag = (torch.where(removed, t.detach(), t) for t in (loc, diag))
    return loc, torch.where(removed.unsqueeze(-1), factor.detach(), factor), diag, weight

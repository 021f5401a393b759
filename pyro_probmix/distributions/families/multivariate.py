"""Multivariate normal families with a covariance of a structure that a pool keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.linalg import solve_triangular

from pyro_probmix.distributions.autocast import without_autocast
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    masked_sum,
    register_family,
    restore_members,
    sum_products,
    unsqueeze_right,
)
from pyro_probmix.distributions.families._numerics import cholesky
from pyro_probmix.distributions.families.normal import LOG_2PI, _inverse_factor, not_definite

__all__ = ["LowRankMultivariateNormal", "LowRankMultivariateNormalFamily"]


class LowRankMultivariateNormal(dist.LowRankMultivariateNormal):
    """Pyro's LowRankMultivariateNormal, its covariance in full precision, and without a wait for its Cholesky factor.

    Args:
        loc: mean, of shape ``(..., d)``.
        cov_factor: W of the covariance W Wᵀ + diag(cov_diag), of shape ``(..., d, rank)``.
        cov_diag: of shape ``(..., d)``.
        validate_args: whether arguments and values are checked, as for every distribution.
    """

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None) -> None:
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc, self.cov_diag = (t.expand(batch_shape + t.shape[-1:]) for t in (loc, cov_diag))
        self.cov_factor = cov_factor.expand(batch_shape + cov_factor.shape[-2:])
        self._unbroadcasted_cov_factor, self._unbroadcasted_cov_diag = cov_factor, cov_diag
        with without_autocast(loc):  # to the last bit what PyTorch has
            inner = (cov_factor.mT / cov_diag.unsqueeze(-2)) @ cov_factor
            self._capacitance_tril = cholesky(_identity(inner) + inner)
        Distribution.__init__(self, batch_shape, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(LowRankMultivariateNormal, _instance)
        return super().expand(batch_shape, _instance=new)

    def log_prob(self, value: Tensor) -> Tensor:
        with without_autocast(self.loc):
            return super().log_prob(value)


@register_family(torch.distributions.LowRankMultivariateNormal)
class LowRankMultivariateNormalFamily(ExponentialFamily):
    r"""LowRankMultivariateNormal: :math:`\eta = (\Sigma^{-1}\mu, -\Sigma^{-1}/2)`, T(y) = (y, yyᵀ), h = 1.

    A pool's rank is the sum of the components' ranks, by Woodbury's identity, and no d × d matrix is formed. The
    factor's columns are those of the components, in their order: those of a component of weight zero vanish, those
    of one of weight one are its own. Natural parameters and their way back are dense, and so
    are pools of weights off the simplex.
    """

    constructor = LowRankMultivariateNormal
    names = ("loc", "cov_factor", "cov_diag")
    parameter_dims = (1, 2, 1)
    natural_dims = (1, 2)

    def same(self, p: Distribution, q: Distribution) -> str | None:
        return None  # the ranks may differ

    def outside(self, p: Distribution, parameters: Sequence[Tensor]) -> str | None:
        return not_definite(parameters[1]) or super().outside(p, parameters)

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        loc, factor, diag = parameters
        root = _whitened(factor, diag)
        precision = diag.reciprocal().diag_embed() - root @ root.mT
        return (precision @ loc.unsqueeze(-1)).squeeze(-1), -0.5 * precision

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        precision = -eta[1] - eta[1].mT
        scale_tril = _inverse_factor(precision)
        loc = (scale_tril @ (scale_tril.mT @ eta[0].unsqueeze(-1))).squeeze(-1)
        # Half of what is below the covariance's smallest eigenvalue goes to the diagonal, the rest is of full rank.
        diag = (0.5 / precision.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)).expand(loc.shape)
        return loc, cholesky(scale_tril @ scale_tril.mT - diag.diag_embed()), diag

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        loc, factor, diag = parameters
        return 0.5 * (_distance(loc, factor, diag) + loc.shape[-1] * LOG_2PI + _log_det(factor, diag))

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return y, y.unsqueeze(-1) * y.unsqueeze(-2)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return p.loc, p.covariance_matrix + p.loc.unsqueeze(-1) * p.loc.unsqueeze(-2)

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        # Σ wₖ Σₖ⁻¹ = Δ − U C⁻¹ Uᵀ with a diagonal Δ, the capacitances C and U = [√wₖ Dₖ⁻¹ Wₖ]; all in units of the
        # smallest diagonal that takes part. Then Σ̃ = Δ⁻¹ + Δ⁻¹ U (C − Uᵀ Δ⁻¹ U)⁻¹ Uᵀ Δ⁻¹.
        with torch.no_grad():
            unit, center = torch.full_like(parameters[0][2], math.inf), parameters[0][0]
            for w, (loc, _, diag) in zip(weights, parameters, strict=True):
                tighter = (w.unsqueeze(-1) != 0) & (diag < unit)
                unit, center = torch.where(tighter, diag, unit), torch.where(tighter, loc, center)
            unit_root, largest = unit.sqrt(), torch.finfo(unit.dtype).max ** 0.25
        parameters = [self._held(component, w) for component, w in zip(parameters, weights, strict=True)]
        scaled = [
            (
                ((loc - center) / unit_root).clamp(-largest, largest),
                (factor / unit_root.unsqueeze(-1)).clamp(-largest, largest),
                (diag / unit).clamp(min=1 / largest),
            )
            for loc, factor, diag in parameters
        ]
        shares = [w.unsqueeze(-1) / diag for w, (_, _, diag) in zip(weights, scaled, strict=True)]
        variance = reduce(torch.add, shares).reciprocal()
        pull = sum_products([_precision_times(*component) for component in scaled], [w.unsqueeze(-1) for w in weights])
        columns, blocks = [], []
        for k, (w, (_, factor, diag)) in enumerate(zip(weights, scaled, strict=True)):
            # A root's slope at weight zero is infinite, that of its square is not: it is held at the root of a
            # number that changes nothing.
            root = torch.where(w == 0, w + torch.finfo(w.dtype).tiny ** 0.5, w).sqrt()
            columns.append(root[..., None, None] * factor / diag.unsqueeze(-1))
            others = [share for j, share in enumerate(shares) if j != k]
            rest = reduce(torch.add, others, torch.zeros_like(diag)) * variance / diag
            blocks.append(factor.mT @ (rest.unsqueeze(-1) * factor))
        inner = _inner(columns, blocks, variance)
        shape = inner.shape[:-2]
        spread = variance.unsqueeze(-1) * torch.cat([t.expand(shape + t.shape[-2:]) for t in columns], -1)
        factor = solve_triangular(cholesky(inner), spread.mT, upper=False).mT
        shift = variance * pull + _times(factor, _times(factor.mT, pull))
        pooled = center + unit_root * shift, unit_root.unsqueeze(-1) * factor, unit * variance
        members, first = [], 0
        for loc, member, diag in parameters:
            last, filled = first + member.shape[-1], pooled[1].detach().clone()
            filled[..., first:last] = member.detach()
            members.append((loc, filled, diag))
            first = last
        return restore_members(pooled, members, weights, self.parameter_dims)

    def pooling_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        mean, factor, diag = self.pool(p, parameters, weights)
        parameters = [self._held(component, w) for component, w in zip(parameters, weights, strict=True)]
        terms = [_distance(loc - mean, w, d) + _log_det(w, d) for loc, w, d in parameters]
        return 0.5 * (masked_sum(terms, weights) - _log_det(factor, diag))

    def _held(self, component: Sequence[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
        """The component's parameters, constants where its weight is zero."""
        removed = [unsqueeze_right(weight == 0, dim) for dim in self.parameter_dims]
        return tuple(torch.where(r, t.detach(), t) for r, t in zip(removed, component, strict=True))

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        root = _whitened(q.cov_factor, q.cov_diag)
        spread = (p.cov_diag / q.cov_diag).sum(-1) + (p.cov_factor.square() / q.cov_diag.unsqueeze(-1)).sum((-2, -1))
        taken = (root.square() * p.cov_diag.unsqueeze(-1)).sum((-2, -1)) + (root.mT @ p.cov_factor).square().sum(
            (-2, -1)
        )
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
    taken = _times(_whitened(factor, diag).mT, x)
    return (x.square() / diag).sum(-1) - taken.square().sum(-1)


def _precision_times(x: Tensor, factor: Tensor, diag: Tensor) -> Tensor:
    """(D + W Wᵀ)⁻¹ x."""
    root = _whitened(factor, diag)
    return x / diag - _times(root, _times(root.mT, x))


def _inner(columns: Sequence[Tensor], blocks: Sequence[Tensor], variance: Tensor) -> Tensor:
    """C − Uᵀ Δ⁻¹ U; its diagonal blocks are 1 + blocks, in which nothing cancels."""
    shape = torch.broadcast_shapes(*[t.shape[:-2] for t in (*columns, *blocks)])
    rows = []
    for k, left in enumerate(columns):
        row = []
        for j, right in enumerate(columns):
            block = _identity(blocks[k]) + blocks[k] if j == k else -left.mT @ (variance.unsqueeze(-1) * right)
            row.append(block.expand(shape + block.shape[-2:]))
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)

"""Families of covariance and correlation matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.linalg import solve_triangular

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.exponential_family import ExponentialFamily, Members, Tensors, register_family
from pyro_probmix.distributions.families._numerics import inverse_factor, log_determinant
from pyro_probmix.distributions.families.normal import no_precision, pool_of_multivariate_normals
from pyro_probmix.ops.sums import rounding, sum_products

__all__ = ["LKJCholeskyFamily", "LKJFamily", "WishartFamily"]


@register_family(torch.distributions.Wishart)
class WishartFamily(ExponentialFamily):
    r"""Wishart of d × d matrices: :math:`\eta = ((df-d-1)/2, -V^{-1}/2)`, T(Y) = (log det Y, Y), h = 1."""

    constructor = dist.Wishart
    parameter_dims = (0, 2)

    def to_natural(self, df: Tensor, scale_tril: Tensor) -> Tensors:
        return 0.5 * (df - scale_tril.shape[-1] - 1), -0.5 * torch.cholesky_inverse(scale_tril)

    def from_natural(self, shape: Tensor, inverse: Tensor) -> Tensors:
        return 2 * shape + inverse.shape[-1] + 1, inverse_factor(-inverse - inverse.mT)

    def log_normalizer(self, df: Tensor, scale_tril: Tensor) -> Tensor:
        size = scale_tril.shape[-1]
        scale = 0.5 * math.log(2) * size + log_determinant(scale_tril)
        return df * scale + torch.mvlgamma(0.5 * df, size)

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return torch.linalg.slogdet(y).logabsdet, y

    def expected_sufficient_statistics(self, df: Tensor, scale_tril: Tensor) -> Tensors:
        size = scale_tril.shape[-1]
        log_det = _multivariate_digamma(0.5 * df, size) + math.log(2) * size + 2 * log_determinant(scale_tril)
        return log_det, df[..., None, None] * (scale_tril @ scale_tril.mT)

    def domain_error(self, parameters: Sequence[Tensor], inside: bool = False) -> str | None:
        df, scale_tril = parameters
        bad = ~((df > scale_tril.shape[-1] - 1) & df.isfinite() & scale_tril.isfinite().all(-1).all(-1))
        return f"df or scale_tril outside their domain{at_index(bad)}" if bad.any() else None

    def diverges(self, members: Members, weights: Sequence[Tensor]) -> Tensor:
        shapes, inverses = zip(*[self.to_natural(*member) for member in members], strict=True)
        few = sum_products(shapes, weights) + 1 <= rounding(shapes, weights)
        return few | no_precision(inverses, weights)

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        if not simplex:
            return super().pool(members, weights, simplex)
        centered = [(torch.zeros_like(scale_tril[..., 0]), scale_tril) for _, scale_tril in members]
        df = sum_products([df for df, _ in members], weights)
        return df, pool_of_multivariate_normals(centered, weights)[1]

    def cross_entropy(self, other: Any) -> Tensor:
        (ours, our_tril), (theirs, their_tril) = self.parameters, other.parameters
        spread = solve_triangular(their_tril, our_tril, upper=False).square().sum((-2, -1))
        log_det, _ = self.expected_sufficient_statistics(ours, our_tril)
        shape = 0.5 * (theirs - their_tril.shape[-1] - 1)
        return other.log_normalizer(theirs, their_tril) - shape * log_det + 0.5 * ours * spread


@register_family(torch.distributions.LKJCholesky)
class LKJCholeskyFamily(ExponentialFamily):
    r"""LKJCholesky of equal dim d: η = concentration − 1, T = 2 Σ log Lᵢᵢ, :math:`h = \prod_{i>1} L_{ii}^{d-i}`."""

    constructor: ClassVar[Any] = corrected_class(dist.LKJCholesky)
    fixed = ("dim",)
    linear = ((1, -1),)

    def log_normalizer(self, concentration: Tensor) -> Tensor:
        size = self.p.dim - 1
        alpha = concentration + 0.5 * size
        return 0.5 * size * math.log(math.pi) + torch.mvlgamma(alpha - 0.5, size) - size * alpha.lgamma()

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (2 * y.diagonal(dim1=-2, dim2=-1).log().sum(-1),)

    def expected_sufficient_statistics(self, concentration: Tensor) -> Tensors:
        size = self.p.dim - 1
        alpha = concentration + 0.5 * size
        return (_multivariate_digamma(alpha - 0.5, size) - size * alpha.digamma(),)

    def log_base_measure(self, y: Tensor) -> Tensor:
        logs = y.diagonal(dim1=-2, dim2=-1).log()
        powers = torch.arange(self.p.dim - 1, -1, -1, dtype=y.dtype, device=y.device)
        return (powers * logs)[..., 1:].sum(-1)

    def expected_log_base_measure(self, concentration: Tensor) -> Tensor | float:
        # Lᵢᵢ² ~ Beta(concentration + (d − i)/2, (i − 1)/2): the onion of Lewandowski et al. (2009), section 3.2.
        rest = torch.arange(self.p.dim - 2, -1, -1, dtype=concentration.dtype, device=concentration.device)
        alpha = concentration.unsqueeze(-1) + 0.5 * rest
        total = concentration.unsqueeze(-1) + 0.5 * (self.p.dim - 1)
        return 0.5 * (rest * (alpha.digamma() - total.digamma())).sum(-1)


@register_family(dist.LKJ, exact=True)
class LKJFamily(LKJCholeskyFamily):
    """LKJ of equal dim: η = concentration − 1, T(Y) = log det Y, h = 1."""

    constructor = corrected_class(dist.LKJ)
    log_base_measure = ExponentialFamily.log_base_measure
    expected_log_base_measure = ExponentialFamily.expected_log_base_measure

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (torch.linalg.slogdet(y).logabsdet,)


def _multivariate_digamma(x: Tensor, size: int) -> Tensor:
    """The derivative of the multivariate log-gamma function."""
    return (x.unsqueeze(-1) - 0.5 * torch.arange(size, dtype=x.dtype, device=x.device)).digamma().sum(-1)

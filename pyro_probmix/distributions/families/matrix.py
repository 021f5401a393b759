"""Families of covariance and correlation matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.linalg import solve_triangular

from pyro_probmix.distributions.corrected import LKJ, LKJCholesky
from pyro_probmix.distributions.exponential_family import ExponentialFamily, register_family, rounding, sum_products
from pyro_probmix.distributions.families.normal import (
    MultivariateNormalFamily,
    _inverse_factor,
    _log_determinant,
    no_precision,
)

__all__ = ["LKJCholeskyFamily", "LKJFamily", "WishartFamily"]

_NORMAL = MultivariateNormalFamily()


@register_family(torch.distributions.Wishart)
class WishartFamily(ExponentialFamily):
    r"""Wishart of d × d matrices: :math:`\eta = ((df-d-1)/2, -V^{-1}/2)`, T(Y) = (log det Y, Y), h = 1."""

    constructor = dist.Wishart
    names = ("df", "scale_tril")
    parameter_dims = (0, 2)
    natural_dims = (0, 2)

    def to_natural(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        df, scale_tril = parameters
        return 0.5 * (df - scale_tril.shape[-1] - 1), -0.5 * torch.cholesky_inverse(scale_tril)

    def from_natural(self, p: Any, *eta: Tensor) -> tuple[Tensor, ...]:
        return 2 * eta[0] + eta[1].shape[-1] + 1, _inverse_factor(-eta[1] - eta[1].mT)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        df, scale_tril = parameters
        size = scale_tril.shape[-1]
        scale = 0.5 * math.log(2) * size + _log_determinant(scale_tril)
        return df * scale + torch.mvlgamma(0.5 * df, size)

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return torch.linalg.slogdet(y).logabsdet, y

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        df, scale_tril = self.parameters(p)
        size = scale_tril.shape[-1]
        log_det = _multivariate_digamma(0.5 * df, size) + math.log(2) * size + 2 * _log_determinant(scale_tril)
        return log_det, df[..., None, None] * (scale_tril @ scale_tril.mT)

    def outside(self, p: Any, parameters: Sequence[Tensor]) -> str | None:
        df, scale_tril = parameters
        bad = ~((df > scale_tril.shape[-1] - 1) & scale_tril.isfinite().all(-1).all(-1))
        if bad.any():
            rows = bad.nonzero().squeeze(-1).tolist()[:5]
            return f"df or scale_tril outside their domain at batch index {rows}"
        return None

    def diverges(self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        (shapes, inverses) = zip(*[self.to_natural(p, *component) for component in parameters], strict=True)
        few = sum_products(shapes, weights) + 1 <= rounding(shapes, weights)
        return few | no_precision(inverses, weights)

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        centered = [(torch.zeros_like(scale_tril[..., 0]), scale_tril) for _, scale_tril in parameters]
        df = sum_products([df for df, _ in parameters], weights)
        return df, _NORMAL.pool(p, centered, weights)[1]

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        (ours, ours_tril), (theirs, theirs_tril) = self.parameters(p), self.parameters(q)
        spread = solve_triangular(theirs_tril, ours_tril, upper=False).square().sum((-2, -1))
        size = theirs_tril.shape[-1]
        log_det = self.moments(p)[0]
        return self.normalizer(q, theirs, theirs_tril) - 0.5 * (theirs - size - 1) * log_det + 0.5 * ours * spread


@register_family(torch.distributions.LKJCholesky)
class LKJCholeskyFamily(ExponentialFamily):
    r"""LKJCholesky of equal dim d: η = concentration − 1, T = 2 Σ log Lᵢᵢ, :math:`h = \prod_{i>1} L_{ii}^{d-i}`."""

    constructor: ClassVar[Any] = LKJCholesky
    names = ("concentration",)
    parameter_dims = (0,)
    natural_dims = (0,)
    fixed = ("dim",)
    linear = True

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (parameters[0] - 1,)

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return (eta[0] + 1,)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        size = p.dim - 1
        alpha = parameters[0] + 0.5 * size
        return 0.5 * size * math.log(math.pi) + torch.mvlgamma(alpha - 0.5, size) - size * alpha.lgamma()

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (2 * y.diagonal(dim1=-2, dim2=-1).log().sum(-1),)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        size = p.dim - 1
        alpha = p.concentration + 0.5 * size
        return (_multivariate_digamma(alpha - 0.5, size) - size * alpha.digamma(),)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        logs = y.diagonal(dim1=-2, dim2=-1).log()
        powers = torch.arange(p.dim - 1, -1, -1, dtype=y.dtype, device=y.device)
        return (powers * logs)[..., 1:].sum(-1)

    def expected_base_measure(self, p: Any) -> Tensor:
        # Lᵢᵢ² ~ Beta(concentration + (d − i)/2, (i − 1)/2): the onion of Lewandowski et al. (2009), section 3.2.
        rest = torch.arange(p.dim - 2, -1, -1, dtype=p.concentration.dtype, device=p.concentration.device)
        alpha = p.concentration.unsqueeze(-1) + 0.5 * rest
        total = p.concentration.unsqueeze(-1) + 0.5 * (p.dim - 1)
        return 0.5 * (rest * (alpha.digamma() - total.digamma())).sum(-1)


@register_family(dist.LKJ, exact=True)
class LKJFamily(LKJCholeskyFamily):
    """LKJ of equal dim: η = concentration − 1, T(Y) = log det Y, h = 1."""

    constructor = LKJ

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (torch.linalg.slogdet(y).logabsdet,)

    def constant_base(self, p: Any) -> bool:
        return True

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return ExponentialFamily.base_measure(self, p, y)

    def expected_base_measure(self, p: Any) -> Tensor:
        return torch.zeros_like(p.concentration)


def _multivariate_digamma(x: Tensor, size: int) -> Tensor:
    """The derivative of the multivariate log-gamma function."""
    return (x.unsqueeze(-1) - 0.5 * torch.arange(size, dtype=x.dtype, device=x.device)).digamma().sum(-1)

"""Draws with derivatives in the parameters, where PyTorch has none or none that ``torch.func.vmap`` can follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch import distributions as laws
from torch.special import i0e, i1e

from pyro_probmix.ops.autocast import without_autocast
from pyro_probmix.ops.blocks import BatchFunction

__all__ = ["rsample"]


_RULES: dict[type, Callable[..., Tensor]] = {}


def rsample(p: Any, sample_shape: torch.Size = torch.Size()) -> Tensor:
    r"""``p.rsample``, the same numbers and derivatives, as ``torch.func.vmap`` can follow them.

    Of a VonMises, which PyTorch does not differentiate, it is :math:`\partial\varphi/\partial\kappa =
    -\partial_\kappa F(\varphi) / p(\varphi)`, φ being the angle from the mean direction (Figurnov et al., 2018),
    of first order. Where nothing better is known here, it is the distribution's own.
    """
    for cls in type(p).__mro__:  # functools.singledispatch is nothing that torch.compile follows
        if cls in _RULES:
            return _RULES[cls](p, sample_shape)
    return p.rsample(sample_shape)  # type: ignore[no-any-return]


def _of(law: type) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorator: the rule of a law."""
    return lambda rule: _RULES.setdefault(law, rule)


def _noise(p: Any, sample_shape: torch.Size, *shape: int) -> Tensor:
    return torch.randn(sample_shape + p.batch_shape + shape, dtype=p.loc.dtype, device=p.loc.device)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    with without_autocast(matrix):
        return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


@_of(laws.Normal)
def _(p: laws.Normal, sample_shape: torch.Size) -> Tensor:
    return p.loc + p.scale * _noise(p, sample_shape)


@_of(laws.MultivariateNormal)
def _(p: laws.MultivariateNormal, sample_shape: torch.Size) -> Tensor:
    return p.loc + _times(p._unbroadcasted_scale_tril, _noise(p, sample_shape, *p.event_shape))


@_of(laws.LowRankMultivariateNormal)
def _(p: laws.LowRankMultivariateNormal, sample_shape: torch.Size) -> Tensor:
    factor, diag = p._unbroadcasted_cov_factor, p._unbroadcasted_cov_diag
    spread = _times(factor, _noise(p, sample_shape, factor.shape[-1]))
    return p.loc + spread + diag.sqrt() * _noise(p, sample_shape, *p.event_shape)


@_of(laws.StudentT)
def _(p: laws.StudentT, sample_shape: torch.Size) -> Tensor:
    normal = _noise(p, sample_shape)
    return p.loc + p.scale * (normal * torch.rsqrt(rsample(p._chi2, sample_shape) / p.df))


@_of(laws.Gamma)
def _(p: laws.Gamma, sample_shape: torch.Size) -> Tensor:
    shape = sample_shape + p.batch_shape
    value = torch._standard_gamma(p.concentration.expand(shape)) / p.rate.expand(shape)
    return torch.where(value > 0, value, value - value.detach() + torch.finfo(value.dtype).tiny)


@_of(laws.Exponential)
def _(p: laws.Exponential, sample_shape: torch.Size) -> Tensor:
    return _empty(p.rate, sample_shape).exponential_() / p.rate


@_of(laws.Laplace)  # for a scale that is mapped over if anything is
def _(p: laws.Laplace, sample_shape: torch.Size) -> Tensor:
    noise = _empty(p.scale, sample_shape).uniform_(torch.finfo(p.scale.dtype).eps - 1, 1)
    return p.loc - p.scale * noise.sign() * torch.log1p(-noise.abs())


def _empty(parameter: Tensor, sample_shape: torch.Size) -> Tensor:
    """A tensor to be filled, with what ``torch.func.vmap`` maps over."""
    like = parameter.detach().expand(sample_shape + parameter.shape)
    return torch.empty_like(like, memory_format=torch.contiguous_format)


@_of(laws.Beta)
def _(p: laws.Beta, sample_shape: torch.Size) -> Tensor:
    return rsample(p._dirichlet, sample_shape)[..., 0]


@_of(laws.Dirichlet)
def _(p: laws.Dirichlet, sample_shape: torch.Size) -> Tensor:
    return _Dirichlet.apply(p.concentration.expand(sample_shape + p.concentration.shape))  # type: ignore[no-any-return]


@_of(laws.VonMises)
def _(p: laws.VonMises, sample_shape: torch.Size) -> Tensor:
    shape = sample_shape + p.batch_shape
    return _VonMises.apply(p.loc.expand(shape), p.concentration.expand(shape))  # type: ignore[no-any-return]


class _Dirichlet(BatchFunction):
    """PyTorch's own."""

    @staticmethod
    def forward(concentration: Tensor) -> Tensor:
        return torch._sample_dirichlet(concentration)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        concentration, value = ctx.saved_tensors
        total = concentration.sum(-1, keepdim=True).expand_as(concentration)
        slope = torch._dirichlet_grad(value, concentration, total)
        return slope * (gradient - (value * gradient).sum(-1, keepdim=True))


class _VonMises(BatchFunction):
    """Draws by rejection, whose loop ``torch.func.vmap`` cannot follow."""

    @staticmethod
    def forward(loc: Tensor, concentration: Tensor) -> Tensor:
        return laws.VonMises(loc, concentration, validate_args=False).sample()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient * _by_concentration(*ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, loc: Tensor, concentration: Tensor) -> Tensor:
        return loc + concentration * _by_concentration(*ctx.saved_tensors)


def _by_concentration(loc: Tensor, concentration: Tensor, y: Tensor) -> Tensor:
    angle = torch.remainder(y - loc + math.pi, 2 * math.pi) - math.pi
    return _slope(angle.double(), concentration.double()).to(y.dtype)


def _slope(angle: Tensor, concentration: Tensor) -> Tensor:
    """By the concentration: ∫ (cos t − A'(κ)) p(t) / p(φ) dt from φ to π, which is −∂κF / p for φ > 0."""
    start, kappa = angle.abs().unsqueeze(-1), concentration.unsqueeze(-1)
    # Beyond nine standard deviations nothing is left of the integrand.
    half = 0.5 * torch.minimum(math.pi - start, 9 / kappa.sqrt())
    nodes, weights = _gauss_legendre(angle.device)
    step = half * (1 + nodes)
    ratio = torch.exp(-2 * kappa * torch.sin(start + 0.5 * step) * torch.sin(0.5 * step))
    value = torch.cos(start + step) - i1e(kappa) / i0e(kappa)
    return angle.sign() * (half * weights * value * ratio).sum(-1)


@cache
def _gauss_legendre(device: torch.device, size: int = 48) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [-1, 1], from the eigenvectors of the recurrence (Golub and Welsch, 1969)."""
    degree = torch.arange(1, size, dtype=torch.float64, device=device)
    recurrence = (degree / (4 * degree.square() - 1).sqrt()).diag_embed(-1)
    nodes, vectors = torch.linalg.eigh(recurrence)
    return nodes, 2 * vectors[0].square()

"""Draws with derivatives in the parameters, where PyTorch has none or none that ``torch.func.vmap`` can follow."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Exponential, Gamma, Laplace, VonMises
from torch.special import i0e, i1e

from pyro_probmix.ops.blocks import unbatch

__all__ = [
    "beta_rsample",
    "dirichlet_rsample",
    "exponential_rsample",
    "gamma_rsample",
    "laplace_rsample",
    "von_mises_rsample",
]


def gamma_rsample(p: Gamma, sample_shape: torch.Size = torch.Size()) -> Tensor:
    """The numbers and derivatives of ``p.rsample``, which changes them in place."""
    shape = sample_shape + p.batch_shape
    value = torch._standard_gamma(p.concentration.expand(shape)) / p.rate.expand(shape)
    return torch.where(value > 0, value, value - value.detach() + torch.finfo(value.dtype).tiny)


def exponential_rsample(p: Exponential, sample_shape: torch.Size = torch.Size()) -> Tensor:
    """The numbers and derivatives of ``p.rsample``."""
    return _empty(p.rate, sample_shape).exponential_() / p.rate


def laplace_rsample(p: Laplace, sample_shape: torch.Size = torch.Size()) -> Tensor:
    """The numbers and derivatives of ``p.rsample``, for a scale that is mapped over if anything is."""
    noise = _empty(p.scale, sample_shape).uniform_(torch.finfo(p.scale.dtype).eps - 1, 1)
    return p.loc - p.scale * noise.sign() * torch.log1p(-noise.abs())


def _empty(parameter: Tensor, sample_shape: torch.Size) -> Tensor:
    """A tensor to be filled, with what ``torch.func.vmap`` maps over."""
    like = parameter.detach().expand(sample_shape + parameter.shape)
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def beta_rsample(p: Beta, sample_shape: torch.Size = torch.Size()) -> Tensor:
    """The numbers and derivatives of ``p.rsample``."""
    return dirichlet_rsample(p._dirichlet, sample_shape)[..., 0]


def dirichlet_rsample(p: Dirichlet, sample_shape: torch.Size = torch.Size()) -> Tensor:
    """The numbers and derivatives of ``p.rsample``."""
    return _Dirichlet.apply(p.concentration.expand(sample_shape + p.concentration.shape))


class _Dirichlet(torch.autograd.Function):
    """PyTorch's own, with a rule for ``torch.func.vmap``: what is mapped over is one more batch dimension."""

    @staticmethod
    def forward(concentration: Tensor) -> Tensor:
        return torch._sample_dirichlet(concentration)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output, *inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        value, concentration = ctx.saved_tensors
        total = concentration.sum(-1, keepdim=True).expand_as(concentration)
        slope = torch._dirichlet_grad(value, concentration, total)
        return slope * (gradient - (value * gradient).sum(-1, keepdim=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], concentration: Tensor) -> tuple[Tensor, int]:
        return _Dirichlet.apply(concentration.movedim(in_dims[0], 0)), 0


def von_mises_rsample(p: VonMises, sample_shape: torch.Size = torch.Size()) -> Tensor:
    r"""The numbers of ``p.sample``, with implicit derivatives (Figurnov et al., 2018), those of first order.

    With φ the angle from the mean direction, :math:`\partial\varphi/\partial\kappa = -\partial_\kappa F(\varphi) /
    p(\varphi)`, which for φ > 0 is :math:`\int_\varphi^\pi (\cos t - A'(\kappa))\, p(t) / p(\varphi)\, dt`.

    Args:
        p: of any batch shape.
        sample_shape: of the draws.
    """
    shape = sample_shape + p.batch_shape
    return _VonMises.apply(p.loc.expand(shape), p.concentration.expand(shape))


class _VonMises(torch.autograd.Function):
    """Draws by rejection, whose loop ``torch.func.vmap`` cannot follow: what it maps over is one more dimension."""

    @staticmethod
    def forward(loc: Tensor, concentration: Tensor) -> Tensor:
        return VonMises(loc, concentration, validate_args=False).sample()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output, *inputs)
        ctx.save_for_forward(output, *inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient * _by_concentration(*ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, loc: Tensor, concentration: Tensor) -> Tensor:
        return loc + concentration * _by_concentration(*ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], *parameters: Tensor) -> tuple[Tensor, int]:
        return _VonMises.apply(*unbatch(parameters, in_dims, info.batch_size)), 0


def _by_concentration(y: Tensor, loc: Tensor, concentration: Tensor) -> Tensor:
    angle = torch.remainder(y - loc + math.pi, 2 * math.pi) - math.pi
    return _slope(angle.double(), concentration.double()).to(y.dtype)


def _slope(angle: Tensor, concentration: Tensor) -> Tensor:
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

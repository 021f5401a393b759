"""Draws of a von Mises angle with derivatives in its parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import VonMises

from pyro_probmix.distributions.families.circular import _mean_length

__all__ = ["von_mises_rsample"]


def _gauss_legendre(size: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [-1, 1], from the eigenvalues of the Jacobi matrix (Golub and Welsch, 1969)."""
    k = torch.arange(1, size, dtype=torch.float64, device="cpu")
    off_diagonal = (k / (4 * k * k - 1).sqrt()).diag(1)
    nodes, vectors = torch.linalg.eigh(off_diagonal + off_diagonal.mT)
    return nodes, 2 * vectors[0].square()


NODES, WEIGHTS = _gauss_legendre(48)


def von_mises_rsample(p: VonMises, sample_shape: torch.Size = torch.Size()) -> Tensor:
    r"""The numbers of ``p.sample``, with implicit derivatives (Figurnov et al., 2018), those of first order.

    With φ the angle from the mean direction, :math:`\partial\varphi/\partial\kappa = -\partial_\kappa F(\varphi) /
    p(\varphi)`, which for φ > 0 is :math:`\int_\varphi^\pi (\cos t - A'(\kappa))\, p(t) / p(\varphi)\, dt`.

    Args:
        p: of any batch shape.
        sample_shape: of the draws.
    """
    y = p.sample(sample_shape)
    concentration = p.concentration.expand(y.shape)
    with torch.no_grad():
        angle = torch.remainder(y - p.loc + math.pi, 2 * math.pi) - math.pi
        slope = _slope(angle.double(), concentration.double()).to(y.dtype)
    return y + (p.loc - p.loc.detach()) + slope * (concentration - concentration.detach())


def _slope(angle: Tensor, concentration: Tensor) -> Tensor:
    start, kappa = angle.abs().unsqueeze(-1), concentration.unsqueeze(-1)
    # Beyond nine standard deviations nothing is left of the integrand.
    half = 0.5 * torch.minimum(math.pi - start, 9 / kappa.sqrt())
    step = half * (1 + NODES.to(angle.device))
    ratio = torch.exp(-2 * kappa * torch.sin(start + 0.5 * step) * torch.sin(0.5 * step))
    value = torch.cos(start + step) - _mean_length(kappa)
    return angle.sign() * (half * WEIGHTS.to(angle.device) * value * ratio).sum(-1)

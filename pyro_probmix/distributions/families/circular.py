"""Families on the circle and the sphere: linear in the mean direction times the concentration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.special import i0e, i1e

from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.exponential_family import ExponentialFamily, Members, Tensors, register_family
from pyro_probmix.ops.special import LOG_2PI, log_sinhc, sinhc_slope
from pyro_probmix.ops.sums import masked_sum, sum_products

__all__ = ["SineBivariateVonMisesFamily", "VonMises3DFamily", "VonMisesFamily"]

# The trapezoidal rule on the circle: exact to rounding up to concentrations of 10 000, the most that Pyro takes.
CIRCLE_POINTS = 1024


def _mean_length(concentration: Tensor) -> Tensor:
    """The length of the mean direction of a von Mises law."""
    return i1e(concentration) / i0e(concentration)


@register_family(torch.distributions.VonMises)
class VonMisesFamily(ExponentialFamily):
    r"""VonMises: :math:`\eta = \kappa(\cos\mu, \sin\mu)`, T = (cos y, sin y), h = 1, :math:`A = \log 2\pi I_0(\kappa)`.

    Exact in double precision, as PyTorch's own log_prob is not.
    """

    constructor = corrected_class(dist.VonMises)
    bounded = True

    def to_natural(self, loc: Tensor, concentration: Tensor) -> Tensors:
        return concentration * loc.cos(), concentration * loc.sin()

    def from_natural(self, along: Tensor, across: Tensor) -> Tensors:
        return torch.atan2(across, along), torch.hypot(along, across)

    def log_normalizer(self, loc: Tensor, concentration: Tensor) -> Tensor:
        return concentration + i0e(concentration).log() + LOG_2PI

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return y.cos(), y.sin()

    def expected_sufficient_statistics(self, loc: Tensor, concentration: Tensor) -> Tensors:
        length = _mean_length(concentration)
        return length * loc.cos(), length * loc.sin()

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        if not simplex:
            return super().pool(members, weights, simplex)
        # Angles from the most concentrated component that takes part, a constant: its own is then exactly zero.
        with torch.no_grad():
            origin, largest = members[0][0], weights[0].new_full((), -1)
            for w, (loc, concentration) in zip(weights, members, strict=True):
                share = w * concentration
                origin = torch.where(share > largest, loc, origin)
                largest = torch.maximum(share, largest)
        turned = [(c * (loc - origin).cos(), c * (loc - origin).sin()) for loc, c in members]
        along, across = (sum_products(list(terms), weights) for terms in zip(*turned, strict=True))
        return origin + torch.atan2(across, along), torch.hypot(along, across)

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        if not simplex:
            return super().pooling_normalizer(members, weights, simplex)
        # Σ wₖ κₖ − κ̃ = Σ wₖ κₖ (1 − cos(μₖ − μ̃)), where nothing cancels.
        mean, pooled = self.pool(members, weights)
        terms = [2 * c * (0.5 * (loc - mean)).sin().square() + (i0e(c) / i0e(pooled)).log() for loc, c in members]
        return masked_sum(terms, weights)

    def cross_entropy(self, other: Any) -> Tensor:
        (our_loc, ours), (their_loc, theirs) = self.parameters, other.parameters
        aligned = _mean_length(ours) * (our_loc - their_loc).cos()
        return theirs * (1 - aligned) + i0e(theirs).log() + LOG_2PI


@register_family(dist.VonMises3D)
class VonMises3DFamily(ExponentialFamily):
    r"""VonMises3D: η = concentration, a vector, T(y) = y, h = 1, :math:`A = \log(4\pi \sinh(\kappa)/\kappa)`."""

    constructor = corrected_class(dist.VonMises3D)
    parameter_dims = (1,)
    linear = True
    bounded = True

    def log_normalizer(self, concentration: Tensor) -> Tensor:
        return log_sinhc(concentration.square().sum(-1)) + math.log(4 * math.pi)

    def expected_sufficient_statistics(self, concentration: Tensor) -> Tensors:
        return (concentration * sinhc_slope(concentration.square().sum(-1, keepdim=True)),)


@register_family(dist.SineBivariateVonMises)
class SineBivariateVonMisesFamily(ExponentialFamily):
    r"""SineBivariateVonMises of equal locations: η = (phi_concentration, psi_concentration, correlation), h = 1.

    T = (cos(φ − μ), cos(ψ − ν), sin(φ − μ) sin(ψ − ν)), of angles y = (φ, ψ) and locations (μ, ν). Terms of unequal
    locations would make a general bivariate von Mises law. A pool of unimodal components is unimodal, ρ² < κ₁ κ₂
    being a convex cone.

    .. math:: A = \log 2\pi \int e^{\kappa_1 \cos\varphi} I_0\big(\sqrt{\kappa_2^2 + \rho^2 \sin^2\varphi}\big) d\varphi

    It is exact where the series of Pyro's own log_prob has not converged, near ρ² = κ₁ κ₂ at concentrations above 100.

    Source: Singh, Hnizdo and Demchuk, "Probabilistic model for two dependent circular variables" (2002).
    """

    constructor = corrected_class(dist.SineBivariateVonMises)
    fixed = ("phi_loc", "psi_loc")
    linear = True
    bounded = True

    def log_normalizer(self, phi_concentration: Tensor, psi_concentration: Tensor, correlation: Tensor) -> Tensor:
        *_, log_terms = _marginal(phi_concentration, psi_concentration, correlation)
        return log_terms.logsumexp(-1) + math.log(4 * math.pi**2 / CIRCLE_POINTS)

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        phi, psi = y[..., 0] - self.p.phi_loc, y[..., 1] - self.p.psi_loc
        return phi.cos(), psi.cos(), phi.sin() * psi.sin()

    def expected_sufficient_statistics(self, *parameters: Tensor) -> Tensors:
        phi, length, log_terms = _marginal(*parameters)
        share = log_terms.softmax(-1)
        # Given φ, ψ is von Mises about the angle of (κ₂, ρ sin φ), with its length for a concentration.
        slope = _mean_length(length) / length
        along, across = parameters[1].unsqueeze(-1), parameters[2].unsqueeze(-1) * phi.sin().square()
        return tuple((share * t).sum(-1) for t in (phi.cos(), slope * along, slope * across))


def _marginal(*parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes φ, the concentration of ψ at each, and the log-density of φ but for its constant."""
    phi_concentration, psi_concentration, correlation = (t.unsqueeze(-1) for t in parameters)
    dtype, device = phi_concentration.dtype, phi_concentration.device
    phi = torch.arange(CIRCLE_POINTS, dtype=dtype, device=device) * (2 * math.pi / CIRCLE_POINTS)
    length = (psi_concentration.square() + (correlation * phi.sin()).square()).sqrt()
    return phi, length, phi_concentration * phi.cos() + length + i0e(length).log()

"""Families on the circle and the sphere: linear in the mean direction times the concentration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.special import i0e, i1e

from pyro_probmix.distributions.corrected import SineBivariateVonMises, VonMises, VonMises3D
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    masked_sum,
    register_family,
    sum_products,
)
from pyro_probmix.ops.special import log_sinhc, sinhc_slope

__all__ = ["SineBivariateVonMisesFamily", "VonMises3DFamily", "VonMisesFamily"]

# The trapezoidal rule on the circle: exact to rounding up to concentrations of 10 000, the most that Pyro takes.
CIRCLE_POINTS = 1024


@register_family(torch.distributions.VonMises)
class VonMisesFamily(ExponentialFamily):
    r"""VonMises: :math:`\eta = \kappa(\cos\mu, \sin\mu)`, T = (cos y, sin y), h = 1, :math:`A = \log 2\pi I_0(\kappa)`.

    Exact in double precision, as PyTorch's own log_prob is not.
    """

    constructor = VonMises
    names = ("loc", "concentration")
    parameter_dims = (0, 0)
    natural_dims = (0, 0)
    bounded = True

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        loc, concentration = parameters
        return concentration * loc.cos(), concentration * loc.sin()

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return torch.atan2(eta[1], eta[0]), torch.hypot(eta[0], eta[1])

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return parameters[1] + i0e(parameters[1]).log() + math.log(2 * math.pi)

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return y.cos(), y.sin()

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        length = _mean_length(p.concentration)
        return length * p.loc.cos(), length * p.loc.sin()

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        # Angles from the most concentrated component that takes part, a constant: its own is then exactly zero.
        with torch.no_grad():
            origin, largest = parameters[0][0], weights[0].new_full((), -1)
            for w, (loc, concentration) in zip(weights, parameters, strict=True):
                share = w * concentration
                origin = torch.where(share > largest, loc, origin)
                largest = torch.maximum(share, largest)
        turned = [(c * (loc - origin).cos(), c * (loc - origin).sin()) for loc, c in parameters]
        along, across = (sum_products(list(terms), weights) for terms in zip(*turned, strict=True))
        return origin + torch.atan2(across, along), torch.hypot(along, across)

    def pooling_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        # Σ wₖ κₖ − κ̃ = Σ wₖ κₖ (1 − cos(μₖ − μ̃)), where nothing cancels.
        mean, pooled = self.pool(p, parameters, weights)
        terms = [2 * c * (0.5 * (loc - mean)).sin().square() + (i0e(c) / i0e(pooled)).log() for loc, c in parameters]
        return masked_sum(terms, weights)

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        aligned = _mean_length(p.concentration) * (p.loc - q.loc).cos()
        return q.concentration * (1 - aligned) + i0e(q.concentration).log() + math.log(2 * math.pi)


@register_family(dist.VonMises3D)
class VonMises3DFamily(ExponentialFamily):
    r"""VonMises3D: η = concentration, a vector, T(y) = y, h = 1, :math:`A = \log(4\pi \sinh(\kappa)/\kappa)`."""

    constructor = VonMises3D
    names = ("concentration",)
    parameter_dims = (1,)
    natural_dims = (1,)
    linear = True
    bounded = True

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return eta

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return log_sinhc(parameters[0].square().sum(-1)) + math.log(4 * math.pi)

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y,)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return (p.concentration * sinhc_slope(p.concentration.square().sum(-1, keepdim=True)),)


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

    constructor = SineBivariateVonMises
    names = ("phi_concentration", "psi_concentration", "correlation")
    parameter_dims = (0, 0, 0)
    natural_dims = (0, 0, 0)
    bounded = True
    fixed = ("phi_loc", "psi_loc")
    linear = True

    def to_natural(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters

    def from_natural(self, p: Any, *eta: Tensor) -> tuple[Tensor, ...]:
        return eta

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        _, _, log_terms = self._marginal(*parameters)
        return log_terms.logsumexp(-1) + math.log(4 * math.pi**2 / CIRCLE_POINTS)

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        phi, psi = y[..., 0] - p.phi_loc, y[..., 1] - p.psi_loc
        return phi.cos(), psi.cos(), phi.sin() * psi.sin()

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        phi, length, log_terms = self._marginal(*self.parameters(p))
        share = log_terms.softmax(-1)
        # Given φ, ψ is von Mises about the angle of (κ₂, ρ sin φ), with its length for a concentration.
        slope = _mean_length(length) / length
        along, across = p.psi_concentration.unsqueeze(-1), p.correlation.unsqueeze(-1) * phi.sin().square()
        return tuple((share * t).sum(-1) for t in (phi.cos(), slope * along, slope * across))

    def _marginal(self, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes φ, the concentration of ψ at each, and the log-density of φ but for its constant."""
        phi_concentration, psi_concentration, correlation = (t.unsqueeze(-1) for t in parameters)
        dtype, device = phi_concentration.dtype, phi_concentration.device
        phi = torch.arange(CIRCLE_POINTS, dtype=dtype, device=device) * (2 * math.pi / CIRCLE_POINTS)
        length = (psi_concentration.square() + (correlation * phi.sin()).square()).sqrt()
        return phi, length, phi_concentration * phi.cos() + length + i0e(length).log()


def _mean_length(concentration: Tensor) -> Tensor:
    return i1e(concentration) / i0e(concentration)

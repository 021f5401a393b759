"""Shares of densities, by formulas in which nothing cancels in either tail."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_probmix.distributions.cumulative.law import Law, shares_of
from pyro_probmix.ops.incomplete import betainc, gammainc, gammaincc
from pyro_probmix.ops.special import LOG_2PI

__all__: list[str] = []

HALF = 0.5
ROOT_HALF = math.sqrt(0.5)
ROOT_TWO = math.sqrt(2)
STRAIGHT = 1e-9


class _LocationScale(Law):
    """A law of z = (y − loc) / scale."""

    def z(self, y: Tensor) -> Tensor:
        return (y - self.p.loc) / self.p.scale

    def y(self, z: Tensor) -> Tensor:
        return self.p.loc + self.p.scale * z  # type: ignore[no-any-return]


@shares_of(torch.distributions.Normal)
class NormalLaw(_LocationScale):
    """F = erfc(−z/√2) / 2."""

    def below(self, y: Tensor) -> Tensor:
        return HALF * torch.erfc(-ROOT_HALF * self.z(y))

    def above(self, y: Tensor) -> Tensor:
        return HALF * torch.erfc(ROOT_HALF * self.z(y))

    def at(self, q: Tensor) -> Tensor:
        return self.y(torch.special.ndtri(q))

    def log_density(self, y: Tensor) -> Tensor:
        return self._log_front - HALF * self.z(y).square()  # type: ignore[no-any-return]

    @functools.cached_property
    def _log_front(self) -> Tensor:
        return -self.p.scale.log() - HALF * LOG_2PI  # type: ignore[no-any-return]


@shares_of(torch.distributions.Cauchy)
class CauchyLaw(_LocationScale):
    """F = ½ + arctan(z) / π, as an angle from the far end."""

    def below(self, y: Tensor) -> Tensor:
        z = self.z(y)
        return torch.atan2(torch.ones_like(z), -z) / math.pi

    def above(self, y: Tensor) -> Tensor:
        z = self.z(y)
        return torch.atan2(torch.ones_like(z), z) / math.pi

    def at(self, q: Tensor) -> Tensor:
        low = q < HALF
        return self.y(torch.where(low, -1, 1) / torch.tan(math.pi * torch.where(low, q, 1 - q)))


@shares_of(torch.distributions.Laplace)
class LaplaceLaw(_LocationScale):
    """F = eᶻ / 2 below the location, 1 − e⁻ᶻ / 2 above."""

    def below(self, y: Tensor) -> Tensor:
        return self._share(self.z(y))

    def above(self, y: Tensor) -> Tensor:
        return self._share(-self.z(y))

    def _share(self, z: Tensor) -> Tensor:
        return torch.where(z < 0, HALF * z.clamp(max=0).exp(), 1 - HALF * (-z.clamp(min=0)).exp())

    def at(self, q: Tensor) -> Tensor:
        low = q < HALF
        tail = (2 * torch.where(low, q, 1 - q)).log()
        return self.y(torch.where(low, tail, -tail))


@shares_of(dist.AsymmetricLaplace)
class AsymmetricLaplaceLaw(Law):
    """An exponential tail on either side of the location, of masses in proportion to their scales."""

    def below(self, y: Tensor) -> Tensor:
        left, right = self._tails(y)
        return torch.where(y < self.p.loc, left, 1 - right)

    def above(self, y: Tensor) -> Tensor:
        left, right = self._tails(y)
        return torch.where(y < self.p.loc, 1 - left, right)

    def at(self, q: Tensor) -> Tensor:
        left, right = self.p.left_scale, self.p.right_scale
        total, low = left + right, q < left / (left + right)
        down = left * (torch.where(low, q, HALF) * total / left).log()
        up = right * (torch.where(low, HALF, 1 - q) * total / right).log()
        return self.p.loc + torch.where(low, down, -up)  # type: ignore[no-any-return]

    def _tails(self, y: Tensor) -> tuple[Tensor, Tensor]:
        left, right, z = self.p.left_scale, self.p.right_scale, y - self.p.loc
        total = left + right
        return left / total * (z.clamp(max=0) / left).exp(), right / total * (-z.clamp(min=0) / right).exp()


@shares_of(dist.Logistic)
class LogisticLaw(_LocationScale):
    """F = 1 / (1 + e⁻ᶻ)."""

    def below(self, y: Tensor) -> Tensor:
        return self.z(y).sigmoid()

    def above(self, y: Tensor) -> Tensor:
        return (-self.z(y)).sigmoid()

    def at(self, q: Tensor) -> Tensor:
        return self.y(q.logit())


@shares_of(dist.SkewLogistic)
class SkewLogisticLaw(_LocationScale):
    """F = (1 + e⁻ᶻ)⁻ᵃ."""

    def below(self, y: Tensor) -> Tensor:
        return self._log_below(y).exp()

    def above(self, y: Tensor) -> Tensor:
        return -torch.expm1(self._log_below(y))

    def at(self, q: Tensor) -> Tensor:
        fall = -q.log() / self.p.asymmetry
        return self.y(-fall - (-torch.expm1(-fall)).log())

    def _log_below(self, y: Tensor) -> Tensor:
        return self.p.asymmetry * torch.nn.functional.logsigmoid(self.z(y))  # type: ignore[no-any-return]


@shares_of(dist.SoftLaplace)
class SoftLaplaceLaw(_LocationScale):
    """F = 2 arctan(eᶻ) / π."""

    def below(self, y: Tensor) -> Tensor:
        return 2 / math.pi * self.z(y).exp().atan()

    def above(self, y: Tensor) -> Tensor:
        return 2 / math.pi * (-self.z(y)).exp().atan()

    def at(self, q: Tensor) -> Tensor:
        low = q < HALF
        tail = torch.tan(HALF * math.pi * torch.where(low, q, 1 - q)).log()
        return self.y(torch.where(low, tail, -tail))


@shares_of(torch.distributions.Gumbel)
class GumbelLaw(_LocationScale):
    """F = exp(−e⁻ᶻ)."""

    def below(self, y: Tensor) -> Tensor:
        return (-(-self.z(y)).exp()).exp()

    def above(self, y: Tensor) -> Tensor:
        return -torch.expm1(-(-self.z(y)).exp())

    def at(self, q: Tensor) -> Tensor:
        return self.y(-(-q.log()).log())


@shares_of(torch.distributions.Uniform)
class UniformLaw(Law):
    """F = (y − low) / (high − low)."""

    def below(self, y: Tensor) -> Tensor:
        return (y - self.p.low) / (self.p.high - self.p.low)  # type: ignore[no-any-return]

    def above(self, y: Tensor) -> Tensor:
        return (self.p.high - y) / (self.p.high - self.p.low)  # type: ignore[no-any-return]

    def at(self, q: Tensor) -> Tensor:
        return self.p.low + q * (self.p.high - self.p.low)  # type: ignore[no-any-return]


class _ByHazard(Law):
    """A law whose logarithm of 1 − F is known."""

    @abstractmethod
    def hazard(self, y: Tensor) -> Tensor:
        """−log(1 − F(y))."""

    @abstractmethod
    def from_hazard(self, h: Tensor) -> Tensor:
        """The inverse of :meth:`hazard`."""

    def below(self, y: Tensor) -> Tensor:
        return -torch.expm1(-self.hazard(y))

    def above(self, y: Tensor) -> Tensor:
        return (-self.hazard(y)).exp()

    def at(self, q: Tensor) -> Tensor:
        return self.from_hazard(-torch.log1p(-q))


@shares_of(torch.distributions.Exponential)
class ExponentialLaw(_ByHazard):
    """F = 1 − exp(−rate · y)."""

    def hazard(self, y: Tensor) -> Tensor:
        return self.p.rate * y  # type: ignore[no-any-return]

    def from_hazard(self, h: Tensor) -> Tensor:
        return h / self.p.rate  # type: ignore[no-any-return]


@shares_of(torch.distributions.Weibull)
class WeibullLaw(_ByHazard):
    """F = 1 − exp(−(y / scale)^concentration)."""

    def hazard(self, y: Tensor) -> Tensor:
        return (y / self.p.scale) ** self.p.concentration  # type: ignore[no-any-return]

    def from_hazard(self, h: Tensor) -> Tensor:
        return self.p.scale * h ** (1 / self.p.concentration)  # type: ignore[no-any-return]


@shares_of(torch.distributions.Pareto)
class ParetoLaw(_ByHazard):
    """F = 1 − (scale / y)^alpha."""

    def hazard(self, y: Tensor) -> Tensor:
        return self.p.alpha * torch.log1p((y - self.p.scale) / self.p.scale)  # type: ignore[no-any-return]

    def from_hazard(self, h: Tensor) -> Tensor:
        return self.p.scale * (h / self.p.alpha).exp()  # type: ignore[no-any-return]


@shares_of(torch.distributions.Kumaraswamy)
class KumaraswamyLaw(_ByHazard):
    """F = 1 − (1 − yᵃ)ᵇ."""

    def hazard(self, y: Tensor) -> Tensor:
        return -self.p.concentration0 * torch.log1p(-(y**self.p.concentration1))  # type: ignore[no-any-return]

    def from_hazard(self, h: Tensor) -> Tensor:
        return (-torch.expm1(-h / self.p.concentration0)) ** (1 / self.p.concentration1)  # type: ignore[no-any-return]


@shares_of(torch.distributions.HalfNormal)
class HalfNormalLaw(Law):
    """F = erf(y / (scale √2))."""

    def below(self, y: Tensor) -> Tensor:
        return torch.erf(ROOT_HALF * y / self.p.scale)

    def above(self, y: Tensor) -> Tensor:
        return torch.erfc(ROOT_HALF * y / self.p.scale)

    def at(self, q: Tensor) -> Tensor:
        low = q < HALF
        near = ROOT_TWO * torch.erfinv(torch.where(low, q, HALF))
        far = -torch.special.ndtri(HALF * torch.where(low, HALF, 1 - q))
        return self.p.scale * torch.where(low, near, far)  # type: ignore[no-any-return]


@shares_of(torch.distributions.HalfCauchy)
class HalfCauchyLaw(Law):
    """F = 2 arctan(y / scale) / π."""

    def below(self, y: Tensor) -> Tensor:
        return 2 / math.pi * (y / self.p.scale).atan()

    def above(self, y: Tensor) -> Tensor:
        return 2 / math.pi * (self.p.scale / y).atan()

    def at(self, q: Tensor) -> Tensor:
        low = q < HALF
        tail = torch.tan(HALF * math.pi * torch.where(low, q, 1 - q))
        return self.p.scale * torch.where(low, tail, 1 / tail)  # type: ignore[no-any-return]


@shares_of(torch.distributions.Gamma)
class GammaLaw(Law):
    """F = P(concentration, rate · y)."""

    def below(self, y: Tensor) -> Tensor:
        return gammainc(self.p.concentration, self.p.rate * y)

    def above(self, y: Tensor) -> Tensor:
        return gammaincc(self.p.concentration, self.p.rate * y)


@shares_of(torch.distributions.Beta)
class BetaLaw(Law):
    """F = I_y(concentration1, concentration0)."""

    def below(self, y: Tensor) -> Tensor:
        return betainc(self.p.concentration1, self.p.concentration0, y, 1 - y)

    def above(self, y: Tensor) -> Tensor:
        return betainc(self.p.concentration0, self.p.concentration1, 1 - y, y)


@shares_of(torch.distributions.StudentT)
class StudentTLaw(_LocationScale):
    """F = I_{df / (df + z²)}(df / 2, 1/2) / 2 below the location."""

    def below(self, y: Tensor) -> Tensor:
        return self._share(self.z(y))

    def above(self, y: Tensor) -> Tensor:
        return self._share(-self.z(y))

    def _share(self, z: Tensor) -> Tensor:
        df = self.p.df
        near = z.abs() < STRAIGHT  # where z² says nothing of the slope
        square = z.masked_fill(near, 1).square()
        x, rest = df / (df + square), square / (df + square)
        tail = HALF * betainc(HALF * df, torch.full_like(df, HALF), x, rest)
        slope = ((HALF * (df + 1)).lgamma() - (HALF * df).lgamma()).exp() / (math.pi * df).sqrt()
        return torch.where(near, HALF + slope * z, torch.where(z < 0, tail, 1 - tail))


@shares_of(torch.distributions.FisherSnedecor)
class FisherSnedecorLaw(Law):
    """F = I_x(df1 / 2, df2 / 2) at x = df1 y / (df1 y + df2)."""

    def below(self, y: Tensor) -> Tensor:
        x, rest = self._odds(y)
        return betainc(HALF * self.p.df1, HALF * self.p.df2, x, rest)

    def above(self, y: Tensor) -> Tensor:
        x, rest = self._odds(y)
        return betainc(HALF * self.p.df2, HALF * self.p.df1, rest, x)

    def _odds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.p.df1 * y, self.p.df2
        return first / (first + second), second / (first + second)

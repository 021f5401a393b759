"""Distributions whose density or draws are wrong or imprecise in PyTorch or Pyro, put right: what pools are made of.

A class here stands for those of PyTorch and Pyro of the same name, and is Pyro's in all but what it mends:
:func:`corrected` makes a distribution one of it, whatever it is wrapped in. The first ones have a wrong formula or
sampler, each in its own way. Those of large parameters and counts have a log-density that is a difference of numbers as
large as y log y, of which single precision loses most of a nat at a million counts: it is computed in double precision.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution
from torch.distributions.utils import logits_to_probs, probs_to_logits
from torch.special import erfcx, i0e

from pyro_probmix.distributions.log_space_beta import LogSpaceBeta
from pyro_probmix.ops.devices import double, filled_numbers
from pyro_probmix.ops.special import LOG_2PI, log1mexp, log_sinhc, sinhc_curvature, sinhc_slope

__all__ = ["corrected", "corrected_class"]

# Cells of the half circle, in each of which a density is taken for log-linear: at a concentration of 10 000, the most
# that Pyro takes, the distribution function is off by 1e-4, at 100 by 1e-8.
CELLS = 1024

# Where the recurrence of the moments has lost three digits, and what its continued fraction takes from there on.
FAR = 6.0
DEPTH = 20


def corrected_class(cls: Any) -> Any:
    """The class here of one of PyTorch's or Pyro's, or the class itself if nothing is wrong."""
    return _CORRECTED.get(cls, cls)


def corrected(p: Any) -> Any:
    """``p`` with the density and the draws that its law has, parameters and wrappers being its own.

    Only what PyTorch or Pyro themselves define is changed, and nothing where nothing is wrong.

    Example:
        >>> y = torch.tensor(1e6)
        >>> corrected(dist.Poisson(y)).log_prob(y), dist.Poisson(y).log_prob(y)
        (tensor(-7.8267), tensor(-7.))
    """
    if not isinstance(p, Distribution) or type(p) in _CORRECTED.values():
        return p
    own, right = vars(p), corrected_class(type(p))
    inner = {}
    if not issubclass(right, _InDouble):  # which is made of others, but computes by itself
        inner = {name: corrected(value) for name, value in own.items() if isinstance(value, Distribution)}
    if right is type(p) and all(own[name] is value for name, value in inner.items()):
        return p
    new = right.__new__(right)
    vars(new).update(own | inner)
    if isinstance(new, ZeroInflatedDistribution):
        new.settle()
    return new


class LKJCholesky(dist.LKJCholesky):
    """LKJCholesky, whose draws have the law of its density in any dimension.

    The squared length of what is left of the diagonal in row i, counted from 0, is Beta(i/2, concentration +
    (dim − 1 − i)/2), its direction uniform. PyTorch 2.13 takes i − ½ for i/2, which is right in dimension 2 only.

    Source: the onion method of Lewandowski, Kurowicka and Joe (2009), section 3.2.
    """

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            shape, size = self._extended_shape(sample_shape), self.dim - 1
            concentration = self.concentration.unsqueeze(-1)
            row = torch.arange(1, self.dim, dtype=concentration.dtype, device=concentration.device)
            law = LogSpaceBeta(0.5 * row, concentration + 0.5 * (size - row), validate_args=False)
            log_odds = law.rsample_log_odds(sample_shape)
            direction = torch.randn(shape[:-2] + (size, size), dtype=log_odds.dtype, device=log_odds.device).tril()
            direction = direction / direction.norm(dim=-1, keepdim=True)
            left = log_odds.sigmoid().sqrt().unsqueeze(-1) * direction
            diagonal = (-log_odds).sigmoid().clamp(min=torch.finfo(log_odds.dtype).tiny).sqrt()
            diagonal = torch.nn.functional.pad(diagonal, (1, 0), value=1.0)
            factor = torch.nn.functional.pad(left, (0, 1, 1, 0)) + diagonal.diag_embed()
            return factor.to(concentration.dtype)


class LKJ(dist.LKJ):
    """LKJ, whose draws have the law of its density in any dimension, and which expands."""

    base_dist: Any

    def __init__(self, dim: int, concentration: float | Tensor = 1.0, validate_args: bool | None = None) -> None:
        super().__init__(dim, concentration, validate_args)
        self.base_dist = corrected(self.base_dist)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LKJ:
        """The same law with this larger batch shape."""
        new = self._get_checked_instance(LKJ, _instance)
        new.dim, new.concentration = self.dim, self.concentration.expand(torch.Size(batch_shape))
        return TransformedDistribution.expand(self, batch_shape, _instance=new)


class SineBivariateVonMises(dist.SineBivariateVonMises):
    r"""SineBivariateVonMises, whose draws have the law of its density.

    The first angle is drawn by its distribution function, on a grid; given it, the second is von Mises. Pyro 1.9.2
    mixes the scales of its two proposals, unless they are equal.
    """

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)[:-1]
            phi_concentration, psi_concentration, correlation = (
                t.double() for t in (self.phi_concentration, self.psi_concentration, self.correlation)
            )
            nodes = torch.linspace(0, math.pi, CELLS + 1, dtype=torch.float64, device=correlation.device)
            a, b, c = (t.unsqueeze(-1) for t in (phi_concentration, psi_concentration, correlation))
            bend = c * nodes.sin()
            length = torch.hypot(b, bend)
            # The logarithm of the density of the first angle, less its value at the location.
            log_f = bend.square() / (length + b) - 2 * a * (0.5 * nodes).sin().square() + (i0e(length) / i0e(b)).log()
            phi = math.pi / CELLS * _of_log_linear_cells(log_f, shape)
            phi = torch.where(torch.rand_like(phi) < 0.5, -phi, phi)
            bend = correlation * phi.sin()
            mean, concentration = torch.atan2(bend, psi_concentration), torch.hypot(psi_concentration, bend)
            psi = torch.distributions.VonMises(mean, concentration, validate_args=False).sample()
            angles = torch.stack([phi + self.phi_loc, psi + self.psi_loc], -1)
            return ((angles + math.pi) % (2 * math.pi) - math.pi).to(self.correlation.dtype)


def _of_log_linear_cells(log_f: Tensor, shape: torch.Size) -> Tensor:
    """Draws, in units of a cell, by a density log-linear between nodes, there ``log_f``, batch + (cells + 1,)."""
    batch = log_f.shape[:-1]
    slope = log_f.diff(dim=-1)
    flat = slope.abs() < 1e-9
    steep = slope.abs().masked_fill(flat, 1)
    share = torch.where(flat, 1, -torch.expm1(-steep) / steep)
    mass = (torch.maximum(log_f[..., 1:], log_f[..., :-1]) + share.log()).softmax(-1)
    below = mass.cumsum(-1)
    u = torch.rand(shape, dtype=log_f.dtype, device=log_f.device)
    u = below[..., -1:] * u.reshape((-1, *batch)).movedim(0, -1).contiguous()
    cell = torch.searchsorted(below, u, right=True).clamp(max=slope.shape[-1] - 1)
    slope, mass, below = (t.gather(-1, cell) for t in (slope, mass, below))
    v = (1 - (below - u) / mass).clamp(0, 1)
    # From the higher end of the cell, away from which the density falls.
    rises, fall = slope > 0, slope.abs().clamp(min=1e-9)
    v = torch.where(rises, 1 - v, v)
    inside = (-torch.log1p(v * torch.expm1(-fall)) / fall).clamp(0, 1)
    at = cell + torch.where(rises, 1 - inside, inside)
    return at.movedim(-1, 0).reshape(shape)


class ContinuousBernoulli(dist.ContinuousBernoulli):
    r"""ContinuousBernoulli, right at any logits.

    .. math:: \log p(y) = \eta y - \log \frac{e^\eta - 1}{\eta}

    PyTorch 2.13 holds the probability between ε and 1 − ε in what it takes for the normaliser: at logits of 40 its
    mass is 0.40 in single precision and 0.90 in double precision.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._log_density(value, torch.where(self.logits > 0, 1 - value, value))

    def _log_density(self, value: Tensor, distance: Tensor) -> Tensor:
        """The log-density of a value, and of its distance from the end of the interval where the mass is."""
        low, high, near = self._low_and_high()
        flat = low * (value - 0.5) - log_sinhc((0.5 * low).square())
        return torch.where(near, flat, high.log() - high * distance - log1mexp(high))

    def _low_and_high(self) -> tuple[Tensor, Tensor, Tensor]:
        """η near 0, |η| elsewhere, and where it is near."""
        steepness = self.logits.abs()
        near = steepness < 1
        return self.logits.masked_fill(~near, 0), steepness.masked_fill(near, 1), near

    @property
    def mean(self) -> Tensor:
        return self._mean_and_distance()[0]

    def _mean_and_distance(self) -> tuple[Tensor, Tensor]:
        low, high, near = self._low_and_high()
        flat = 0.5 * (1 + 0.5 * low * sinhc_slope((0.5 * low).square()))
        distance = high.reciprocal() + (-high).exp() / torch.expm1(-high)
        return torch.where(near, flat, torch.where(self.logits > 0, 1 - distance, distance)), distance

    @property
    def variance(self) -> Tensor:
        return 0.25 * sinhc_curvature((0.5 * self.logits).square())

    def cdf(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        y = value.clamp(0, 1)

        def series(t: Tensor) -> Tensor:
            return y * (1 + t * (y - 1) * (0.5 + t * (2 * y - 1) / 12))

        def closed(t: Tensor) -> Tensor:
            fall = t.abs()
            return (-t.clamp(min=0) * (1 - y)).exp() * torch.expm1(-fall * y) / torch.expm1(-fall)

        return self._by_size(series, closed)

    def icdf(self, value: Tensor) -> Tensor:
        end = (value <= 0) | (value >= 1)
        u = value.masked_fill(end, 0.5)

        def series(t: Tensor) -> Tensor:
            return u * (1 + t * (1 - u) * (0.5 + t * (1 - 2 * u) / 6))

        def closed(t: Tensor) -> Tensor:
            fall = t.abs()
            distance = -torch.log1p(torch.where(t > 0, 1 - u, u) * torch.expm1(-fall)) / fall
            return torch.where(t > 0, 1 - distance, distance)

        return torch.where(end, value.clamp(0, 1), self._by_size(series, closed))

    def _by_size(self, series: Callable[[Tensor], Tensor], closed: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of the logits by its series to the second order near 0, and in closed form elsewhere."""
        near = self.logits.abs() < torch.finfo(self.logits.dtype).eps ** (1 / 3)
        return torch.where(near, series(self.logits.masked_fill(~near, 0)), closed(self.logits.masked_fill(near, 1)))

    def entropy(self) -> Tensor:
        return -self._log_density(*self._mean_and_distance())  # which is linear in the value


class ProjectedNormal(dist.ProjectedNormal):
    r"""ProjectedNormal, right on the far side, too, in dimensions 2, 3 and 4.

    .. math:: \log p(y) = \log \int_0^\infty r^{d-1} N(r; t, 1)\,dr
        - \tfrac12 |\mu - t y|^2 - \tfrac{d-1}{2} \log 2\pi, \qquad t = \mu^\top y

    In double precision, by formulas in which nothing cancels; Pyro 1.9.2 holds the integral above ε.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        size = self.concentration.shape[-1]
        if size not in self._log_prob_impls:
            return super().log_prob(value)
        if self._validate_args:
            self._validate_sample(value)
        mean, y = self.concentration.double(), value.double()
        along = (mean * y).sum(-1)
        across = (mean - along.unsqueeze(-1) * y).square().sum(-1)
        result = _log_moment(along, size - 1) - 0.5 * (across + (size - 1) * LOG_2PI)
        return result.to(torch.promote_types(self.concentration.dtype, value.dtype))


def _log_moment(t: Tensor, power: int) -> Tensor:
    """log ∫ r^power N(r; t, 1) dr over r > 0, for a power of one at least."""
    far = t < -FAR
    near, away = t.masked_fill(far, 0), (-t).masked_fill(~far, FAR)
    before = 0.5 * torch.erfc(-math.sqrt(0.5) * near)  # as torch.special.ndtr is not, in the tail
    moment = (-0.5 * (near.square() + LOG_2PI)).exp() + near * before
    for k in range(2, power + 1):
        before, moment = moment, near * moment + (k - 1) * before
    # J_d / J_{d−1} = (d − 1) / (s + J_{d+1} / J_d) with J_d = ∫ r^{d−1} exp(−r²/2 − rs) dr, from its limit for large d.
    ratio = 0.5 * ((away.square() + 4 * DEPTH).sqrt() - away)
    log_product = -0.5 * away.square() + (0.5 * erfcx(away * math.sqrt(0.5))).log()
    for k in range(DEPTH, 0, -1):
        ratio = k / (away + ratio)
        if k <= power:
            log_product = log_product + ratio.log()
    return torch.where(far, log_product, moment.log())


class Kumaraswamy(dist.Kumaraswamy):
    r"""Kumaraswamy, right at any concentrations.

    .. math:: \log p(y) = \log(ab) + (a - 1) \log y + (b - 1) \log(1 - y^a)

    PyTorch 2.13 goes through the uniform 1 − (1 − y^a)^b, which rounds to 0 or to 1: in single precision the density of
    0.011 with a = 1.5 and b = 1e-6 is −∞, and so is its gradient.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b = self.concentration1, self.concentration0
        below = torch.special.xlogy(a - 1, value)
        power = torch.special.xlogy(a, value)
        return a.log() + b.log() + below + (b - 1) * log1mexp(-power)


class VonMises(dist.VonMises):
    r"""VonMises, differentiable at any concentration.

    .. math:: \log p(y) = \kappa (\cos(y - \mu) - 1) - \log 2 \pi e^{-\kappa} I_0(\kappa)

    PyTorch 2.13 computes two approximations of the normaliser and takes one: the other one overflows, in single
    precision at concentrations below 6e-5 and above 6,000, and makes the gradient NaN.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        apart = (0.5 * (value - self.loc)).sin().square()
        return -2 * self.concentration * apart - LOG_2PI - i0e(self.concentration).log()


class VonMises3D(dist.VonMises3D):
    r"""VonMises3D, right at any concentration.

    .. math:: \log p(y) = -\tfrac{\kappa}{2} \|y - \mu\|^2 - \log \frac{2 \pi (1 - e^{-2\kappa})}{\kappa}

    Pyro 1.9.2 takes sinh κ, which is infinite from 89 on in single precision, from 710 in double.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            super().log_prob(value)  # which looks at the value
        scale = self.concentration.norm(2, -1).clamp(min=torch.finfo(self.concentration.dtype).tiny)
        apart = (value - self.concentration / scale.unsqueeze(-1)).square().sum(-1)
        return -0.5 * scale * apart - LOG_2PI - (-torch.expm1(-2 * scale) / scale).log()


class Weibull(dist.Weibull):
    r"""Weibull, right near zero.

    .. math:: \log p(y) = \log k - \log s + (k - 1) \log(y / s) - (y / s)^k

    PyTorch 2.13 goes through (y / s)^k, which rounds to zero, where the density becomes NaN.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        ratio = value / self.scale
        below = torch.special.xlogy(self.concentration - 1, ratio)
        return self.concentration.log() - self.scale.log() + below - ratio**self.concentration


class _InDouble:
    """A Pyro distribution that computes log_prob and entropy in double precision."""

    single: ClassVar[Any]  # Pyro's class
    names: ClassVar[list[str]]  # the arguments that it is made of
    is_sparse = False  # of PyTorch's Poisson, which has no such argument

    def arguments(self: Any) -> dict[str, Any]:
        """The arguments of the constructor that make it, with that of probs and logits which was given."""
        if "logits" in self.names:
            law = getattr(self, "_categorical", self)
            name = "logits" if law._param is vars(law).get("logits") else "probs"  # the other may have been asked for
            return {"total_count": self.total_count, name: law._param}
        arguments = {name: getattr(self, name) for name in self.names}
        if self.single is dist.AffineBeta:  # as they were given: the attributes are tensors of the default dtype
            arguments |= {name: getattr(self.transforms[0], name) for name in ("loc", "scale")}
        return arguments

    def log_prob(self: Any, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        wide, like = self._in_double()
        if wide is self:
            return super().log_prob(value)  # type: ignore[misc,no-any-return]
        log_prob = wide.log_prob(double(value))
        wider = value.is_floating_point() and value.dtype.itemsize > like.dtype.itemsize
        return log_prob.to(like.device, value.dtype if wider else like.dtype)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        wide, like = self._in_double()
        if wide is self:
            return super().entropy()  # type: ignore[misc,no-any-return]
        return wide.entropy().to(like.device, like.dtype)  # type: ignore[no-any-return]

    def _in_double(self) -> tuple[Any, Tensor]:
        """Pyro's distribution in double precision, or this one if it is, and its first parameter."""
        arguments = self.arguments()
        like = next(t for t in arguments.values() if isinstance(t, Tensor) and t.is_floating_point())
        if like.dtype == torch.float64:
            return self, like
        with filled_numbers(double(like)):
            return self.single(**{name: double(value) for name, value in arguments.items()}, validate_args=False), like


def _in_double(law: Any) -> Any:
    names = [name for name in inspect.signature(law.__init__).parameters if name not in ("self", "validate_args")]
    return type(law.__name__, (_InDouble, law), {"__module__": __name__, "single": law, "names": names})


AffineBeta = _in_double(dist.AffineBeta)
Beta = _in_double(dist.Beta)
BetaBinomial = _in_double(dist.BetaBinomial)
Binomial = _in_double(dist.Binomial)
Chi2 = _in_double(dist.Chi2)
Dirichlet = _in_double(dist.Dirichlet)
DirichletMultinomial = _in_double(dist.DirichletMultinomial)
ExtendedBetaBinomial = _in_double(dist.ExtendedBetaBinomial)
ExtendedBinomial = _in_double(dist.ExtendedBinomial)
FisherSnedecor = _in_double(dist.FisherSnedecor)
Gamma = _in_double(dist.Gamma)
GammaPoisson = _in_double(dist.GammaPoisson)
InverseGamma = _in_double(dist.InverseGamma)
Multinomial = _in_double(dist.Multinomial)
NegativeBinomial = _in_double(dist.NegativeBinomial)
Poisson = _in_double(dist.Poisson)
StudentT = _in_double(dist.StudentT)


class ZeroInflatedDistribution(dist.ZeroInflatedDistribution):
    """Pyro's, of a base whose log_prob is right, with the gate in the one form that was given.

    Pyro keeps the other form too, once ``mean`` or ``sample`` has asked for it, and can no longer be expanded then.
    """

    def __init__(self, base_dist: Any, **gate: Any) -> None:
        super().__init__(base_dist, **gate)
        self.settle()

    def settle(self) -> None:
        """Makes what Pyro holds what this class holds: of the gate's forms, the one that it has held for longest."""
        self.base_dist = corrected(self.base_dist)
        _, *asked = [name for name in vars(self) if name in ("gate", "gate_logits")]
        for name in asked:
            del self.__dict__[name]

    @property
    def gate(self) -> Tensor:
        return vars(self)["gate"] if "gate" in vars(self) else logits_to_probs(self.gate_logits, is_binary=True)

    @gate.setter
    def gate(self, value: Tensor) -> None:
        self.__dict__["gate"] = value

    @property
    def gate_logits(self) -> Tensor:
        return vars(self)["gate_logits"] if "gate_logits" in vars(self) else probs_to_logits(self.gate, is_binary=True)

    @gate_logits.setter
    def gate_logits(self, value: Tensor) -> None:
        self.__dict__["gate_logits"] = value


class ZeroInflatedPoisson(dist.ZeroInflatedPoisson, ZeroInflatedDistribution):
    """As its base."""


class ZeroInflatedNegativeBinomial(dist.ZeroInflatedNegativeBinomial, ZeroInflatedDistribution):
    """As its base."""


_CORRECTED: dict[type, Any] = {
    getattr(home, name): law
    for name, law in list(globals().items())
    for home in (torch.distributions, dist)
    if getattr(law, "__module__", None) == __name__ and hasattr(home, name)
}
"""From a class of PyTorch or Pyro to the one here, which has its name."""

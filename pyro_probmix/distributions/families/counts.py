"""Counts: of events, and of trials, how many succeed or how many it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    Members,
    Tensors,
    register_family,
    validates,
)
from pyro_probmix.distributions.families._numerics import expected_log_gamma, malmsten_integral
from pyro_probmix.distributions.families.discrete import (
    BernoulliFamily,
    CategoricalFamily,
    blank_member,
    normalized_categorical,
)
from pyro_probmix.ops.special import inverse_softplus

__all__ = [
    "BinomialFamily",
    "ExtendedBinomialFamily",
    "GammaPoissonFamily",
    "GeometricFamily",
    "MultinomialFamily",
    "NegativeBinomialFamily",
    "PoissonFamily",
]

LARGE_RATE = 100


@register_family(torch.distributions.Poisson)
class PoissonFamily(ExponentialFamily):
    """Poisson: η = log rate, T(y) = y, h(y) = 1/y!."""

    constructor = corrected_class(dist.Poisson)
    cancels = True
    infinite_eta = True

    def to_natural(self, rate: Tensor) -> Tensors:
        # A rate of zero is legal; its logarithm, −∞, must not make a gradient of 0 · ∞.
        zero = rate == 0
        return (rate.masked_fill(zero, 1).log().masked_fill(zero, -math.inf),)

    def from_natural(self, eta: Tensor) -> Tensors:
        return (eta.exp(),)

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        if not simplex:
            return super().pool(members, weights, simplex)
        (rate,) = super().pool(*self.widened(members, weights))
        return (self.narrowed(rate, weights[0]),)

    def log_normalizer(self, rate: Tensor) -> Tensor:
        return rate

    def expected_sufficient_statistics(self, rate: Tensor) -> Tensors:
        return (rate,)

    def log_base_measure(self, y: Tensor) -> Tensor:
        return -(y + 1).lgamma()

    def expected_log_base_measure(self, rate: Tensor) -> Tensor:
        # No closed form. Small rates: the sum over all counts of any mass; large: the series of the entropy.
        small, large = rate.clamp(torch.finfo(rate.dtype).tiny, LARGE_RATE), rate.clamp(min=LARGE_RATE)
        counts = torch.arange(LARGE_RATE + 15 * math.isqrt(LARGE_RATE), dtype=rate.dtype, device=rate.device)
        log_factorial = (counts + 1).lgamma()
        mass = dist.Poisson(small.unsqueeze(-1), validate_args=False).log_prob(counts).exp()
        entropy = 0.5 * (2 * math.pi * math.e * large).log() - (1 / 12 + (1 / 24 + 19 / 360 / large) / large) / large
        series = entropy + large * (large.log() - 1)
        return -torch.where(rate < LARGE_RATE, (mass * log_factorial).sum(-1), series)


class _TrialsFamily(ExponentialFamily):
    """The sum of as many independent trials as total_count says."""

    cancels = True
    fixed = ("total_count",)

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        xi = self.p.total_count * super().pooling_normalizer(*self.widened(members, weights), simplex)
        return self.narrowed(xi, weights[0])

    def cross_entropy(self, other: Any) -> Tensor:
        p, q = self.in_double(), other.in_double()
        total = q.p.total_count * super(_TrialsFamily, p).cross_entropy(q)
        total = total - p.expected_log_base_measure(*p.parameters)
        return self.narrowed(total, self.parameters[0], other.parameters[0])


@register_family(torch.distributions.Binomial)
class BinomialFamily(_TrialsFamily, BernoulliFamily):
    """Binomial of equal total_count n: η = logits, T(y) = y, h(y) = n choose y."""

    constructor = corrected_class(dist.Binomial)

    def log_normalizer(self, logits: Tensor) -> Tensor:
        return self.p.total_count * softplus(logits)

    def log_base_measure(self, y: Tensor) -> Tensor:
        n = self.p.total_count
        return (n + 1).lgamma() - (y + 1).lgamma() - (n - y + 1).lgamma()

    def expected_log_base_measure(self, logits: Tensor) -> Tensor:
        n = self.p.total_count
        return (n + 1).lgamma() - _expected_log_factorial(n, logits) - _expected_log_factorial(n, -logits)


@register_family(dist.ExtendedBinomial)
class ExtendedBinomialFamily(BinomialFamily):
    """ExtendedBinomial of equal total_count n ≥ 0: the Binomial's natural form, h being zero off 0, ..., n."""

    constructor = corrected_class(dist.ExtendedBinomial)

    def __init__(self, p: Any) -> None:
        if validates(p) and (p.total_count < 0).any():
            raise TypeError(
                "ExtendedBinomial of a negative total_count has no natural form: expected total_count >= 0, "
                f"got {p.total_count.min().item():g}, of no mass"
            )
        super().__init__(p)

    def log_base_measure(self, y: Tensor) -> Tensor:
        outside = (y < 0) | (y > self.p.total_count)
        return super().log_base_measure(y.masked_fill(outside, 0)).masked_fill(outside, -math.inf)


@register_family(torch.distributions.Multinomial)
class MultinomialFamily(_TrialsFamily, CategoricalFamily):
    """Multinomial of equal total_count n: η = logits (normalised), T(y) = y, h(y) = n!/∏ yᵢ!."""

    constructor: ClassVar[Any] = corrected_class(dist.Multinomial)

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        (logits,), validate = parameters, self.p._validate_args
        member = blank_member(self.constructor, logits.shape[:-1], logits.shape[-1:], validate)
        member.total_count = self.p.total_count
        member._categorical = normalized_categorical(torch.distributions.Categorical, logits, validate)
        # Of which PyTorch makes the entropy. By the constructors, the number would be copied to the device, twice.
        member._binomial = torch.distributions.Binomial(
            logits.new_full((), member.total_count), probs=member._categorical.probs, validate_args=False
        )
        return member

    def log_normalizer(self, logits: Tensor) -> Tensor:
        return self.p.total_count * super().log_normalizer(logits)

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (y.to(self.p.logits.dtype),)

    def expected_sufficient_statistics(self, logits: Tensor) -> Tensors:
        return (self.p.total_count * logits.exp(),)

    def log_base_measure(self, y: Tensor) -> Tensor:
        return (y.sum(-1) + 1).lgamma() - (y + 1).lgamma().sum(-1)

    def expected_log_base_measure(self, logits: Tensor) -> Tensor:
        n = logits.new_full((), self.p.total_count)
        logits = logits - (-torch.expm1(logits)).log()
        return (n + 1).lgamma() - _expected_log_factorial(n, logits).sum(-1)


@register_family(torch.distributions.Geometric)
class GeometricFamily(ExponentialFamily):
    """Geometric: η = log(1 − probs), T(y) = y, h = 1: linear in log P(not yet), which is not the logit."""

    constructor = dist.Geometric
    infinite_eta = True

    def to_natural(self, logits: Tensor) -> Tensors:
        return (-softplus(logits),)

    def from_natural(self, eta: Tensor) -> Tensors:
        return (inverse_softplus(-eta),)

    def log_normalizer(self, logits: Tensor) -> Tensor:
        return softplus(-logits)

    def expected_sufficient_statistics(self, logits: Tensor) -> Tensors:
        return ((-logits).exp(),)

    def at_boundary(self, name: str, value: Tensor) -> Tensor:
        return ~(value > -math.inf)  # the other end has all its mass at zero


@register_family(torch.distributions.NegativeBinomial)
class NegativeBinomialFamily(ExponentialFamily):
    """NegativeBinomial of equal total_count n: η = log probs, T(y) = y, h(y) = Γ(n + y)/(y! Γ(n))."""

    constructor = corrected_class(dist.NegativeBinomial)
    infinite_eta = True
    cancels = True
    fixed = ("total_count",)

    def to_natural(self, logits: Tensor) -> Tensors:
        return (logsigmoid(logits),)

    def from_natural(self, eta: Tensor) -> Tensors:
        return (-inverse_softplus(-eta),)

    def log_normalizer(self, logits: Tensor) -> Tensor:
        return self.p.total_count * softplus(logits)

    def expected_sufficient_statistics(self, logits: Tensor) -> Tensors:
        return (self.p.total_count * logits.exp(),)

    def at_boundary(self, name: str, value: Tensor) -> Tensor:
        return ~(value < math.inf)  # the other end has all its mass at zero

    def log_base_measure(self, y: Tensor) -> Tensor:
        return _log_ways(self.p.total_count, y)

    def expected_log_base_measure(self, logits: Tensor) -> Tensor:
        return _expected_log_ways(self.p.total_count, logits.exp())


@register_family(dist.GammaPoisson)
class GammaPoissonFamily(ExponentialFamily):
    """GammaPoisson of equal concentration n: η = −log(1 + rate), T(y) = y, h(y) = Γ(n + y)/(y! Γ(n))."""

    constructor = corrected_class(dist.GammaPoisson)
    infinite_eta = True
    cancels = True
    fixed = ("concentration",)

    def to_natural(self, rate: Tensor) -> Tensors:
        return (-rate.log1p(),)

    def from_natural(self, eta: Tensor) -> Tensors:
        return (torch.expm1(-eta),)

    def log_normalizer(self, rate: Tensor) -> Tensor:
        return self.p.concentration * (rate.log1p() - rate.log())

    def expected_sufficient_statistics(self, rate: Tensor) -> Tensors:
        return (self.p.concentration / rate,)

    def log_base_measure(self, y: Tensor) -> Tensor:
        return _log_ways(self.p.concentration, y)

    def expected_log_base_measure(self, rate: Tensor) -> Tensor:
        return _expected_log_ways(self.p.concentration, rate.reciprocal())


def _log_ways(n: Tensor, y: Tensor) -> Tensor:
    none = n + y == 0  # no failure to wait for: there is one way not to wait
    n = n.masked_fill(n == 0, torch.finfo(n.dtype).tiny)
    return ((n + y).lgamma() - (y + 1).lgamma() - n.lgamma()).masked_fill(none, 0)


def _expected_log_ways(n: Tensor, odds: Tensor) -> Tensor:
    """E[log Γ(n + Y) − log Y!] − log Γ(n) for Y with E[e^{−tY}] = (1 + odds (1 − e⁻ᵗ))⁻ⁿ."""
    dtype = torch.promote_types(n.dtype, odds.dtype)
    (n, odds), none = (_at_least_single(t) for t in (n, odds)), n == 0
    n = n.masked_fill(none, 1)  # no failure to wait for

    def log_generating_function(t: Tensor) -> Tensor:
        return -n.unsqueeze(-1) * (odds.unsqueeze(-1) * -torch.expm1(-t)).log1p()

    some = -torch.expm1(-n * odds.log1p())  # the mass above zero, which alone counts: of zero, Γ(n + Y) / Γ(n) is one

    def change(t: Tensor) -> Tensor:
        size, mass = n.unsqueeze(-1), some.unsqueeze(-1)
        low, high = t.clamp(max=1), t.clamp(min=1)
        near = (
            mass * torch.expm1((1 - size) * low) + torch.expm1(log_generating_function(low)) * ((1 - size) * low).exp()
        )
        rest = size * (-(-high).exp() / (1 + odds.reciprocal().unsqueeze(-1))).log1p()
        far = -torch.expm1(rest) * (log_generating_function(high) - size * high).exp() - mass * (-high).exp()
        return torch.where(t < 1, near * (-low).exp(), far)

    ways = malmsten_integral(n * odds + (n - 1) * some, change) - some * n.lgamma()
    factorial = expected_log_gamma(n * odds, log_generating_function, 1.0)
    return (ways - factorial).masked_fill(none, 0).to(dtype)


def _expected_log_factorial(n: Tensor, logits: Tensor) -> Tensor:
    """E[log Y!] for a binomial Y."""
    dtype = torch.promote_types(n.dtype, logits.dtype)
    n, logits = (_at_least_single(t) for t in (n, logits))
    probs = logits.sigmoid()

    def log_generating_function(t: Tensor) -> Tensor:
        return n.unsqueeze(-1) * (probs.unsqueeze(-1) * torch.expm1(-t)).log1p()

    return expected_log_gamma(n * probs, log_generating_function, 1.0).to(dtype)


def _at_least_single(t: Tensor) -> Tensor:
    """Means and generating functions are to be of one rounding: what they differ by is integrated."""
    return t.to(torch.promote_types(t.dtype, torch.float32))

"""Counts of trials: how many succeed, or how many it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid, softplus

from pyro_probmix.distributions.corrected import Binomial, ExtendedBinomial, GammaPoisson, Multinomial, NegativeBinomial
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    blank_member,
    masked_sum,
    register_family,
    restore_members,
    validates,
)
from pyro_probmix.distributions.families._numerics import expected_log_gamma, malmsten_integral
from pyro_probmix.distributions.families.discrete import BernoulliFamily, CategoricalFamily, _categorical
from pyro_probmix.ops.special import inverse_softplus

__all__ = [
    "BinomialFamily",
    "ExtendedBinomialFamily",
    "GammaPoissonFamily",
    "GeometricFamily",
    "MultinomialFamily",
    "NegativeBinomialFamily",
]


@register_family(torch.distributions.Binomial)
class BinomialFamily(BernoulliFamily):
    """Binomial of equal total_count n: η = logits, T(y) = y, h(y) = n choose y."""

    constructor = Binomial
    cancels = True
    fixed = ("total_count",)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        return p.total_count * softplus(parameters[0])

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        n = p.total_count
        return (n + 1).lgamma() - (y + 1).lgamma() - (n - y + 1).lgamma()

    def expected_base_measure(self, p: Any) -> Tensor:
        n, logits = p.total_count, p.logits
        expected = [_expected_log_factorial(n, logit) for logit in (logits, -logits)]
        return (n + 1).lgamma() - expected[0] - expected[1]

    def pooling_normalizer(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        xi = p.total_count * super().pooling_normalizer(p, *self.widened(parameters, weights))
        return self.narrowed(xi, weights[0])

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        wide, other = self.wide(p), self.wide(q)
        total = other.total_count * super().cross_entropy(wide, other) - self.expected_base_measure(wide)
        return self.narrowed(total, self.parameters(p)[0], self.parameters(q)[0])


@register_family(dist.ExtendedBinomial)
class ExtendedBinomialFamily(BinomialFamily):
    """ExtendedBinomial of equal total_count n ≥ 0: the Binomial's natural form, h being zero off 0, ..., n."""

    constructor = ExtendedBinomial

    def check(self, p: Any) -> None:
        if validates(p) and (p.total_count < 0).any():
            raise TypeError(
                "ExtendedBinomial of a negative total_count has no natural form: expected total_count >= 0, "
                f"got {p.total_count.min().item():g}, of no mass"
            )

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        outside = (y < 0) | (y > p.total_count)
        return super().base_measure(p, y.masked_fill(outside, 0)).masked_fill(outside, -math.inf)


@register_family(torch.distributions.Multinomial)
class MultinomialFamily(CategoricalFamily):
    """Multinomial of equal total_count n: η = logits (normalised), T(y) = y, h(y) = n!/∏ yᵢ!."""

    constructor: ClassVar[Any] = Multinomial
    cancels = True
    fixed = ("total_count",)

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        (logits,) = parameters
        member = blank_member(self.constructor, logits.shape[:-1], logits.shape[-1:], p._validate_args)
        member.total_count = p.total_count
        member._categorical = _categorical(torch.distributions.Categorical, logits, p._validate_args)
        # Of which PyTorch makes the entropy. By the constructors, the number would be copied to the device, twice.
        member._binomial = torch.distributions.Binomial(
            logits.new_full((), p.total_count), probs=member._categorical.probs, validate_args=False
        )
        return member

    def same(self, p: Any, q: Any) -> str | None:
        return super(CategoricalFamily, self).same(p, q) or super().same(p, q)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        return p.total_count * super().normalizer(p, *parameters)

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        return (y.to(p.logits.dtype),)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return (p.total_count * p.logits.exp(),)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return (y.sum(-1) + 1).lgamma() - (y + 1).lgamma().sum(-1)

    def expected_base_measure(self, p: Any) -> Tensor:
        n = p.logits.new_full((), p.total_count)
        logits = p.logits - (-torch.expm1(p.logits)).log()
        return (n + 1).lgamma() - _expected_log_factorial(n, logits).sum(-1)

    def pooling_normalizer(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        xi = p.total_count * super().pooling_normalizer(p, *self.widened(parameters, weights))
        return self.narrowed(xi, weights[0])

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        wide, other = self.wide(p), self.wide(q)
        total = other.total_count * super().cross_entropy(wide, other) - self.expected_base_measure(wide)
        return self.narrowed(total, self.parameters(p)[0], self.parameters(q)[0])


class _WaitingFamily(ExponentialFamily):
    """Counts until something happens: linear in log P(not yet), which is not the logit."""

    natural_dims = (0,)
    parameter_dims = (0,)

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y,)

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        etas = [self.to_natural(p, *component)[0] for component in parameters]
        pooled = self.from_natural(p, masked_sum(etas, weights))
        return restore_members(pooled, parameters, weights, self.parameter_dims)


@register_family(torch.distributions.Geometric)
class GeometricFamily(_WaitingFamily):
    """Geometric: η = log(1 − probs), T(y) = y, h = 1."""

    constructor = dist.Geometric
    names = ("logits",)

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (-softplus(parameters[0]),)

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return (inverse_softplus(-eta[0]),)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return softplus(-parameters[0])

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return ((-p.logits).exp(),)

    def at_end(self, name: str, value: Tensor) -> Tensor:
        return ~(value > -math.inf)  # the other end has all its mass at zero


@register_family(torch.distributions.NegativeBinomial)
class NegativeBinomialFamily(_WaitingFamily):
    """NegativeBinomial of equal total_count n: η = log probs, T(y) = y, h(y) = Γ(n + y)/(y! Γ(n))."""

    constructor = NegativeBinomial
    cancels = True
    names = ("logits",)
    fixed = ("total_count",)

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (logsigmoid(parameters[0]),)

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return (-inverse_softplus(-eta[0]),)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        return p.total_count * softplus(parameters[0])

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return (p.total_count * p.logits.exp(),)

    def at_end(self, name: str, value: Tensor) -> Tensor:
        return ~(value < math.inf)  # the other end has all its mass at zero

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return _log_ways(p.total_count, y)

    def expected_base_measure(self, p: Any) -> Tensor:
        return _expected_log_ways(p.total_count, p.logits.exp())


@register_family(dist.GammaPoisson)
class GammaPoissonFamily(_WaitingFamily):
    """GammaPoisson of equal concentration n: η = −log(1 + rate), T(y) = y, h(y) = Γ(n + y)/(y! Γ(n))."""

    constructor = GammaPoisson
    cancels = True
    names = ("rate",)
    fixed = ("concentration",)

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (-parameters[0].log1p(),)

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return (torch.expm1(-eta[0]),)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        return p.concentration * (parameters[0].log1p() - parameters[0].log())

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return (p.concentration / p.rate,)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return _log_ways(p.concentration, y)

    def expected_base_measure(self, p: Any) -> Tensor:
        return _expected_log_ways(p.concentration, p.rate.reciprocal())


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

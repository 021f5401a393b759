"""Shares of what is made of other laws, and of any law by quadrature or summation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution

from pyro_probmix.distributions.cumulative.law import Law, law_type
from pyro_probmix.distributions.exponential_family import resolved
from pyro_probmix.distributions.mixtures import Mixture, mixture_of, parts_of
from pyro_probmix.distributions.numerical import NumericalDistribution, NumericalPool
from pyro_probmix.ops.sums import sum_right, unsqueeze_right
from pyro_probmix.ops.values import can_be_read

__all__ = ["law"]

NEAR = 1e-9  # relative
SAME = 1e-9  # by how much what a transform makes of an integer may be off
WRAPPERS = torch.distributions.Independent, dist.MaskedDistribution, ExpandedDistribution  # of scalars


def law(p: Any) -> Law:
    """The shares of a scalar distribution in double precision, that checks no values."""
    p = _unwrapped(p)
    mixture = mixture_of(p)
    if mixture is not None:
        return MixtureLaw(p, mixture)
    known = law_type(type(p))
    if known is not None:
        return known(p)
    if isinstance(p, dist.ZeroInflatedDistribution):
        return ZeroInflated(p)
    if isinstance(p, dist.MaskedMixture):
        return Either(p)
    if isinstance(p, NumericalDistribution) or _has_own(p, "cdf"):
        return Own(p)
    if isinstance(p, TransformedDistribution) and not p.base_dist.event_shape:
        if all(t.bijective for t in p.transforms):
            return Transformed(p)
        if [type(t) for t in p.transforms] == [torch.distributions.AbsTransform]:
            return Folded(p)
    if isinstance(p, dist.ExtendedBetaBinomial):
        p = dist.BetaBinomial(p.concentration1, p.concentration0, p.total_count, validate_args=False)
    return Numerical(p)


def _unwrapped(p: Any) -> Any:
    p = resolved(p)
    while isinstance(p, WRAPPERS):
        p = resolved(p.base_dist)
    return p


def _has_own(p: Any, name: str) -> bool:
    """Whether the class of ``p`` has this method, of its own law: not from a class whose density it has changed."""
    order = type(p).__mro__
    of_density, of_method = (next(k for k, c in enumerate(order) if n in vars(c)) for n in ("log_prob", name))
    return of_method <= of_density and order[of_method] not in (Distribution, TransformedDistribution)


class Own(Law):
    """What a distribution says of itself."""

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.atomic = self.integers = bool(p.support.is_discrete)
        self.size = 64

    def below(self, y: Tensor) -> Tensor:
        return self.p.cdf(y)  # type: ignore[no-any-return]

    def above(self, y: Tensor) -> Tensor:
        return self.p.survival(y) if hasattr(self.p, "survival") else super().above(y)

    def at(self, q: Tensor) -> Tensor:
        return self.p.icdf(q) if _has_own(self.p, "icdf") else super().at(q)


class Numerical(Own):
    """What quadrature finds of the density, or summation of the masses."""

    def __init__(self, p: Any) -> None:
        self.name = type(p).__name__
        super().__init__(self._found(lambda: NumericalPool([p], [1.0], validate_args=False)))

    def below(self, y: Tensor) -> Tensor:
        return self._found(lambda: self.p.cdf(y))  # type: ignore[no-any-return]

    def at(self, q: Tensor) -> Tensor:
        return self._found(lambda: self.p.icdf(q))  # type: ignore[no-any-return]

    def _found(self, result: Callable[[], Any]) -> Any:
        try:
            return result()
        except (TypeError, ValueError, NotImplementedError) as error:
            reason = str(error).removeprefix("components, weights: ").removeprefix("components: ")
            raise type(error)(
                f"p: expected a distribution whose cdf is known here or follows from its density, got {self.name}: "
                f"{reason}; its draws have quantiles: torch.quantile(p.sample((1000,)), q, 0)"
            ) from error


class MixtureLaw(Law):
    """F = Σₖ wₖ Fₖ, over the components that have a weight."""

    def __init__(self, p: Any, mixture: Mixture) -> None:
        super().__init__(p)
        found = list(parts_of(mixture, lambda member: mixture_of(_unwrapped(member))))
        shares = [sum_right(part.weights, part.dims).detach() for part in found]
        total = functools.reduce(torch.add, shares)  # one but for rounding
        self.parts = [(law(member), w / unsqueeze_right(total, dims), dims) for member, w, dims in found]
        self.atomic = any(own.atomic for own, _, _ in self.parts)
        self.integers = all(own.integers for own, _, _ in self.parts)
        self.size = sum(w.shape[w.dim() - dims :].numel() * own.size for own, w, dims in self.parts)

    @functools.cached_property
    def unbounded(self) -> bool:
        return not self.atomic and any(own.unbounded for own, _, _ in self.parts)

    def bounds(self) -> tuple[Tensor, Tensor]:
        return self._ends

    @functools.cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        return self._outermost(lambda law, _: law.bounds())

    def below(self, y: Tensor) -> Tensor:
        return self._total(lambda law, y: law.cdf(y, finite=True), y)

    def above(self, y: Tensor) -> Tensor:
        return self._total(lambda law, y: law.survival(y, finite=True), y)

    def bracket(self, q: Tensor) -> tuple[Tensor, Tensor]:
        searched = any(type(own).at is Law.at for own, _, _ in self.parts)
        moments = self._moments if searched else None
        if moments is None:
            return self._outermost(lambda law, q: (law.icdf(q),) * 2, q)
        mean, deviation = moments  # between which and q is Cantelli's inequality
        low, high = mean - deviation * ((1 - q) / q).sqrt(), mean + deviation * (q / (1 - q)).sqrt()
        slack = NEAR * (high - low + mean.abs())
        low, high = low - slack, high + slack
        low, high = (low.floor(), high.ceil()) if self.integers else (low, high)
        first, last = self.bounds()
        return low.maximum(first), high.minimum(last)

    @functools.cached_property
    def _moments(self) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation, where they are known to be finite."""
        try:
            mean, deviation = self.p.mean, self.p.variance.sqrt()
        except (AttributeError, NotImplementedError, RuntimeError):  # the last by what writes into tensors, under vmap
            return None
        finite = mean.isfinite() & deviation.isfinite()
        return (mean, deviation) if can_be_read(finite) and bool(finite.all()) else None

    def log_density(self, y: Tensor) -> Tensor:
        return self._total(lambda law, y: law.density(y, finite=True), y).log()

    def _total(self, function: Callable[[Law, Tensor], Tensor], y: Tensor) -> Tensor:
        """Σₖ wₖ fₖ(y)."""
        sums = []
        for own, weights, dims in self.parts:
            each = function(own, unsqueeze_right(y, dims))
            if not self.all_count:  # what has no weight has a gradient in it
                each = torch.where(each.isfinite() | (weights > 0), each, 0)
            sums.append(sum_right(weights * each, dims))
        return functools.reduce(torch.add, sums)

    @functools.cached_property
    def all_count(self) -> bool:
        """Whether all components are known to have a weight."""
        return all(can_be_read(weights) and bool((weights > 0).all()) for _, weights, _ in self.parts)

    def _outermost(self, function: Callable[[Law, Any], tuple[Tensor, Tensor]], q: Any = None) -> tuple[Tensor, Tensor]:
        """The least first and the greatest second of what a function gives of each component that has a weight."""
        ends = []
        for own, weights, dims in self.parts:
            low, high = function(own, None if q is None else unsqueeze_right(q, dims))
            low, high = torch.where(weights > 0, low, torch.inf), torch.where(weights > 0, high, -torch.inf)
            every = tuple(range(-dims, 0))
            ends.append((low.amin(every), high.amax(every)) if every else (low, high))
        lows, highs = zip(*ends, strict=True)
        return functools.reduce(torch.minimum, lows), functools.reduce(torch.maximum, highs)


class Transformed(Law):
    """F(y) = F_base(x) of what x becomes, where that rises with x, and 1 − F_base(x) where it falls."""

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.base = law(p.base_dist)
        self.atomic, self.integers, self.size = self.base.atomic, False, self.base.size
        self.rises = self._rises()

    def below(self, y: Tensor) -> Tensor:
        return self._share(y, self.base.cdf, self.base.survival)

    def above(self, y: Tensor) -> Tensor:
        return self._share(y, self.base.survival, self.base.cdf)

    def at(self, q: Tensor) -> Tensor:
        if not (can_be_read(self.rises) and bool(self.rises.all())):
            return super().at(q)
        y = self.base.icdf(q)
        for transform in self.p.transforms:
            y = transform(y)
        return y

    def _share(self, y: Tensor, rising: Any, falling: Any) -> Tensor:
        x = y
        for transform in reversed(self.p.transforms):
            x = transform.inv(x)
        if self.base.integers:
            x = torch.where((x - x.round()).abs() <= SAME * x.abs().clamp(min=1), x.round(), x)
        before = x.nextafter(torch.full_like(x, -math.inf)) if self.atomic else x  # whose own mass is not above
        if can_be_read(self.rises):
            if bool(self.rises.all()):
                return rising(x)  # type: ignore[no-any-return]
            if not bool(self.rises.any()):
                return falling(before)  # type: ignore[no-any-return]
        return torch.where(self.rises, rising(x), falling(before))

    @torch.no_grad()
    def _rises(self) -> Tensor:
        """Whether the value rises with that of the base: between two of its quantiles."""
        like = self.base.bounds()[0]
        low, high = (self.base.icdf(like.new_full((), q)) for q in (0.001, 0.999))
        for transform in self.p.transforms:
            low, high = transform(low), transform(high)
        return high >= low


class Folded(Law):
    """F(y) = F_base(y) − F_base(−y)."""

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.base = law(p.base_dist)
        self.size = 2 * self.base.size

    def below(self, y: Tensor) -> Tensor:
        return self.base.cdf(y) - self.base.cdf(-y)

    def above(self, y: Tensor) -> Tensor:
        return self.base.survival(y) + self.base.cdf(-y)


class ZeroInflated(Law):
    """F(k) = gate + (1 − gate) F_base(k)."""

    atomic = integers = True

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.base = law(p.base_dist)
        self.size = self.base.size

    def bounds(self) -> tuple[Tensor, Tensor]:
        low, high = self.base.bounds()
        return low.clamp(max=0), high.clamp(min=0)

    def below(self, y: Tensor) -> Tensor:
        gate = self.p.gate
        return gate * (y >= 0) + (1 - gate) * self.base.cdf(y)  # type: ignore[no-any-return]


class Either(Law):
    """Of two laws the one that a mask says."""

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.members = law(p.component0), law(p.component1)
        self.atomic = any(m.atomic for m in self.members)
        self.integers = all(m.integers for m in self.members)
        self.size = 2 * max(m.size for m in self.members)

    def bounds(self) -> tuple[Tensor, Tensor]:
        (low0, high0), (low1, high1) = (m.bounds() for m in self.members)
        return torch.where(self.p.mask, low1, low0), torch.where(self.p.mask, high1, high0)

    def below(self, y: Tensor) -> Tensor:
        return self._chosen("cdf", y)

    def above(self, y: Tensor) -> Tensor:
        return self._chosen("survival", y)

    def at(self, q: Tensor) -> Tensor:
        return self._chosen("icdf", q)

    def _chosen(self, name: str, value: Tensor) -> Tensor:
        first, second = (getattr(m, name)(value) for m in self.members)
        return torch.where(self.p.mask, second, first)

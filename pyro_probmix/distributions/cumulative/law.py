"""What a scalar law says of its shares, and the registry of the families that have them in closed form."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.landmarks import bounds, landmarks
from pyro_probmix.distributions.supports import elementwise
from pyro_probmix.ops.blocks import BLOCK
from pyro_probmix.ops.roots import increasing_root, least_integer
from pyro_probmix.ops.values import can_be_read, differentiated

__all__ = ["LAWS", "Law", "law_type", "shares_of"]


class Law(ABC):
    """The shares of the mass of a scalar distribution in double precision that are below or above a value.

    A subclass supplies :meth:`below`, and where they are known :meth:`above` and :meth:`at`, of what is inside of the
    support. Values and shares broadcast with the batch.

    Args:
        p: a distribution of event shape () in double precision, that checks no values.
    """

    atomic = False
    """Whether single values may have mass."""
    integers = False
    """Whether values are integers."""
    size = 1
    """How many numbers a share is made of."""
    values: Any = None
    """The only values with mass, in order along the last dimension, where they are no integers."""

    def __init__(self, p: Any) -> None:
        self.p = p

    @functools.cached_property
    def unbounded(self) -> bool:
        """Whether every finite value is in the support, and none has mass."""
        return not self.atomic and elementwise(self.p.support) is constraints.real

    @abstractmethod
    def below(self, y: Tensor) -> Tensor:
        """F(y), for values in the support."""

    def above(self, y: Tensor) -> Tensor:
        """1 − F(y), for values in the support."""
        return 1 - self.below(y)

    def at(self, q: Tensor) -> Tensor:
        """The least value whose F is q or more, for shares between 0 and 1."""
        with torch.no_grad():
            y = self._by_rows(self._root, q.detach()).detach()
        return y if self.atomic or not torch.is_grad_enabled() else self._attached(y, q)

    def bracket(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Values between which that is which :meth:`at` seeks."""
        edges, shares = self._table
        shares = shares.reshape(shares.shape[:1] + (1,) * (q.dim() - shares.dim() + 1) + shares.shape[1:])
        index = (shares < q).sum(0)  # of the last edge that is below
        left, right = (_pick(edges, index + k) for k in (0, 1))
        return left, right

    @functools.cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        """The ends of the support and landmarks between them, in order along the first dimension; F at the latter."""
        low, high = (end.unsqueeze(-1) for end in self.bounds())
        points = landmarks(self.p)
        points = torch.where(points > low, points.minimum(high), low)
        points = (points.floor() if self.integers else points).sort(-1).values.movedim(-1, 0)
        return torch.cat([low.movedim(-1, 0), points, high.movedim(-1, 0)]), self.cdf(points)

    def log_density(self, y: Tensor) -> Tensor:
        """log p(y), for values in the support."""
        return self.p.log_prob(y)  # type: ignore[no-any-return]

    def density(self, y: Tensor, finite: bool = False) -> Tensor:
        """p(y), of any values; its limit at a finite end of the support."""

        def density(y: Tensor) -> Tensor:
            if finite and self.unbounded:
                return self.log_density(y).exp()
            low, high = self.bounds()
            outside = ~((y >= low) & (y <= high) & y.isfinite())
            density = self.log_density(torch.where(outside, _inside(low, high, self.integers), y)).exp()
            return torch.where(outside | density.isnan(), 0, density)

        return self._by_rows(density, y)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The ends of the support."""
        return bounds(self.p)

    def cdf(self, y: Tensor, finite: bool = False) -> Tensor:
        """F(y), of any values; ``finite`` if all of them are known to be."""
        return self._guarded(self.below, y, 0.0, 1.0, finite)

    def survival(self, y: Tensor, finite: bool = False) -> Tensor:
        """1 − F(y), of any values."""
        return self._guarded(self.above, y, 1.0, 0.0, finite)

    def icdf(self, q: Tensor) -> Tensor:
        """The least value whose F is q or more: the ends of the support at 0 and 1, NaN beyond."""
        low, high = self.bounds()
        end = (q <= 0) | (q >= 1)
        y = self.at(q.masked_fill(end, 0.5))
        y = torch.where(end, torch.where(q <= 0, low, high), y + 0 * q.detach())  # NaN stays
        with torch.no_grad():
            unknown = self.below(_inside(low, high, self.integers)).isnan()
        return torch.where(unknown | (q < 0) | (q > 1), math.nan, y)

    def _guarded(
        self, hook: Callable[[Tensor], Tensor], y: Tensor, before: float, after: float, finite: bool
    ) -> Tensor:
        def guarded(y: Tensor) -> Tensor:
            if finite and self.unbounded:
                return hook(y)
            low, high = self.bounds()
            under, over = y < low if self.atomic else y <= low, y >= high
            share = hook(torch.where(under | over | y.isnan(), _inside(low, high, self.integers), y))
            share = torch.where(under, before, torch.where(over, after, share))
            return torch.where(y.isnan(), math.nan, share)

        return self._by_rows(guarded, y)

    def _by_rows(self, function: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        """A function of values that broadcast with the batch, in blocks along what is in front of it.

        What has derivatives is not divided; whether that is so, one of many rows tells.
        """
        shape = torch.broadcast_shapes(given.shape, self.p.batch_shape)
        front = len(shape) - len(self.p.batch_shape)
        rows = max(1, BLOCK // max(1, self.size * shape[front:].numel()))
        if shape[:front].numel() <= rows:
            return function(given)
        flat = given.expand(shape).reshape((-1, *shape[front:]))
        if torch.is_grad_enabled():
            if differentiated(function(flat[:1])):
                return function(given)
            with torch.no_grad():
                return self._by_rows(function, given)
        return torch.cat([function(block) for block in flat.split(rows)]).reshape(shape)

    def _root(self, q: Tensor) -> Tensor:
        ends = q, *self.bracket(q), self.bounds()[0]
        q, low, high, origin = torch.broadcast_tensors(*ends)
        looks = all(map(can_be_read, (q, low, high)))
        if self.integers:
            return least_integer(lambda k: self.cdf(k) >= q, low - 1, high, looks)
        return increasing_root(self.cdf, None if self.atomic else self.density, q, low, high, origin, looks)

    def _attached(self, y: Tensor, q: Tensor) -> Tensor:
        """The root with its derivatives: F(y; θ) = q, so dy = (dq − ∂F/∂θ dθ) / p(y)."""
        share = self.cdf(y)
        if not (differentiated(share) or differentiated(q)):
            return y
        with torch.no_grad():
            density = self.density(y)
            inside = (density > 0) & density.isfinite()
        moved = (q - q.detach()) - (share - share.detach())
        return y + torch.where(inside, moved / torch.where(inside, density, 1), 0)


def _pick(edges: Tensor, index: Tensor) -> Tensor:
    """Of edges of shape (N,) + batch those of an index, whose last dimensions are those of the batch."""
    edges = edges.reshape(edges.shape[:1] + (1,) * (index.dim() - edges.dim() + 1) + edges.shape[1:])
    return edges.expand(edges.shape[:1] + index.shape).gather(0, index.unsqueeze(0)).squeeze(0)


def _inside(low: Tensor, high: Tensor, integers: bool) -> Tensor:
    """A value of the support, from which no gradient comes."""
    low, high = low.detach(), high.detach()
    below, above = low.isfinite(), high.isfinite()
    if integers:
        return torch.where(below, low, torch.where(above, high, 0))
    one_sided = torch.where(below, low + low.abs().clamp(min=1), high - high.abs().clamp(min=1))
    both = torch.where(below & above, 0.5 * (low + high), one_sided)
    return torch.where(below | above, both, 0)


KNOWN = "torch.", "pyro.", corrected.__module__.removesuffix("corrected")

LAWS: dict[type, type[Law]] = {}
"""From a type of distribution to its shares in closed form."""


def shares_of(*types: type) -> Callable[[type[Law]], type[Law]]:
    """Class decorator: these are the shares of distributions of these types, and of derived ones of the same law."""

    def register(cls: type[Law]) -> type[Law]:
        LAWS.update(dict.fromkeys(types, cls))
        return cls

    return register


def law_type(cls: type) -> type[Law] | None:
    """The shares of distributions of a type, None where they are not known in closed form.

    A subclass with a ``log_prob`` of its own is another law, unless it is one here.
    """
    if not cls.log_prob.__module__.startswith(KNOWN):  # type: ignore[attr-defined]
        return None
    return next((LAWS[base] for base in cls.__mro__ if base in LAWS), None)

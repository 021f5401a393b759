"""Families whose support moves with their parameters: a pool lives where all its components do.

Where the support is fixed they are exponential families, of one natural parameter or of none; the ends of the
support are usual parameters of which the pool takes the intersection, so components need not agree on them. A
component of weight zero does not count, and one of negative weight must be positive wherever the pool is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    masked_sum,
    register_family,
    restore_members,
    sum_products,
    unsqueeze_right,
)

__all__ = ["DeltaFamily", "ParetoFamily", "UniformFamily"]


@register_family(torch.distributions.Uniform)
class UniformFamily(ExponentialFamily):
    """Uniform: no natural parameter, A = log(high − low), h = 1 on the support; pooled to the common support."""

    constructor = dist.Uniform
    names = ("low", "high")
    parameter_dims = (0, 0)
    natural_dims = ()

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return ()

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return self.parameters(p)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        width = parameters[1] - parameters[0]
        empty = width <= 0  # of a pool of such that do not overlap
        return torch.where(empty, 1, width).log().masked_fill(empty, -math.inf)

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return ()

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        return ()

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return super().base_measure(p, y).masked_fill((y < p.low) | (y >= p.high), -math.inf)

    def constant_base(self, p: Any) -> bool:
        return True  # on the support

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        lows = [torch.where(w > 0, low, -math.inf) for w, (low, _) in zip(weights, parameters, strict=True)]
        highs = [torch.where(w > 0, high, math.inf) for w, (_, high) in zip(weights, parameters, strict=True)]
        return reduce(torch.maximum, lows), reduce(torch.minimum, highs)

    def product(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        low, high = self.pool(p, parameters, weights)
        for w, (other_low, other_high) in zip(weights, parameters, strict=True):
            missed = (w < 0) & ((other_low > low) | (other_high < high))  # there the product is infinite
            low, high = low.masked_fill(missed, -math.inf), high.masked_fill(missed, math.inf)
        return low, high

    def outside(self, p: Distribution, parameters: Sequence[Tensor]) -> str | None:
        low, high = parameters
        return _first(~(low < high), lambda: f"an empty interval, low {(low - high).max().item():.3g} above high")

    def improper(self, p: Distribution, parameters: Sequence[Tensor]) -> str | None:
        return _first(~(parameters[1] - parameters[0]).isfinite(), lambda: "an interval without end")

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        inside = (q.low <= p.low) & (p.high <= q.high)
        return torch.where(inside, self.normalizer(q, q.low, q.high), math.inf)


@register_family(torch.distributions.Pareto)
class ParetoFamily(ExponentialFamily):
    """Pareto: η = −alpha − 1, T(y) = log y, h = 1 on y ≥ scale; pooled to the largest scale."""

    constructor = dist.Pareto
    names = ("scale", "alpha")
    parameter_dims = (0, 0)
    natural_dims = (0,)

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (-parameters[1] - 1,)

    def from_natural(self, p: Any, *eta: Tensor) -> tuple[Tensor, ...]:
        return p.scale, -eta[0] - 1

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        scale, alpha = parameters
        return -alpha.log() - alpha * scale.log()

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y.log(),)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        return (p.scale.log() + p.alpha.reciprocal(),)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return super().base_measure(p, y).masked_fill(y < p.scale, -math.inf)

    def constant_base(self, p: Any) -> bool:
        return True  # on the support

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        scales = [torch.where(w > 0, scale, 0) for w, (scale, _) in zip(weights, parameters, strict=True)]
        return reduce(torch.maximum, scales), sum_products([alpha for _, alpha in parameters], weights)

    def product(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        scale, _ = self.pool(p, parameters, weights)
        for w, (other, _) in zip(weights, parameters, strict=True):
            scale = scale.masked_fill((w < 0) & (other > scale), math.nan)
        return scale, masked_sum([alpha + 1 for _, alpha in parameters], weights) - 1

    def pooling_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        scale, alpha = self.pool(p, parameters, weights)
        terms = [alpha.log() - a.log() + a * (scale.log() - s.log()) for s, a in parameters]
        return masked_sum(terms, weights)

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        distance = p.scale.log() - q.scale.log()
        entropy = p.scale.log() - q.alpha.log() + q.alpha * distance + (q.alpha + 1) / p.alpha
        return torch.where(p.scale >= q.scale, entropy, math.inf)


@register_family(dist.Delta)
class DeltaFamily(ExponentialFamily):
    """Delta: no natural parameter, A = −log_density, h = 1 at the point; components must agree on the point.

    Log-densities, the log-Jacobians of a point under a bijection, are averaged by the weights.
    """

    constructor = dist.Delta
    names = ("v", "log_density")

    def dims(self, p: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (p.event_dim, 0), ()

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        v, log_density = parameters
        batch_shape = torch.broadcast_shapes(v.shape[: v.dim() - p.event_dim], log_density.shape)
        v = v.expand(batch_shape + v.shape[v.dim() - p.event_dim :])
        member = dist.Delta(v, log_density.expand(batch_shape), p.event_dim, validate_args=False)
        member._validate_args = p._validate_args
        return member

    def map_batch(self, p: Any, function: Callable[[Tensor, int], Tensor]) -> Any:
        return self.build(p, [function(p.v, p.event_dim), function(p.log_density, 0)])

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return ()

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return self.parameters(p)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return -parameters[1]

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return ()

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        return ()

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return super().base_measure(p, y).masked_fill(_differ(p, y, p.v), -math.inf)

    def pool(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        points, found = parameters[0][0], weights[0] != 0
        apart = torch.zeros_like(found)
        for w, (v, _) in zip(weights[1:], parameters[1:], strict=True):
            apart = apart | (found & (w != 0) & _differ(p, v, points))
            points = torch.where(unsqueeze_right(found, p.event_dim), points, v)
            found = found | (w != 0)
        nowhere = apart | ~found
        if points.is_floating_point():  # told by `outside`: under vmap no value can be read
            points = points.masked_fill(unsqueeze_right(nowhere, p.event_dim), math.nan)
        elif nowhere.any():
            raise ValueError(f"components: expected a common support, got a pool with {_first(nowhere, _no_point)}")
        log_density = masked_sum([t for _, t in parameters], weights)
        (log_density,) = restore_members((log_density,), [(t,) for _, t in parameters], weights, (0,))
        return points, log_density.masked_fill(nowhere, math.inf)  # with that, ξ is infinite

    def constant_base(self, p: Any) -> bool:
        return True  # at the point

    def product(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.pool(p, parameters, weights)

    def outside(self, p: Any, parameters: Sequence[Tensor]) -> str | None:
        points = parameters[0]
        return _first(_differ(p, points, points), _no_point)

    def improper(self, p: Distribution, parameters: Sequence[Tensor]) -> str | None:
        return None

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        return -q.log_prob(p.v)


def _no_point() -> str:
    return "an empty set of points, as they differ or no weight is left"


def _differ(p: Any, a: Tensor, b: Tensor) -> Tensor:
    differ = a != b
    return differ.flatten(-p.event_dim).any(-1) if p.event_dim else differ


def _first(bad: Tensor, problem: Callable[[], str]) -> str | None:
    """The problem, and the first rows of the batch that have it; None if none has."""
    if not bad.any():
        return None
    rows = [index[0] if len(index) == 1 else tuple(index) for index in bad.nonzero().tolist()[:5]]
    return problem() + (f", at batch index {', '.join(map(str, rows))}" if bad.dim() else "")

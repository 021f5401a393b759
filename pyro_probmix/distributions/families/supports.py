"""Families whose support moves with their parameters: a pool lives where all its components do.

Where the support is fixed they are exponential families, of one natural parameter or of none; the ends of the
support are usual parameters of which the pool takes the intersection, so components need not agree on them. A
component of weight zero does not count, and one of negative weight must be positive wherever the pool is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix._checks import at_index
from pyro_probmix.distributions.exponential_family import ExponentialFamily, Members, Tensors, register_family
from pyro_probmix.ops.sums import masked_sum, restore_members, sum_products, unsqueeze_right

__all__ = ["DeltaFamily", "ParetoFamily", "UniformFamily"]

NO_POINT = "an empty set of points, as they differ or no weight is left"


class _FlatFamily(ExponentialFamily):
    """Laws without a natural parameter."""

    def to_natural(self, *parameters: Any, **by_name: Any) -> Tensors:
        return ()

    def from_natural(self, *eta: Any, **by_name: Any) -> Tensors:
        return self.parameters

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return ()

    def expected_sufficient_statistics(self, *parameters: Any, **by_name: Any) -> Tensors:
        return ()


@register_family(torch.distributions.Uniform)
class UniformFamily(_FlatFamily):
    """Uniform: no natural parameter, A = log(high − low), h = 1 on the support; pooled to the common support."""

    constructor = dist.Uniform
    parameter_dims = (0, 0)
    natural_dims = ()
    constant_base = True  # on the support

    def log_normalizer(self, low: Tensor, high: Tensor) -> Tensor:
        width = high - low
        empty = width <= 0  # of a pool of such that do not overlap
        return torch.where(empty, 1, width).log().masked_fill(empty, -math.inf)

    def log_base_measure(self, y: Tensor) -> Tensor:
        return super().log_base_measure(y).masked_fill((y < self.p.low) | (y >= self.p.high), -math.inf)

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        lows = [torch.where(w > 0, low, -math.inf) for w, (low, _) in zip(weights, members, strict=True)]
        highs = [torch.where(w > 0, high, math.inf) for w, (_, high) in zip(weights, members, strict=True)]
        low, high = reduce(torch.maximum, lows), reduce(torch.minimum, highs)
        for w, (other_low, other_high) in () if simplex else zip(weights, members, strict=True):
            missed = (w < 0) & ((other_low > low) | (other_high < high))  # there the product is infinite
            low, high = low.masked_fill(missed, -math.inf), high.masked_fill(missed, math.inf)
        return low, high

    def domain_error(self, parameters: Sequence[Tensor], inside: bool = False) -> str | None:
        low, high = parameters
        if (bad := ~(low < high)).any():
            return f"an empty interval, low {(low - high).max().item():.3g} above high{at_index(bad)}"
        bad = ~(high - low).isfinite()
        return f"an interval without end{at_index(bad)}" if inside and bad.any() else None

    def cross_entropy(self, other: Any) -> Tensor:
        p, q = self.p, other.p
        inside = (q.low <= p.low) & (p.high <= q.high)
        return torch.where(inside, other.log_normalizer(q.low, q.high), math.inf)


@register_family(torch.distributions.Pareto)
class ParetoFamily(ExponentialFamily):
    """Pareto: η = −alpha − 1, T(y) = log y, h = 1 on y ≥ scale; pooled to the largest scale."""

    constructor = dist.Pareto
    natural_dims = (0,)
    constant_base = True  # on the support

    def to_natural(self, scale: Tensor, alpha: Tensor) -> Tensors:
        return (-alpha - 1,)

    def from_natural(self, eta: Tensor) -> Tensors:
        return self.p.scale, -eta - 1

    def log_normalizer(self, scale: Tensor, alpha: Tensor) -> Tensor:
        return -alpha.log() - alpha * scale.log()

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (y.log(),)

    def expected_sufficient_statistics(self, scale: Tensor, alpha: Tensor) -> Tensors:
        return (scale.log() + alpha.reciprocal(),)

    def log_base_measure(self, y: Tensor) -> Tensor:
        return super().log_base_measure(y).masked_fill(y < self.p.scale, -math.inf)

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        scales = [torch.where(w > 0, scale, 0) for w, (scale, _) in zip(weights, members, strict=True)]
        scale = reduce(torch.maximum, scales)
        if simplex:
            return scale, sum_products([alpha for _, alpha in members], weights)
        for w, (other, _) in zip(weights, members, strict=True):
            scale = scale.masked_fill((w < 0) & (other > scale), math.nan)
        return scale, masked_sum([alpha + 1 for _, alpha in members], weights) - 1

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        if not simplex:
            return super().pooling_normalizer(members, weights, simplex)
        scale, alpha = self.pool(members, weights)
        terms = [alpha.log() - a.log() + a * (scale.log() - s.log()) for s, a in members]
        return masked_sum(terms, weights)

    def cross_entropy(self, other: Any) -> Tensor:
        p, q = self.p, other.p
        distance = p.scale.log() - q.scale.log()
        entropy = p.scale.log() - q.alpha.log() + q.alpha * distance + (q.alpha + 1) / p.alpha
        return torch.where(p.scale >= q.scale, entropy, math.inf)


@register_family(dist.Delta)
class DeltaFamily(_FlatFamily):
    """Delta: no natural parameter, A = −log_density, h = 1 at the point; components must agree on the point.

    Log-densities, the log-Jacobians of a point under a bijection, are averaged by the weights.
    """

    constructor = dist.Delta
    parameter_dims: tuple[int, ...] = ()
    constant_base = True  # at the point

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.parameter_dims = p.event_dim, 0

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        v, log_density = parameters
        dims = self.p.event_dim
        batch_shape = torch.broadcast_shapes(v.shape[: v.dim() - dims], log_density.shape)
        v = v.expand(batch_shape + v.shape[v.dim() - dims :])
        member = dist.Delta(v, log_density.expand(batch_shape), dims, validate_args=False)
        member._validate_args = self.p._validate_args
        return member

    def log_normalizer(self, v: Tensor, log_density: Tensor) -> Tensor:
        return -log_density

    def log_base_measure(self, y: Tensor) -> Tensor:
        return super().log_base_measure(y).masked_fill(self._differ(y, self.p.v), -math.inf)

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        points, found = members[0][0], weights[0] != 0
        apart = torch.zeros_like(found)
        for w, (v, _) in zip(weights[1:], members[1:], strict=True):
            apart = apart | (found & (w != 0) & self._differ(v, points))
            points = torch.where(unsqueeze_right(found, self.p.event_dim), points, v)
            found = found | (w != 0)
        nowhere = apart | ~found
        if points.is_floating_point():  # told by `domain_error`: under vmap no value can be read
            points = points.masked_fill(unsqueeze_right(nowhere, self.p.event_dim), math.nan)
        elif nowhere.any():
            raise ValueError(f"components: expected a common support, got a pool with {NO_POINT}{at_index(nowhere)}")
        log_density = masked_sum([t for _, t in members], weights)
        (log_density,) = restore_members((log_density,), [(t,) for _, t in members], weights, (0,))
        return points, log_density.masked_fill(nowhere, math.inf)  # with that, ξ is infinite

    def domain_error(self, parameters: Sequence[Tensor], inside: bool = False) -> str | None:
        bad = self._differ(parameters[0], parameters[0])
        return f"{NO_POINT}{at_index(bad)}" if bad.any() else None

    def cross_entropy(self, other: Any) -> Tensor:
        return -other.p.log_prob(self.p.v)

    def _differ(self, a: Tensor, b: Tensor) -> Tensor:
        differ = a != b
        return differ.flatten(-self.p.event_dim).any(-1) if self.p.event_dim else differ

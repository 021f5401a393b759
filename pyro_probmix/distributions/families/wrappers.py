"""Wrappers: the natural form of what they wrap, with the wrapper put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    equal_values,
    exponential_family,
    plain,
    register_family,
    sum_right,
    unsqueeze_right,
)
from pyro_probmix.distributions.families._jacobians import expected_log_jacobian
from pyro_probmix.distributions.held_tensors import check_shared_transforms

__all__ = ["IndependentFamily", "MaskedFamily", "TransformedFamily"]


class _WrapperFamily(ExponentialFamily):
    """Every hook recurses into ``base_dist``; a wrapper says only what it adds."""

    def inner(self, p: Any) -> tuple[ExponentialFamily, Any]:
        base = plain(p.base_dist)
        return exponential_family(base), base

    def check(self, p: Any) -> None:
        self.inner(p)

    def to_natural(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return family.to_natural(base, *parameters)

    def from_natural(self, p: Any, *eta: Tensor) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return family.from_natural(base, *eta)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        family, base = self.inner(p)
        return family.normalizer(base, *parameters)

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return family.statistics(base, y)

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return family.moments(base)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        family, base = self.inner(p)
        return family.base_measure(base, y)

    def parameters(self, p: Any) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return family.parameters(base)

    def dims(self, p: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        family, base = self.inner(p)
        return family.dims(base)

    def canonical(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return family.canonical(base, *parameters)

    def outside(self, p: Any, parameters: Sequence[Tensor]) -> str | None:
        family, base = self.inner(p)
        return family.outside(base, parameters)

    def improper(self, p: Any, parameters: Sequence[Tensor]) -> str | None:
        family, base = self.inner(p)
        return family.improper(base, parameters)

    def same(self, p: Any, q: Any) -> str | None:
        (family, base), (other, other_base) = self.inner(p), self.inner(q)
        if family is not other:
            return f"one family, got {type(base).__name__} and {type(other_base).__name__}"
        return family.same(base, other_base)

    def pool(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return family.pool(base, parameters, weights)

    def pooling_normalizer(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        family, base = self.inner(p)
        return family.pooling_normalizer(base, parameters, weights)

    def constant_base(self, p: Any) -> bool:
        family, base = self.inner(p)
        return family.constant_base(base)

    def product(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        family, base = self.inner(p)
        return family.product(base, parameters, weights)

    def product_normalizer(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        family, base = self.inner(p)
        return family.product_normalizer(base, parameters, weights)

    def diverges(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        family, base = self.inner(p)
        return family.diverges(base, parameters, weights)

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        family, base = self.inner(p)
        return family.cross_entropy(base, plain(q.base_dist))

    def expected_log_ratio(self, law: Any, p: Any, q: Any) -> Tensor:
        family, base = self.inner(law)
        return family.expected_log_ratio(base, plain(p.base_dist), plain(q.base_dist))


@register_family(torch.distributions.Independent)
class IndependentFamily(_WrapperFamily):
    """Independent: the base's natural form, its rightmost batch dimensions being event dimensions."""

    def dims(self, p: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        parameter_dims, natural_dims = super().dims(p)
        ndims = p.reinterpreted_batch_ndims
        return tuple(d + ndims for d in parameter_dims), tuple(d + ndims for d in natural_dims)

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        family, base = self.inner(p)
        return dist.Independent(family.build(base, parameters), p.reinterpreted_batch_ndims)

    def map_batch(self, p: Any, function: Callable[[Tensor, int], Tensor]) -> Any:
        family, base = self.inner(p)
        ndims = p.reinterpreted_batch_ndims
        return dist.Independent(family.map_batch(base, lambda t, d: function(t, d + ndims)), ndims)

    def same(self, p: Any, q: Any) -> str | None:
        ndims = p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims
        if ndims[0] != ndims[1]:
            return f"one number of reinterpreted batch dimensions, got {ndims[0]} and {ndims[1]}"
        return super().same(p, q)

    def pool(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return super().pool(p, parameters, [unsqueeze_right(w, p.reinterpreted_batch_ndims) for w in weights])

    def pooling_normalizer(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        ndims = p.reinterpreted_batch_ndims
        normalizers = super().pooling_normalizer(p, parameters, [unsqueeze_right(w, ndims) for w in weights])
        return sum_right(normalizers, ndims)

    def product(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return super().product(p, parameters, [unsqueeze_right(w, p.reinterpreted_batch_ndims) for w in weights])

    def product_normalizer(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        ndims = p.reinterpreted_batch_ndims
        normalizers = super().product_normalizer(p, parameters, [unsqueeze_right(w, ndims) for w in weights])
        return sum_right(normalizers, ndims)

    def diverges(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        ndims = p.reinterpreted_batch_ndims
        result = super().diverges(p, parameters, [unsqueeze_right(w, ndims) for w in weights])
        return result.flatten(-ndims).any(-1)

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        return sum_right(super().normalizer(p, *parameters), p.reinterpreted_batch_ndims)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        return sum_right(super().base_measure(p, y), p.reinterpreted_batch_ndims)

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        return sum_right(super().cross_entropy(p, q), p.reinterpreted_batch_ndims)

    def expected_log_ratio(self, law: Any, p: Any, q: Any) -> Tensor:
        return sum_right(super().expected_log_ratio(law, p, q), law.reinterpreted_batch_ndims)


@register_family(dist.MaskedDistribution)
class MaskedFamily(_WrapperFamily):
    """MaskedDistribution: the base's natural form; a pool counts where every component does."""

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        family, base = self.inner(p)
        return dist.MaskedDistribution(family.build(base, parameters), p._mask)

    def map_batch(self, p: Any, function: Callable[[Tensor, int], Tensor]) -> Any:
        family, base = self.inner(p)
        mask = function(p._mask, 0) if isinstance(p._mask, Tensor) else p._mask
        return dist.MaskedDistribution(family.map_batch(base, function), mask)

    def same(self, p: Any, q: Any) -> str | None:
        # Masks that are not wrapped themselves are taken off before components are compared.
        if not equal_values(p._mask, q._mask, wait=True):
            return "equal masks inside a wrapper, or masks outside of it, got different masks"
        return super().same(p, q)


@register_family(torch.distributions.TransformedDistribution, dist.TransformedDistribution, exact=True)
class TransformedFamily(_WrapperFamily):
    """TransformedDistribution: the base's natural form in the untransformed value, h being the Jacobian."""

    def check(self, p: Any) -> None:
        for transform in p.transforms:
            if not transform.bijective:
                raise TypeError(
                    f"TransformedDistribution has no natural form under {transform}: expected bijections only"
                )
        super().check(p)

    def constant_base(self, p: Any) -> bool:
        return False

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        family, base = self.inner(p)
        return self._wrap(p, family.build(base, parameters))

    def map_batch(self, p: Any, function: Callable[[Tensor, int], Tensor]) -> Any:
        check_shared_transforms(p)
        family, base = self.inner(p)
        return self._wrap(p, family.map_batch(base, function))

    def _wrap(self, p: Any, base: Any) -> Any:
        return dist.TransformedDistribution(base, p.transforms, validate_args=p._validate_args)

    def same(self, p: Any, q: Any) -> str | None:
        if len(p.transforms) != len(q.transforms) or any(
            a is not b and a != b for a, b in zip(p.transforms, q.transforms, strict=True)
        ):
            return f"equal transforms, got {p.transforms} and {q.transforms}"
        return super().same(p, q)

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        for transform in reversed(p.transforms):
            y = transform.inv(y)
        return super().statistics(p, y)

    def base_measure(self, p: Any, y: Tensor) -> Tensor:
        event_dim = len(p.event_shape)
        log_h: Tensor | float = 0.0
        for transform in reversed(p.transforms):
            x = transform.inv(y)
            event_dim += transform.domain.event_dim - transform.codomain.event_dim
            log_jacobian = transform.log_abs_det_jacobian(x, y)
            log_h = log_h - sum_right(log_jacobian, event_dim - transform.domain.event_dim)
            y = x
        return super().base_measure(p, y) + log_h

    def cross_entropy(self, p: Any, q: Any) -> Tensor:
        return super().cross_entropy(p, q) + expected_log_jacobian(p.transforms, self.inner(p)[1])

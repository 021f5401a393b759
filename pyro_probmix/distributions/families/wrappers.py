"""Wrappers and bijections: the natural form of what they wrap, with the wrapper put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    Members,
    Tensors,
    exponential_family,
    register_family,
)
from pyro_probmix.distributions.families.jacobians import expected_log_jacobian
from pyro_probmix.distributions.selection import map_batch
from pyro_probmix.distributions.transforms import map_transforms
from pyro_probmix.ops.sums import sum_right, unsqueeze_right
from pyro_probmix.ops.values import equal_values

__all__ = [
    "AffineBetaFamily",
    "IndependentFamily",
    "LogisticNormalFamily",
    "MaskedFamily",
    "TransformedFamily",
    "WrapperFamily",
]


class WrapperFamily(ExponentialFamily):
    """Whatever a wrapper does not say itself is said by ``base``, the natural form of its ``base_dist``."""

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.base = exponential_family(p.base_dist)
        self.parameter_dims, self.natural_dims = self.base.parameter_dims, self.base.natural_dims
        self.constant_base = self.base.constant_base

    @property
    def parameters(self) -> Tensors:
        return self.base.parameters

    def wrap(self, base: Any) -> Any:
        """This wrapper around another base."""
        raise NotImplementedError

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        return self.wrap(self.base.build(parameters))

    def map_batch(self, function: Callable[[Tensor, int], Tensor]) -> Any:
        return self.wrap(self.base.map_batch(function))

    def mismatch(self, other: Any) -> str | None:
        if type(self.base) is not type(other.base):
            return f"one family, got {type(self.base.p).__name__} and {type(other.base.p).__name__}"
        return self.base.mismatch(other.base)

    def cross_entropy(self, other: Any) -> Tensor:
        return self.base.cross_entropy(other.base)

    def expected_log_ratio(self, p: Any, q: Any) -> Tensor:
        return self.base.expected_log_ratio(p.base, q.base)


def _of_base(name: str) -> Any:
    def hook(self: Any, *arguments: Any, **by_name: Any) -> Any:
        return getattr(self.base, name)(*arguments, **by_name)

    return hook


for _name in (
    "to_natural",
    "from_natural",
    "log_normalizer",
    "sufficient_statistics",
    "expected_sufficient_statistics",
    "log_base_measure",
    "expected_log_base_measure",
    "canonical",
    "domain_error",
    "pool",
    "pooling_normalizer",
    "diverges",
):
    setattr(WrapperFamily, _name, _of_base(_name))


@register_family(torch.distributions.Independent)
class IndependentFamily(WrapperFamily):
    """Independent: the base's natural form, its rightmost batch dimensions being event dimensions."""

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        self.ndims = p.reinterpreted_batch_ndims
        self.parameter_dims = tuple(d + self.ndims for d in self.parameter_dims)
        self.natural_dims = tuple(d + self.ndims for d in self.natural_dims)

    @property
    def varies_by_parameters(self) -> bool:
        return self.base.varies_by_parameters

    def wrap(self, base: Any) -> Any:
        return dist.Independent(base, self.ndims)

    def map_batch(self, function: Callable[[Tensor, int], Tensor]) -> Any:
        return super().map_batch(lambda t, d: function(t, d + self.ndims))

    def mismatch(self, other: Any) -> str | None:
        if self.ndims != other.ndims:
            return f"one number of reinterpreted batch dimensions, got {self.ndims} and {other.ndims}"
        return super().mismatch(other)

    def _of_entries(self, weights: Sequence[Tensor]) -> list[Tensor]:
        return [unsqueeze_right(w, self.ndims) for w in weights]

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        return super().pool(members, self._of_entries(weights), simplex)

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        return sum_right(super().pooling_normalizer(members, self._of_entries(weights), simplex), self.ndims)

    def diverges(self, members: Members, weights: Sequence[Tensor]) -> Tensor:
        return super().diverges(members, self._of_entries(weights)).flatten(-self.ndims).any(-1)

    def log_normalizer(self, *parameters: Any, **by_name: Any) -> Tensor:
        return sum_right(super().log_normalizer(*parameters), self.ndims)

    def log_base_measure(self, y: Tensor) -> Tensor:
        return sum_right(super().log_base_measure(y), self.ndims)

    def cross_entropy(self, other: Any) -> Tensor:
        return sum_right(super().cross_entropy(other), self.ndims)

    def expected_log_ratio(self, p: Any, q: Any) -> Tensor:
        return sum_right(super().expected_log_ratio(p, q), self.ndims)


@register_family(dist.MaskedDistribution)
class MaskedFamily(WrapperFamily):
    """MaskedDistribution: the base's natural form; a pool counts where every component does."""

    def wrap(self, base: Any) -> Any:
        return dist.MaskedDistribution(base, self.p._mask)

    def map_batch(self, function: Callable[[Tensor, int], Tensor]) -> Any:
        mask = function(self.p._mask, 0) if isinstance(self.p._mask, Tensor) else self.p._mask
        return dist.MaskedDistribution(self.base.map_batch(function), mask)

    def mismatch(self, other: Any) -> str | None:
        # Masks that are not wrapped themselves are taken off before components are compared.
        if not equal_values(self.p._mask, other.p._mask, wait=True):
            return "equal masks inside a wrapper, or masks outside of it, got different masks"
        return super().mismatch(other)


@register_family(torch.distributions.TransformedDistribution, dist.TransformedDistribution, exact=True)
class TransformedFamily(WrapperFamily):
    """TransformedDistribution: the base's natural form in the untransformed value, h being the Jacobian."""

    def __init__(self, p: Any) -> None:
        for transform in p.transforms:
            if not transform.bijective:
                raise TypeError(
                    f"TransformedDistribution has no natural form under {transform}: expected bijections only"
                )
        super().__init__(p)
        self.constant_base = False

    def wrap(self, base: Any) -> Any:
        return dist.TransformedDistribution(base, self.p.transforms, validate_args=self.p._validate_args)

    def map_batch(self, function: Callable[[Tensor, int], Tensor]) -> Any:
        transforms = map_transforms(self.p, lambda part, d: map_batch(part, function, d))
        return type(self.p)(self.base.map_batch(function), transforms, validate_args=self.p._validate_args)

    def mismatch(self, other: Any) -> str | None:
        ours, theirs = self.p.transforms, other.p.transforms
        if len(ours) != len(theirs) or any(a is not b and a != b for a, b in zip(ours, theirs, strict=True)):
            return f"equal transforms, got {ours} and {theirs}"
        return super().mismatch(other)

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        for transform in reversed(self.p.transforms):
            y = transform.inv(y)
        return super().sufficient_statistics(y)

    def log_base_measure(self, y: Tensor) -> Tensor:
        event_dim = len(self.p.event_shape)
        log_h: Tensor | float = 0.0
        for transform in reversed(self.p.transforms):
            x = transform.inv(y)
            event_dim += transform.domain.event_dim - transform.codomain.event_dim
            log_jacobian = transform.log_abs_det_jacobian(x, y)
            log_h = log_h - sum_right(log_jacobian, event_dim - transform.domain.event_dim)
            y = x
        return super().log_base_measure(y) + log_h

    def cross_entropy(self, other: Any) -> Tensor:
        return super().cross_entropy(other) + expected_log_jacobian(self.p.transforms, self.base.p)


class _NamedTransformedFamily(TransformedFamily):
    """A TransformedDistribution with a name and a constructor of its own."""

    constructor: ClassVar[Any]

    map_batch = ExponentialFamily.map_batch

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        member = self.constructor(*parameters, **(self.fixed_parameters | fixed), validate_args=False)
        member._validate_args = self.p._validate_args
        return member


@register_family(torch.distributions.LogisticNormal)
class LogisticNormalFamily(_NamedTransformedFamily):
    """LogisticNormal: the Normal's η and A in the log-ratios of stick-breaking, h being their Jacobian."""

    constructor = dist.LogisticNormal


@register_family(dist.AffineBeta)
class AffineBetaFamily(_NamedTransformedFamily):
    """AffineBeta of equal loc and scale: the Beta's natural form in (y − loc)/scale, h = 1/scale."""

    constructor = corrected_class(dist.AffineBeta)

    def __init__(self, p: Any) -> None:
        super().__init__(p)
        (self.affine,) = p.transforms  # as it was given: the attributes of p are tensors of the default dtype
        self.constant_base = True

    @property
    def fixed_parameters(self) -> dict[str, Any]:
        return {"loc": self.affine.loc, "scale": self.affine.scale}

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        xi = super().pooling_normalizer(members, weights, simplex)
        if simplex:
            return xi
        like, scale = self.parameters[0], self.affine.scale
        log_scale = (scale.to(like) if isinstance(scale, Tensor) else like.new_full((), scale)).log()
        return xi + (reduce(torch.add, weights) - 1) * log_scale

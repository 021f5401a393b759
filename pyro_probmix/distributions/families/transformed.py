"""Named bijections of families: the natural form is that of the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_probmix.distributions.corrected import AffineBeta
from pyro_probmix.distributions.exponential_family import register_family
from pyro_probmix.distributions.families.wrappers import TransformedFamily

__all__ = ["AffineBetaFamily", "LogisticNormalFamily"]


class _NamedTransformedFamily(TransformedFamily):
    """A TransformedDistribution with a name and a constructor of its own."""

    constructor: ClassVar[Any]

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        member = self.constructor(*parameters, **fixed, validate_args=False)
        member._validate_args = p._validate_args
        return member


@register_family(torch.distributions.LogisticNormal)
class LogisticNormalFamily(_NamedTransformedFamily):
    """LogisticNormal: the Normal's η and A in the log-ratios of stick-breaking, h being their Jacobian."""

    constructor = dist.LogisticNormal

    def map_batch(self, p: Any, function: Callable[[Tensor, int], Tensor]) -> Any:
        return self.build(p, [function(t, 1) for t in self.parameters(p)])


@register_family(dist.AffineBeta)
class AffineBetaFamily(_NamedTransformedFamily):
    """AffineBeta of equal loc and scale: the Beta's natural form in (y − loc)/scale, h = 1/scale."""

    constructor = AffineBeta

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        (affine,) = p.transforms  # as it was given: the attributes of p are tensors of the default dtype
        return super().build(p, parameters, **({"loc": affine.loc, "scale": affine.scale} | fixed))

    def map_batch(self, p: Any, function: Callable[[Tensor, int], Tensor]) -> Any:
        (affine,) = p.transforms
        fixed = {
            name: function(value.expand(p.batch_shape), 0)
            for name, value in (("loc", affine.loc), ("scale", affine.scale))
            if isinstance(value, Tensor) and value.dim()
        }
        return self.build(p, [function(t, 0) for t in self.parameters(p)], **fixed)

    def constant_base(self, p: Any) -> bool:
        return True

    def product_normalizer(self, p: Any, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]) -> Tensor:
        surplus = reduce(torch.add, weights) - 1
        return super().product_normalizer(p, parameters, weights) + surplus * self._log_scale(p)

    def _log_scale(self, p: Any) -> Tensor:
        (affine,) = p.transforms
        like, scale = self.parameters(p)[0], affine.scale
        return (scale.to(like) if isinstance(scale, Tensor) else like.new_full((), scale)).log()

"""Families that are linear in logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid, one_hot, softplus

from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    blank_member,
    masked_sum,
    register_family,
)
from pyro_probmix.distributions.families._logit_pool import pool_of_logits

__all__ = [
    "BernoulliFamily",
    "CategoricalFamily",
    "OneHotCategoricalFamily",
    "OneHotCategoricalStraightThroughFamily",
]


class _LogitFamily(ExponentialFamily):
    """What depends on the log-probabilities of all values alone, which infinite logits leave exact."""

    names = ("logits",)
    bounded = True

    def log_masses(self, logits: Tensor) -> Tensor:
        """log p(y) of every value y, along a last dimension."""
        raise NotImplementedError

    def to_natural(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters

    def from_natural(self, p: Distribution, *eta: Tensor) -> tuple[Tensor, ...]:
        return eta

    def pooling_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        # What a component of positive weight gives no mass has none, even where one of negative weight gives none.
        log_masses = [self.log_masses(*component) for component in parameters]
        shares = [w.unsqueeze(-1) for w in weights]
        none = reduce(torch.logical_or, [(w > 0) & (t == -math.inf) for w, t in zip(shares, log_masses, strict=True)])
        return -masked_sum(log_masses, shares).masked_fill(none, -math.inf).logsumexp(-1)

    def product_normalizer(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> Tensor:
        return self.pooling_normalizer(p, parameters, weights)

    def cross_entropy(self, p: Distribution, q: Distribution) -> Tensor:
        ours, theirs = (self.log_masses(*self.parameters(member)) for member in (p, q))
        return -masked_sum([theirs], [ours.exp()]).sum(-1)


@register_family(torch.distributions.Bernoulli)
class BernoulliFamily(_LogitFamily):
    """Bernoulli: η = logit, T(y) = y, h = 1."""

    constructor = dist.Bernoulli
    parameter_dims = (0,)
    natural_dims = (0,)

    def log_masses(self, logits: Tensor) -> Tensor:
        return logsigmoid(torch.stack([-logits, logits], -1))

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        return (masked_sum([logits for (logits,) in parameters], weights),)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return softplus(parameters[0])

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y,)

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        return (p.mean,)


@register_family(torch.distributions.Categorical)
class CategoricalFamily(_LogitFamily):
    """Categorical: η = logits (normalised), T(y) = one-hot y, h = 1."""

    constructor = dist.Categorical
    parameter_dims = (1,)
    natural_dims = (1,)

    def log_masses(self, logits: Tensor) -> Tensor:
        return logits

    def canonical(self, p: Distribution, *parameters: Tensor) -> tuple[Tensor, ...]:
        return (parameters[0].log_softmax(-1),)

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        return _categorical(dist.Categorical, parameters[0], p._validate_args)

    def same(self, p: Any, q: Any) -> str | None:
        sizes = [self.parameters(member)[0].shape[-1] for member in (p, q)]
        return None if sizes[0] == sizes[1] else f"one number of categories, got {sizes[0]} and {sizes[1]}"

    def pool(
        self, p: Distribution, parameters: Sequence[Sequence[Tensor]], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        return (pool_of_logits([t for (t,) in parameters], [w.unsqueeze(-1) for w in weights]),)

    def normalizer(self, p: Distribution, *parameters: Tensor) -> Tensor:
        return parameters[0].logsumexp(-1)

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        logits = self.parameters(p)[0]
        return (one_hot(y.long(), logits.shape[-1]).to(logits.dtype),)

    def moments(self, p: Distribution) -> tuple[Tensor, ...]:
        return (self.parameters(p)[0].exp(),)


@register_family(torch.distributions.OneHotCategorical)
class OneHotCategoricalFamily(CategoricalFamily):
    """OneHotCategorical: η = logits (normalised), T(y) = y, h = 1."""

    constructor = dist.OneHotCategorical

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        shape = parameters[0].shape
        member = blank_member(self.constructor, shape[:-1], shape[-1:], p._validate_args)
        member._categorical = _categorical(torch.distributions.Categorical, parameters[0], p._validate_args)
        return member

    def statistics(self, p: Distribution, y: Tensor) -> tuple[Tensor, ...]:
        return (y.to(self.parameters(p)[0].dtype),)


def _categorical(cls: Any, logits: Tensor, validate_args: bool) -> Any:
    """A Categorical with normalised logits.

    Not by its constructor, which would normalise what is normalised, at a cost, and might change its last bit.
    """
    member = blank_member(cls, logits.shape[:-1], torch.Size(), validate_args)
    member.logits = member._param = logits
    member._num_events = logits.shape[-1]
    return member


@register_family(torch.distributions.OneHotCategoricalStraightThrough)
class OneHotCategoricalStraightThroughFamily(OneHotCategoricalFamily):
    """OneHotCategoricalStraightThrough: the law of OneHotCategorical, its draws having a biased gradient."""

    constructor = dist.OneHotCategoricalStraightThrough

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

from pyro_probmix.distributions.exponential_family import ExponentialFamily, Members, Tensors, register_family
from pyro_probmix.distributions.families._logit_pool import pool_of_logits
from pyro_probmix.ops.sums import masked_sum

__all__ = [
    "BernoulliFamily",
    "CategoricalFamily",
    "OneHotCategoricalFamily",
    "OneHotCategoricalStraightThroughFamily",
    "blank_member",
    "normalized_categorical",
]


class _LogitFamily(ExponentialFamily):
    """What depends on the log-probabilities of all values alone, which infinite logits leave exact."""

    linear = True
    infinite_eta = True
    bounded = True

    def log_masses(self, logits: Tensor) -> Tensor:
        """log p(y) of every value y, along a last dimension."""
        raise NotImplementedError

    def pooling_normalizer(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensor:
        # What a component of positive weight gives no mass has none, even where one of negative weight gives none.
        log_masses = [self.log_masses(*member) for member in members]
        shares = [w.unsqueeze(-1) for w in weights]
        none = reduce(torch.logical_or, [(w > 0) & (t == -math.inf) for w, t in zip(shares, log_masses, strict=True)])
        return -masked_sum(log_masses, shares).masked_fill(none, -math.inf).logsumexp(-1)

    def cross_entropy(self, other: Any) -> Tensor:
        ours, theirs = (self.log_masses(*form.parameters) for form in (self, other))
        return -masked_sum([theirs], [ours.exp()]).sum(-1)


@register_family(torch.distributions.Bernoulli)
class BernoulliFamily(_LogitFamily):
    """Bernoulli: η = logit, T(y) = y, h = 1."""

    constructor = dist.Bernoulli

    def log_masses(self, logits: Tensor) -> Tensor:
        return logsigmoid(torch.stack([-logits, logits], -1))

    def log_normalizer(self, logits: Tensor) -> Tensor:
        return softplus(logits)

    def expected_sufficient_statistics(self, logits: Tensor) -> Tensors:
        return (self.p.mean,)


@register_family(torch.distributions.Categorical)
class CategoricalFamily(_LogitFamily):
    """Categorical: η = logits (normalised), T(y) = one-hot y, h = 1."""

    constructor = dist.Categorical

    def log_masses(self, logits: Tensor) -> Tensor:
        return logits

    def canonical(self, *parameters: Tensor) -> Tensors:
        return (parameters[0].log_softmax(-1),)

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        return normalized_categorical(dist.Categorical, parameters[0], self.p._validate_args)

    def mismatch(self, other: Any) -> str | None:
        sizes = [form.parameters[0].shape[-1] for form in (self, other)]
        wrong = None if sizes[0] == sizes[1] else f"one number of categories, got {sizes[0]} and {sizes[1]}"
        return super().mismatch(other) or wrong

    def pool(self, members: Members, weights: Sequence[Tensor], simplex: bool = True) -> Tensors:
        if not simplex:
            return super().pool(members, weights, simplex)
        return (pool_of_logits([logits for (logits,) in members], [w.unsqueeze(-1) for w in weights]),)

    def log_normalizer(self, logits: Tensor) -> Tensor:
        return logits.logsumexp(-1)

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        (logits,) = self.parameters
        return (one_hot(y.long(), logits.shape[-1]).to(logits.dtype),)

    def expected_sufficient_statistics(self, logits: Tensor) -> Tensors:
        return (logits.exp(),)


@register_family(torch.distributions.OneHotCategorical)
class OneHotCategoricalFamily(CategoricalFamily):
    """OneHotCategorical: η = logits (normalised), T(y) = y, h = 1."""

    constructor = dist.OneHotCategorical

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        shape, validate = parameters[0].shape, self.p._validate_args
        member = blank_member(self.constructor, shape[:-1], shape[-1:], validate)
        member._categorical = normalized_categorical(torch.distributions.Categorical, parameters[0], validate)
        return member

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        return (y.to(self.p.logits.dtype),)


@register_family(torch.distributions.OneHotCategoricalStraightThrough)
class OneHotCategoricalStraightThroughFamily(OneHotCategoricalFamily):
    """OneHotCategoricalStraightThrough: the law of OneHotCategorical, its draws having a biased gradient."""

    constructor = dist.OneHotCategoricalStraightThrough


def blank_member(cls: Any, batch_shape: torch.Size, event_shape: torch.Size, validate_args: bool) -> Any:
    """An instance of ``cls`` without parameters yet, made as its own ``expand`` makes one."""
    member = cls.__new__(cls)
    Distribution.__init__(member, batch_shape, event_shape, validate_args=False)
    member._validate_args = validate_args
    return member


def normalized_categorical(cls: Any, logits: Tensor, validate_args: bool) -> Any:
    """A Categorical with normalised logits.

    Not by its constructor, which would normalise what is normalised, at a cost, and might change its last bit.
    """
    member = blank_member(cls, logits.shape[:-1], torch.Size(), validate_args)
    member.logits = member._param = logits
    member._num_events = logits.shape[-1]
    return member

"""Every distribution of PyTorch and Pyro is closed, a wrapper of what is, or refused with its own reason."""

from __future__ import annotations

import inspect
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution

from pyro_probmix.distributions import is_exponential_family, log_linear_pool
from pyro_probmix.distributions.exponential_family import family_of
from pyro_probmix.distributions.not_closed import NOT_CLOSED, why_not_closed

# What no site draws from, and what stands for another distribution.
ABSTRACT = {
    Distribution,
    ExpandedDistribution,
    dist.ExponentialFamily,
    dist.TorchDistribution,
    torch.distributions.ExponentialFamily,
}
TYPES = {
    t
    for module in (torch.distributions, dist)
    for _, t in inspect.getmembers(module, inspect.isclass)
    if issubclass(t, Distribution)
} - ABSTRACT


@pytest.mark.parametrize("cls", sorted(TYPES, key=str), ids=lambda t: f"{t.__module__}.{t.__name__}")
def test_every_distribution_is_closed_or_has_a_reason(cls: Any) -> None:
    assert (family_of(cls) is None) == (why_not_closed(cls) is not None)


def test_every_reason_is_of_a_distribution_there_is() -> None:
    assert all(any(issubclass(t, reason) for t in TYPES) for reason in NOT_CLOSED)


ONE = torch.ones(())
REFUSED = {
    "a power of a polynomial": dist.StudentT(3.0),
    "its density is a sum": dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0)),
    "an integral over a latent parameter": dist.BetaBinomial(ONE, ONE, 3),
    "a power of a sum over the categories": dist.RelaxedBernoulli(ONE, 0.5 * ONE),
    "its exponential tails": dist.Logistic(ONE, ONE),
    "the normal distribution function of the direction": dist.ProjectedNormal(torch.ones(3)),
    "it is not normalised": dist.Unit(ONE),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_the_error_says_why(reason: str) -> None:
    p = REFUSED[reason]
    assert not is_exponential_family(p)
    with pytest.raises(TypeError, match=rf"; {type(p).__name__} is not closed: .*{reason}"):
        log_linear_pool([p, p], [0.5, 0.5])


def test_a_distribution_of_the_users_own_has_no_reason() -> None:
    class Mine(dist.TorchDistribution):
        arg_constraints: dict[str, Any] = {}

        def log_prob(self, value: Tensor) -> Tensor:
            return value

    with pytest.raises(TypeError, match=r"^Mine has no natural form .* use NumericalPool$"):
        log_linear_pool([Mine(), Mine()], [0.5, 0.5])

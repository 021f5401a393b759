"""A family of the user's own, with a fixed parameter: one class, after which everything public knows it."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyro_probmix.distributions import (
    ExponentialFamily,
    LogLinearPool,
    cross_entropy,
    index_select,
    is_exponential_family,
    log_linear_pool,
    natural_parameters,
    register_family,
)


class Binomial(dist.Binomial):
    """A Binomial whose log_prob is its own, and so, before it is described, no family's."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value)


assert not is_exponential_family(Binomial(3, torch.tensor(0.5)))


@register_family(Binomial)
class BinomialFamily(ExponentialFamily):
    """Binomial with n trials: η = logit, T(y) = y, A = n softplus(η)."""

    constructor = Binomial
    fixed = ("total_count",)
    linear = True

    def log_normalizer(self, logits: Tensor) -> Tensor:
        return self.p.total_count * softplus(logits)

    def sufficient_statistics(self, y: Tensor) -> tuple[Tensor, ...]:
        return (y,)

    def expected_sufficient_statistics(self, logits: Tensor) -> tuple[Tensor, ...]:
        return (self.p.mean,)


def binomial(count: Any, logits: Any) -> Any:
    return Binomial(torch.as_tensor(count), logits=torch.as_tensor(logits))


def test_its_members_pool() -> None:
    p, q = binomial(5, [0.0, 1.0]), binomial([5, 5], [-1.0, 3.0])
    pool = LogLinearPool([p, q], [0.25, 0.75])
    assert isinstance(pool.fused, Binomial)
    torch.testing.assert_close(natural_parameters(pool), (torch.tensor([-0.75, 2.5]),))
    y = torch.arange(6.0).unsqueeze(-1)
    product = 0.25 * p.log_prob(y) + 0.75 * q.log_prob(y)
    torch.testing.assert_close(pool.log_prob(y), product - product.logsumexp(0))
    torch.testing.assert_close(pool.log_normalizer, -product.logsumexp(0))


def test_wrappers_know_it() -> None:
    p, q = binomial(5, [0.0, 1.0]).to_event(1), binomial(5, [-1.0, 3.0]).to_event(1)
    assert log_linear_pool([p, q], [0.5, 0.5]).base_dist.logits.tolist() == [-0.5, 2.0]


@pytest.mark.parametrize("count", [4, [5, 4]])
def test_components_agree_on_what_is_fixed(count: Any) -> None:
    p, q = binomial(5, torch.zeros(2)), binomial(count, torch.zeros(2))
    with pytest.raises(ValueError, match=r"components: expected equal total_count, got .* at index 1"):
        log_linear_pool([p, q], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"p, q: expected equal total_count"):
        cross_entropy(p, q)


def test_what_is_fixed_goes_with_its_row() -> None:
    p = binomial([3, 5, 7], [0.0, 1.0, 2.0])
    q = index_select(p, -1, torch.tensor([2, 0]))
    assert q.total_count.tolist() == [7, 3]
    assert q.logits.tolist() == [2.0, 0.0]
    nested = index_select(binomial([[3, 5]], [[0.0, 1.0]]).expand([2, 2]).to_event(1), 0, torch.tensor([1]))
    assert nested.base_dist.total_count.tolist() == [[3, 5]]
    with pytest.raises(ValueError, match=r"expected equal total_count, got 3.0 and 5.0 at index 1"):
        log_linear_pool(binomial([3, 5], [0.0, 1.0]), [0.5, 0.5])

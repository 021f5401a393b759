"""Spanning trees, which have no batch: the natural form, pools and divergences against all trees of four vertices."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_probmix.distributions import (
    LogLinearPool,
    cross_entropy,
    entropy,
    from_natural_parameters,
    is_exponential_family,
    log_linear_pool,
    log_normalizer,
    mean_parameters,
    natural_parameters,
    renyi_divergence,
    sufficient_statistics,
)
from tests.cases import CASES

CASE = CASES["SpanningTree"]
TREES, _ = CASE.grid()


def pair() -> tuple[Any, Any]:
    return CASE.draw(seed=0), CASE.draw(seed=1)


def test_natural_form() -> None:
    p, _ = pair()
    (logits,), (edges,) = natural_parameters(p), sufficient_statistics(p, TREES)
    assert edges.sum(-1).tolist() == [3.0] * 16
    log_mass = edges @ logits - log_normalizer(p)
    torch.testing.assert_close(log_mass, p.log_prob(TREES))
    torch.testing.assert_close(log_mass.logsumexp(0), torch.zeros(()).double())
    torch.testing.assert_close(mean_parameters(p)[0], log_mass.exp() @ edges)
    torch.testing.assert_close(from_natural_parameters(p, (logits,)).log_prob(TREES), log_mass)


@pytest.mark.parametrize("weights", [[0.3, 0.7], [1.0, 0.0], [0.0, 1.0]])
def test_pool_is_the_normalised_product(weights: list[float]) -> None:
    p, q = pair()
    pool = LogLinearPool([p, q], weights)
    product = weights[0] * p.log_prob(TREES) + weights[1] * q.log_prob(TREES)
    torch.testing.assert_close(pool.log_prob(TREES), product - product.logsumexp(0))
    torch.testing.assert_close(pool.log_normalizer, -product.logsumexp(0))
    twice = LogLinearPool([p, q], [1, 1], simplex=False)
    torch.testing.assert_close(twice.log_prob(TREES), (p.log_prob(TREES) + q.log_prob(TREES)).log_softmax(0))


def test_divergences() -> None:
    p, q = pair()
    log_p, log_q = p.log_prob(TREES), q.log_prob(TREES)
    torch.testing.assert_close(cross_entropy(p, q), -log_p.exp() @ log_q)
    torch.testing.assert_close(entropy(p), -log_p.exp() @ log_p)
    torch.testing.assert_close(renyi_divergence(p, q, 0.4), (0.4 * log_p + 0.6 * log_q).logsumexp(0) / -0.6)


def test_derivatives() -> None:
    logits = [p.edge_logits.requires_grad_() for p in pair()]
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def both(weight: Tensor, *logits: Tensor) -> tuple[Tensor, Tensor]:
        pool = LogLinearPool([dist.SpanningTree(t, validate_args=False) for t in logits], [weight, 1 - weight])
        return pool.log_prob(TREES[5]), pool.log_normalizer

    assert torch.autograd.gradcheck(both, [weight, *logits])


def test_it_is_a_site_and_copies() -> None:
    p, q = pair()
    pool = LogLinearPool([p, q], [0.3, 0.7])
    trace = pyro.poutine.trace(lambda: pyro.sample("tree", pool)).get_trace()
    torch.testing.assert_close(trace.log_prob_sum(), pool.log_prob(trace.nodes["tree"]["value"]))
    for other in (pickle.loads(pickle.dumps(pool)), copy.deepcopy(pool)):
        torch.testing.assert_close(other.log_prob(TREES), pool.log_prob(TREES))
    options = log_linear_pool([dist.SpanningTree(p.edge_logits, {"mcmc_steps": 3}), q], [0.5, 0.5]).sampler_options
    assert options == {"mcmc_steps": 3}


def test_what_has_no_batch_is_refused_one() -> None:
    p, q = pair()
    assert is_exponential_family(p.expand([]))
    assert not is_exponential_family(p.expand([3]))
    with pytest.raises(ValueError, match="components: expected equal event shapes"):
        log_linear_pool([p, dist.SpanningTree(torch.zeros(3))], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"SpanningTree has no batch: expected .*, got \(3,\)"):
        log_linear_pool([p, q], torch.full((3, 2), 0.5))

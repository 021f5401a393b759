"""What Pyro does to any distribution it may do to a pool."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.infer import Trace_ELBO
from torch.distributions import kl_divergence

from pyro_probmix.distributions import HolderPool, LinearPool, LogLinearPool, NumericalPool

HALF = [0.5, 0.5]
ONES = torch.ones(2)
MASK = torch.tensor([True, False])


def pool(p: Any) -> Any:
    return LogLinearPool([p, p], HALF)


# KL divergences

MEMBERS = {
    "Normal": dist.Normal(ONES, ONES),
    "Gamma": dist.Gamma(ONES, ONES),
    "Delta": dist.Delta(ONES),
    "ContinuousBernoulli": dist.ContinuousBernoulli(0.3 * ONES),
    "MultivariateNormal": dist.MultivariateNormal(torch.ones(2, 2), torch.eye(2)),
    "expanded Normal": ExpandedDistribution(dist.Normal(torch.tensor(1.0), torch.tensor(2.0)), torch.Size([2])),
    "masked Normal": dist.Normal(ONES, ONES).mask(MASK),
    "LogNormal": dist.LogNormal(ONES, ONES),
    "two dimensions of Normals": dist.Normal(torch.ones(2, 2), ONES),
}
OTHERS = {
    **MEMBERS,
    "vector": dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
    "vectors": dist.MultivariateNormal(torch.zeros(3, 2), torch.eye(2)),
    "Exponential": dist.Exponential(ONES),
    "Uniform": dist.Uniform(0 * ONES, ONES),
    "Cauchy": dist.Cauchy(ONES, ONES),
}
WRAPPERS = {
    "itself": lambda p: p,
    "to_event": lambda p: p.to_event(1),
    "torch's Independent": lambda p: torch.distributions.Independent(p, 1),
    "to_event of all": lambda p: p.to_event(len(p.batch_shape)),
    "expand": lambda p: p.expand((3,) + p.batch_shape),
    "expand, to_event": lambda p: p.expand((3,) + p.batch_shape).to_event(1),
    "mask": lambda p: p.mask(MASK),
    "mask, to_event": lambda p: p.mask(MASK).to_event(1),
    "to_event, mask": lambda p: p.to_event(1).mask(True),
}


@pytest.mark.faults("pools under Pyro's methods")
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", MEMBERS)
def test_kl_of_a_wrapped_pool_is_that_of_what_it_fused(name: str, wrapper: str) -> None:
    """In both orders, wherever PyTorch or Pyro have one."""
    wrap, fused, found = WRAPPERS[wrapper], pool(MEMBERS[name]), 0
    for other in OTHERS.values():
        for q in (other, pool(other) if other is not OTHERS["Cauchy"] else other):
            for turned in (q, q.to_event(1) if q.batch_shape else q, q.mask(True)):
                for flipped in (False, True):
                    theirs = (wrap(fused.fused), turned)[:: -1 if flipped else 1]
                    ours = (wrap(fused), turned)[:: -1 if flipped else 1]
                    try:
                        expected = kl_divergence(*theirs)
                    except (
                        IndexError,
                        NotImplementedError,
                        RuntimeError,
                        ValueError,
                    ):  # none, or of shapes that do not fit
                        continue
                    found += 1
                    torch.testing.assert_close(kl_divergence(*ours), expected, rtol=1e-4, atol=1e-5)
    assert found


@pytest.mark.faults("pools under Pyro's methods")
def test_kl_of_independent_normals_and_a_multivariate_normal() -> None:
    p, q = dist.Normal(torch.tensor([1.0, 2.0]), 0.5), dist.Normal(torch.tensor([0.0, 3.0]), 2.0)
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    prior = dist.MultivariateNormal(torch.zeros(2), covariance)
    fused = LogLinearPool([p, q], [0.3, 0.7])
    full = dist.MultivariateNormal(fused.mean, torch.diag_embed(fused.variance))
    expected = kl_divergence(full, prior)
    torch.testing.assert_close(kl_divergence(fused.to_event(1), prior), expected)
    torch.testing.assert_close(kl_divergence(dist.Independent(fused, 1), prior), expected)
    wide = fused.expand([3, 2]).to_event(1)
    torch.testing.assert_close(kl_divergence(wide, prior), expected.expand(3))
    torch.testing.assert_close(kl_divergence(p.to_event(1), prior), kl_divergence(pool(p).to_event(1), prior))
    with pytest.raises(NotImplementedError):
        kl_divergence(pool(dist.Gamma(ONES, ONES)).to_event(1), prior)


# Draws with and without gradient

POOLS = {
    "LogLinearPool": lambda p, q: LogLinearPool([p, q], HALF),
    "LinearPool": lambda p, q: LinearPool([p, q], HALF),
    "NumericalPool": lambda p, q: NumericalPool([p, q], HALF),
    "HolderPool": lambda p, q: HolderPool([p, q], HALF, 0.5),
}


@pytest.mark.faults("pools under Pyro's methods")
@pytest.mark.parametrize("name", POOLS)
def test_draws_without_gradient_where_they_are_asked_for(name: str) -> None:
    loc = torch.tensor(0.5, requires_grad=True)
    p = POOLS[name](dist.Normal(loc, 1.0), dist.Normal(loc + 1, 1.0))
    assert p.has_rsample
    assert p().requires_grad
    assert p.has_rsample_(False) is p
    assert not p.has_rsample
    assert not p().requires_grad
    wide = p.expand([3])
    assert not wide.has_rsample
    assert not wide().requires_grad
    assert p.rsample().requires_grad  # as of any distribution, for who asks for it by name
    p.has_rsample_(True)
    assert p().requires_grad
    with pytest.raises(ValueError, match="Expected value"):
        p.has_rsample_(1)


@pytest.mark.faults("pools under Pyro's methods")
@pytest.mark.parametrize("chosen", [True, False])
def test_a_guide_of_a_pool_with_and_without_gradient_of_its_draws(chosen: bool) -> None:
    """Without one, the gradient is that of the score."""
    loc, drawn = torch.tensor(0.3, requires_grad=True), []

    def model() -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0).expand([4000]).to_event(1))

    def guide() -> None:
        p = LogLinearPool([dist.Normal(loc, 1.0), dist.Normal(loc, 1.0)], HALF).has_rsample_(chosen)
        drawn.append(pyro.sample("z", p.expand([4000]).to_event(1)))

    loss = Trace_ELBO().differentiable_loss(model, guide)
    assert drawn[0].requires_grad == chosen
    (gradient,) = torch.autograd.grad(loss, loc)
    if chosen:  # 0.3 for each, exactly but for the draws' mean
        assert float(gradient) / 4000 == pytest.approx(float(drawn[0].detach().mean()), rel=1e-4)
    else:
        score = float((drawn[0] - 0.3).sum())
        elbo = float((0.5 * (drawn[0] - 0.3).square() - 0.5 * drawn[0].square()).sum())
        assert float(gradient) == pytest.approx(-score * elbo, rel=1e-2)


def test_pools_of_counts_have_no_gradient_to_be_asked_for() -> None:
    p = LogLinearPool([dist.Poisson(1.0), dist.Poisson(2.0)], HALF)
    assert not p.has_rsample
    with pytest.raises(NotImplementedError):
        p.has_rsample_(True)()
    linear = LinearPool([dist.Normal(0.0, 1.0)] * 2, torch.tensor(HALF, requires_grad=True))
    assert not linear.has_rsample
    with pytest.raises(NotImplementedError, match="weights without gradient"):
        linear.has_rsample_(True)()

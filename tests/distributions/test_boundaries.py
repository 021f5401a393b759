"""Labels on the boundary of a support: the density is its limit there, and no training steps on what is infinite."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.distributions import LinearPool, LogLinearPool

INF = math.inf


def number(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).squeeze()


# name: the two members, a point on the boundary, and the limits of the log-linear and of the linear pool's log-density
CASES: dict[str, tuple[list[Any], Tensor, float, float]] = {
    "Beta, no mass": ([dist.Beta(number(2), number(3)), dist.Beta(number(4), number(5))], number(0), -INF, -INF),
    "Beta, poles": ([dist.Beta(number(0.5), number(0.5)), dist.Beta(number(0.3), number(0.4))], number(1), INF, INF),
    "Beta, a pole and none": (
        [dist.Beta(number(0.5), number(1)), dist.Beta(number(3), number(1))],
        number(0),
        -INF,
        INF,
    ),
    "Beta, uniform": ([dist.Beta(number(1), number(1)), dist.Beta(number(1), number(1))], number(0), 0.0, 0.0),
    "Gamma, no mass": ([dist.Gamma(number(2), number(1)), dist.Gamma(number(3), number(2))], number(0), -INF, -INF),
    "Gamma, poles": ([dist.Gamma(number(0.5), number(1)), dist.Gamma(number(0.2), number(2))], number(0), INF, INF),
    "Gamma, exponential": (
        [dist.Gamma(number(1), number(1)), dist.Gamma(number(1), number(2))],
        number(0),
        math.log(0.3 * 1 + 0.7 * 2),
        math.log(0.3 * 1 + 0.7 * 2),
    ),
    "Exponential": (
        [dist.Exponential(number(1)), dist.Exponential(number(2))],
        number(0),
        math.log(1.7),
        math.log(1.7),
    ),
    "Dirichlet, no mass": (
        [dist.Dirichlet(number(2, 2, 2)), dist.Dirichlet(number(3, 3, 3))],
        number(0, 0.4, 0.6),
        -INF,
        -INF,
    ),
    "Dirichlet, poles": (
        [dist.Dirichlet(number(0.5, 1, 2)), dist.Dirichlet(number(0.3, 1, 2))],
        number(0, 0.4, 0.6),
        INF,
        INF,
    ),
    "HalfNormal": (
        [dist.HalfNormal(number(1)), dist.HalfNormal(number(1))],
        number(0),
        0.5 * math.log(2 / math.pi),
        0.5 * math.log(2 / math.pi),
    ),
}


@pytest.mark.faults("value on the boundary")
@pytest.mark.parametrize("name", CASES)
def test_the_density_on_the_boundary_is_its_limit(name: str) -> None:
    members, y, log_linear, linear = CASES[name]
    for pool, expected in ((LogLinearPool, log_linear), (LinearPool, linear)):
        assert pool(members, [0.3, 0.7]).log_prob(y).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.faults("value on the boundary")
@pytest.mark.parametrize("at", [0.0, 1.0])
def test_gradients_are_finite_where_the_density_on_the_boundary_is(at: float) -> None:
    values = [t.requires_grad_() for t in number(1, 1, 1, 1, 0.3).unbind()]
    members = [dist.Beta(values[0], values[1]), dist.Beta(values[2], values[3])]
    value = LogLinearPool(members, [values[4], 1 - values[4]]).log_prob(number(at))
    gradients = torch.autograd.grad(value, values)
    assert all(g.isfinite() for g in gradients)
    # ψ(2) − ψ(1) = 1 for each parameter of the pool, by the weight of the member.
    torch.testing.assert_close(torch.stack(gradients), number(0.3, 0.3, 0.7, 0.7, 0.0))


@pytest.mark.faults("value on the boundary")
@pytest.mark.parametrize("method", [pm.ERM, pm.Mixup, pm.ProbMix])
def test_no_training_steps_on_a_label_of_no_density(method: Any) -> None:
    """Zero is in the support of a Beta, and a label there has the density 0 or ∞: the loss says so."""
    x, y = torch.randn(8, 2), torch.rand(8)
    y[3] = 0.0
    likelihood = pm.nn.DistributionLikelihood(dist.Beta)
    model = method(nn.Linear(2, likelihood.num_outputs), likelihood)
    nn.init.constant_(model.decoder.bias, 2.0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    arguments = {} if method is pm.ERM else {"coefficient": lambda epoch: dist.Delta(torch.tensor(1.0))}
    with pytest.raises(ValueError, match="loss: expected finite losses and gradients"):
        pm.fit(model, (x, y), epochs=3, progress=False, **arguments)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.faults("wide softmax off the simplex")
@pytest.mark.parametrize("size", [1000, 100_000])
def test_wide_softmaxes_in_single_precision_are_weights(size: int) -> None:
    """Their sums are off 1 by more than what a sum of few numbers is, and the pools are right all the same."""
    logits = 3 * torch.randn(size)
    locs = torch.linspace(-1, 1, size)
    weights = logits.softmax(-1)
    exact = (logits.double().softmax(-1) * locs.double()).sum()
    for w in (weights, weights * (1 + 2e-6)):
        pool = LinearPool(dist.Normal(locs, 1.0), w)
        torch.testing.assert_close(pool.mean.double(), exact, atol=1e-5, rtol=0)
        assert pool.log_prob(torch.tensor(0.3)).isfinite()
    if size == 1000:
        fused = LogLinearPool(dist.Normal(locs, 1.0), weights)
        torch.testing.assert_close(fused.mean.double(), exact, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"weights: expected a sum of 1 over the components, got \|sum - 1\| = 0.1"):
        LinearPool(dist.Normal(locs, 1.0), 1.1 * weights)


@pytest.mark.faults("wide softmax off the simplex")
def test_wide_softmaxes_are_labels() -> None:
    size = 50_000
    p, q = (dist.Categorical(probs=(3 * torch.randn(size)).softmax(-1)) for _ in range(2))
    pool = LogLinearPool([p, q], [0.3, 0.7])
    exact = (0.3 * p.logits.double() + 0.7 * q.logits.double()).log_softmax(-1)
    torch.testing.assert_close(pool.log_prob(torch.arange(9)).double(), exact[:9], atol=1e-4, rtol=0)

"""Rényi, Bhattacharyya and cross-entropy: against quadrature for every family, and against PyTorch's KL."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_probmix.distributions import LogLinearPool, bhattacharyya_distance, cross_entropy, renyi_divergence
from pyro_probmix.distributions.exponential_family import plain, set_validation
from tests.cases import CASES, NAMES, unmasked

# The expected log-Jacobian of a TransformedDistribution has no closed form.
CLOSED = [name for name in NAMES if type(CASES[name].draw()) is not dist.TransformedDistribution]


def pair(name: str, batch_shape: tuple[int, ...] = (3,)) -> tuple[Any, Any]:
    return CASES[name].draw(batch_shape, 0), CASES[name].draw(batch_shape, 1)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", NAMES)
def test_renyi_is_its_integral(name: str, alpha: float) -> None:
    p, q = pair(name)
    laws = unmasked(p), unmasked(q)
    log_integral = CASES[name].log_integral(
        lambda y: alpha * laws[0].log_prob(y) + (1 - alpha) * laws[1].log_prob(y), 1
    )
    expected = log_integral / (alpha - 1)
    torch.testing.assert_close(renyi_divergence(p, q, alpha), expected, atol=1e-7, rtol=1e-7)
    orders = torch.tensor([alpha, 0.5, alpha], dtype=torch.float64)
    torch.testing.assert_close(renyi_divergence(p, q, orders)[::2], expected[::2], atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_bhattacharyya_is_its_integral(name: str) -> None:
    p, q = pair(name)
    laws = unmasked(p), unmasked(q)
    expected = -CASES[name].log_integral(lambda y: 0.5 * (laws[0].log_prob(y) + laws[1].log_prob(y)), 1)
    torch.testing.assert_close(bhattacharyya_distance(p, q), expected, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(bhattacharyya_distance(q, p), expected, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(0.5 * renyi_divergence(p, q, 0.5), expected, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(bhattacharyya_distance(p, p), torch.zeros(3).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", CLOSED)
def test_cross_entropy_is_its_integral(name: str) -> None:
    p, q = pair(name)
    q_law = unmasked(q)
    for left, right, law in ((p, q, q_law), (p, p, unmasked(p)), (p, LogLinearPool([q], [1]), q_law)):
        expected = CASES[name].expectation(p, lambda y, law=law: -law.log_prob(y))
        torch.testing.assert_close(cross_entropy(left, right), expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", CLOSED)
def test_cross_entropy_broadcasts(name: str) -> None:
    p, q = CASES[name].draw((3, 1), 0), CASES[name].draw((2,), 1)
    value = cross_entropy(p, q)
    assert value.shape == (3, 2)
    torch.testing.assert_close(value, cross_entropy(p.expand([3, 2]), q.expand([3, 2])))


@pytest.mark.parametrize(
    "name", [n for n in CLOSED if "masked" not in n and "expanded" not in n and "Poisson" not in n]
)
def test_kl_is_cross_entropy_less_entropy(name: str) -> None:
    p, q = pair(name)
    torch.testing.assert_close(cross_entropy(p, q) - p.entropy(), kl_divergence(p, q), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(renyi_divergence(p, q, 1 - 1e-6), kl_divergence(p, q), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CLOSED)
def test_derivatives(name: str) -> None:
    case = CASES[name]
    drawn = [case.parameters(torch.Size(), torch.Generator().manual_seed(seed)) for seed in range(2)]
    parameters = [t.requires_grad_() for tensors in drawn for t in tensors]
    count = len(drawn[0])

    def both(*parameters: Tensor) -> tuple[Tensor, Tensor]:
        p, q = plain(case.make(*parameters[:count])), plain(case.make(*parameters[count:]))
        for member in (p, q):
            set_validation(member, False)
        return cross_entropy(p, q), renyi_divergence(p, q, 0.3)

    assert torch.autograd.gradcheck(both, parameters)


@given(
    rates=st.lists(st.floats(1e-6, 1e7), min_size=2, max_size=2),
)
def test_kl_of_poissons_at_any_rate(rates: list[float]) -> None:
    p, q = (dist.Poisson(torch.tensor(rate, dtype=torch.float64)) for rate in rates)
    kl = cross_entropy(p, q) - cross_entropy(p, p)
    torch.testing.assert_close(kl, kl_divergence(p, q), atol=1e-6 * max(1.0, *rates) ** 0.5, rtol=1e-9)


@pytest.mark.parametrize("rate", [0.0, 1e-3, 5.0, 99.9, 100.1, 1e3, 1e5])
def test_entropy_of_poisson(rate: float) -> None:
    import scipy.stats

    p = dist.Poisson(torch.tensor(rate, dtype=torch.float64, requires_grad=True))
    entropy = cross_entropy(p, p)
    expected = (
        float(scipy.stats.poisson(rate).entropy())
        if rate < 1e4
        else 0.5 * math.log(2 * math.pi * math.e * rate) - 1 / (12 * rate)
    )
    assert entropy.item() == pytest.approx(expected, abs=1e-8)
    (gradient,) = torch.autograd.grad(entropy, p.rate)
    assert not gradient.isnan()


def test_events_of_probability_zero() -> None:
    inf = torch.inf
    sure, none = (
        dist.Categorical(logits=torch.tensor([0.0, -inf, -inf])),
        dist.Categorical(logits=torch.zeros(3)),
    )
    assert cross_entropy(sure, sure) == 0
    assert cross_entropy(none, sure) == inf
    assert cross_entropy(sure, none).item() == pytest.approx(math.log(3))
    assert bhattacharyya_distance(sure, none).item() == pytest.approx(0.5 * math.log(3))
    yes, no, fair = (dist.Bernoulli(logits=torch.tensor(logit)) for logit in (inf, -inf, 0.0))
    assert cross_entropy(yes, yes) == cross_entropy(no, no) == 0
    assert cross_entropy(fair, yes) == cross_entropy(no, yes) == inf
    assert bhattacharyya_distance(yes, fair).item() == pytest.approx(0.5 * math.log(2))
    rate = torch.tensor(0.0)
    assert cross_entropy(dist.Poisson(rate), dist.Poisson(rate)) == 0
    assert cross_entropy(dist.Poisson(1.0), dist.Poisson(rate)) == inf
    assert cross_entropy(dist.Poisson(rate), dist.Poisson(3.0)) == 3
    assert bhattacharyya_distance(dist.Poisson(rate), dist.Poisson(3.0)).item() == pytest.approx(1.5)


@pytest.mark.parametrize("far", [0.0, 1e3, 1e6])
def test_normals_far_from_the_origin_lose_nothing(far: float) -> None:
    p, q = (dist.Normal(torch.tensor(far + d), torch.tensor(s)) for d, s in ((0.0, 0.01), (0.125, 0.02)))
    q64 = dist.Normal(torch.tensor(0.125).double(), torch.tensor(0.02).double())
    p64 = dist.Normal(torch.tensor(0.0).double(), torch.tensor(0.01).double())
    for function in (cross_entropy, bhattacharyya_distance):
        torch.testing.assert_close(function(p, q).double(), function(p64, q64), rtol=1e-5, atol=0)
    vectors = [
        dist.MultivariateNormal(d.loc.expand(2), scale_tril=torch.eye(2, dtype=d.loc.dtype) * d.scale)
        for d in (p, q, p64, q64)
    ]
    for function in (cross_entropy, bhattacharyya_distance):
        torch.testing.assert_close(function(*vectors[:2]).double(), function(*vectors[2:]), rtol=1e-5, atol=0)

"""Rényi, Bhattacharyya and cross-entropy: against quadrature for every family, and against PyTorch's KL."""

from __future__ import annotations

import copy
import math
from typing import Any

import pyro.distributions as dist
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_probmix.distributions import (
    LogLinearPool,
    bhattacharyya_distance,
    chernoff_coefficient,
    chernoff_information,
    cross_entropy,
    entropy,
    renyi_divergence,
)
from pyro_probmix.distributions import kl_divergence as pm_kl
from pyro_probmix.distributions.exponential_family import resolved, set_validation
from tests.cases import CASES, NAMES, unmasked


def is_known(function: Any, *arguments: Any) -> bool:
    try:
        function(*arguments)
    except NotImplementedError:
        return False
    return True


# The expected log-Jacobian of some bijections has no closed form.
CLOSED = [name for name in NAMES if is_known(lambda p: cross_entropy(p, p), CASES[name].draw())]


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
    expected, tolerance = log_integral / (alpha - 1), max(1e-7, CASES[name].precision / (1 - alpha))
    torch.testing.assert_close(renyi_divergence(p, q, alpha), expected, atol=tolerance, rtol=1e-7)
    orders = torch.tensor([alpha, 0.5, alpha], dtype=torch.float64)
    torch.testing.assert_close(renyi_divergence(p, q, orders)[::2], expected[::2], atol=tolerance, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_bhattacharyya_is_its_integral(name: str) -> None:
    p, q = pair(name)
    laws = unmasked(p), unmasked(q)
    expected = -CASES[name].log_integral(lambda y: 0.5 * (laws[0].log_prob(y) + laws[1].log_prob(y)), 1)
    tolerance = max(1e-8, CASES[name].precision)
    torch.testing.assert_close(bhattacharyya_distance(p, q), expected, atol=tolerance, rtol=1e-8)
    torch.testing.assert_close(bhattacharyya_distance(q, p), expected, atol=tolerance, rtol=1e-8)
    torch.testing.assert_close(0.5 * renyi_divergence(p, q, 0.5), expected, atol=tolerance, rtol=1e-8)
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


@pytest.mark.parametrize("name", [n for n in CLOSED if "masked" not in n])
def test_kl_is_cross_entropy_less_entropy(name: str) -> None:
    p, q = map(resolved, pair(name))
    entropy, kl = cross_entropy(p, p), kl_divergence(LogLinearPool([p], [1]), q)
    torch.testing.assert_close(cross_entropy(p, q) - entropy, kl, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(renyi_divergence(p, q, 1 - 1e-6), kl, atol=1e-4, rtol=1e-4)
    if is_known(p.entropy):
        torch.testing.assert_close(entropy, p.entropy(), atol=1e-7, rtol=1e-7)  # some are of single precision
    if is_known(kl_divergence, p, q) and name != "Wishart":  # PyTorch sums that one over the batch
        torch.testing.assert_close(kl, kl_divergence(p, q), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", CLOSED)
def test_derivatives(name: str) -> None:
    case = CASES[name]
    drawn = [case.parameters(torch.Size(), torch.Generator().manual_seed(seed)) for seed in range(2)]
    parameters = [t.requires_grad_() for tensors in drawn for t in tensors]
    count = len(drawn[0])

    def both(*parameters: Tensor) -> tuple[Tensor, Tensor]:
        p, q = resolved(case.make(*parameters[:count])), resolved(case.make(*parameters[count:]))
        for member in (p, q):
            set_validation(member, False)
        return cross_entropy(p, q), renyi_divergence(p, q, 0.3)

    assert torch.autograd.gradcheck(both, parameters)


@pytest.mark.faults("wrong densities upstream")
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


@pytest.mark.faults("zero times minus infinity")
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


# Orders at and above one, Chernoff, entropy and KL.


def exact_renyi(name: str, p: Any, q: Any, alpha: float) -> Tensor:
    laws = unmasked(p), unmasked(q)
    if alpha == 1:
        return CASES[name].expectation(p, lambda y: laws[0].log_prob(y) - laws[1].log_prob(y))
    log_integral = CASES[name].log_integral(
        lambda y: alpha * laws[0].log_prob(y) + (1 - alpha) * laws[1].log_prob(y), 1
    )
    return log_integral / (alpha - 1)


@pytest.mark.parametrize("name", NAMES)
def test_renyi_at_and_above_one(name: str) -> None:
    p, q = pair(name)
    for alpha in (0.999, 1.0, 1.05):
        expected = exact_renyi(name, p, q, alpha)
        tolerance = max(1e-7, CASES[name].precision / (abs(1 - alpha) or 1))
        torch.testing.assert_close(renyi_divergence(p, q, alpha), expected, atol=tolerance, rtol=1e-7)
        orders = torch.tensor([alpha, 0.5, 1.0], dtype=torch.float64)
        torch.testing.assert_close(renyi_divergence(p, q, orders)[0], expected[0], atol=tolerance, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_renyi_is_smooth_and_rising_through_one(name: str) -> None:
    p, q = pair(name, ())
    for width in (3e-4, 1e-4, 1e-8):  # either side of where the formula changes
        below, at, above = (renyi_divergence(p, q, 1 + k * width) for k in (-1, 0, 1))
        assert below <= at + 1e-11
        assert at <= above + 1e-11
        assert (below + above) / 2 == pytest.approx(float(at), abs=1e3 * width**2 + 1e-10)


def test_renyi_near_one_in_single_precision() -> None:
    p, q = dist.Normal(0.0, 1.0), dist.Normal(2.0, 1.0)
    for alpha in (0.95, 0.99, 0.9999, 1.0, 1.0001, 1.01, 1.05):
        assert float(renyi_divergence(p, q, alpha)) == pytest.approx(2 * alpha, rel=3e-5)


@pytest.mark.parametrize("alpha", [0.4, 1 - 1e-6, 1.0, 1.03])
@pytest.mark.parametrize("name", ["Normal", "Gamma", "Categorical", "Poisson", "logit-Normal"])
def test_renyi_is_differentiable_in_both_arguments_and_the_order(name: str, alpha: float) -> None:
    case = CASES[name]
    drawn = [case.parameters(torch.Size(), torch.Generator().manual_seed(seed)) for seed in range(2)]
    count = len(drawn[0])

    def divergence(order: Tensor, *parameters: Tensor) -> Tensor:
        return renyi_divergence(case.make(*parameters[:count]), case.make(*parameters[count:]), order)

    order = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    inputs = [order, *[t.requires_grad_() for parameters in drawn for t in parameters]]
    # PyTorch's steps of 1e-6 cross from one formula to the other, whose rounding differs.
    assert torch.autograd.gradcheck(divergence, inputs, atol=1e-4, rtol=1e-3, eps=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_chernoff_coefficient_is_its_integral(name: str) -> None:
    p, q = pair(name)
    for alpha in (0.3, 1.02):
        expected = ((alpha - 1) * exact_renyi(name, p, q, alpha)).exp()
        tolerance = max(1e-8, CASES[name].precision)
        torch.testing.assert_close(chernoff_coefficient(p, q, alpha), expected, atol=tolerance, rtol=1e-8)
    half = (-bhattacharyya_distance(p, q)).exp()
    torch.testing.assert_close(chernoff_coefficient(p, q, 0.5), half, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_chernoff_information_is_the_largest_exponent(name: str) -> None:
    p, q = pair(name)
    value = chernoff_information(p, q)
    assert value.shape == (3,)
    for row in range(3):
        member = [CASES[name].draw((3,), seed) for seed in range(2)]
        exponents = scipy.optimize.minimize_scalar(
            lambda a, member=member, row=row: float(chernoff_coefficient(*member, a)[row].log()),
            bounds=(1e-6, 1 - 1e-6),
            method="bounded",
            options={"xatol": 1e-7},
        )
        assert float(value[row]) == pytest.approx(-exponents.fun, rel=1e-9, abs=1e-10)
    torch.testing.assert_close(chernoff_information(q, p), value, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(chernoff_information(p, p), torch.zeros(3).double(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["Normal", "Gamma", "Categorical", "Poisson", "logit-Normal"])
def test_chernoff_information_is_differentiable(name: str) -> None:
    case = CASES[name]
    drawn = [case.parameters(torch.Size(), torch.Generator().manual_seed(seed)) for seed in range(2)]
    count = len(drawn[0])
    inputs = [t.requires_grad_() for parameters in drawn for t in parameters]
    assert torch.autograd.gradcheck(
        lambda *t: chernoff_information(case.make(*t[:count]), case.make(*t[count:])), inputs
    )


@pytest.mark.parametrize("name", CLOSED)
def test_entropy_is_its_integral(name: str) -> None:
    p, _ = pair(name)
    law = unmasked(p)
    expected = CASES[name].expectation(p, lambda y: -law.log_prob(y))
    torch.testing.assert_close(entropy(p), expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_kl_is_its_integral(name: str) -> None:
    p, q = pair(name)
    torch.testing.assert_close(pm_kl(p, q), exact_renyi(name, p, q, 1.0), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(pm_kl(p, LogLinearPool([q], [1])), pm_kl(p, q))


@pytest.mark.parametrize(
    "name", ["Normal", "MultivariateNormal", "Gamma", "Beta", "Dirichlet", "Categorical", "Poisson"]
)
def test_kl_is_that_of_pytorch_with_its_derivatives(name: str) -> None:
    case = CASES[name]
    drawn = [case.parameters(torch.Size([3]), torch.Generator().manual_seed(seed)) for seed in range(2)]
    inputs = [t.requires_grad_() for parameters in drawn for t in parameters]
    p, q = (case.make(*parameters) for parameters in drawn)
    ours, theirs = pm_kl(p, q), kl_divergence(p, q)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
    gradients = [torch.autograd.grad(value.sum(), inputs, retain_graph=True) for value in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-8, rtol=1e-8)


# Where p has mass that q has not.

INFINITE = {
    "Uniform": (dist.Uniform(0.0, 1.0), dist.Uniform(0.5, 2.0), math.log(2), math.log(3)),
    "Pareto": (dist.Pareto(1.0, 3.0), dist.Pareto(2.0, 2.0), 3 * math.log(2), 3 * math.log(2)),
    "Bernoulli": (
        dist.Bernoulli(logits=torch.tensor(0.0)),
        dist.Bernoulli(logits=torch.tensor(math.inf)),
        *[math.log(2)] * 2,
    ),
}
"""p, q, −log P(support of q), and the Chernoff information."""


@pytest.mark.parametrize("alpha", [0.99, 0.999, 1.0, torch.tensor([0.99, 0.999, 1.0])])
@pytest.mark.parametrize("name", INFINITE)
def test_renyi_divergence_grows_where_kl_is_infinite(name: str, alpha: Any) -> None:
    """ξ does not vanish as α → 1, but tends to −log P(support of q): the divergence is that over 1 − α."""
    p, q, limit, _ = INFINITE[name]
    found = renyi_divergence(p, q, alpha)
    expected = limit / (1 - torch.as_tensor(alpha))
    torch.testing.assert_close(found.expand(expected.shape), expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", INFINITE)
def test_chernoff_information_at_the_end(name: str, swapped: bool) -> None:
    p, q, _, expected = INFINITE[name]
    found = chernoff_information(q, p) if swapped else chernoff_information(p, q)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=0)


# Orders above one for which the integral diverges.


def number(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


EYE = torch.eye(2, dtype=torch.float64)
ORDERS: dict[str, tuple[Any, Any, float]] = {
    "Normal": (dist.Normal(*number([0.0, 3.0])), dist.Normal(*number([1.0, 1.0])), 9 / 8),
    "LogNormal": (dist.LogNormal(*number([0.0, 3.0])), dist.LogNormal(*number([1.0, 1.0])), 9 / 8),
    "HalfNormal": (dist.HalfNormal(number(3.0)), dist.HalfNormal(number(1.0)), 9 / 8),
    "MultivariateNormal": (
        dist.MultivariateNormal(number([0.0, 1.0]), scale_tril=EYE * number([1.0, 3.0])),
        dist.MultivariateNormal(number([0.0, 0.0]), scale_tril=EYE),
        9 / 8,
    ),
    "LowRankMultivariateNormal": (
        dist.LowRankMultivariateNormal(number([0.0, 1.0]), number([[2.0], [2.0]]), number([1.0, 1.0])),
        dist.LowRankMultivariateNormal(number([0.0, 0.0]), number([[0.0], [0.0]]), number([1.0, 1.0])),
        9 / 8,
    ),
    "Wishart, df": (
        dist.Wishart(number(3.0), scale_tril=EYE),
        dist.Wishart(number(8.0), scale_tril=EYE),
        7 / 5,
    ),
    "Wishart, scale": (
        dist.Wishart(number(3.0), scale_tril=3 * EYE),
        dist.Wishart(number(3.0), scale_tril=EYE),
        9 / 8,
    ),
    "Exponential": (dist.Exponential(number(0.1)), dist.Exponential(number(0.3)), 1.5),
    "Gamma, concentration": (dist.Gamma(*number([0.1, 1.0])), dist.Gamma(*number([0.3, 1.0])), 1.5),
    "Gamma, rate": (dist.Gamma(*number([2.0, 1.0])), dist.Gamma(*number([3.0, 3.0])), 1.5),
    "InverseGamma": (dist.InverseGamma(*number([2.0, 1.0])), dist.InverseGamma(*number([2.0, 3.0])), 1.5),
    "Chi2": (dist.Chi2(number(1.0)), dist.Chi2(number(3.0)), 1.5),
    "Beta": (dist.Beta(*number([0.1, 1.0])), dist.Beta(*number([0.3, 1.0])), 1.5),
    "Dirichlet": (dist.Dirichlet(number([0.1, 1.0, 2.0])), dist.Dirichlet(number([0.3, 1.0, 1.0])), 1.5),
    "Kumaraswamy": (dist.Kumaraswamy(*number([2.0, 0.1])), dist.Kumaraswamy(*number([2.0, 0.3])), 1.5),
    "Laplace": (dist.Laplace(*number([0.0, 2.0])), dist.Laplace(*number([0.0, 1.0])), 2.0),
    "AsymmetricLaplace": (
        dist.AsymmetricLaplace(*number([0.0, 2.0, 1.0])),
        dist.AsymmetricLaplace(*number([0.0, 1.0, 1.0])),
        2.0,
    ),
    "Weibull": (dist.Weibull(*number([2.0, 1.0])), dist.Weibull(*number([1.0, 1.0])), 2.0),
    "Gumbel": (dist.Gumbel(*number([0.0, 1.0])), dist.Gumbel(*number([math.log(3), 1.0])), 1.5),
    "Pareto": (dist.Pareto(*number([1.0, 1.0])), dist.Pareto(*number([1.0, 3.0])), 1.5),
    "LKJ": (dist.LKJ(2, number(0.1)), dist.LKJ(2, number(0.3)), 1.5),
    "LKJCholesky": (dist.LKJCholesky(3, number(0.1)), dist.LKJCholesky(3, number(0.3)), 1.5),
    "Geometric": (dist.Geometric(number(0.19)), dist.Geometric(number(0.271)), 3.0),
    "NegativeBinomial": (
        dist.NegativeBinomial(number(2.0), number(0.81)),
        dist.NegativeBinomial(number(2.0), number(0.729)),
        3.0,
    ),
    "ZeroInflatedDistribution": (
        dist.ZeroInflatedDistribution(dist.Geometric(number(0.19)), gate=number(0.3)),
        dist.ZeroInflatedDistribution(dist.Geometric(number(0.271)), gate=number(0.3)),
        3.0,
    ),
    "logit-Normal": (
        dist.TransformedDistribution(dist.Normal(*number([0.0, 3.0])), [torch.distributions.SigmoidTransform()]),
        dist.TransformedDistribution(dist.Normal(*number([1.0, 1.0])), [torch.distributions.SigmoidTransform()]),
        9 / 8,
    ),
    "Independent Normal": (
        dist.Normal(number(0.0), number([1.0, 3.0])).to_event(1),
        dist.Normal(number(0.0), number([1.0, 1.0])).to_event(1),
        9 / 8,
    ),
    "masked Gamma": (
        dist.Gamma(*number([2.0, 1.0])).mask(torch.tensor(True)),
        dist.Gamma(*number([3.0, 3.0])).mask(torch.tensor(True)),
        1.5,
    ),
}
"""p, q and the least order for which their divergence is infinite."""


@pytest.mark.faults("orders without an integral")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("name", ORDERS)
def test_renyi_divergence_is_infinite_from_the_end_of_the_domain_on(name: str, validate: bool) -> None:
    p, q, end = ORDERS[name]
    p, q = copy.copy(p), copy.copy(q)
    for member in (p, q):
        set_validation(member, validate)
    below = float(renyi_divergence(p, q, 1 + 0.999 * (end - 1)))
    assert math.isfinite(below)
    assert below > float(renyi_divergence(p, q, 1 + 0.9 * (end - 1))) > 0
    assert math.isfinite(chernoff_coefficient(p, q, 1 + 0.999 * (end - 1)))
    for order in (end, end + 0.01, 100.0):
        assert renyi_divergence(p, q, order) == math.inf
        assert chernoff_coefficient(p, q, order) == math.inf
    orders = number([0.5, 1.0, 1 + 0.999 * (end - 1), end, 50.0])
    assert renyi_divergence(p, q, orders).tolist() == [
        *[pytest.approx(float(renyi_divergence(p, q, float(order)))) for order in orders[:3]],
        math.inf,
        math.inf,
    ]
    assert renyi_divergence(p, p, 9.0) == pytest.approx(0, abs=1e-9)


@pytest.mark.faults("orders without an integral")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_infinite_divergences_beside_finite_ones(dtype: torch.dtype) -> None:
    """With the gradients of the others."""
    scale = torch.tensor([3.0, 1.0, 0.5], dtype=dtype, requires_grad=True)
    p, q = dist.Normal(torch.zeros((), dtype=dtype), scale), dist.Normal(torch.zeros((), dtype=dtype), 1.0)
    for order in (9 / 8, torch.tensor(9 / 8, dtype=dtype)):
        found = renyi_divergence(p, q, order)
        assert found.dtype == dtype
        assert found[0] == math.inf
        expected = -scale.detach()[1:].double().log() - 4 * (9 / 8 - scale.detach()[1:].double().square() / 8).log()
        torch.testing.assert_close(found[1:].detach().double(), expected, rtol=0, atol=10 * torch.finfo(dtype).eps)
        (gradient,) = torch.autograd.grad(found[1:].sum(), scale)
        assert gradient[0] == 0
        s = scale.detach().double()
        slope = -1 / s + s / (9 / 8 - s.square() / 8)
        torch.testing.assert_close(gradient[1:].double(), slope[1:], rtol=0, atol=10 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("scale", [100.0, 1e4])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_orders_near_one_of_laws_so_far_apart_that_the_end_is_near(scale: float, share: float) -> None:
    order = 1 + share / (scale**2 - 1)
    p, q = (dist.Normal(*number([0.0, s])) for s in (scale, 1.0))
    expected = -math.log(scale) - 0.5 / (order - 1) * math.log1p(-share)
    assert float(renyi_divergence(p, q, order)) == pytest.approx(expected, rel=1e-6)
    assert float(renyi_divergence(p, q, number(order))) == pytest.approx(expected, rel=1e-6)
    assert renyi_divergence(p, q, 1 + 1.01 / (scale**2 - 1)) == math.inf


def test_no_order_is_infinite_where_the_statistics_are_bounded() -> None:
    pairs = [
        (dist.VonMises(*number([0.0, 1.0])), dist.VonMises(*number([0.0, 3.0]))),
        (dist.VonMises3D(number([1.0, 0.0, 0.0])), dist.VonMises3D(number([3.0, 0.0, 0.0]))),
        (dist.SineBivariateVonMises(*number([0, 0, 1, 1, 0.5])), dist.SineBivariateVonMises(*number([0, 0, 3, 3, 1]))),
        (dist.Bernoulli(number(0.5)), dist.Bernoulli(number(0.9))),
        (dist.Categorical(logits=number([0.5, 0.5, 0.0]).log()), dist.Categorical(logits=number([0.9, 0.1, 0]).log())),
        (dist.Binomial(3, number(0.5)), dist.Binomial(3, number(0.9))),
        (dist.ContinuousBernoulli(number(0.5)), dist.ContinuousBernoulli(number(0.9))),
    ]
    for p, q in pairs:
        for order in (1.5, 2.0, 30.0):
            assert 0 < renyi_divergence(p, q, order) < math.inf
    p, q = pairs[4]
    assert float(renyi_divergence(p, q, 2.0)) == pytest.approx(math.log(0.25 / 0.9 + 0.25 / 0.1))
    assert renyi_divergence(p, dist.Categorical(logits=number([0.5, 0.0, 0.5]).log()), 2.0) == math.inf
    p, q = pairs[2]  # whose pool is out of what Pyro takes at this order, though the integral is finite
    step = 2 * math.pi / 400
    phi = torch.arange(400).double() * step
    y = torch.cartesian_prod(phi, phi)
    log_integral = (2.0 * p.log_prob(y) - q.log_prob(y)).logsumexp(0) + 2 * math.log(step)
    torch.testing.assert_close(renyi_divergence(p, q, 2.0), log_integral, atol=1e-6, rtol=1e-6)


# Counts.


@pytest.mark.parametrize(
    "p",
    [
        lambda t: dist.Binomial(20, logits=torch.tensor(-1.0, dtype=t)),
        lambda t: dist.NegativeBinomial(torch.tensor(3.0, dtype=t), logits=torch.tensor(-1.0, dtype=t)),
    ],
)
def test_entropy_of_counts_in_half_precision(p: Any) -> None:
    found, expected = entropy(p(torch.float16)), entropy(p(torch.float64))
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0)


def test_no_failure_to_wait_for() -> None:
    assert entropy(dist.NegativeBinomial(torch.tensor([0.0, 3.0]), torch.tensor(0.3)))[0] == 0


APART = (dist.Uniform(0.0, torch.tensor([1.0, 2.5])), dist.Uniform(2.0, 3.0))


@pytest.mark.parametrize("validate", [True, False])
def test_laws_that_do_not_overlap_are_infinitely_far_apart(validate: bool) -> None:
    """In the row where they do not, with the rows beside it as they are."""
    p, q = (dist.Uniform(u.low, u.high, validate_args=validate) for u in APART)
    overlap = 0.5 / math.sqrt(2.5)
    found = bhattacharyya_distance(p, q), renyi_divergence(p, q, 0.5), chernoff_coefficient(p, q, 0.5)
    expected = -math.log(overlap), -2 * math.log(overlap), overlap
    for value, row, end in zip(found, expected, (math.inf, math.inf, 0.0), strict=True):
        assert value.tolist() == pytest.approx([end, row])
    assert chernoff_information(p, q).tolist() == pytest.approx([math.inf, -math.log(0.2)])
    inner, outer = (dist.Uniform(0.0, high, validate_args=validate) for high in (1.0, 2.0))
    assert renyi_divergence(outer, inner, 2.0) == math.inf
    assert renyi_divergence(inner, outer, 2.0) == pytest.approx(math.log(2))

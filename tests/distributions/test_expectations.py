"""E[log q] under laws of another family: against quadrature, for all pairs of families of the registry."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from pyro_probmix.distributions import LogLinearPool, NumericalPool, cross_entropy
from pyro_probmix.distributions.supports import elementwise, is_circular, is_convex, is_inside, some_value
from tests.cases import CASES, NAMES, unmasked

# law -> the families of which it knows what they ask for, beside its own.
REAL = {"Normal", "Gumbel", "Laplace", "AsymmetricLaplace"}
KNOWN = {
    "Normal": REAL | {"VonMises"},
    "Gumbel": {"Normal"},
    "Laplace": {"Normal", "AsymmetricLaplace"},
    "AsymmetricLaplace": {"Normal"},
    "MultivariateNormal": {"Independent Normal", "LowRankMultivariateNormal"},
    "LowRankMultivariateNormal": {"Independent Normal", "MultivariateNormal"},
    "Independent Normal": {"MultivariateNormal", "LowRankMultivariateNormal"},
    "Uniform": {"Normal"},
    **{
        law: {"Normal", "Exponential", "expanded Gamma", "masked Exponential", "Gamma", "LogNormal", "InverseGamma"}
        | {"Chi2", "HalfNormal", "Weibull"}
        for law in ("Exponential", "Gamma", "LogNormal", "InverseGamma", "Chi2", "HalfNormal", "Weibull")
    },
    "Beta": {"Normal", "Exponential", "Gamma", "LogNormal", "Chi2", "HalfNormal", "Weibull", "ContinuousBernoulli"},
    "ContinuousBernoulli": {"Normal", "Exponential"},
    "Binomial": {"Normal", "Poisson", "Geometric", "NegativeBinomial", "GammaPoisson", "ZeroInflatedPoisson"},
    "Bernoulli": {"Normal", "Poisson", "Geometric", "NegativeBinomial", "Binomial", "Categorical"},
    "Poisson": {"Normal", "Geometric"},
    "NegativeBinomial": {"Normal", "Geometric"},
}


def is_known(law: Any, q: Any) -> bool:
    try:
        cross_entropy(law, q)
    except (TypeError, ValueError, NotImplementedError):
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_cross_entropy_of_any_pair_that_knows_it_is_its_integral(name: str) -> None:
    """No pair of families has a value that is wrong: it has its own, or none."""
    case, law = CASES[name], CASES[name].draw((3,), 0)
    answered = set()
    for other in NAMES:
        q = CASES[other].draw((3,), 1)
        if q.event_shape != law.event_shape or not is_known(law, q):
            continue
        answered.add(other)
        score = lenient(unmasked(q))
        expected = -case.expectation(law, score.log_prob)
        tolerance = max(1e-7, 10 * case.precision, 10 * CASES[other].precision)
        value = cross_entropy(law, q)
        diverges = value == math.inf  # E[1/y]: on a grid it is only large
        torch.testing.assert_close(value[~diverges], expected[~diverges], rtol=1e-6, atol=tolerance, msg=other)
        assert bool((expected[diverges] > 20).all()), other
    missing = KNOWN.get(name, set()) - answered
    assert not missing, missing


def lenient(p: Any) -> Any:
    """The same without checks: a grid has points at the ends."""
    for part in (p, getattr(p, "base_dist", None)):
        if part is not None:
            part._validate_args = False
    return p


def normal(*shape: int) -> Any:
    return dist.Normal(torch.randn(shape), torch.rand(shape) + 0.5)


@pytest.mark.parametrize(
    ("law", "q"),
    [
        (normal(3, 2).to_event(1), dist.MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]]))),
        (normal(3, 2).to_event(2), normal(3, 2).to_event(2)),
        (dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])), normal(3).to_event(1)),
        (dist.MultivariateNormal(torch.zeros(3, 2), torch.eye(2)).to_event(1), normal(3, 2).to_event(2)),
        (normal(4, 3, 2).to_event(2), dist.MultivariateNormal(torch.zeros(3, 2), 2 * torch.eye(2)).to_event(1)),
        (dist.Binomial(3, torch.tensor([0.2, 0.7])), dist.StudentT(3.0)),
        (dist.Gamma(torch.tensor([[2.0], [3.0]]), 1.5).to_event(1), dist.Weibull(2.0, torch.ones(2, 1)).to_event(1)),
        (dist.Weibull(torch.ones(2), 3.0), dist.Weibull(2.0, torch.tensor([1.5, 0.5]))),
        (dist.Laplace(torch.tensor([0.5, -3.0]), 0.5), dist.Laplace(1.0, 2.0)),
        (dist.Gumbel(torch.tensor([0.5, -1.0]), 0.5), dist.Gumbel(1.0, 2.0)),
        (dist.Normal(torch.tensor([0.5, 3.0]), 0.5), dist.VonMises(3.0, 2.0)),
        (dist.Delta(torch.tensor([1.0, 2.0])), dist.Cauchy(0.0, 1.0)),
        (dist.Delta(torch.ones(3, 2)).to_event(1), dist.StudentT(3.0).expand((2,)).to_event(1)),
    ],
    ids=str,
)
def test_against_draws(law: Any, q: Any) -> None:
    """Laws of vectors, and of a family with other fixed parameters."""
    values = law.sample((100_000,))
    scores = q.log_prob(values)
    error = scores.std(0) / len(values) ** 0.5
    assert bool(((scores.mean(0) + cross_entropy(law, q)).abs() < 5 * error + 1e-5).all())


def test_a_numerical_pool_asks_for_what_its_components_do() -> None:
    """log of a pool is the average of its components', and its normaliser."""
    weights = torch.tensor([[0.3, 0.7], [1.0, 0.0]], dtype=torch.float64)
    laws = dist.Gamma(torch.tensor([2.0, 3.0], dtype=torch.float64), 1.5)
    members = [dist.Gamma(torch.tensor(a, dtype=torch.float64), b) for a, b in ((2.0, 1.0), (4.0, 3.0))]
    pool, closed = NumericalPool(members, weights), LogLinearPool(members, weights)
    torch.testing.assert_close(cross_entropy(laws, pool), cross_entropy(laws, closed), rtol=1e-8, atol=1e-8)
    shapes = NumericalPool([dist.Weibull(1.0, 2.0), dist.Weibull(2.0, 0.7)], [0.4, 0.6])
    values = dist.Gamma(2.0, 1.5).sample((100_000,))
    scores = shapes.log_prob(values)
    error = scores.std() / len(values) ** 0.5
    assert abs(scores.mean() + cross_entropy(dist.Gamma(2.0, 1.5), shapes)) < 5 * error
    with pytest.raises(TypeError, match="StudentT has no natural form"):
        cross_entropy(dist.Normal(0.0, 1.0), NumericalPool([dist.StudentT(3.0), dist.StudentT(5.0)], [0.5, 0.5]))


def test_gradients_of_both() -> None:
    parameters = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 1.5, 0.7, 1.2)]
    for law, q in (
        (dist.LogNormal, dist.Gamma),
        (dist.Gamma, dist.LogNormal),
        (dist.Weibull, dist.InverseGamma),
        (dist.Normal, dist.VonMises),
        (dist.Beta, dist.Weibull),
    ):
        assert torch.autograd.gradcheck(
            lambda a, b, c, d, law=law, q=q: cross_entropy(law(a, b), q(c, d)), parameters
        ), (law, q)


@pytest.mark.parametrize(
    ("law", "q", "message"),
    [
        (dist.Normal(0.0, 1.0), dist.Gamma(1.0, 1.0), "got Normal and Gamma, whose support the first leaves"),
        (dist.Poisson(1.0), dist.Exponential(1.0), "got Poisson and Exponential, whose support the first leaves"),
        (dist.Normal(0.0, 1.0), dist.Poisson(1.0), "got Normal and Poisson, whose support the first leaves"),
        (dist.Gamma(1.0, 1.0), dist.Pareto(0.5, 1.0), "got Gamma and Pareto, whose support the first leaves"),
        (dist.Gamma(2.0, 1.0), dist.Gumbel(0.0, 1.0), "the first does not know the expectations"),
        (dist.Poisson(1.0), dist.NegativeBinomial(2.0, 0.5), "the first does not know the expectations"),
        (dist.VonMises(0.0, 1.0), dist.Normal(0.0, 1.0), "the first does not know the expectations"),
        (dist.Normal(0.0, 1.0), dist.StudentT(3.0), "StudentT has no natural form"),
        (dist.Cauchy(0.0, 1.0), dist.Normal(0.0, 1.0), "Cauchy has no natural form"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused(law: Any, q: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        cross_entropy(law, q)


def test_a_vector_of_classes_has_no_mean() -> None:
    labels = dist.Categorical(torch.ones(2, 3)).to_event(1)
    with pytest.raises(TypeError, match="does not know the expectations"):
        cross_entropy(labels, dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))


# Supports.


@pytest.mark.parametrize(
    "name", sorted(set(CASES) - {"SpanningTree"})
)  # whose support does not tell that it is of edges
def test_some_value_is_a_value(name: str) -> None:
    p = CASES[name].draw((2,))
    value = some_value(p)
    assert value is not None
    assert value.shape == p.batch_shape + p.event_shape
    assert bool(p.support.check(value).all())


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (constraints.positive, constraints.nonnegative, True),
        (constraints.nonnegative, constraints.positive, True),
        (constraints.unit_interval, constraints.positive, True),
        (constraints.positive, constraints.unit_interval, False),
        (constraints.real, constraints.real_vector, False),
        (constraints.simplex, constraints.real_vector, True),
        (constraints.boolean, constraints.nonnegative_integer, True),
        (constraints.boolean, constraints.integer_interval(1, 2), False),
        (constraints.integer_interval(0, 3), constraints.integer_interval(0, torch.tensor([3, 5])), True),
        (constraints.integer_interval(0, 4), constraints.integer_interval(0, torch.tensor([3, 5])), False),
        (constraints.nonnegative_integer, constraints.nonnegative, False),
        (constraints.positive_integer, constraints.nonnegative, True),
        (constraints.nonnegative_integer, constraints.real, True),
        (constraints.interval(torch.tensor([0.0, 1.0]), 2.0), constraints.greater_than(0.5), False),
        (constraints.one_hot, constraints.simplex, False),
        (constraints.less_than(3.0), constraints.less_than(4.0), True),
        (constraints.lower_cholesky, constraints.lower_cholesky, True),
    ],
    ids=str,
)
def test_supports_inside_others(inner: Any, outer: Any, expected: bool) -> None:
    assert is_inside(inner, outer) is expected


def test_what_is_between_two_values() -> None:
    angles = dist.VonMises(torch.zeros(2), 1.0)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), angles)
    for p in (angles, angles.to_event(1), mixture, dist.LKJCholesky(3, 1.0), dist.Poisson(1.0)):
        assert not is_convex(p)
    assert is_circular(mixture)
    for p in (dist.Gamma(1.0, 1.0), dist.Dirichlet(torch.ones(3)), dist.LKJ(3, torch.tensor(1.0))):
        assert is_convex(p)
    assert elementwise(dist.Normal(torch.zeros(2), 1.0).to_event(1).support) is constraints.real

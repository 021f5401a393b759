"""Weights off the simplex: products, temperatures and ratios stay in the family, or are refused with the reason."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_probmix.distributions import (
    LogLinearPool,
    exponential_family,
    from_natural_parameters,
    log_linear_pool,
    natural_parameters,
)
from pyro_probmix.distributions.exponential_family import set_validation
from tests.cases import CASES, NAMES, unmasked

CONSTANT = [name for name in NAMES if exponential_family(CASES[name].draw()).constant_base]
OTHERS = [name for name in NAMES if name not in CONSTANT]
WEIGHTS = [[1.0, 1.0], [0.5, 0.2], [0.9, -0.05], [2.0, 0.0]]


def members(name: str, size: int = 2) -> list[Any]:
    return [CASES[name].draw((3,), seed) for seed in range(size)]


def log_f(components: list[Any], weights: Any, y: Tensor) -> Tensor:
    return sum(w * unmasked(p).log_prob(y) for w, p in zip(weights, components, strict=True))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", CONSTANT)
def test_pool_is_the_normalised_product_of_powers(name: str, weights: list[float]) -> None:
    components = members(name)
    pool = LogLinearPool(components, weights, simplex=False)
    log_total = CASES[name].log_integral(lambda y: log_f(components, weights, y), 1)
    tolerance = max(1e-8, 3 * CASES[name].precision)
    torch.testing.assert_close(pool.log_normalizer, -log_total, atol=tolerance, rtol=1e-8)
    y = unmasked(components[0]).sample((4,))
    expected = log_f(components, weights, y) - log_total
    torch.testing.assert_close(unmasked(pool.fused).log_prob(y), expected, atol=tolerance, rtol=1e-8)
    for other in (pool.expand([2, 3]), pickle.loads(pickle.dumps(pool)), copy.deepcopy(pool)):
        torch.testing.assert_close(other.log_normalizer, pool.log_normalizer.expand(other.batch_shape))


@pytest.mark.parametrize("name", NAMES)
def test_on_the_simplex_both_ways_agree(name: str) -> None:
    components = members(name)
    weights = torch.tensor([[0.3, 0.7], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    pool, general = LogLinearPool(components, weights), LogLinearPool(components, weights, simplex=False)
    y = pool.sample((4,))
    torch.testing.assert_close(general.log_prob(y), pool.log_prob(y), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(general.log_normalizer, pool.log_normalizer, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", OTHERS)
def test_families_with_a_base_measure_stay_where_weights_sum_to_one(name: str) -> None:
    components, weights = members(name), [1.05, -0.05]
    pool = LogLinearPool(components, weights, simplex=False)
    log_total = CASES[name].log_integral(lambda y: log_f(components, weights, y), 1)
    tolerance = max(1e-8, 3 * CASES[name].precision)
    torch.testing.assert_close(pool.log_normalizer, -log_total, atol=tolerance, rtol=1e-8)


@pytest.mark.faults("pool outside its family")
@pytest.mark.parametrize("name", OTHERS)
def test_families_with_a_base_measure_are_left_otherwise(name: str) -> None:
    message = r"expected a sum of 1, got 2 at batch index \[1\]: the base measure .* not constant.*NumericalPool"
    weights = torch.tensor([[0.5, 0.5], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        log_linear_pool(members(name), weights, simplex=False)


@pytest.mark.parametrize("name", CONSTANT)
def test_derivatives(name: str) -> None:
    case = CASES[name]
    drawn = [case.parameters(torch.Size(), torch.Generator().manual_seed(seed)) for seed in range(2)]
    y, count = case.draw((), 7).sample(), len(drawn[0])

    def function(weights: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        components = [case.make(*parameters[:count]), case.make(*parameters[count:])]
        for component in components:
            set_validation(component, False)
        pool = LogLinearPool(components, weights, simplex=False)
        return unmasked(pool.fused).log_prob(y), pool.log_normalizer

    weights = torch.tensor([0.8, 0.5], dtype=torch.float64, requires_grad=True)
    inputs = [weights, *[t.requires_grad_() for parameters in drawn for t in parameters]]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


OUTSIDE = {
    "Normal": (
        [dist.Normal(torch.zeros(3), 1.0), dist.Normal(0.0, torch.tensor([2.0, 0.9, 0.5]))],
        [1.0, -1.0],
        r"domain of Normal, got scale outside GreaterThan.* at batch index \[1, 2\]",
    ),
    "Gamma": (
        [dist.Gamma(2.0, 1.0), dist.Gamma(2.0, 3.0)],
        [1.0, -0.5],
        r"domain of Gamma, got rate outside GreaterThan",
    ),
    "Beta": ([dist.Beta(0.1, 1.0)], [2.0], r"domain of Beta, got concentration1 outside GreaterThan"),
    "Independent": (
        [dist.Exponential(torch.ones(2)).to_event(1), dist.Exponential(2 * torch.ones(2)).to_event(1)],
        [1.0, -1.0],
        r"domain of Independent\(Exponential\), got rate outside",
    ),
    "MultivariateNormal": (
        [dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), dist.MultivariateNormal(torch.zeros(2), torch.eye(2))],
        [1.0, -2.0],
        r"domain of MultivariateNormal, got .*positive-definite",
    ),
    "Categorical": (
        [dist.Categorical(logits=torch.zeros(2)), dist.Categorical(logits=torch.tensor([-torch.inf, 0.0]))],
        [1.0, -1.0],
        r"domain of Categorical, got logits outside",
    ),
    "not a number": ([dist.Normal(0.0, 1.0)], [float("nan")], r"weights: expected finite numbers, got nan at index 0"),
}


@pytest.mark.faults("pool outside its family")
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_leaves_the_domain_is_named(name: str) -> None:
    components, weights, message = OUTSIDE[name]
    with pytest.raises(ValueError, match=message):
        log_linear_pool(components, weights, simplex=False)


@pytest.mark.faults("pool outside its family")
def test_without_validation_it_is_nan_and_never_hidden() -> None:
    components = [dist.Normal(0.0, 1.0, validate_args=False), dist.Normal(1.0, 1.0, validate_args=False)]
    pool = LogLinearPool(components, torch.tensor([1.0, -2.0]), simplex=False)
    assert pool.log_prob(torch.tensor(0.0)).isnan()
    assert pool.log_normalizer.isnan()


FLAT = {
    "Normal": ([dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0)], [1.0, -1.0], "loc infinite"),
    "Laplace": ([dist.Laplace(0.0, 1.0)] * 2, [1.0, -1.0], "scale infinite"),
    "HalfNormal": ([dist.HalfNormal(1.0)] * 2, [1.0, -1.0], "scale infinite"),
    "Geometric": ([dist.Geometric(0.3)] * 2, [1.0, -1.0], "logits infinite"),
    "Uniform": ([dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 2.0)], [0.0, 0.0], "an interval without end"),
    "Delta": ([dist.Delta(torch.tensor(1.0)), dist.Delta(torch.tensor(2.0))], [0.0, 0.0], "an empty set of points"),
}


@pytest.mark.faults("pool outside its family")
@pytest.mark.parametrize("name", FLAT)
def test_products_without_a_density_are_refused(name: str) -> None:
    """What cancels leaves a density that is flat on an unbounded support."""
    components, weights, reason = FLAT[name]
    with pytest.raises(ValueError, match=f"expected a pool within the domain of {name}.*, got {reason}"):
        log_linear_pool(components, weights, simplex=False)


@pytest.mark.parametrize(
    ("p", "eta"),
    [
        (dist.Geometric(0.5), (0.0,)),
        (dist.NegativeBinomial(3.0, 0.5), (0.0,)),
        (dist.Laplace(0.0, 1.0), (0.0,)),
        (dist.Normal(0.0, 1.0), (1.0, -0.0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_natural_parameters_without_a_density_are_refused(p: Any, eta: Any) -> None:
    with pytest.raises(ValueError, match=r"infinite|outside"):
        from_natural_parameters(p, tuple(map(torch.tensor, eta)))


PROPER = {
    "Geometric": (dist.Geometric(logits=torch.tensor(torch.inf)), dist.Geometric(0.5)),
    "NegativeBinomial": (
        dist.NegativeBinomial(10.0, logits=torch.tensor(-torch.inf)),
        dist.NegativeBinomial(10.0, 0.5),
    ),
    "SpanningTree": (dist.SpanningTree(torch.tensor([0.0, 1.0, -torch.inf])), dist.SpanningTree(torch.zeros(3))),
    "Bernoulli": (dist.Bernoulli(logits=torch.tensor(torch.inf)), dist.Bernoulli(0.5)),
}


@pytest.mark.parametrize("name", PROPER)
def test_products_with_all_mass_at_one_end(name: str) -> None:
    """An infinite parameter of these is a law; the product with another is the same law."""
    p, q = PROPER[name]
    weights = [0.5, 0.5] if name == "NegativeBinomial" else [1.0, 1.0]
    pool = log_linear_pool([p, q], weights, simplex=False)
    (found,), (expected,) = exponential_family(pool).parameters, exponential_family(p).parameters
    assert torch.equal(found.isinf(), expected.isinf())
    (again,) = exponential_family(from_natural_parameters(p, natural_parameters(p))).parameters
    assert torch.equal(again.isinf(), expected.isinf())

"""The pooled density is ∏ pₖ^{wₖ}, normalised: by quadrature, for every family, and in its derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_probmix.distributions import LogLinearPool, log_linear_pool
from pyro_probmix.distributions.exponential_family import set_validation
from tests.cases import CASES, NAMES, simplex_weights, unmasked

BATCH = (4,)
SIZES = [2, 3]


def components(name: str, size: int, batch_shape: tuple[int, ...] = BATCH) -> list[Any]:
    return [CASES[name].draw(batch_shape, seed) for seed in range(size)]


def log_product(members: list[Any], weights: Tensor, y: Tensor) -> Tensor:
    """Σₖ wₖ log pₖ(y), a component of weight zero being out."""
    terms = [unmasked(p).log_prob(y) for p in members]
    return sum(torch.where(w == 0, 0, w * t) for w, t in zip(weights.unbind(-1), terms, strict=True))


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_pool_is_the_normalised_product(name: str, size: int) -> None:
    case, members, weights = CASES[name], components(name, size), simplex_weights(BATCH, size)
    pool = LogLinearPool(members, weights)
    assert pool.batch_shape == BATCH
    log_z = case.log_integral(lambda y: log_product(members, weights, y), len(BATCH))
    torch.testing.assert_close(pool.log_normalizer, -log_z, atol=1e-6, rtol=1e-6)
    assert (pool.log_normalizer >= 0).all()
    assert (pool.log_normalizer[0] > 1e-3).all()
    for p in [pool, *members]:
        y = p.sample((5,))
        expected = log_product(members, weights, y) - log_z
        torch.testing.assert_close(unmasked(pool.fused).log_prob(y), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_components_broadcast(name: str) -> None:
    case = CASES[name]
    p, q = case.draw((3, 1), 0), case.draw((2,), 1)
    first = torch.linspace(0, 1, 4, dtype=torch.float64).reshape(4, 1, 1)
    pool = log_linear_pool([p, q], [first, 1 - first])
    assert pool.batch_shape == (4, 3, 2)
    full = [p.expand([4, 3, 2]), q.expand([4, 3, 2])]
    weights = torch.stack([first, 1 - first], -1).expand(4, 3, 2, 2)
    y = pool.sample()
    torch.testing.assert_close(pool.log_prob(y), log_linear_pool(full, weights).log_prob(y))


@pytest.mark.parametrize("name", NAMES)
def test_components_as_the_last_batch_dimension_of_one_distribution(name: str) -> None:
    batched = CASES[name].draw((3, 2))
    weights = simplex_weights((3,), 2)
    pool = LogLinearPool(batched, weights)
    assert len(pool.components) == 2
    y = pool.sample()
    law = batched.base_dist if unmasked(batched) is not batched else batched
    value = law.log_prob(y.unsqueeze(-1 - len(law.event_shape)))
    product = torch.where(weights == 0, 0, weights * value).sum(-1)
    torch.testing.assert_close(unmasked(pool.fused).log_prob(y), product + pool.log_normalizer)


def density(name: str, y: Tensor, size: int) -> Callable[..., tuple[Tensor, ...]]:
    """(λ, parameters of all components) -> log-density of the pool at y, ξ."""
    case = CASES[name]

    def function(coefficient: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        count = len(parameters) // size
        members = [case.make(*parameters[k * count : (k + 1) * count]) for k in range(size)]
        for member in members:
            set_validation(member, False)
        rest = (1 - coefficient) / (size - 1)
        pool = LogLinearPool(members, [coefficient, *[rest] * (size - 1)])
        return unmasked(pool.fused).log_prob(y), pool.log_normalizer

    return function


def free_parameters(name: str, size: int) -> list[Tensor]:
    case = CASES[name]
    drawn = [case.parameters(torch.Size(), torch.Generator().manual_seed(seed)) for seed in range(size)]
    return [t for parameters in drawn for t in parameters]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_in_parameters_and_weights(name: str, size: int) -> None:
    y = CASES[name].draw((), 7).sample()
    parameters = [t.requires_grad_() for t in free_parameters(name, size)]
    coefficient = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(density(name, y, size), [coefficient, *parameters])


@pytest.mark.faults("bad weights")
@pytest.mark.parametrize("coefficient", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_at_weight_zero_and_one_are_one_sided(name: str, coefficient: float) -> None:
    y = CASES[name].draw((), 7).sample()
    parameters = [t.requires_grad_() for t in free_parameters(name, 2)]
    function = density(name, y, 2)
    at = torch.tensor(coefficient, dtype=torch.float64, requires_grad=True)
    step = 1e-4 * (1 - 2 * coefficient)
    for i in range(2):
        value = function(at, *parameters)[i]
        one, two = (function(at.detach() + k * step, *parameters)[i] for k in (1, 2))
        slope = ((4 * one - 3 * value - two) / (2 * step)).detach()  # second order, from one side
        gradients = torch.autograd.grad(value, [at, *parameters], allow_unused=True)
        torch.testing.assert_close(gradients[0], slope, atol=1e-4, rtol=1e-4)
        assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.faults("bad weights")
@pytest.mark.parametrize("coefficient", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_in_parameters_at_weight_zero_and_one(name: str, coefficient: float) -> None:
    y = CASES[name].draw((), 7).sample()
    parameters = [t.requires_grad_() for t in free_parameters(name, 2)]
    weight = torch.tensor(coefficient, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *tensors: density(name, y, 2)(weight, *tensors), parameters)

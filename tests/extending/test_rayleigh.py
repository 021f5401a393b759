"""What follows from the natural form of the Rayleigh distribution, against quadrature and SciPy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.distributions import (
    index_select,
    log_base_measure,
    log_normalizer,
    mean_parameters,
    natural_parameters,
    sufficient_statistics,
)

Y = torch.linspace(1e-4, 30.0, 400_001, dtype=torch.float64)
SIGMAS = 0.7, 2.0
close = torch.testing.assert_close


@pytest.fixture
def laws(extensions: SimpleNamespace) -> list[Any]:
    return [extensions.rayleigh.Rayleigh(torch.tensor(sigma, dtype=torch.float64)) for sigma in SIGMAS]


def integral(values: Tensor) -> Tensor:
    return torch.trapezoid(values, Y)


def test_it_is_the_law_that_scipy_has(laws: list[Any]) -> None:
    for p, sigma in zip(laws, SIGMAS, strict=True):
        close(p.log_prob(Y), torch.as_tensor(stats.rayleigh(scale=sigma).logpdf(Y)))
        close(p.mean.item(), stats.rayleigh(scale=sigma).mean())


def test_its_natural_form_is_its_density(laws: list[Any]) -> None:
    for p in laws:
        (eta,), (statistic,) = natural_parameters(p), sufficient_statistics(p, Y)
        close(log_base_measure(p, Y) + eta * statistic - log_normalizer(p), p.log_prob(Y))
        close(mean_parameters(p)[0], integral(p.log_prob(Y).exp() * statistic), rtol=1e-6, atol=0)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_pool_is_the_normalised_product(weight: float, laws: list[Any], extensions: SimpleNamespace) -> None:
    pool = pm.log_linear_pool(laws, [weight, 1 - weight])
    product = weight * laws[0].log_prob(Y) + (1 - weight) * laws[1].log_prob(Y)
    total = integral(product.exp())
    assert isinstance(pm.LogLinearPool(laws, [weight, 1 - weight]).fused, extensions.rayleigh.Rayleigh)
    close(pool.log_prob(Y), product - total.log(), rtol=1e-6, atol=1e-6)
    close(pm.LogLinearPool(laws, [weight, 1 - weight]).log_normalizer, -total.log(), rtol=1e-5, atol=1e-7)


def test_divergences(laws: list[Any]) -> None:
    p, q = laws
    density, other = p.log_prob(Y).exp(), q.log_prob(Y)
    for ours, values in {
        pm.entropy(p): -density * p.log_prob(Y),
        pm.cross_entropy(p, q): -density * other,
        pm.kl_divergence(p, q): density * (p.log_prob(Y) - other),
    }.items():
        close(ours, integral(values), rtol=1e-6, atol=0)
    close(pm.renyi_divergence(p, q, 0.5), -2 * integral((density * other.exp()).sqrt()).log(), rtol=1e-6, atol=0)


def test_batches_and_wrappers(extensions: SimpleNamespace) -> None:
    p = extensions.rayleigh.Rayleigh(torch.tensor([[0.5, 1.0], [2.0, 3.0]]))
    assert index_select(p, 0, torch.tensor([1])).sigma.tolist() == [[2.0, 3.0]]
    pool = pm.log_linear_pool([p.to_event(1), p.expand([3, 2, 2]).to_event(1)], [0.5, 0.5])
    close(pool.base_dist.sigma, p.sigma.expand(3, 2, 2))
    assert p.mask(torch.tensor(False)).log_prob(torch.ones(2, 2)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_refusals_name_the_argument(laws: list[Any], extensions: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="sigma"):
        extensions.rayleigh.Rayleigh(torch.tensor(-1.0), validate_args=True)
    with pytest.raises(TypeError, match=r"Rayleigh"):
        pm.log_linear_pool([laws[0], dist.Gamma(2.0, 1.0)], [0.5, 0.5])
    with pytest.raises(ValueError, match="sigma"):  # the power has no integral
        pm.log_linear_pool(laws, [-9.0, 10.0], simplex=False)

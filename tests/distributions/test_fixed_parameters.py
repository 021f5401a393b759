"""What a family holds fixed must agree, is carried along, and is not looked at without validation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_probmix.distributions import (
    LogLinearPool,
    cross_entropy,
    index_select,
    log_base_measure,
    log_linear_pool,
    renyi_divergence,
)
from pyro_probmix.distributions import kl_divergence as pm_kl

ONES = torch.ones(3)
ZEROS = torch.zeros(3)

# name: (a member from its fixed parameter, two values of that, what the error calls it)
ROWS: dict[str, tuple[Callable[[Any], Any], tuple[Any, Any], str]] = {
    "AffineBeta": (lambda scale: dist.AffineBeta(ONES, 2 * ONES, 0.0, scale), (1.0, 2.0), "equal transforms"),
    "AsymmetricLaplace": (lambda loc: dist.AsymmetricLaplace(loc, ONES, ONES), (0.0, 1.0), "equal loc"),
    "Binomial": (lambda n: dist.Binomial(n, logits=ZEROS), (3, 4), "equal total_count"),
    "ExtendedBinomial": (lambda n: dist.ExtendedBinomial(n, logits=ZEROS), (3, 4), "equal total_count"),
    "GammaPoisson": (lambda n: dist.GammaPoisson(n, ONES), (1.0, 2.0), "equal concentration"),
    "Gumbel": (lambda scale: dist.Gumbel(ZEROS, scale), (1.0, 2.0), "equal scale"),
    "Kumaraswamy": (lambda a: dist.Kumaraswamy(a, ONES), (1.0, 2.0), "equal concentration1"),
    "LKJCholesky": (lambda size: dist.LKJCholesky(size, ONES), (2, 3), "equal dim"),
    "Laplace": (lambda loc: dist.Laplace(loc, ONES), (0.0, 1.0), "equal loc"),
    "Multinomial": (lambda n: dist.Multinomial(n, logits=torch.zeros(3, 2)), (3, 4), "equal total_count"),
    "NegativeBinomial": (lambda n: dist.NegativeBinomial(n, logits=ZEROS), (3, 4), "equal total_count"),
    "SineBivariateVonMises": (
        lambda loc: dist.SineBivariateVonMises(loc, 0.0, ONES, ONES, 0.5 * ONES),
        (0.0, 1.0),
        "equal phi_loc",
    ),
    "Weibull": (lambda k: dist.Weibull(ONES, k), (1.0, 2.0), "equal concentration"),
    "ZeroInflatedDistribution": (
        lambda base: dist.ZeroInflatedDistribution(base, gate=0.5 * ONES),
        (dist.Poisson(ONES), dist.Geometric(0.5 * ONES)),
        "one family, got Poisson and Geometric",
    ),
    "ZeroInflatedNegativeBinomial": (
        lambda n: dist.ZeroInflatedNegativeBinomial(torch.tensor(n), logits=ZEROS, gate=0.5 * ONES),
        (3, 4),
        "equal total_count",
    ),
}


@pytest.mark.faults("unequal fixed parameters")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_what_is_fixed_must_agree(name: str, validate: bool) -> None:
    make, values, message = ROWS[name]
    with pyro.validation_enabled(validate):
        check_what_is_fixed(make, values, message, has_cross_entropy=name in ("Gumbel", "Laplace", "Weibull"))


def check_what_is_fixed(
    make: Callable[[Any], Any], values: tuple[Any, Any], message: str, has_cross_entropy: bool
) -> None:
    one, other = values
    with pytest.raises(ValueError, match=rf"components: expected {message}"):
        log_linear_pool([make(one), make(other)], [0.5, 0.5])
    if has_cross_entropy:
        assert bool((cross_entropy(make(one), make(other)) > cross_entropy(make(one), make(one))).all())
    else:
        with pytest.raises((TypeError, ValueError), match=r"p, q: expected"):
            cross_entropy(make(one), make(other))
    y = make(one).sample()
    assert log_linear_pool([make(one), make(one)], [0.5, 0.5]).log_prob(y).isfinite().all()


@pytest.mark.faults("unequal fixed parameters")
def test_what_is_fixed_may_vary_over_the_batch() -> None:
    loc = torch.tensor([0.0, 1.0, 2.0])
    p, q = dist.Laplace(loc, ONES), dist.Laplace(loc, 2 * ONES)
    assert log_linear_pool([p, q], [0.5, 0.5]).loc.tolist() == loc.tolist()
    rows = torch.tensor([2, 0])
    assert index_select(p, -1, rows).loc.tolist() == [2.0, 0.0]
    beta = dist.AffineBeta(ONES, 2 * ONES, loc, 1.0)
    assert index_select(beta, -1, rows).low.tolist() == [2.0, 0.0]


@pytest.mark.faults("unequal fixed parameters")
def test_a_fixed_parameter_under_vmap() -> None:
    concentration, scale, y = torch.rand(5) + 1, torch.rand(5, 2) + 1, torch.rand(5) + 1

    def log_prob(concentration: Tensor, scale: Tensor, y: Tensor) -> Tensor:
        members = [dist.Weibull(s, concentration) for s in scale.unbind(-1)]
        return LogLinearPool(members, [0.25, 0.75]).log_prob(y)

    with pyro.validation_enabled(False):
        values = torch.func.vmap(log_prob)(concentration, scale, y)
    torch.testing.assert_close(values, log_prob(concentration, scale, y))


def test_zero_inflation_is_of_counts() -> None:
    p = dist.ZeroInflatedDistribution(dist.Normal(ZEROS, 1.0), gate=0.5 * ONES)
    with pytest.raises(TypeError, match="ZeroInflatedDistribution of Normal has no natural form: expected counts"):
        log_linear_pool([p, p], [0.5, 0.5])


def test_an_extended_binomial_has_no_mass_off_its_counts() -> None:
    p, q = (dist.ExtendedBinomial(3, logits=logits * ONES) for logits in (-1.0, 1.0))
    pool = LogLinearPool([p, q], [0.5, 0.5])
    y = torch.tensor([[-1.0], [4.0]])
    assert (pool.log_prob(y) == log_base_measure(pool, y)).all()
    assert (pool.log_prob(y) == -torch.inf).all()
    negative = dist.ExtendedBinomial(torch.tensor(-2), logits=ZEROS)
    with pytest.raises(TypeError, match=r"ExtendedBinomial of a negative total_count .* got -2, of no mass"):
        log_linear_pool([negative, negative], [0.5, 0.5])


@pytest.mark.parametrize("rate", [3.0, 50.0])
def test_a_gate_of_exactly_zero_or_one(rate: float) -> None:
    """Held off zero by rounding, as Pyro holds it, a gate would still outweigh the mass e⁻⁵⁰ of a Poisson at zero."""
    rates = torch.tensor(rate, dtype=torch.float64)
    none, sure = (dist.ZeroInflatedPoisson(rates, gate=torch.tensor(gate, dtype=torch.float64)) for gate in (0.0, 1.0))
    plain, half = dist.Poisson(rates), dist.ZeroInflatedPoisson(rates + 1, gate=0.5 * torch.ones_like(rates))
    pool = LogLinearPool([none, none], [0.5, 0.5])
    y = torch.arange(200, dtype=torch.float64)
    torch.testing.assert_close(pool.log_prob(y), plain.log_prob(y))
    product = 0.5 * plain.log_prob(y) + 0.5 * half.log_prob(y)
    mixed = LogLinearPool([none, half], [0.5, 0.5])
    torch.testing.assert_close(mixed.log_normalizer, -product.logsumexp(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mixed.log_prob(y), product + mixed.log_normalizer, rtol=1e-6, atol=1e-6)
    certain = LogLinearPool([sure, half], [0.5, 0.5])
    assert certain.log_prob(y[0]).abs() < 1e-100
    torch.testing.assert_close(certain.log_normalizer, -0.5 * half.log_prob(y[0]))
    for members in ([none, none], [none, half]):
        xi = LogLinearPool(members, [0.5, 0.5]).log_normalizer
        assert (xi >= 0).all()


@pytest.mark.faults("value on the boundary")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("law", "values"), [(dist.Poisson, (4.0, 3.0)), (dist.Geometric, (0.4, 0.3))])
def test_divergences_of_gates_of_exactly_zero_and_one(law: Any, values: tuple[float, float], dtype: Any) -> None:
    """By the sum over the counts; where the gate is one, nothing but zero has mass."""
    y = torch.arange(150, dtype=torch.float64)
    bases = [law(torch.tensor(value, dtype=dtype)) for value in values]
    log_masses = [law(torch.tensor(value, dtype=torch.float64)).log_prob(y) for value in values]
    gates = [0.0, 0.3, 1.0]
    for first, second in itertools.product(gates, gates):
        p, q = (
            dist.ZeroInflatedDistribution(base, gate=torch.tensor(gate, dtype=dtype))
            for base, gate in zip(bases, (first, second), strict=True)
        )
        mass, other = (
            (1 - gate) * log_mass.exp() + gate * (y == 0)
            for log_mass, gate in zip(log_masses, (first, second), strict=True)
        )
        expected = torch.where(mass > 0, mass * (mass / other).log(), 0).sum().to(dtype)
        assert (expected == torch.inf) == (second == 1 > first)
        torch.testing.assert_close(pm_kl(p, q), expected)
        for pair in ((LogLinearPool([p], [1]), q), (p, LogLinearPool([q, q], [0.5, 0.5]))):
            torch.testing.assert_close(kl_divergence(*pair), expected)
        torch.testing.assert_close(pm_kl(p, p), torch.zeros((), dtype=dtype))
        assert (renyi_divergence(p, q, 1.2) == torch.inf) == (second == 1 > first)


@pytest.mark.parametrize(("n", "mean"), [(0.5, 1e-3), (0.5, 2.0), (20.0, 300.0), (3.0, 1e4)])
def test_expected_base_measures_of_counts(n: float, mean: float) -> None:
    """Against the sum over all counts of any mass."""
    size = torch.tensor(n, dtype=torch.float64)
    p = dist.NegativeBinomial(size, logits=(torch.tensor(mean, dtype=torch.float64) / n).log())
    y = torch.arange(400_000, dtype=torch.float64)
    log_mass = p.log_prob(y)
    torch.testing.assert_close(cross_entropy(p, p), -(log_mass.exp() * log_mass).sum(), rtol=1e-9, atol=1e-9)
    binomial = dist.Binomial(int(mean) + 1, probs=torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(cross_entropy(binomial, binomial), binomial.entropy(), rtol=1e-9, atol=1e-9)


def test_the_divergence_of_unequal_locations_is_that_of_pytorch() -> None:
    with pyro.validation_enabled(False):
        p, q = dist.Laplace(0.0, 1.0), dist.Laplace(5.0, 1.0)
        pool = LogLinearPool([p, p], [0.5, 0.5])
        torch.testing.assert_close(kl_divergence(pool, q), kl_divergence(p, q))

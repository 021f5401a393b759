"""HolderPool: the pools between and beyond the linear and the log-linear one."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

from pyro_probmix.distributions import HolderPool, LinearPool, LogLinearPool, NumericalPool

FIRST, SECOND = scipy.stats.norm(0, 1), scipy.stats.laplace(3, 0.7)
INPUTS = [0.3, 0.0, 1.0, 3.0, 0.7]


def inputs() -> list[Tensor]:
    return [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in INPUTS]


def pool(exponent: float | Tensor, *values: Tensor) -> HolderPool:
    w, loc, scale, m, b = values or [t.detach() for t in inputs()]
    return HolderPool([dist.Normal(loc, scale), dist.Laplace(m, b)], [w, 1 - w], exponent)


@pytest.mark.parametrize("exponent", [-3.0, -1.0, -0.2, 0.3, 1.0, 2.0, 8.0])
def test_density_is_the_normalised_power_mean(exponent: float) -> None:
    def f(y: float) -> float:
        terms = math.log(0.3) + exponent * FIRST.logpdf(y), math.log(0.7) + exponent * SECOND.logpdf(y)
        return math.exp(np.logaddexp(*terms) / exponent)

    breaks = [-35, -12, -7, -3, 0, 1, 1.5, 2, 3, 4, 7, 12, 30]
    total = sum(scipy.integrate.quad(f, a, b, epsrel=1e-11)[0] for a, b in itertools.pairwise(breaks))
    p = pool(exponent)
    y = torch.tensor([-2.0, 0.5, 1.4, 3.0, 5.0], dtype=torch.float64)
    expected = torch.tensor([f(float(v)) / total for v in y], dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(y).exp(), expected, atol=1e-8, rtol=1e-8)
    assert scipy.stats.kstest(p.cdf(p.sample((1000,))).numpy(), "uniform").pvalue > 1e-6


def test_exponent_one_is_the_linear_pool() -> None:
    components = [dist.Normal(torch.zeros(3).double(), 1.0), dist.Laplace(torch.arange(3.0).double(), 0.5)]
    linear, p = LinearPool(components, [0.3, 0.7]), HolderPool(components, [0.3, 0.7], 1.0)
    y = linear.sample((5,))
    torch.testing.assert_close(p.log_prob(y), linear.log_prob(y), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(p.mean, linear.mean, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(p.log_normalizer, torch.zeros(3).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("exponent", [0.0, 1e-300, -1e-12, 1e-9])
def test_exponent_near_zero_is_the_log_linear_pool(exponent: float) -> None:
    p = pool(exponent)
    log_linear = NumericalPool(p.components, [0.3, 0.7])
    y = log_linear.icdf(torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64))
    torch.testing.assert_close(p.log_prob(y), log_linear.log_prob(y), atol=1e-8, rtol=1e-8)


def test_nothing_jumps_between_series_and_powers() -> None:
    exponents = torch.tensor([0.5e-4, 1e-4, 2e-4, 4e-4, 8e-4], dtype=torch.float64)
    values = pool(exponents).log_normalizer
    second = values[[0, 2, 4]].diff() / exponents[[0, 2, 4]].diff()
    assert second[0] == pytest.approx(float(second[1]), rel=1e-2)
    (slope,) = torch.autograd.grad(
        pool(a := torch.zeros((), dtype=torch.float64, requires_grad=True)).log_normalizer, a
    )
    assert float(slope) == pytest.approx(float(second[0]), rel=1e-2)


@pytest.mark.parametrize("exponent", [-1.5, 0.0, 1e-4, 0.5, 3.0])
def test_derivatives(exponent: float) -> None:
    def values(a: Tensor, *parameters: Tensor) -> Tensor:
        p, y = pool(a, *parameters), torch.tensor(0.4, dtype=torch.float64)
        return torch.stack([p.log_prob(y), p.log_normalizer, p.mean, p.variance, p.entropy(), p.cdf(y), p.icdf(y)])

    a = torch.tensor(exponent, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(values, [a, *inputs()], fast_mode=True)


def test_support_is_the_union_or_the_intersection() -> None:
    low, high = torch.tensor([0.0, 2.0], dtype=torch.float64)
    components = [dist.Uniform(low, low + 1), dist.Uniform(high, high + 1)]
    p = HolderPool(components, [0.5, 0.5], 2.0)
    assert (p.support.lower_bound, p.support.upper_bound) == (0, 3)
    assert p.log_prob(torch.tensor(1.5).double()) == -torch.inf
    torch.testing.assert_close(p.cdf(torch.tensor(1.5).double()), torch.tensor(0.5).double())
    with pytest.raises(ValueError, match="components: expected a common support, got none"):
        HolderPool(components, [0.5, 0.5], -1.0)
    assert HolderPool(components, [1.0, 0.0], -1.0).support.upper_bound == 1


def test_integers_batches_and_copies() -> None:
    exponents = torch.tensor([-1.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    components = [dist.Poisson(torch.tensor(3.0).double()), dist.Poisson(torch.tensor(9.0).double())]
    p = HolderPool(components, [0.5, 0.5], exponents)
    assert p.batch_shape == (4,)
    k = torch.arange(100.0).double()
    total = p.log_prob(k.unsqueeze(-1)).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(4).double())
    torch.testing.assert_close(p.mean[3], torch.tensor(6.0).double())
    for other in (p.expand([2, 4]), pickle.loads(pickle.dumps(p)), copy.deepcopy(p)):
        torch.testing.assert_close(
            other.log_prob(torch.tensor(4.0)), p.log_prob(torch.tensor(4.0)).expand(other.batch_shape)
        )


def test_refusals() -> None:
    with pytest.raises(ValueError, match="exponent: expected finite numbers, got inf"):
        pool(float("inf"))
    with pytest.raises(ValueError, match="weights: expected non-negative numbers"):
        HolderPool([dist.Normal(0.0, 1.0), dist.Cauchy(0.0, 1.0)], [1.5, -0.5], 1.0)


@pytest.mark.parametrize("other", ["Uniform", "Normal"])
@pytest.mark.parametrize("exponent", [1e-5, 0.5, 1.0, 3.0, -1.0])
def test_ends_of_components_move_with_their_parameters(exponent: float, other: str) -> None:
    """The density jumps there, also within the support."""
    one, six = torch.tensor([1.0, 6.0], dtype=torch.float64)
    second = dist.Uniform(one, six) if other == "Uniform" else dist.Normal(one, one)
    weights = torch.tensor([0.35, 0.65], dtype=torch.float64)

    def quantities(low: Tensor, high: Tensor) -> tuple[Tensor, ...]:
        pool = HolderPool([dist.Uniform(low, high), second], weights, exponent, accuracy=1e-12, validate_args=False)
        values = torch.tensor([1.6, 2.5, 3.5], dtype=torch.float64)
        return (
            pool.log_normalizer,
            pool.mean,
            pool.variance,
            pool.entropy(),
            pool.cdf(values),
            pool.log_prob(values[:2]),
        )

    ends = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.2, 3.0)]
    assert torch.autograd.gradcheck(quantities, ends, eps=1e-5, atol=1e-6, rtol=1e-5)


def test_a_component_of_weight_zero_moves_nothing() -> None:
    high = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    double = torch.zeros((), dtype=torch.float64)
    pool = HolderPool([dist.Uniform(double, high), dist.Normal(double, double + 1)], [0.0, 1.0], 1.0)
    (gradient,) = torch.autograd.grad(pool.mean + pool.log_normalizer, high, allow_unused=True)
    assert gradient is None or gradient.abs() < 1e-12


# Mass nearer to an end of the support than numbers are

NEAR_AN_END = {
    "below, of one power": ((0.01, 1.0), (2.0, 3.0)),
    "below, of two powers": ((0.01, 1.0), (0.02, 1.0)),
    "above, of two powers": ((2.0, 0.01), (3.0, 0.02)),
    "both": ((0.01, 0.01), (2.0, 3.0)),
    "one each": ((0.01, 2.0), (0.5, 0.01)),
    "both, larger": ((0.1, 0.1), (0.2, 0.3)),
    "very near": ((1e-3, 1.0), (2.0, 2.0)),
}


@pytest.mark.faults("mass at an end of the support")
@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", NEAR_AN_END)
def test_mass_that_numbers_cannot_tell_from_an_end_is_right_or_refused(name: str, exponent: float) -> None:
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    members = [dist.Beta(*torch.tensor(pair, dtype=torch.float64)) for pair in NEAR_AN_END[name]]
    # In the log-odds of y, where every distance to an end is a number.
    x = torch.linspace(-math.asinh(3e5), math.asinh(3e5), 400001, dtype=torch.float64)
    odds, step = x.sinh(), float(x[1] - x[0])
    log_y, log_rest = torch.nn.functional.logsigmoid(odds), torch.nn.functional.logsigmoid(-odds)
    log_probs = torch.stack([(a - 1) * log_y + (b - 1) * log_rest + _log_beta(a, b) for a, b in NEAR_AN_END[name]], -1)
    power = exponent * log_probs + weights.log()
    log_f = (weights * log_probs).sum(-1) if exponent == 0 else power.logsumexp(-1) / exponent
    terms = log_f + log_y + log_rest + x.cosh().log() + math.log(step)
    pool = HolderPool(members, weights, exponent)
    try:
        found, mean = pool.log_normalizer, pool.mean
    except ValueError as error:
        assert exponent != 0 or name not in ("below, of one power", "below, of two powers", "very near")
        assert re.search(r"near an end of the support .* wrong by|can find to accuracy", str(error))  # noqa: PT017
        return
    torch.testing.assert_close(found, -terms.logsumexp(0), rtol=0, atol=2e-6)
    torch.testing.assert_close(mean, (terms.softmax(0) * log_y.exp()).sum(), rtol=0, atol=2e-6)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)


def test_what_is_taken_for_mass_near_an_end_by_a_larger_accuracy() -> None:
    members = [dist.Beta(*torch.tensor(pair, dtype=torch.float64)) for pair in NEAR_AN_END["both"]]
    batch = dist.Beta(*torch.tensor([[2.0, 0.01], [3.0, 0.01]], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"wrong by \d.* at batch index \[1\]; a larger accuracy"):
        _ = HolderPool([batch, batch], [0.5, 0.5], 1.0).log_normalizer
    pool = HolderPool(members, [0.5, 0.5], 1.0, accuracy=1e-3)
    assert abs(float(pool.log_normalizer)) < 1e-3


@pytest.mark.faults("mass at an end of the support")
@pytest.mark.parametrize(
    "values", [(0.01, 1.0, 0.02, 1.0), (2.0, 0.1, 3.0, 0.2), (0.3, 0.4, 0.2, 0.3), (0.1, 1.0, 2.0, 3.0)]
)
def test_gradients_see_mass_near_an_end(values: tuple[float, ...]) -> None:
    """Of what is beyond the last node, as those of the closed form do."""
    found = []
    for pool_type in (NumericalPool, LogLinearPool):
        a, b, c, d = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values)
        first = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        pool = pool_type([dist.Beta(a, b), dist.Beta(c, d)], [first, 1 - first])
        inputs = [a, b, c, d, first]
        normalizer = torch.autograd.grad(pool.log_normalizer, inputs)
        found.append([*normalizer, *torch.autograd.grad(pool.mean, inputs)])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)

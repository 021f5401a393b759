"""GaussJacobi integrates over a Beta: its moments, its limits, and Pyro's enumeration."""

from __future__ import annotations

import pickle

import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.mixing import coefficient_to


@pytest.mark.parametrize("concentrations", [(1e-3, 1e-3), (0.2, 0.2), (0.3, 0.7), (1.0, 1.0), (0.5, 4.0), (30.0, 10.0)])
def test_moments_are_exact_up_to_degree_two_q_minus_one(concentrations: tuple[float, float]) -> None:
    """E[λᵏ] = ∏ᵢ (a₁ + i)/(a₁ + a₀ + i)."""
    law = pm.GaussJacobi(*concentrations, num_nodes=6)
    a1, a0 = concentrations
    moment = 1.0
    for degree in range(12):
        assert float(law.weights @ law.nodes**degree) == pytest.approx(moment, rel=1e-13)
        moment *= (a1 + degree) / (a1 + a0 + degree)
    assert abs(float(law.weights @ law.nodes**12) / moment - 1) > 1e-12


def test_an_analytic_integrand_converges_geometrically() -> None:
    def f(t: Tensor | float) -> Tensor:
        return torch.exp(torch.as_tensor(3.0 * t)) / (1 + torch.as_tensor(t) ** 2)

    density = scipy.stats.beta(0.5, 0.5)
    exact = scipy.integrate.quad(lambda s: float(f(density.ppf(s))), 0, 1, epsabs=1e-13, epsrel=1e-13)[0]
    errors = [
        abs(float(law.weights @ f(law.nodes)) - exact) for law in (pm.GaussJacobi(0.5, num_nodes=q) for q in (3, 6, 12))
    ]
    assert errors[0] > 30 * errors[1] > 900 * errors[2]
    assert errors[2] < 1e-10


def test_draws_and_log_probabilities_are_those_of_the_weights() -> None:
    law = coefficient_to(pm.GaussJacobi(0.3, 0.7, num_nodes=4), torch.device("cpu"), torch.float32)
    torch.manual_seed(0)
    draws = law.expand((5,)).sample((4000,))
    assert draws.dtype == torch.float32
    assert draws.shape == (4000, 5)
    values = law.enumerate_support()
    counts = (draws.unsqueeze(-1) == values).sum((0, 1))
    assert scipy.stats.chisquare(counts.numpy(), (law.weights * 20_000).numpy()).pvalue > 1e-6
    torch.testing.assert_close(law.log_prob(values).exp(), law.weights.float())
    assert law.log_prob(torch.tensor(0.5)) == -torch.inf


def test_expanded_enumeration_and_pickling() -> None:
    law = pickle.loads(pickle.dumps(pm.GaussJacobi(0.3, num_nodes=4))).expand((2, 3))
    assert law.batch_shape == (2, 3)
    assert law.enumerate_support().shape == (4, 2, 3)
    assert law.enumerate_support(expand=False).shape == (4, 1, 1)
    assert law.mean.shape == law.variance.shape == (2, 3)
    assert repr(law) == "GaussJacobi(0.3, 0.3, num_nodes=4)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.0,), ValueError, r"concentration1: expected a number in \(0, inf\), got 0.0"),
        ((1.0, float("nan")), ValueError, r"concentration0: expected a number in \(0, inf\), got nan"),
        ((1.0, 1.0, 1), ValueError, "num_nodes: expected an integer >= 2, got 1"),
        ((1.0, 1.0, 2.5), TypeError, "num_nodes: expected an integer >= 2, got 2.5"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[float, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pm.GaussJacobi(*arguments)  # type: ignore[arg-type]

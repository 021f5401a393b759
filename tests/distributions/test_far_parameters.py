"""Families whose densities PyTorch loses at parameters that networks predict: pools have them, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.special
import torch

from pyro_probmix.distributions import LinearPool, LogLinearPool
from pyro_probmix.nn import DistributionLikelihood

DTYPES = [torch.float32, torch.float64]
KINDS = {"log-linear": LogLinearPool, "linear": LinearPool}
SIZES = [1e-12, 1e-6, 1e-3, 1.0, 3.75, 30.0, 1e4, 1e6]


def assert_density_and_slope(kind: str, p: Any, parameter: Any, y: Any, value: Any, slope: Any) -> None:
    """The pool of p with itself has that log-density, and that derivative of it in the parameter."""
    ours = KINDS[kind]([p, p], [0.3, 0.7]).log_prob(y)
    tolerance = 1e-9 if y.dtype == torch.float64 else 2e-5
    np.testing.assert_allclose(ours.detach().numpy(), value, rtol=tolerance, atol=tolerance)
    (gradient,) = torch.autograd.grad(ours.sum(), parameter)
    np.testing.assert_allclose(gradient.numpy(), slope, rtol=100 * tolerance, atol=tolerance)


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("concentration", SIZES)
def test_angles_of_any_concentration(concentration: float, kind: str, dtype: torch.dtype) -> None:
    kappa = torch.full((5,), concentration, dtype=dtype, requires_grad=True)
    width = min(1.0, concentration**-0.5)
    y = width * torch.linspace(-2.5, 2.5, 5, dtype=dtype)
    exact, k = y.double().numpy(), kappa.detach().double().numpy()
    fall = -2 * np.sin(exact / 2) ** 2
    normalizer = np.log(2 * np.pi * scipy.special.i0e(k))
    ratio = scipy.special.i1e(k) / scipy.special.i0e(k)
    p = dist.VonMises(torch.zeros(5, dtype=dtype), kappa)
    slack = 1 - ratio if concentration < 1e3 else 0.5 / k + 0.125 / k**2 + 0.125 / k**3
    assert_density_and_slope(kind, p, kappa, y, k * fall - normalizer, fall + slack)


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("concentration", SIZES)
def test_kumaraswamy_of_any_concentration(concentration: float, kind: str, dtype: torch.dtype) -> None:
    b = torch.full((4,), concentration, dtype=dtype, requires_grad=True)
    y = torch.tensor([0.01, 0.3, 0.7, 0.95], dtype=dtype) / max(1.0, concentration ** (1 / 1.5))
    exact, c = y.double().numpy(), b.detach().double().numpy()
    rest = np.log1p(-(exact**1.5))
    value = np.log(1.5) + np.log(c) + 0.5 * np.log(exact) + (c - 1) * rest
    p = dist.Kumaraswamy(torch.full((4,), 1.5, dtype=dtype), b)
    assert_density_and_slope(kind, p, b, y, value, 1 / c + rest)


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("family", [dist.VonMises, dist.Kumaraswamy, dist.ContinuousBernoulli])
def test_likelihoods_of_far_outputs_have_finite_losses_and_gradients(family: Any) -> None:
    likelihood = DistributionLikelihood(family)
    raw = (30 * torch.linspace(-1, 1, 61)).unsqueeze(-1).repeat(1, likelihood.num_outputs).requires_grad_()
    for y in (0.01, 0.4, 0.99):
        value = likelihood(raw).log_prob(torch.full((61,), y))
        (gradient,) = torch.autograd.grad(value.sum(), raw)
        assert value.isfinite().all()
        assert gradient.isfinite().all()

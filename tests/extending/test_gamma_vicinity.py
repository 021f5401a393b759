"""The labels of a Gamma vicinity, against quadrature."""

from __future__ import annotations

from types import SimpleNamespace

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_probmix as pm

GRID = torch.linspace(1e-5, 40.0, 400_001, dtype=torch.float64)
Y, PARTNER, BETA = torch.tensor([1.5], dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64), 0.05
LAMBDAS = [0.0, 0.3, 1.0]
close = torch.testing.assert_close


def integral(values: Tensor) -> Tensor:
    return torch.trapezoid(values, GRID, dim=0)


def vicinal(kernels: list[Tensor], coefficient: float, fusion: str) -> Tensor:
    """The vicinal density (eq. 14) on the grid."""
    if fusion == "linear":
        return coefficient * kernels[0].exp() + (1 - coefficient) * kernels[1].exp()
    product = (coefficient * kernels[0] + (1 - coefficient) * kernels[1]).exp()
    return product / integral(product)


@pytest.mark.parametrize("fusion", ["log-linear", "linear"])
@pytest.mark.parametrize("coefficient", LAMBDAS)
def test_labels_and_their_expectation(coefficient: float, fusion: str, extensions: SimpleNamespace) -> None:
    vicinity = extensions.gamma_vicinity.GammaVicinity(BETA, fusion)
    own = [dist.Gamma(1 / BETA, 1 / BETA / label) for label in (Y, PARTNER)]
    for kernel, label in zip(own, (Y, PARTNER), strict=True):
        close(kernel.mean, label)
        close(kernel.stddev, label * BETA**0.5)
    density = vicinal([kernel.log_prob(GRID) for kernel in own], coefficient, fusion)
    weight = torch.tensor([coefficient], dtype=torch.float64)
    close(vicinity.fused(Y, PARTNER, weight).log_prob(GRID).exp(), density, rtol=1e-6, atol=1e-9)
    p = dist.Gamma(torch.tensor([2.0], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64))
    expected = integral(density * p.log_prob(GRID)).reshape(1)
    close(vicinity.expected_log_prob(p, Y, PARTNER, weight), expected, rtol=1e-6, atol=0)


def test_labels_are_for_positive_numbers(extensions: SimpleNamespace) -> None:
    vicinity = extensions.gamma_vicinity.GammaVicinity(BETA)
    assert bool((vicinity.fused(Y, PARTNER, torch.tensor([0.5])).sample((1000,)) > 0).all())
    likelihood = pm.nn.DistributionLikelihood(dist.Poisson)
    with pytest.raises(ValueError, match="vicinity: expected labels that the likelihood has, which is discrete"):
        pm.ProbMix(pm.nn.MLP(2, [4], likelihood.num_outputs), likelihood, vicinity=vicinity)

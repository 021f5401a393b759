"""Draws with derivatives: the samplers' own numbers, the derivatives of quantiles, and one more batch dimension."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.func import jvp, vmap

from pyro_probmix.ops.draws import rsample

CONCENTRATIONS = [1e-3, 0.3, 1.0, 5.0, 30.0, 300.0]


def draw(concentration: float, loc: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    parameters = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (loc, concentration)]
    torch.manual_seed(3)
    return rsample(dist.VonMises(*parameters), torch.Size([20])), *parameters


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_numbers_are_those_of_the_sampler(concentration: float) -> None:
    y, loc, kappa = draw(concentration)
    torch.manual_seed(3)
    torch.testing.assert_close(y.detach(), dist.VonMises(loc, kappa).sample((20,)), rtol=0, atol=0)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_derivative_keeps_the_quantile(concentration: float) -> None:
    """−∂κ F / p at the draw, by central differences of SciPy's distribution function."""
    y, loc, kappa = draw(concentration)
    step = 1e-4 * concentration
    for value in y:
        in_loc, in_kappa = torch.autograd.grad(value, [loc, kappa], retain_graph=True)
        angle = math.remainder(value.item() - 0.4, 2 * math.pi)
        up, down = (scipy.stats.vonmises.cdf(angle, concentration + change) for change in (step, -step))
        expected = -(up - down) / (2 * step) / scipy.stats.vonmises.pdf(angle, concentration)
        assert in_kappa.item() == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert in_loc.item() == 1


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # forward mode's own
def test_forward_mode_is_backward_mode() -> None:
    parameters = torch.linspace(-1, 2, 20).double(), torch.linspace(0.3, 30, 20).double()

    def drawn(loc: Tensor, concentration: Tensor) -> Tensor:
        torch.manual_seed(3)
        return rsample(dist.VonMises(loc, concentration))

    tangents = torch.linspace(0.5, 0.7, 20).double(), torch.linspace(-1, 1, 20).double()
    _, forward = jvp(drawn, parameters, tangents)
    by_loc, by_concentration = torch.autograd.functional.jacobian(drawn, parameters)
    torch.testing.assert_close(forward, by_loc @ tangents[0] + by_concentration @ tangents[1], rtol=1e-12, atol=0)


def test_gradient_of_an_expectation() -> None:
    """E[cos y] = I₁(κ)/I₀(κ) and its slope, within five standard errors."""
    kappa = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y = rsample(dist.VonMises(torch.tensor(0.0).double(), kappa.expand(20_000)))
    (each,) = torch.autograd.grad(y.cos().sum(), kappa)
    ratio = scipy.special.i1(2.0) / scipy.special.i0(2.0)
    assert each.item() / 20_000 == pytest.approx(1 - ratio / 2 - ratio**2, abs=5 * 0.3 / 20_000**0.5)


PARAMETER = torch.linspace(0.05, 3.0, 24, dtype=torch.float64).reshape(2, 3, 4)
TORCH = {
    "gamma": lambda p: dist.Gamma(p, 2 * p + 1),
    "beta": lambda p: dist.Beta(p, 1 / p),
    "dirichlet": lambda p: dist.Dirichlet(p),
    "exponential": lambda p: dist.Exponential(p),
    "laplace": lambda p: dist.Laplace(p - 1, p),
    "normal": lambda p: dist.Normal(p - 1, p),
    "multivariate normal": lambda p: dist.MultivariateNormal(p - 1, scale_tril=p.diag_embed()),
    "low rank": lambda p: dist.LowRankMultivariateNormal(p - 1, p.unsqueeze(-1), p),
    "student t": lambda p: dist.StudentT(p + 1, p - 1, p),
}
OWN = {"von mises": lambda p: dist.VonMises(p - 1, p)}
of_torch = pytest.mark.parametrize("family", TORCH.values(), ids=TORCH)


@of_torch
def test_values_and_derivatives_of_torch(family: Any) -> None:
    results = []
    for draw in (rsample, lambda p, shape: p.rsample(shape)):
        parameter = PARAMETER.clone().requires_grad_()
        torch.manual_seed(3)
        value = draw(family(parameter), torch.Size([5]))
        results.append((value, torch.autograd.grad(value.sin().sum(), parameter)[0]))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("family", (TORCH | OWN).values(), ids=TORCH | OWN)
def test_vmap_is_one_more_batch_dimension(family: Any) -> None:
    parameter = PARAMETER.clone().requires_grad_()
    results = []
    for draw in (vmap(lambda p: rsample(family(p)), in_dims=1, randomness="different"), lambda p: rsample(family(p))):
        torch.manual_seed(3)
        value = draw(parameter if not results else parameter.movedim(1, 0))
        results.append((value, torch.autograd.grad(value.sin().sum(), parameter)[0]))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.faults("draws at tiny concentration")
def test_a_gamma_draw_is_never_zero() -> None:
    concentration = torch.full((200,), 1e-4, dtype=torch.float64, requires_grad=True)
    value = rsample(dist.Gamma(concentration, torch.ones_like(concentration)))
    assert value.min() == torch.finfo(torch.float64).tiny
    assert torch.autograd.grad(value.sum(), concentration)[0].isfinite().all()

"""Families whose support moves, and what the generated tests cannot draw: Uniform, Pareto, Delta, VonMises3D, LKJ."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_probmix.distributions import (
    LogLinearPool,
    bhattacharyya_distance,
    cross_entropy,
    from_natural_parameters,
    index_select,
    log_base_measure,
    log_linear_pool,
    log_normalizer,
    mean_parameters,
    natural_parameters,
    renyi_divergence,
    sufficient_statistics,
)

HALF = [0.5, 0.5]


def double(*values: Any) -> list[Tensor]:
    return [torch.tensor(v, dtype=torch.float64) for v in values]


def uniform(low: Any, high: Any) -> Any:
    return dist.Uniform(*double(low, high))


def pareto(scale: Any, alpha: Any) -> Any:
    return dist.Pareto(*double(scale, alpha))


# Uniform


def test_uniforms_pool_to_their_common_support() -> None:
    p, q = uniform([0.0, -1.0, 0.0], [2.0, 1.0, 1.0]), uniform([1.0, -2.0, 0.0], [5.0, 0.5, 1.0])
    pool = LogLinearPool([p, q], [0.3, 0.7])
    assert pool.fused.low.tolist() == [1.0, -1.0, 0.0]
    assert pool.fused.high.tolist() == [2.0, 0.5, 1.0]
    density = 2.0**-0.3 * 4.0**-0.7 * 1.0
    assert pool.log_normalizer[0].item() == pytest.approx(-math.log(density))
    assert pool.log_normalizer[2] == 0
    torch.testing.assert_close(pool.log_prob(pool.mean), -(pool.fused.high - pool.fused.low).log())
    assert renyi_divergence(p, q, 0.3)[0].item() == pytest.approx(-math.log(density) / 0.7)


@pytest.mark.parametrize("first", [True, False])
def test_a_uniform_of_weight_zero_is_out(first: bool) -> None:
    p, far = uniform(0.0, 2.0), uniform(10.0, 11.0)
    low, high = (t.requires_grad_() for t in double(10.0, 11.0))
    far = dist.Uniform(low, high)
    members = [far, p] if first else [p, far]
    weights = torch.tensor([float(m is p) for m in members], dtype=torch.float64, requires_grad=True)
    pool = LogLinearPool(members, weights)
    assert (pool.fused.low, pool.fused.high) == (0.0, 2.0)
    gradients = torch.autograd.grad(pool.log_prob(p.mean) + pool.log_normalizer, [weights, low, high])
    assert all(g.isfinite().all() for g in gradients)
    assert not gradients[1]
    assert not gradients[2]


@pytest.mark.faults("value on the boundary")
def test_ends_carry_gradients() -> None:
    ends = [t.requires_grad_() for t in double(0.0, 2.0, 1.0, 5.0)]
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def both(weight: Tensor, *ends: Tensor) -> tuple[Tensor, Tensor]:
        members = [dist.Uniform(*ends[:2], validate_args=False), dist.Uniform(*ends[2:], validate_args=False)]
        pool = LogLinearPool(members, [weight, 1 - weight])
        return pool.log_normalizer, pool.mean

    assert torch.autograd.gradcheck(both, [weight, *ends])


@pytest.mark.faults("no common support")
def test_uniforms_without_a_common_support_are_refused_by_row() -> None:
    p, q = uniform([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]), uniform([2.0, 0.5, 1.0], [3.0, 3.0, 3.0])
    with pytest.raises(ValueError, match=r"components: expected a common support, .* at batch index \[0, 2\]$"):
        log_linear_pool([p, q], HALF)
    assert log_linear_pool([p, q], [1, 0]).high.tolist() == [1.0, 1.0, 1.0]


def test_natural_form_of_a_uniform() -> None:
    p = uniform([0.0, 1.0], [2.0, 5.0])
    y = torch.tensor([[1.0, 2.0], [0.0, 4.0]], dtype=torch.float64)
    assert natural_parameters(p) == mean_parameters(p) == sufficient_statistics(p, y) == ()
    torch.testing.assert_close(log_base_measure(p, y) - log_normalizer(p), p.log_prob(y))
    assert log_base_measure(p, y + 10).tolist() == [[-math.inf] * 2] * 2
    assert from_natural_parameters(p, ()).high.tolist() == [2.0, 5.0]
    assert index_select(p, 0, torch.tensor([1])).low.tolist() == [1.0]
    with pytest.raises(ValueError, match="eta: expected 0 natural parameters of Uniform, got 1"):
        from_natural_parameters(p, (y,))


def test_divergences_of_uniforms() -> None:
    p, q = uniform(0.0, 1.0), uniform(-1.0, 3.0)
    assert cross_entropy(p, q).item() == pytest.approx(math.log(4))
    assert cross_entropy(q, p) == math.inf
    pool = LogLinearPool([p], [1])
    assert kl_divergence(pool, q).item() == pytest.approx(kl_divergence(p, q).item())
    assert kl_divergence(q, pool) == math.inf
    assert bhattacharyya_distance(p, q).item() == pytest.approx(0.5 * math.log(4))


# Pareto


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_paretos_of_different_scales_pool_to_the_larger(weight: float) -> None:
    p, q = pareto(1.0, 3.0), pareto(2.5, 1.5)
    pool = LogLinearPool([p, q], [weight, 1 - weight])
    scale = 1.0 if weight == 1 else 2.5
    assert pool.fused.scale == scale

    def product(y: float) -> float:
        value = torch.tensor(y, dtype=torch.float64)
        terms = [w * d.log_prob(value) for w, d in ((weight, p), (1 - weight, q)) if w]
        return float(sum(terms).exp())

    mass, _ = scipy.integrate.quad(product, scale, math.inf, epsabs=1e-12, epsrel=1e-12)
    assert pool.log_normalizer.item() == pytest.approx(-math.log(mass), abs=1e-8)
    assert pool.log_prob(torch.tensor(3.0).double()).item() == pytest.approx(math.log(product(3.0) / mass), abs=1e-8)


def test_divergences_of_paretos() -> None:
    p, q = pareto(2.0, 3.0), pareto(1.0, 1.5)
    assert cross_entropy(q, p) == math.inf
    kl = kl_divergence(LogLinearPool([p], [1]), q)
    torch.testing.assert_close(kl, kl_divergence(p, q))
    torch.testing.assert_close(kl, cross_entropy(p, q) - p.entropy())


# Delta


def test_equal_points_pool_to_the_point() -> None:
    v = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    p = dist.Delta(v, torch.tensor([1.0, 2.0]), event_dim=1)
    q = dist.Delta(v, torch.tensor([5.0, 2.0]), event_dim=1)
    pool = LogLinearPool([p, q], [0.25, 0.75])
    assert torch.equal(pool.fused.v, v)
    assert pool.fused.event_dim == 1
    assert pool.fused.log_density.tolist() == [4.0, 2.0]
    assert pool.log_normalizer.tolist() == [0.0, 0.0]
    assert torch.equal(pool.sample(), v)
    assert pool.expand([3, 2]).log_prob(v).tolist() == [[4.0, 2.0]] * 3
    assert index_select(p, 0, torch.tensor([1])).log_prob(v[1:]).tolist() == [2.0]
    torch.testing.assert_close(log_base_measure(p, v) - log_normalizer(p), p.log_prob(v))
    assert cross_entropy(p, q).tolist() == [-5.0, -2.0]
    assert kl_divergence(LogLinearPool([p], [1]), q).tolist() == [-4.0, 0.0]


@pytest.mark.faults("no common support")
def test_points_that_differ_are_refused_by_row_unless_their_weight_is_zero() -> None:
    p, q = dist.Delta(torch.tensor([1.0, 2.0, 3.0])), dist.Delta(torch.tensor([1.0, 5.0, 6.0]))
    with pytest.raises(ValueError, match=r"components: expected a common support, .* at batch index \[1, 2\]$"):
        log_linear_pool([p, q], HALF)
    weights = torch.tensor([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
    assert log_linear_pool([p, q], weights).v.tolist() == [1.0, 5.0, 3.0]
    assert log_linear_pool([q, p], weights.flip(-1)).v.tolist() == [1.0, 5.0, 3.0]
    labels = dist.Delta(torch.tensor([1, 2]))
    assert log_linear_pool([labels, labels], HALF).v.tolist() == [1, 2]
    with pytest.raises(ValueError, match="common support"):
        log_linear_pool([labels, dist.Delta(torch.tensor([1, 3]))], HALF)


def test_points_that_differ_are_infinitely_far_apart() -> None:
    """Where nothing is validated, as under vmap, nothing is refused."""
    p, q = (dist.Delta(torch.tensor(v), validate_args=False) for v in (0.0, 1.0))
    assert bhattacharyya_distance(p, q) == math.inf
    assert bhattacharyya_distance(p, p) == 0
    assert renyi_divergence(p, q, 0.5) == math.inf


# VonMises3D


def sphere() -> tuple[Tensor, Tensor]:
    """A product rule on the sphere: Gauss-Legendre in height, the trapezoidal rule around."""
    import numpy as np

    height, weight = (torch.from_numpy(t) for t in np.polynomial.legendre.leggauss(60))
    angle = torch.arange(120, dtype=torch.float64) * (2 * math.pi / 120)
    z, a = torch.cartesian_prod(height, angle).unbind(-1)
    y = torch.stack([(1 - z * z).sqrt() * a.cos(), (1 - z * z).sqrt() * a.sin(), z], -1)
    return y, torch.cartesian_prod(weight, angle)[:, 0] * (2 * math.pi / 120)


def test_directions() -> None:
    y, weights = sphere()
    p = dist.VonMises3D(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.1, 0.0]], dtype=torch.float64))
    q = dist.VonMises3D(torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64))
    points = y.unsqueeze(1)

    def integral(values: Tensor) -> Tensor:
        return (weights.reshape(-1, *[1] * (values.dim() - 1)) * values).sum(0)

    natural = (natural_parameters(p)[0] * points).sum(-1) - log_normalizer(p)
    torch.testing.assert_close(natural, p.log_prob(points))
    torch.testing.assert_close(integral(natural.exp()), torch.ones(2).double())
    torch.testing.assert_close(mean_parameters(p)[0], integral(natural.exp().unsqueeze(-1) * points))
    product = 0.3 * p.log_prob(points) + 0.7 * q.log_prob(points)
    pool = LogLinearPool([p, q], [0.3, 0.7])
    torch.testing.assert_close(pool.log_normalizer, -integral(product.exp()).log())
    torch.testing.assert_close(pool.log_prob(points), product + pool.log_normalizer)
    torch.testing.assert_close(cross_entropy(p, q), integral(-natural.exp() * q.log_prob(points)))
    assert torch.equal(log_linear_pool([p, q], [0, 1]).concentration, q.concentration.expand(2, 3))


def test_normalizer_of_directions_is_smooth_at_zero_and_finite_far_out() -> None:
    def cumulant(concentration: Tensor) -> Tensor:
        return log_normalizer(dist.VonMises3D(concentration, validate_args=False))

    for size in (0.0, 0.1, 0.315, 0.32, 3.0, 50.0):
        concentration = (size * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(cumulant, concentration)
        assert torch.autograd.gradgradcheck(cumulant, concentration, atol=1e-4)
        (slope,) = torch.autograd.grad(cumulant(concentration), concentration)
        torch.testing.assert_close(slope, mean_parameters(dist.VonMises3D(concentration))[0])
    far = torch.tensor([1e5, 0.0, 0.0], dtype=torch.float64)
    assert cumulant(far).item() == pytest.approx(1e5 + math.log(2 * math.pi / 1e5))
    assert cumulant(0 * far).item() == pytest.approx(math.log(4 * math.pi))


# Two angles


@pytest.mark.parametrize("values", [(1e-6, 1e-6, 0.0), (3.0, 0.7, -1.0), (300.0, 400.0, 340.0), (1e4, 1e4, 9990.0)])
def test_normalizer_of_two_angles_to_the_brink_of_two_modes(values: tuple[float, float, float]) -> None:
    """Where ρ² is near κ₁ κ₂ and concentrations are large, Pyro's series is not yet what it converges to."""
    first, second, correlation = values

    def marginal(phi: float) -> float:
        length = math.hypot(second, correlation * math.sin(phi))
        scaled = scipy.special.ive(0, length) / scipy.special.ive(0, second)
        return scaled * math.exp(first * (math.cos(phi) - 1) + length - second)

    width = min(math.pi, 60 * (first - correlation**2 / second + 0.1) ** -0.5)
    mass = 2 * scipy.integrate.quad(marginal, 0, width, epsabs=0, epsrel=1e-12, limit=500)[0]
    expected = math.log(2 * math.pi * mass * scipy.special.ive(0, second)) + first + second
    p = dist.SineBivariateVonMises(0.5, -1.0, *double(*values))
    assert log_normalizer(p).item() == pytest.approx(expected, rel=1e-12, abs=1e-9)


# Correlation matrices


@pytest.mark.parametrize("size", [2, 3, 5])
def test_correlation_matrices_and_their_factors_agree(size: int) -> None:
    concentrations = torch.tensor([0.7, 1.0, 3.5], dtype=torch.float64)
    factors, matrices = dist.LKJCholesky(size, concentrations), dist.LKJ(size, concentrations)
    factor = factors.sample()
    matrix = factor @ factor.mT
    torch.testing.assert_close(natural_parameters(factors), natural_parameters(matrices))
    torch.testing.assert_close(mean_parameters(factors), mean_parameters(matrices))
    torch.testing.assert_close(sufficient_statistics(factors, factor), sufficient_statistics(matrices, matrix))
    for p, y in ((factors, factor), (matrices, matrix)):
        product = natural_parameters(p)[0] * sufficient_statistics(p, y)[0]
        torch.testing.assert_close(product - log_normalizer(p) + log_base_measure(p, y), p.log_prob(y))
        one, two = index_select(p, 0, torch.tensor([0, 1])), index_select(p, 0, torch.tensor([1, 2]))
        pool = LogLinearPool([one, two], [0.2, 0.8])
        assert isinstance(pool.fused, type(p))
        torch.testing.assert_close(pool.fused.concentration, 0.2 * one.concentration + 0.8 * two.concentration)
        rows = y[:2]
        expected = 0.2 * one.log_prob(rows) + 0.8 * two.log_prob(rows) + pool.log_normalizer
        torch.testing.assert_close(pool.log_prob(rows), expected)
        assert (cross_entropy(one, two) > cross_entropy(one, one)).all()
        with pytest.raises(ValueError, match="expected equal dim, got"):
            log_linear_pool([p, type(p)(size + 1, concentrations)], HALF)


def test_normalizer_of_two_by_two_correlations() -> None:
    """In two dimensions (1 + ρ)/2 ~ Beta(concentration, concentration)."""
    p, q = (dist.LKJ(2, c) for c in double(0.7, 3.5))
    beta = [dist.Beta(d.concentration, d.concentration) for d in (p, q)]
    expected = LogLinearPool(beta, [0.3, 0.7]).log_normalizer
    torch.testing.assert_close(LogLinearPool([p, q], [0.3, 0.7]).log_normalizer, expected)
    torch.testing.assert_close(cross_entropy(p, q), cross_entropy(*beta) + math.log(2))

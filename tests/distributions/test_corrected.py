"""Pools are right where the density or the sampler of PyTorch or Pyro is not."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_probmix.distributions import (
    HolderPool,
    LinearPool,
    LogLinearPool,
    NumericalPool,
    entropy,
    log_linear_pool,
    mean_parameters,
)
from pyro_probmix.distributions.corrected import corrected

HALF = [0.5, 0.5]
LEAST = 1e-6


def same(p: Any) -> Any:
    return log_linear_pool([p, p], HALF)


# Correlation matrices


def correlations(p: Any, size: int) -> Tensor:
    """Draws of all correlations, along the last dimension."""
    y = p.sample((size,))
    matrix = y if isinstance(p, dist.LKJ) else y @ y.mT
    first, second = torch.triu_indices(*matrix.shape[-2:], offset=1)
    return matrix[..., first, second]


@pytest.mark.faults("wrong samplers upstream")
@pytest.mark.parametrize("family", [dist.LKJ, dist.LKJCholesky])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_every_correlation_of_a_pool_has_one_law(family: Any, size: int) -> None:
    """(1 + r)/2 ~ Beta(η − 1 + d/2, η − 1 + d/2), for each of them, with η the mean of the concentrations."""
    y = correlations(LogLinearPool([family(size, 1.0), family(size, 3.0)], HALF).fused, 4000)
    law = scipy.stats.beta(1 + size / 2, 1 + size / 2, -1, 2)
    for k in range(y.shape[-1]):
        assert scipy.stats.kstest(y[:, k].numpy(), law.cdf).pvalue > LEAST


@pytest.mark.faults("wrong samplers upstream")
@pytest.mark.parametrize("concentration", [1e-3, 0.5, 20.0])
def test_diagonals_of_pooled_factors_have_their_law(concentration: float) -> None:
    """L² on the diagonal, of row i from 0, is Beta(η + (d − 1 − i)/2, i/2), and rows have length one."""
    size = 4
    y = same(dist.LKJCholesky(size, torch.tensor([concentration, 1.0]).double())).sample((4000,))
    assert bool((y.square().sum(-1) - 1).abs().max() < 1e-12)
    assert bool((y.triu(1) == 0).all() & (y.diagonal(dim1=-2, dim2=-1) > 0).all())
    for i in range(1, size):
        law = scipy.stats.beta(concentration + (size - 1 - i) / 2, i / 2)
        square = y[:, 0, i, i].square().numpy()
        if concentration < 0.01 and i == size - 1:  # most are smaller than numbers are
            assert scipy.stats.binomtest(int((square > 1e-100).sum()), len(square), law.sf(1e-100)).pvalue > LEAST
        else:
            assert scipy.stats.kstest(square, law.cdf).pvalue > LEAST


@pytest.mark.parametrize("family", [dist.LKJ, dist.LKJCholesky])
def test_pools_of_correlations_stay_what_they_were(family: Any) -> None:
    pool = LogLinearPool([family(3, 1.0), family(3, 3.0)], HALF)
    assert isinstance(pool.fused, family)
    torch.manual_seed(1)
    y = pool.sample((5,))
    torch.manual_seed(1)
    assert torch.equal(pool.sample((5,)), y)
    assert bool(pool.support.check(y).all())
    wide = pool.expand([4])
    assert wide.sample((2,)).shape == (2, 4, 3, 3)
    assert wide.fused.concentration.shape == (4,)
    torch.testing.assert_close(wide.log_prob(y[:4]), pool.log_prob(y[:4]))
    assert wide.to_event(1).sample().shape == (4, 3, 3)
    again = LogLinearPool([pool, family(3, 2.0)], HALF)
    torch.testing.assert_close(again.fused.concentration, torch.tensor(2.0))
    assert kl_divergence(again, family(3, 2.0)) == 0
    assert torch.equal(pickle.loads(pickle.dumps(pool.fused)).log_prob(y), pool.log_prob(y))
    assert copy.deepcopy(pool.fused).sample().dtype == torch.float32


# Two angles


def two_angles(*values: Any, dtype: torch.dtype = torch.float64) -> Any:
    tensors = [torch.tensor(v, dtype=dtype) for v in (0.5, -1.0, *values)]
    return dist.SineBivariateVonMises(*tensors, validate_args=False)


@pytest.mark.faults("wrong samplers upstream")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "values", [(3.0, 2.0, 1.0), (1e-6, 1e-6, 0.0), (30.0, 0.7, -4.0), (1e4, 1e4, 9000.0), (2.0, 3.0, 8.0)]
)
def test_pools_of_two_angles_have_the_law_of_their_density(values: tuple[float, ...], dtype: torch.dtype) -> None:
    """Two modes among them, and concentrations as large as there are."""
    p = two_angles(*values, dtype=dtype)
    pool, size = LogLinearPool([p, p], [0.3, 0.7], validate_args=False), 4000
    y = pool.sample((size,))
    assert y.dtype == dtype
    assert bool((y.abs() <= math.pi + 1e-6).all())
    first, second, correlation = values
    phi, psi = y[:, 0].double() - 0.5, y[:, 1].double() + 1.0
    nodes = torch.linspace(-math.pi, math.pi, 400001, dtype=torch.float64)
    length = torch.hypot(torch.tensor(second), correlation * nodes.sin())
    log_f = first * (nodes.cos() - 1) + length + torch.special.i0e(length).log()
    below = torch.cumulative_trapezoid((log_f - log_f.max()).exp(), nodes)
    below = torch.cat([below.new_zeros(1), below]) / below[-1]
    wrapped = (phi + math.pi) % (2 * math.pi) - math.pi
    assert scipy.stats.kstest(wrapped.numpy(), lambda t: np.interp(t, nodes.numpy(), below.numpy())).pvalue > LEAST
    # Given the first angle, the second is von Mises.
    mean = torch.atan2(correlation * phi.sin(), torch.tensor(second).double())
    length = torch.hypot(torch.tensor(second).double(), correlation * phi.sin())
    share = torch.special.i1e(length) / torch.special.i0e(length)
    z = ((psi - mean).cos() - share).sum() / (1 - share**2 - share / length).sum().sqrt()
    assert 2 * scipy.stats.norm.sf(abs(float(z))) > LEAST
    assert scipy.stats.binomtest(int(((psi - mean).sin() > 0).sum()), size).pvalue > LEAST


def test_batches_of_two_angles() -> None:
    p = two_angles([[3.0] * 3, [0.5] * 3], [[2.0, 1.0, 5.0]] * 2, [[1.0, -0.3, 0.4]] * 2)
    for pool in (same(p), LinearPool([p, p]), LinearPool(p).expand([4, 2])):
        torch.manual_seed(1)
        y = pool.sample((5,))
        assert y.shape == (5, *pool.batch_shape, 2)
        torch.manual_seed(1)
        assert torch.equal(pool.sample((5,)), y)
    y = same(p).sample((4000,))
    z = (y[..., 0] - 0.5).cos()
    z = (z.mean(0) - mean_parameters(p)[0]) / (z.std(0) / 4000**0.5)
    assert bool((z.abs() < 5).all())
    assert same(p).sample((0,)).shape == (0, 2, 3, 2)


# ContinuousBernoulli

LOGITS = [0.0, 1e-30, 1e-4, -0.02, 0.3, -0.99, 1.01, 5.0, -17.0, 17.0, 40.0, -40.0, 100.0, -1000.0]


def continuous_bernoulli(logits: Any, dtype: torch.dtype = torch.float64) -> Any:
    return dist.ContinuousBernoulli(logits=torch.tensor(logits, dtype=dtype))


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [same, lambda p: LinearPool([p, p]), lambda p: LinearPool([p.to_event(1)] * 2)])
def test_pools_of_continuous_bernoullis_keep_their_mass(make: Any, dtype: torch.dtype) -> None:
    pool = make(continuous_bernoulli(LOGITS, dtype))
    y = torch.linspace(0, 1, 100001, dtype=torch.float64)
    log_prob = torch.stack([pool.log_prob(y.to(dtype).unsqueeze(-1).expand(-1, len(LOGITS)))]).double()
    if pool.event_shape:
        log_prob = log_prob.squeeze(0)
        expected = sum(_log_density(t, y.to(dtype).double()) for t in LOGITS)
        torch.testing.assert_close(log_prob, expected, atol=1e-3 if dtype == torch.float32 else 1e-9, rtol=1e-6)
        return
    mass = torch.trapezoid(log_prob[0].exp(), y, dim=0)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-5  # of the trapezoidal rule
    torch.testing.assert_close(mass, torch.ones(len(LOGITS)).double(), atol=tolerance, rtol=0)


def _log_density(logit: float, y: Tensor) -> Tensor:
    steepness = abs(logit)
    if steepness < 1e-9:
        return torch.zeros_like(y)
    distance = 1 - y if logit > 0 else y
    return -steepness * distance - math.log(-math.expm1(-steepness) / steepness)


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", LOGITS)
def test_what_a_pool_of_continuous_bernoullis_says_of_itself(logit: float, dtype: torch.dtype) -> None:
    pool = LogLinearPool([continuous_bernoulli(logit, dtype)] * 2, HALF)
    logit = float(torch.tensor(logit, dtype=dtype))  # as it is held
    width = min(1.0, 800 / max(abs(logit), 1e-300))
    ends = (1 - width, 1.0) if logit > 0 else (0.0, width)

    def integral(function: Any) -> float:
        def integrand(y: float) -> float:
            log_p = float(_log_density(logit, torch.tensor(y, dtype=torch.float64)))
            return math.exp(log_p) * function(y, log_p)

        return scipy.integrate.quad(integrand, *ends, epsabs=1e-13, epsrel=1e-12, limit=200)[0]

    mean = integral(lambda y, _: y)
    expected = mean, integral(lambda y, _: (y - mean) ** 2), -integral(lambda _, log_p: log_p)
    tolerance = {torch.float32: 5e-6, torch.float64: 1e-10}[dtype]
    for found, value in zip((pool.mean, pool.variance, pool.entropy()), expected, strict=True):
        assert float(found) == pytest.approx(value, rel=tolerance, abs=tolerance)
    assert float(mean_parameters(pool)[0]) == pytest.approx(mean, rel=tolerance)
    assert float(entropy(pool)) == pytest.approx(expected[2], rel=tolerance, abs=1e-4 if tolerance > 1e-9 else 1e-9)
    y = pool.sample((2000,))
    assert (
        scipy.stats.kstest(y.double().numpy(), lambda t: pool.cdf(torch.as_tensor(t, dtype=dtype)).numpy()).pvalue
        > LEAST
    )
    z = (y.double().mean() - mean) / (expected[1] / 2000) ** 0.5
    assert abs(float(z)) < 5
    share = torch.tensor([0.0, 1e-3, 0.3, 0.7, 0.999, 1.0], dtype=dtype)
    below = pool.icdf(share)
    assert (below[0], below[-1]) == (0, 1)
    if abs(logit) < 20:
        torch.testing.assert_close(pool.cdf(below), share, atol=10 * tolerance, rtol=0)
    for k in (1, 2, 3, 4):
        u = float(share[k])
        steepness = abs(logit)
        v = u if logit <= 0 else 1 - u
        near = v if steepness < 1e-9 else -math.log1p(v * math.expm1(-steepness)) / steepness
        assert float(below[k]) == pytest.approx(near if logit <= 0 else 1 - near, abs=tolerance, rel=tolerance)


@pytest.mark.parametrize("logit", [0.0, 1e-7, -3e-6, 0.4, 0.9999999, -1.0000001, 30.0, -90.0])
def test_derivatives_of_continuous_bernoullis(logit: float) -> None:
    y = torch.tensor([0.0, 0.2, 0.9, 1.0], dtype=torch.float64)

    def function(logits: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        p = same(dist.ContinuousBernoulli(logits=logits, validate_args=False))
        return p.log_prob(value), p.mean, p.variance, p.entropy(), p.cdf(value), p.icdf(value[1:3])

    logits = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: function(t, y), logits, atol=1e-6)
    assert torch.autograd.gradcheck(
        lambda t: function(logits.detach(), t), y[1:3].repeat(2).requires_grad_(), atol=1e-6
    )


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_divergence_of_continuous_bernoullis(dtype: torch.dtype) -> None:
    p, q = continuous_bernoulli([60.0, -60.0, 2.0], dtype), continuous_bernoulli([50.0, 1.0, -1.0], dtype)
    a, b = p.logits.double(), q.logits.double()
    log_a, log_b = ((torch.expm1(-t.abs()) / -t.abs()).log() + t.clamp(min=0) for t in (a, b))
    expected = (a - b) * same(continuous_bernoulli(a.tolist())).mean - log_a + log_b
    for left, right in ((same(p), same(q)), (same(p), q), (p, same(q)), (LogLinearPool([p], [1]), q)):
        torch.testing.assert_close(kl_divergence(left, right).double(), expected, rtol=1e-5, atol=1e-5)


def test_numerical_pools_of_continuous_bernoullis() -> None:
    p, q = continuous_bernoulli([60.0, -3.0]), continuous_bernoulli([90.0, 90.0])
    exact = LogLinearPool([p, q], [0.3, 0.7])
    for pool in (NumericalPool([p, q], [0.3, 0.7]), HolderPool([p, q], [0.3, 0.7], 0.0)):
        torch.testing.assert_close(pool.log_normalizer, exact.log_normalizer, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(pool.mean, exact.mean, rtol=1e-9, atol=1e-9)


# ProjectedNormal


def direction(angle: float, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([math.cos(angle), math.sin(angle), *[0.0] * (size - 2)], dtype=dtype)


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("norm", [0.0, 1.0, 8.0, 40.0])
@pytest.mark.parametrize("angle", [0.0, 1.5, 2.0, 3.1, math.pi])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_linear_pools_of_directions_are_right_on_the_far_side(size: int, angle: float, norm: float) -> None:
    mean, y = norm * direction(0.0, size), direction(angle, size)
    along = float(mean.double() @ y.double())
    # ∫ r^(d−1) N(r y; μ, 1) dr, relative to its value at r = 0 where y is on the far side, else to its peak.
    peak = max(along, 0.0)

    def integrand(r: float) -> float:
        return r ** (size - 1) * math.exp(-0.5 * (r - along) ** 2 + 0.5 * (peak - along) ** 2)

    scale = 1 / max(1.0, -along)
    edges = [0.0, *[peak + k * scale for k in (-8, -2, 0, 2, 8, 40) if peak + k * scale > 0]]
    parts = [scipy.integrate.quad(integrand, *pair, epsabs=0)[0] for pair in itertools.pairwise(edges)]
    rest = norm**2 - along**2
    expected = math.log(sum(parts)) - 0.5 * ((peak - along) ** 2 + rest + size * math.log(2 * math.pi))
    p = dist.ProjectedNormal(mean)
    pools = (
        LinearPool([p, p]),
        LinearPool(p.expand([2])),
        LinearPool([ExpandedDistribution(p, torch.Size([1]))]),
        LinearPool([p.expand([1]).to_event(1)] * 2),
        LinearPool([dist.MaskedDistribution(p, torch.tensor(True))]),
        LinearPool([dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), p.expand([2]))]),
    )
    for pool in pools:
        value = y.expand(pool.event_shape)
        found = pool.log_prob(value)
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(expected, rel=2e-6, abs=2e-6)


@pytest.mark.parametrize("angle", [0.0, 2.0, 2.4, 3.1])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_directions_are_differentiable_on_the_far_side(size: int, angle: float) -> None:
    y = direction(angle, size, torch.float64)
    mean = (8 * direction(0.0, size, torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: LinearPool([dist.ProjectedNormal(t)] * 2).log_prob(y), mean)


def test_a_pool_keeps_its_components_as_they_were_given() -> None:
    p, q = dist.ProjectedNormal(torch.ones(2)), dist.ProjectedNormal(torch.ones(2))
    assert LinearPool([p, q]).components == (p, q)
    wide = dist.ProjectedNormal(torch.ones(3, 2))
    assert LinearPool(wide).components is wide
    assert type(LinearPool(wide).expand([4]).components) is dist.ProjectedNormal
    assert LogLinearPool([continuous_bernoulli(1.0)], [1]).components[0].log_prob.__func__ is (
        torch.distributions.ContinuousBernoulli.log_prob
    )


def test_directions_in_more_dimensions_are_refused_by_pyro() -> None:
    pool = LinearPool([dist.ProjectedNormal(torch.ones(6))] * 2)
    with pytest.raises(NotImplementedError, match="dim = 6"):
        pool.log_prob(direction(0.0, 6))


@pytest.mark.faults("wrong densities upstream")
def test_weibull_has_a_density_near_zero_and_pools_by_quadrature() -> None:
    """Through (y / s)^k, which rounds to zero, PyTorch's density is NaN there, and a pool of unequal k was refused."""
    scale, shapes = torch.tensor(1.0, dtype=torch.float64), torch.tensor([2.0, 5.0, 20.0], dtype=torch.float64)
    y = torch.tensor([[1e-200], [1e-3], [0.9], [1.1]], dtype=torch.float64)
    expected = torch.tensor(scipy.stats.weibull_min(shapes.numpy()).logpdf(y.numpy()))
    torch.testing.assert_close(corrected(dist.Weibull(scale, shapes)).log_prob(y), expected)
    for dtype in (torch.float32, torch.float64):
        p, q = (dist.Weibull(scale.to(dtype), k.to(dtype)) for k in shapes[::2])
        x = torch.linspace(1e-6, 3, 400_001, dtype=torch.float64)
        logs = [corrected(dist.Weibull(scale, k)).log_prob(x) for k in shapes[::2]]
        xi = -torch.trapezoid((0.5 * (logs[0] + logs[1])).exp(), x).log()
        assert NumericalPool([p, q], [0.5, 0.5]).log_normalizer.item() == pytest.approx(xi.item(), abs=1e-5)


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize(("dtype", "concentrations"), [(torch.float32, [1e-3, 1, 100, 1e4]), (torch.float64, [1, 800])])
def test_von_mises_on_the_sphere_at_large_concentrations(dtype: torch.dtype, concentrations: list[float]) -> None:
    """log κ/(2π(1 − e^{−2κ})) at the mode; by sinh κ it is minus infinity from 89 on in single precision."""
    kappa = torch.tensor(concentrations, dtype=torch.float64)
    mode = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    parameters = (kappa.unsqueeze(-1) * mode).to(dtype)
    pool = LogLinearPool([dist.VonMises3D(parameters), dist.VonMises3D(parameters)], HALF)
    expected = kappa.log() - math.log(2 * math.pi) - torch.log1p(-(-2 * kappa).exp())
    torch.testing.assert_close(pool.log_prob(mode.to(dtype)).double(), expected, rtol=1e-5, atol=1e-5)


def test_a_poisson_of_pytorch_is_one_of_pyro() -> None:
    rate, y = torch.tensor([2.0, 1e6]), torch.tensor([3.0, 1e6])
    theirs, ours = (home.Poisson(rate) for home in (torch.distributions, dist))
    assert torch.equal(LinearPool([theirs]).log_prob(y), LinearPool([ours]).log_prob(y))

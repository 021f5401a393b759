"""Where floating point is tight: extreme scales, ill-conditioned covariances, nearly equal components."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_probmix.distributions import LogLinearPool, index_select, log_linear_pool, renyi_divergence
from tests.cases import CASES

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tiny", [1e-30, 1e-12, 1e-4])
def test_pool_of_normals_at_extreme_scales(tiny: float, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    small, large = max(tiny, limits.tiny**0.75), min(1 / tiny, limits.max**0.75)
    locs = torch.tensor([2.0, -3.0], dtype=dtype)
    scales = torch.tensor([small, large], dtype=dtype)
    for weight in (1e-3, 0.5, 0.999):
        pool = log_linear_pool([dist.Normal(*z) for z in zip(locs, scales, strict=True)], [weight, 1 - weight])
        w = torch.tensor([weight, 1 - weight], dtype=dtype).double()
        precisions = w / scales.double().square()
        torch.testing.assert_close(pool.scale.double(), precisions.sum().rsqrt(), rtol=4 * limits.eps, atol=0)
        loc = (precisions * locs.double()).sum() / precisions.sum()
        torch.testing.assert_close(pool.loc.double(), loc, rtol=4 * limits.eps, atol=0)


@given(
    exponents=st.lists(st.floats(-18, 18), min_size=2, max_size=2),
    share=st.floats(1e-6, 1 - 1e-6),
    locs=st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=2),
)
def test_single_precision_is_as_exact_as_it_can_be(exponents: list[float], share: float, locs: list[float]) -> None:
    single = [torch.tensor(v) for v in (*locs, 10 ** exponents[0], 10 ** exponents[1], share)]
    exact = [t.double() for t in single]
    pools = [
        LogLinearPool([dist.Normal(l0, s0), dist.Normal(l1, s1)], [w, 1 - w]) for l0, l1, s0, s1, w in (single, exact)
    ]
    torch.testing.assert_close(pools[0].fused.scale.double(), pools[1].fused.scale, rtol=1e-5, atol=0)
    error = (pools[0].mean.double() - pools[1].mean).abs()
    assert error <= 1e-5 * max(1e-30, *map(abs, locs))
    xi = pools[1].log_normalizer
    if xi < 1e30:
        assert (pools[0].log_normalizer.double() - xi).abs() <= 1e-4 * (1 + xi)


@pytest.mark.parametrize("difference", [1e-2, 1e-4, 1e-6])
def test_normalizer_of_nearly_equal_components(difference: float) -> None:
    """ξ is ½ w(1−w) times the squared difference in units of scale, however small that is."""
    loc = torch.tensor(1000.0, dtype=torch.float64)
    p, q = dist.Normal(loc, 0.5), dist.Normal(loc + 0.5 * difference, 0.5)
    xi = LogLinearPool([p, q], [0.3, 0.7]).log_normalizer
    torch.testing.assert_close(xi, torch.tensor(0.5 * 0.3 * 0.7 * difference**2).double(), rtol=1e-5, atol=1e-16)
    vectors = [dist.MultivariateNormal(d.loc.expand(2), scale_tril=0.5 * torch.eye(2).double()) for d in (p, q)]
    torch.testing.assert_close(LogLinearPool(vectors, [0.3, 0.7]).log_normalizer, 2 * xi, rtol=1e-5, atol=1e-15)


def test_normalizer_is_never_negative_and_keeps_its_gradient() -> None:
    scale = torch.linspace(0.1, 3, 200, dtype=torch.float64, requires_grad=True)
    p, q = dist.Normal(0.0, scale), dist.Normal(0.0, scale * (1 + 1e-12))
    xi = LogLinearPool([p, q], [0.3, 0.7]).log_normalizer
    assert (xi >= 0).all()
    (gradient,) = torch.autograd.grad(xi.sum(), scale)
    torch.testing.assert_close(gradient, torch.zeros(200).double(), atol=1e-8, rtol=0)


def test_order_one_is_kl_to_rounding() -> None:
    p, q = (dist.Normal(torch.tensor(v).double(), 1.0) for v in (0.0, 1.0))
    torch.testing.assert_close(renyi_divergence(p, q, 1 - 1e-9), torch.tensor(0.5).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("dtype", "smallest"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_what_all_covariances_share_is_never_inverted(dtype: torch.dtype, smallest: float) -> None:
    """Covariances Σ and 4 Σ pool to a multiple of Σ, even where Σ⁻¹ has no Cholesky factor in that dtype."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.logspace(0, math.log10(smallest), 4, dtype=dtype)
    factor = (torch.randn(4, 4, generator=generator, dtype=dtype).tril(-1) + torch.eye(4)).to(dtype) * spectrum
    loc = torch.randn(4, generator=generator, dtype=dtype)
    members = [dist.MultivariateNormal(loc, scale_tril=k * factor) for k in (1, 2)]
    pool = log_linear_pool(members, [0.25, 0.75])
    torch.testing.assert_close(pool.scale_tril, factor / (0.25 + 0.75 / 4) ** 0.5)
    torch.testing.assert_close(pool.loc, loc)
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(torch.cholesky_inverse(factor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_at_extreme_scales(dtype: torch.dtype) -> None:
    identity, loc = torch.eye(2, dtype=dtype), torch.tensor([1.0, -1.0], dtype=dtype)
    p = dist.MultivariateNormal(loc, scale_tril=1e-12 * identity)
    q = dist.MultivariateNormal(-loc, scale_tril=1e6 * identity)
    for weight in (1e-3, 0.5):
        for members, weights in (([p, q], [weight, 1 - weight]), ([q, p], [1 - weight, weight])):
            pool = log_linear_pool(members, weights)
            torch.testing.assert_close(pool.loc, loc)
            torch.testing.assert_close(pool.scale_tril, identity * 1e-12 / weight**0.5, rtol=1e-5, atol=0)


@pytest.mark.faults("dtype drift")
@pytest.mark.parametrize("name", ["MultivariateNormal", "LowRankMultivariateNormal"])
def test_pools_of_vectors_are_in_full_precision_under_autocast(name: str) -> None:
    """Their matrix products would round precisions to three digits; on a GPU there is no factor in half precision."""
    members = [CASES[name].draw((3,), seed, torch.float32) for seed in range(2)]
    value = torch.tensor([0.3, -0.7])
    found = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            pool = LogLinearPool([index_select(p, -1, torch.tensor([2, 0, 1])) for p in members], [0.3, 0.7])
            found.append((pool.fused.log_prob(value), pool.log_normalizer))
    assert all(map(torch.equal, *found))

"""What weights do exactly: zero removes, one returns, order and nesting do not matter, dtypes are kept."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions.transforms import PowerTransform

from pyro_probmix.distributions import LogLinearPool, exponential_family, log_linear_pool
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.exponential_family import resolved, set_validation, validates
from tests.cases import CASES, NAMES, Case, simplex_weights, unmasked

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EDGES = [(name, i) for name in NAMES for i in range(len(CASES[name].awkward))]


def usual(p: Any) -> tuple[Tensor, ...]:
    p = unmasked(resolved(p))
    if isinstance(p, torch.distributions.LowRankMultivariateNormal):
        return p.loc, p.covariance_matrix  # of any rank
    return exponential_family(p).parameters


def assert_same_density(case: Case, ours: Tensor, theirs: Tensor) -> None:
    if case.exact:
        assert torch.equal(ours, theirs)
    else:
        rounding = 1e-7 if theirs.dtype == torch.float64 else 1e-5
        torch.testing.assert_close(ours, theirs, atol=max(rounding, case.precision), rtol=rounding)


def assert_same_member(p: Any, q: Any) -> None:
    for ours, theirs in zip(usual(p), usual(q), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.faults("zero times minus infinity")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "edge"), EDGES)
def test_weight_zero_removes_even_an_extreme_component(name: str, edge: int, dtype: torch.dtype) -> None:
    case = CASES[name]
    p = case.draw((), dtype=dtype)
    y = p.sample()
    for first in (True, False):
        free = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in case.awkward[edge]]
        members = [case.make(*free), p] if first else [p, case.make(*free)]
        weights = torch.tensor([float(m is p) for m in members], dtype=dtype, requires_grad=True)
        pool = LogLinearPool(members, weights)
        assert_same_member(pool.fused, p)
        assert_same_density(case, pool.log_prob(y), corrected(p).log_prob(y))
        torch.testing.assert_close(pool.log_normalizer, torch.zeros((), dtype=dtype), atol=1e-5, rtol=0)
        gradients = torch.autograd.grad(pool.log_prob(y) + pool.log_normalizer, [weights, *free], allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in gradients)
        assert all(g is None or not g.any() for g in gradients[1:])


@pytest.mark.faults("bad weights")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "edge"), EDGES)
def test_weight_one_returns_even_an_extreme_component(name: str, edge: int, dtype: torch.dtype) -> None:
    case = CASES[name]
    extreme, p = case.edges(dtype)[edge], case.draw((), dtype=dtype)
    assert_same_member(log_linear_pool([p, extreme], [0, 1]), extreme)
    assert_same_member(log_linear_pool([extreme, p], [1, 0]), extreme)


@pytest.mark.faults("bad weights")
@pytest.mark.parametrize("name", NAMES)
def test_weight_one_returns_the_member_to_the_last_bit(name: str) -> None:
    members = [CASES[name].draw((3, 5), seed) for seed in range(3)]
    for k, member in enumerate(members):
        weights = torch.eye(3, dtype=torch.float64)[k].expand(3, 5, 3)
        pool = log_linear_pool(members, weights)
        assert_same_member(pool, member.expand([3, 5]))
        y = member.sample((4,))
        assert_same_density(CASES[name], pool.log_prob(y), corrected(member).log_prob(y))


@pytest.mark.parametrize("name", NAMES)
def test_one_component_is_its_own_pool(name: str) -> None:
    p = CASES[name].draw((3,))
    pool = LogLinearPool([p], [1.0])
    assert_same_member(pool, p)
    torch.testing.assert_close(pool.log_normalizer, torch.zeros(3).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_components_does_not_matter(name: str) -> None:
    members = [CASES[name].draw((4,), seed) for seed in range(3)]
    weights = simplex_weights((4,), 3)
    pool = LogLinearPool(members, weights)
    y = members[0].sample((5,))
    for order in ([1, 2, 0], [2, 1, 0]):
        other = LogLinearPool([members[k] for k in order], weights[..., order])
        torch.testing.assert_close(other.log_prob(y), pool.log_prob(y), atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(other.log_normalizer, pool.log_normalizer, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_pools_nest(name: str) -> None:
    members = [CASES[name].draw((4,), seed) for seed in range(3)]
    first, second, third = 0.2, 0.5, 0.3
    pool = LogLinearPool(members, [first, second, third])
    y = members[0].sample((5,))
    share = [first / (first + second), second / (first + second)]
    for make in (LogLinearPool, log_linear_pool):
        inner = make(members[:2], share)
        nested = LogLinearPool([inner, members[2]], [first + second, third])
        torch.testing.assert_close(nested.log_prob(y), pool.log_prob(y), atol=1e-9, rtol=1e-9)
        xi = (first + second) * LogLinearPool(members[:2], share).log_normalizer + nested.log_normalizer
        torch.testing.assert_close(xi, pool.log_normalizer, atol=1e-9, rtol=1e-9)
        flipped = LogLinearPool([members[2], inner.expand([4])], [third, first + second])
        torch.testing.assert_close(flipped.log_prob(y), pool.log_prob(y), atol=1e-9, rtol=1e-9)


def test_pools_nest_inside_wrappers() -> None:
    p, q, r = (CASES["Normal"].draw((2, 3), seed) for seed in range(3))
    mask = torch.tensor([True, False])
    inner = LogLinearPool([p, q], [0.5, 0.5])
    expected = log_linear_pool([p, q, r], [0.25, 0.25, 0.5])
    y = r.sample()
    wrappers = {
        "to_event": lambda d: d.to_event(1),
        "mask": lambda d: d.mask(torch.tensor([True, False, True])),
        "both": lambda d: d.to_event(1).mask(mask),
        "inner mask": lambda d: d.mask(torch.tensor([[True], [False]])).to_event(1),
    }
    for wrap in wrappers.values():
        fused = log_linear_pool([wrap(inner), wrap(r)], [0.5, 0.5])
        torch.testing.assert_close(fused.log_prob(y), wrap(expected).log_prob(y))


@pytest.mark.parametrize("name", NAMES)
def test_identical_components_give_that_component(name: str) -> None:
    p = CASES[name].draw((4,))
    pool = LogLinearPool([p, p, p], simplex_weights((4,), 3))
    y = p.sample((5,))
    torch.testing.assert_close(pool.log_prob(y), corrected(p).log_prob(y), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(pool.log_normalizer, torch.zeros(4).double(), atol=1e-12, rtol=0)
    assert (pool.log_normalizer >= 0).all()


@settings(max_examples=60)
@given(
    name=st.sampled_from(NAMES),
    shares=st.lists(st.one_of(st.just(0), st.integers(1, 1000)), min_size=1, max_size=5).filter(any),
    seed=st.integers(0, 1000),
)
def test_ratios_of_the_density_are_the_products_of_ratios(name: str, shares: list[int], seed: int) -> None:
    weights = [share / sum(shares) for share in shares]
    members = [unmasked(CASES[name].draw((), seed + k)) for k in range(len(shares))]
    pool = log_linear_pool(members, weights)
    one, two = members[0].sample(), pool.sample()
    expected = sum(w * (p.log_prob(one) - p.log_prob(two)) for w, p in zip(weights, members, strict=True))
    torch.testing.assert_close(pool.log_prob(one) - pool.log_prob(two), expected, atol=1e-7, rtol=1e-7)


@pytest.mark.faults("dtype drift")
@pytest.mark.parametrize("weight_dtype", [None, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_dtype_is_that_of_the_components(name: str, dtype: torch.dtype, weight_dtype: torch.dtype | None) -> None:
    case = CASES[name]
    if torch.finfo(dtype).bits == 16 and not case.half:
        dtype = torch.float32  # what PyTorch cannot hold in half precision is shown in single precision
    p, q = (case.draw((3,), seed, dtype) for seed in range(2))
    weights: Any = [0.25, 0.75] if weight_dtype is None else torch.tensor([0.25, 0.75], dtype=weight_dtype)
    pool = LogLinearPool([p, q], weights)
    y = case.draw((3,)).sample()
    y = y.to(dtype) if y.is_floating_point() else y
    assert {t.dtype for t in usual(pool)} == {dtype}
    assert pool.log_prob(y).dtype == dtype
    assert pool.weights.dtype == dtype
    assert pool.log_normalizer.dtype == dtype
    exact = log_linear_pool([case.draw((3,)), case.draw((3,), 1)], [0.25, 0.75])
    set_validation(exact, False)  # rounded, y may have left the simplex of float64
    tolerance = 30 * torch.finfo(dtype).eps
    torch.testing.assert_close(pool.log_prob(y).double(), exact.log_prob(y.double()), atol=tolerance, rtol=tolerance)


@pytest.mark.faults("dtype drift")
def test_weights_of_numbers_keep_the_precision_of_nested_components() -> None:
    loc = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for p in (
        LogLinearPool([dist.Normal(loc, 1.0)], [1]),
        dist.OneHotCategorical(probs=torch.tensor([0.5, 0.5], dtype=torch.float64)),
    ):
        third = LogLinearPool([p, p], [1 / 3, 2 / 3]).weights[..., 0]
        assert third.dtype == torch.float64
        assert (third == 1 / 3).all()


@pytest.mark.faults("validation lost on the way")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_validation_is_kept_by_pool_expand_event_and_mask(name: str, validate: bool) -> None:
    members = [resolved(CASES[name].draw((3,), seed)) for seed in range(2)]
    for p in members:
        set_validation(p, validate)
    pool = LogLinearPool(members, [0.5, 0.5])
    for p in (pool, pool.expand([2, 3]), pool.to_event(1), pool.mask(True), pool.mask(torch.ones(3).bool())):
        assert validates(p) is validate
    for p in (
        pool.fused,
        pool.fused.expand([2, 3]),
        pool.fused.to_event(1),
        log_linear_pool(members, [0.5, 0.5]),
    ):
        assert validates(p) is validate
    set_validation(members[1], not validate)
    assert validates(log_linear_pool(members, [0.5, 0.5]))
    for asked in (True, False):
        pool = LogLinearPool(members, [0.5, 0.5], validate_args=asked)
        assert validates(pool) is asked
        assert validates(pool.fused) is asked


@pytest.mark.faults("validation lost on the way")
@pytest.mark.parametrize("validate", [True, False])
def test_validation_is_of_values_too(validate: bool) -> None:
    bad = torch.tensor(-1.0)
    pool = LogLinearPool([dist.Gamma(1.0, 1.0), dist.Gamma(2.0, 2.0)], [0.5, 0.5], validate_args=validate)
    for p in (pool, pool.expand([3]), pool.expand([3]).to_event(1), pool.mask(True)):
        value = bad.expand(p.shape())
        if validate:
            with pytest.raises(ValueError, match="within the support"):
                p.log_prob(value)
        else:
            assert p.log_prob(value).isnan().all()


@pytest.mark.faults("dtype drift")
def test_the_tensors_of_a_transform_do_not_set_the_dtype() -> None:
    exponent = PowerTransform(torch.tensor(-1.0, dtype=torch.float64))
    p = dist.TransformedDistribution(dist.Gamma(torch.tensor(2.0), torch.tensor(1.0)), [exponent])
    pool = LogLinearPool([LogLinearPool([p, p], [0.5, 0.5]), p], [0.5, 0.5])
    assert pool.weights.dtype == pool.fused.base_dist.rate.dtype == torch.float32


@pytest.mark.faults("wide softmax off the simplex")
def test_weights_of_low_precision_may_sum_to_one_in_low_precision() -> None:
    p = CASES["Normal"].draw((3,))
    weights = torch.full((3,), 1 / 3, dtype=torch.bfloat16)
    assert abs(float(weights.double().sum()) - 1) > 1e-4
    assert log_linear_pool([p, p, p], weights).loc.dtype == torch.float64
    with pytest.raises(ValueError, match="weights: expected a sum of 1"):
        log_linear_pool([p, p, p], weights.double())


def test_a_pool_counts_where_every_component_does() -> None:
    p, q = (CASES["Normal"].draw((3,), seed) for seed in range(2))
    y = p.sample()
    some, others = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    value = log_linear_pool([p, q], [0.5, 0.5]).log_prob(y)
    for members, mask in (
        ([p.mask(some), q.mask(others)], some & others),
        ([p.mask(some), q], some),
        ([p, q.mask(others)], others),
        ([p.mask(some), q.mask(True)], some),
        ([p.mask(some).mask(others), q], some & others),
        ([p.mask(some), q.mask(False)], some & False),
    ):
        torch.testing.assert_close(log_linear_pool(members, [0.5, 0.5]).log_prob(y), value * mask)

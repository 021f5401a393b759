"""LinearPool is the mixture: its density, moments, cdf and draws, in both forms, and its weights at zero."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro.infer import TraceEnum_ELBO, config_enumerate

from pyro_probmix.distributions import LinearPool, LogLinearPool, linear_pool
from tests.cases import CASES, NAMES, simplex_weights, unmasked

PAIRS = {
    "real line": (dist.Normal(0.0, 1.0), dist.StudentT(4.0, 2.0, 0.5)),
    "half-line": (
        dist.Gamma(2.0, 1.0),
        dist.LogNormal(0.0, 0.5),
    ),  # nonnegative and positive: zero has no mass
    "unit interval": (dist.Beta(2.0, 3.0), dist.Kumaraswamy(2.0, 2.0)),
    "interval": (dist.Uniform(0.0, 1.0), dist.Beta(2.0, 2.0)),
    "counts": (dist.Poisson(3.0), dist.Geometric(0.3)),
    "vectors": (
        dist.Normal(torch.zeros(2), 1.0).to_event(1),
        dist.MultivariateNormal(torch.ones(2), torch.eye(2)),
    ),
    "simplex": (dist.Dirichlet(torch.ones(3)), dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0]))),
    "two points": (dist.Delta(torch.tensor(0.0)), dist.Delta(torch.tensor(1.0))),
    "pools": (LogLinearPool([dist.Normal(0.0, 1.0)], [1]), LinearPool([dist.Laplace(0.0, 1.0)])),
}


def explicit(members: list[Any], weights: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    log_probs = torch.stack(torch.broadcast_tensors(*[p.log_prob(y) for p in members]), -1)
    return (weights.log() + log_probs).logsumexp(-1)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_density_is_the_weighted_sum(name: str, size: int) -> None:
    members = [CASES[name].draw((4,), seed) for seed in range(size)]
    weights = simplex_weights((4,), size)
    pool = LinearPool(members, weights)
    assert pool.batch_shape == (4,)
    assert pool.event_shape == members[0].event_shape
    y = pool.sample((5,))
    assert y.shape == (5, 4, *members[0].event_shape)
    assert pool.log_prob(y).shape == (5, 4)
    torch.testing.assert_close(pool.log_prob(y), explicit(members, weights, y))


def mixture(name: str) -> LinearPool:
    members = [unmasked(CASES[name].draw((3,), seed)) for seed in range(2)]
    return LinearPool(members, simplex_weights((3,), 2))


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("name", NAMES)
def test_total_mass(name: str) -> None:
    log_mass = CASES[name].log_integral(mixture(name).log_prob, 1)
    torch.testing.assert_close(log_mass, torch.zeros(3).double(), atol=max(1e-9, CASES[name].precision), rtol=0)


# Neither labels nor PyTorch's transformed distributions have a mean.
@pytest.mark.parametrize(
    "name", [n for n in NAMES if CASES[n].scipy and CASES[n].moments and n not in ("Categorical", "inverse Gamma")]
)
def test_moments(name: str) -> None:
    pool, expectation = mixture(name), CASES[name].expectation
    event_dim = len(pool.event_shape)
    torch.testing.assert_close(pool.mean, expectation(pool, lambda y: y, event_dim), atol=1e-6, rtol=1e-6)
    spread = expectation(pool, lambda y: (y - pool.mean).square(), event_dim)
    torch.testing.assert_close(pool.variance, spread, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_list_and_batched_form_are_equal(name: str) -> None:
    batched = CASES[name].draw((4, 3))
    weights = simplex_weights((4,), 3)
    members = LogLinearPool(batched, weights).components
    one, other = LinearPool(batched, weights), LinearPool(members, weights)
    assert one.batch_shape == other.batch_shape == (4,)
    y = other.sample((5,))
    torch.testing.assert_close(one.log_prob(y), other.log_prob(y))
    assert one.sample((5,)).shape == y.shape
    shape = (2, 4)
    torch.testing.assert_close(one.expand(shape).log_prob(y[:, None]), other.expand(shape).log_prob(y[:, None]))
    assert one.components is batched
    assert other.components == members
    assert torch.equal(one.weights, weights)


@pytest.mark.parametrize("name", PAIRS)
def test_families_with_one_support_mix(name: str) -> None:
    p, q = PAIRS[name]
    pool = linear_pool([p, q], [0.25, 0.75])
    y = pool.sample((20,))
    torch.testing.assert_close(pool.log_prob(y), explicit([p, q], torch.tensor([0.25, 0.75]), y))
    torch.testing.assert_close(pool.mean, 0.25 * p.mean + 0.75 * q.mean)
    torch.testing.assert_close(linear_pool([p, q]).log_prob(y), explicit([p, q], torch.tensor([0.5, 0.5]), y))


def test_cdf() -> None:
    p, q = dist.Normal(torch.zeros(3), 1.0), dist.Laplace(torch.arange(3.0), 1.0)
    y = torch.linspace(-2, 2, 5).unsqueeze(-1)
    expected = 0.25 * p.cdf(y) + 0.75 * q.cdf(y)
    torch.testing.assert_close(LinearPool([p, q], [0.25, 0.75]).cdf(y), expected)
    batched = dist.Normal(torch.tensor([[0.0, 3.0]]), torch.tensor([1.0, 2.0]))
    expected = 0.25 * dist.Normal(0.0, 1.0).cdf(y) + 0.75 * dist.Normal(3.0, 2.0).cdf(y)
    torch.testing.assert_close(LinearPool(batched, [0.25, 0.75]).cdf(y), expected)


@pytest.mark.parametrize("form", ["list", "batched"])
def test_draws_have_the_law(form: str) -> None:
    locs, scales, weights = (
        torch.tensor([-2.0, 0.0, 3.0]),
        torch.tensor([0.5, 1.0, 2.0]),
        torch.tensor([0.2, 0.5, 0.3]),
    )
    batched = dist.Normal(locs, scales)
    members = [dist.Normal(loc, scale) for loc, scale in zip(locs, scales, strict=True)]
    pool = LinearPool(batched if form == "batched" else members, weights)
    draws = pool.sample((4000,)).numpy()
    assert scipy.stats.kstest(draws, lambda y: pool.cdf(torch.as_tensor(y)).numpy()).pvalue > 1e-6


@pytest.mark.parametrize("form", ["list", "batched"])
def test_draws_of_labels_have_the_law(form: str) -> None:
    probs, weights = (
        torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]),
        torch.tensor([[0.25, 0.75], [1.0, 0.0]]),
    )
    batched = dist.Categorical(probs)
    pool = LinearPool(batched.expand([2, 2]) if form == "batched" else [dist.Categorical(p) for p in probs], weights)
    draws = pool.sample((4000,))
    for row, expected in enumerate((weights @ probs).numpy().astype(np.float64)):
        counts = np.bincount(draws[:, row], minlength=3)
        assert scipy.stats.chisquare(counts, 4000 * expected / expected.sum()).pvalue > 1e-6


def test_rows_draw_independently() -> None:
    pool = LinearPool([dist.Delta(torch.tensor(0.0)), dist.Delta(torch.tensor(1.0))], [0.5, 0.5]).expand([2])
    draws = pool.sample((4000,))
    table = [[float(((draws[:, 0] == a) & (draws[:, 1] == b)).sum()) for b in (0, 1)] for a in (0, 1)]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-6
    assert min(map(min, table)) > 800


@pytest.mark.faults("zero times minus infinity")
@pytest.mark.parametrize("far", [3.0, 60.0, 1e4])
def test_weight_zero_is_exact_with_its_gradient(far: float) -> None:
    y = torch.tensor([0.0, far], dtype=torch.float64)
    members = [dist.Normal(torch.tensor(loc, dtype=torch.float64), 1.0) for loc in (0.0, far)]
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    value = LinearPool(members, weights).log_prob(y)
    assert torch.equal(value, members[0].log_prob(y))
    for row in range(2):
        (gradient,) = torch.autograd.grad(value[row], weights, retain_graph=True)
        ratio = (members[1].log_prob(y[row]) - members[0].log_prob(y[row])).exp()
        assert gradient.isfinite().all()
        if ratio < 1e100:  # what is larger is held finite
            torch.testing.assert_close(gradient, torch.stack([torch.ones_like(ratio), ratio]))


@pytest.mark.faults("zero times minus infinity")
def test_weight_zero_removes_a_component_of_less_support() -> None:
    weights = torch.tensor([0.0, 1.0], requires_grad=True)
    members = [
        dist.Categorical(logits=torch.tensor([0.0, -torch.inf])),
        dist.Categorical(logits=torch.zeros(2)),
    ]
    value = LinearPool(members, weights).log_prob(torch.tensor([0, 1]))
    torch.testing.assert_close(value, torch.full((2,), 0.5).log())
    (gradient,) = torch.autograd.grad(value.sum(), weights)
    torch.testing.assert_close(gradient, torch.tensor([2.0, 2.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight", [1e-30, 1e-37])
def test_a_tiny_weight_counts_where_nothing_else_does(weight: float, dtype: torch.dtype) -> None:
    zero = torch.zeros((), dtype=dtype)
    members = [dist.Normal(zero, 1.0), dist.Normal(zero + 100, 1.0)]
    pool = LinearPool(members, torch.tensor([1 - weight, weight], dtype=dtype))
    expected = members[1].log_prob(zero + 100) + torch.tensor(weight, dtype=dtype).log()
    torch.testing.assert_close(pool.log_prob(zero + 100), expected)


@given(shares=st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any), seed=st.integers(0, 100))
def test_any_weights(shares: list[int], seed: int) -> None:
    weights = [share / sum(shares) for share in shares]
    members = [CASES["Normal"].draw((), seed + k) for k in range(len(shares))]
    pool = LinearPool(members, weights)
    y = pool.sample((4,))
    torch.testing.assert_close(pool.log_prob(y), explicit(members, torch.tensor(weights, dtype=torch.float64), y))


def test_gradients_in_weights_and_parameters() -> None:
    y = torch.tensor([0.3, -1.0], dtype=torch.float64)
    loc = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def log_prob(loc: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        members = [dist.Normal(loc[k], 1.0) for k in range(3)]
        return LinearPool(members, logits.softmax(-1)).log_prob(y)

    assert torch.autograd.gradcheck(log_prob, [loc, logits])


@pytest.mark.faults("dtype drift")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    loc = torch.zeros(3, dtype=dtype)
    for weights in ([0.25, 0.75], torch.tensor([0.25, 0.75], dtype=torch.float64)):
        pool = LinearPool([dist.Normal(loc, 1.0), dist.Normal(loc + 1, 1.0)], weights)
        values = pool.log_prob(loc), pool.mean, pool.variance, pool.sample(), pool.weights, pool.cdf(loc)
        assert {t.dtype for t in values} == {dtype}


@pytest.mark.faults("validation lost on the way")
@pytest.mark.parametrize("validate", [True, False])
def test_validation_is_kept(validate: bool) -> None:
    members = [dist.Normal(0.0, 1.0, validate_args=validate), dist.Normal(1.0, 1.0, validate_args=validate)]
    pool = LinearPool(members, [0.5, 0.5])
    for p in (pool, pool.expand([2]), pool.expand([2]).to_event(1)):
        value = torch.full(p.shape(), torch.nan)
        if validate:
            with pytest.raises(ValueError, match="within the support"):
                p.log_prob(value)
        else:
            assert p.log_prob(value).isnan().all()


def test_masked_and_eventful_components() -> None:
    p, q = (CASES["Normal"].draw((2, 3), seed) for seed in range(2))
    y = p.sample()
    pool = LinearPool([p.to_event(1), q.to_event(1)], simplex_weights((2,), 2))
    expected = explicit([p.to_event(1), q.to_event(1)], simplex_weights((2,), 2), y)
    torch.testing.assert_close(pool.log_prob(y), expected)
    mask = torch.tensor([True, False])
    torch.testing.assert_close(pool.mask(mask).log_prob(y), expected * mask)


def test_enumerated_site() -> None:
    probs, locs, data = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]), torch.arange(3.0), torch.randn(4)
    pool = LinearPool([dist.Categorical(p) for p in probs], [0.25, 0.75])
    for p in (pool, LinearPool(dist.Categorical(probs), [0.25, 0.75])):
        assert torch.equal(p.enumerate_support(expand=False), torch.arange(3))
        assert torch.equal(p.expand([2]).enumerate_support(), torch.arange(3).unsqueeze(-1).expand(3, 2))

        @config_enumerate
        def model(p: Any = p) -> None:
            with pyro.plate("data", 4):
                z = pyro.sample("z", p)
                pyro.sample("y", dist.Normal(locs[z], 1.0), obs=data)

        exact = ((torch.tensor([0.25, 0.75]) @ probs).log() + dist.Normal(locs, 1.0).log_prob(data[:, None])).logsumexp(
            -1
        )
        assert TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None) == pytest.approx(
            -float(exact.sum()), rel=1e-5
        )


@pytest.mark.faults("copies and transforms")
def test_pickle_and_deepcopy() -> None:
    y = torch.randn(3)
    for pool in (
        LinearPool([dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0)]),
        LinearPool(dist.Normal(torch.zeros(2), 1.0)),
    ):
        for other in (pickle.loads(pickle.dumps(pool)), copy.deepcopy(pool)):
            assert torch.equal(other.log_prob(y), pool.log_prob(y))


@pytest.mark.faults("copies and transforms")
def test_vmap() -> None:
    locs, y = torch.randn(5, 2), torch.randn(5)

    def log_prob(loc: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return LinearPool(dist.Normal(loc, 1.0, validate_args=False), [0.25, 0.75]).log_prob(y)

    expected = LinearPool(dist.Normal(locs, 1.0), [0.25, 0.75]).log_prob(y)
    torch.testing.assert_close(torch.func.vmap(log_prob)(locs, y), expected)


def test_expanding_copies_nothing() -> None:
    pool = LinearPool(dist.Normal(torch.zeros(3), 1.0)).expand([10**6])
    members = LinearPool([dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0)]).expand([10**6])
    for tensor in (pool.weights, pool.components.loc, members.weights):
        assert tensor.untyped_storage().size() <= 4 * 3


@pytest.mark.faults("value on the boundary")
def test_a_pole_of_a_component_is_one_of_the_pool() -> None:
    components = [dist.Beta(0.5, 0.5), dist.Beta(2.0, 2.0)]
    y = torch.tensor([0.0, 0.5, 1.0])
    found = LinearPool(components, [0.5, 0.5]).log_prob(y)
    assert found.isinf().tolist() == [True, False, True]
    assert LinearPool(components, [0.0, 1.0]).log_prob(y[:1]).item() == -torch.inf


@pytest.mark.parametrize("form", ["list", "batched"])
def test_weight_zero_removes_a_component_without_moments(form: str) -> None:
    """Its mean is infinite. Where it is finite, the gradient of its weight stays."""
    alpha, weights = torch.tensor([3.0, 0.5]), torch.tensor([1.0, 0.0])
    components: Any = dist.Pareto(1.0, alpha)
    pool = LinearPool(components if form == "batched" else [dist.Pareto(1.0, a) for a in alpha], weights)
    torch.testing.assert_close((pool.mean, pool.variance), (torch.tensor(1.5), torch.tensor(0.75)))
    weights = torch.tensor([1.0, 0.0], requires_grad=True)
    LinearPool(dist.Normal(torch.tensor([1.0, 2.0]), 1.0), weights).mean.backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [1.0, 2.0]


def test_cdf_has_the_batch_shape() -> None:
    pool = LinearPool([dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0)]).expand([4])
    assert pool.cdf(torch.tensor(0.0)).shape == (4,)
    assert pool.cdf(torch.zeros(3, 1)).shape == (3, 4)


def test_the_support_of_a_batched_form_has_the_pools_batch() -> None:
    pool = LinearPool(dist.Binomial(torch.tensor([[5.0], [3.0], [5.0]]), probs=torch.rand(3, 2)))
    assert pool.support.check(torch.tensor([5.0, 5.0, 5.0])).tolist() == [True, False, True]
    eventful = LinearPool(dist.Uniform(torch.zeros(3, 2, 4), 1.0).to_event(1))
    assert eventful.support.check(torch.full((3, 4), 0.5)).tolist() == [True] * 3


@pytest.mark.parametrize(
    "components",
    [
        dist.Uniform(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 6.0])),
        dist.Pareto(torch.tensor([1.0, 2.0]), 1.0),
        dist.Binomial(torch.tensor([2.0, 9.0]), 0.5),
        dist.Uniform(torch.zeros(3, 2, 2), torch.tensor([[1.0, 1.0], [1.0, 2.0]])).to_event(1).expand([3, 2]),
    ],
    ids=["Uniform", "Pareto", "Binomial", "vectors"],
)
def test_a_batched_form_has_one_support(components: Any) -> None:
    with pytest.raises(ValueError, match="components: expected one support, got"):
        LinearPool(components)


def test_no_draws_are_none() -> None:
    assert LinearPool([dist.Normal(torch.zeros(3), 1.0)] * 2).sample((0, 2)).shape == (0, 2, 3)

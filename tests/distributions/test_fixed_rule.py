"""The fixed rule of numerical pools, where values cannot be looked at: as good as the adaptive one, or it says not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_probmix.distributions import HolderPool, LinearPool, NumericalPool, numerical_pool
from pyro_probmix.distributions.numerical import NUM_NODES

REPLICAS, ROWS = 3, 4


def real(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(a: Tensor, b: Tensor) -> Any:
    return dist.MixtureSameFamily(dist.Categorical(logits=a), dist.Normal(3 * a, 0.1 + b.abs()))


def linear(a: Tensor, b: Tensor) -> Any:
    return LinearPool([dist.Laplace(a[..., 0], 0.2 + b[..., 0].abs()), dist.Normal(a[..., 1], 0.2 + b[..., 1].abs())])


# name: a member from two tensors whose last dimension is two
FAMILIES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "StudentT": lambda a, b: dist.StudentT(1.5 + b[..., 0].abs(), a[..., 0], 0.2 + b[..., 1].abs()),
    "StudentT far apart": lambda a, b: dist.StudentT(3.0, 20 * a[..., 0], 0.1 + 0.1 * b[..., 1].abs()),
    "Cauchy": lambda a, b: dist.Cauchy(a[..., 0], 0.2 + b[..., 0].abs()),
    "Logistic": lambda a, b: dist.Logistic(a[..., 0], 0.2 + b[..., 0].abs()),
    "Laplace": lambda a, b: dist.Laplace(a[..., 0], 0.2 + b[..., 0].abs()),
    "mixture of Normals": mixture,
    "LinearPool": linear,
    "sharp Normals": lambda a, b: dist.Normal(3 * a[..., 0], 0.01 + 0.01 * b[..., 0].abs()),
    "Gamma": lambda a, b: dist.Gamma(0.5 + a[..., 0].abs(), 0.2 + b[..., 0].abs()),
    "Weibull": lambda a, b: dist.Weibull(0.5 + a[..., 0].abs(), 0.7 + b[..., 0].abs()),
    "Beta": lambda a, b: dist.Beta(0.5 + a[..., 0].abs(), 0.5 + b[..., 0].abs()),
    "FisherSnedecor": lambda a, b: dist.FisherSnedecor(1 + a[..., 0].abs(), 3 + b[..., 0].abs()),
    "VonMises": lambda a, b: dist.VonMises(a[..., 0], 0.5 + b[..., 0].abs()),
    "NegativeBinomial": lambda a, b: dist.NegativeBinomial(1 + 5 * b[..., 0].abs(), logits=a[..., 0]),
    "GammaPoisson": lambda a, b: dist.GammaPoisson(1 + 5 * b[..., 0].abs(), 0.2 + a[..., 0].abs()),
    "Poisson": lambda a, b: dist.Poisson((5 + 2 * a[..., 0]).exp()),
    "BetaBinomial": lambda a, b: dist.BetaBinomial(1 + a[..., 0].abs(), 1 + b[..., 0].abs(), 30),
    "Categorical": lambda a, b: dist.Categorical(logits=torch.cat([a, b], -1)),
}


def inputs(name: str) -> list[Tensor]:
    parameters = [real(REPLICAS, ROWS, 2, seed=seed).requires_grad_() for seed in range(4)]
    with pyro.validation_enabled(False), torch.no_grad():
        members = [FAMILIES[name](*parameters[:2]), FAMILIES[name](*parameters[2:])]
        y = torch.where(torch.arange(ROWS) % 2 == 0, *(m.sample().double() for m in members))
        weight = torch.rand(REPLICAS, ROWS, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return [*parameters, weight.requires_grad_(), y]


def log_prob(name: str, num_nodes: int | None = None) -> Callable[..., Tensor]:
    def function(a: Tensor, b: Tensor, c: Tensor, d: Tensor, weight: Tensor, y: Tensor) -> Tensor:
        members = [FAMILIES[name](a, b), FAMILIES[name](c, d)]
        return NumericalPool(members, [weight, 1 - weight], num_nodes=num_nodes).log_prob(y)

    return function


@pytest.mark.faults("families that are not closed")
@pytest.mark.parametrize("name", FAMILIES)
def test_vmap_gives_what_the_adaptive_rule_gives(name: str) -> None:
    given = inputs(name)
    used = [t for t, wanted in zip(given[:-1], _used(name, given), strict=True) if wanted]
    with pyro.validation_enabled(False):
        exact = log_prob(name)(*given)
        mapped = torch.func.vmap(log_prob(name))(*given)
        fixed = log_prob(name, NUM_NODES)(*given)
    torch.testing.assert_close(mapped, exact, atol=1e-7, rtol=0)
    torch.testing.assert_close(fixed, mapped, atol=1e-12, rtol=1e-12)
    gradients = [torch.autograd.grad(value.sum(), used) for value in (mapped, exact)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def _used(name: str, given: list[Tensor]) -> list[bool]:
    with pyro.validation_enabled(False):
        value = log_prob(name, NUM_NODES)(*given)
    return [g is not None for g in torch.autograd.grad(value.sum(), given[:-1], allow_unused=True)]


@pytest.mark.faults("unequal fixed parameters")
def test_negative_binomials_of_two_total_counts_under_vmap() -> None:
    """By brute summation the mean is 8.66, not the 2.0 of a family that takes one total count for the other."""
    total_count, logits = torch.tensor([[2.0, 20.0]]).double(), torch.zeros(1, 2).double()
    k = torch.arange(5000).double().unsqueeze(-1)
    mass = (0.5 * dist.NegativeBinomial(total_count[0], logits=logits[0]).log_prob(k)).sum(-1).softmax(0)
    expected = (mass * k.squeeze(-1)).sum()
    assert float(expected) == pytest.approx(8.66, abs=0.01)

    def moments(total_count: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        members = [dist.NegativeBinomial(total_count[j], logits=logits[j], validate_args=False) for j in range(2)]
        pool = NumericalPool(members, [0.5, 0.5])
        return pool.mean, pool.log_prob(torch.tensor(7.0).double())

    mean, value = torch.func.vmap(moments)(total_count, logits)
    torch.testing.assert_close(mean[0], expected)
    torch.testing.assert_close(value[0], mass[7].log())


def student(loc: Tensor, scale: float = 1.0) -> Any:
    return dist.StudentT(3.0, loc, scale, validate_args=False)


def test_weights_of_zero_and_one_give_the_member_exactly() -> None:
    loc, weight = real(3, 2), torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    y = torch.tensor(0.3, dtype=torch.float64)

    def value(loc: Tensor, weight: Tensor) -> Tensor:
        return NumericalPool([student(loc[0]), student(loc[1], 0.1)], [weight, 1 - weight]).log_prob(y)

    values = torch.func.vmap(value)(loc, weight)
    assert values[0] == student(loc[0, 1], 0.1).log_prob(y)
    assert values[1] == student(loc[1, 0]).log_prob(y)
    gradient = torch.func.vmap(torch.func.grad(value, (0, 1)))(loc, weight)
    assert all(g.isfinite().all() for g in gradient)


@pytest.mark.parametrize("name", ["StudentT", "Gamma", "NegativeBinomial"])
def test_derivatives(name: str) -> None:
    given = [t[0, :1].detach().requires_grad_(t.requires_grad) for t in inputs(name)]
    with pyro.validation_enabled(False):
        assert torch.autograd.gradcheck(log_prob(name, NUM_NODES), given, fast_mode=True)


def test_moving_ends_under_vmap() -> None:
    ends = torch.tensor([[0.0, 2.0, 1.0, 5.0], [0.5, 3.0, -1.0, 2.0]], dtype=torch.float64)

    def value(ends: Tensor) -> Tensor:
        members = [dist.Uniform(*ends[:2], validate_args=False), dist.Uniform(*ends[2:], validate_args=False)]
        return NumericalPool(members, [0.5, 0.5]).log_normalizer

    values, gradients = torch.func.vmap(value)(ends), torch.func.vmap(torch.func.grad(value))(ends)
    for row in range(2):
        low, high = max(ends[row, 0], ends[row, 2]), min(ends[row, 1], ends[row, 3])
        widths = (ends[row, 1] - ends[row, 0]) * (ends[row, 3] - ends[row, 2])
        torch.testing.assert_close(values[row], 0.5 * widths.log() - (high - low).log())
        own = ends[row].clone().requires_grad_()
        torch.testing.assert_close(gradients[row], torch.autograd.grad(value(own), own)[0], atol=1e-9, rtol=1e-9)


def test_the_estimate_of_the_error_is_seen_and_bounds_it() -> None:
    loc = torch.linspace(-5, 5, 21, dtype=torch.float64)
    members = [student(loc), student(-loc, 0.1)]
    exact = NumericalPool(members, [0.3, 0.7])
    assert (exact.error <= 1e-10).all()
    assert exact.num_nodes is None
    for num_nodes in (105, 201, 401, NUM_NODES):
        pool = NumericalPool(members, [0.3, 0.7], num_nodes=num_nodes, accuracy=0.999)
        assert pool.num_nodes == num_nodes
        assert pool.error.shape == (21,)
        assert ((exact.log_normalizer - pool.log_normalizer).expm1().abs() <= pool.error + 1e-12).all()
    counts = [dist.Poisson(loc.exp()), dist.Geometric(torch.full_like(loc, 0.2))]
    sums = [NumericalPool(counts, [0.3, 0.7], num_nodes=n, accuracy=0.999) for n in (30, NUM_NODES)]
    assert sums[0].error.max() > 1e-6 > sums[1].error.max()
    reference = NumericalPool(counts, [0.3, 0.7]).log_normalizer
    for pool in sums:
        assert ((reference - pool.log_normalizer).expm1().abs() <= pool.error + 1e-12).all()


@pytest.mark.faults("families that are not closed")
def test_beyond_the_accuracy_it_refuses_or_is_not_a_number() -> None:
    """Under vmap the training's guard against losses that are not finite meets it."""
    members = [student(torch.tensor([0.0, 1.0])), student(torch.tensor([50.0, 1.0]))]
    pool = NumericalPool(members, [0.5, 0.5], num_nodes=15)
    with pytest.raises(ValueError, match="a rule of 15 nodes can find to accuracy 1e-06, got none at batch index"):
        pool.log_prob(torch.zeros(2))
    assert pool.error[0] > 1e-6

    def value(loc: Tensor, num_nodes: int) -> Tensor:
        members = [student(loc), student(-loc)]
        return NumericalPool(members, [0.5, 0.5], num_nodes=num_nodes).log_prob(torch.zeros(()))

    loc = torch.tensor([0.5, 50.0])
    assert torch.func.vmap(lambda loc: value(loc, 15))(loc).isnan().all()
    assert torch.func.vmap(lambda loc: value(loc, NUM_NODES))(loc).isfinite().all()
    counts = [dist.Poisson(torch.tensor([3.0, 400.0])), dist.Poisson(torch.tensor([3.0, 300.0]))]
    assert NumericalPool(counts, [0.5, 0.5], num_nodes=101).log_prob(torch.zeros(2)).isfinite().all()  # every other
    flat = [dist.Geometric(torch.tensor(1e-4)), dist.Geometric(torch.tensor(2e-4))]
    with pytest.raises(ValueError, match="whose sum 101 integers give to accuracy 1e-06"):
        NumericalPool(flat, [0.5, 0.5], num_nodes=101).log_prob(torch.zeros(()))
    with pytest.raises(ValueError, match="num_nodes: expected an integer >= 15, got 14"):
        NumericalPool(counts, [0.5, 0.5], num_nodes=14)
    apart = torch.func.vmap(
        lambda low: (
            NumericalPool(
                [dist.Uniform(low, low + 1, validate_args=False), dist.Uniform(low + 2, low + 3, validate_args=False)],
                [0.5, 0.5],
            ).log_normalizer
        )
    )
    assert apart(torch.zeros(2)).isnan().all()


def test_what_single_integers_need_is_refused_where_the_sum_skips_some() -> None:
    members = [dist.Poisson(torch.tensor(4e4)), dist.Poisson(torch.tensor(5e4))]
    pool, exact = NumericalPool(members, [0.5, 0.5], num_nodes=301), NumericalPool(members, [0.5, 0.5])
    y = exact.mean.round()
    torch.testing.assert_close(pool.log_prob(y), exact.log_prob(y), atol=1e-6, rtol=0)
    torch.testing.assert_close(pool.variance, exact.variance)
    with pytest.raises(ValueError, match="whose mass is on no more than 301 integers"):
        pool.cdf(y)


@pytest.mark.parametrize("name", ["StudentT", "NegativeBinomial", "Beta"])
def test_moments_and_quantiles(name: str) -> None:
    given = inputs(name)[:-1]
    shares = torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64)

    def summary(a: Tensor, b: Tensor, c: Tensor, d: Tensor, weight: Tensor) -> Tensor:
        pool = NumericalPool([FAMILIES[name](a, b), FAMILIES[name](c, d)], [weight, 1 - weight])
        quantiles = pool.icdf(shares.unsqueeze(-1))
        return torch.cat([pool.mean.unsqueeze(0), pool.entropy().unsqueeze(0), quantiles, pool.cdf(quantiles)])

    with pyro.validation_enabled(False):
        mapped = torch.func.vmap(summary)(*given)
        each = torch.stack([summary(*[t[r] for t in given]) for r in range(REPLICAS)])
    torch.testing.assert_close(mapped, each, atol=1e-5, rtol=1e-5)


def test_draws_under_vmap_have_gradients() -> None:
    def mean(loc: Tensor) -> Tensor:
        return NumericalPool([student(loc), student(loc + 1)], [0.5, 0.5]).rsample((2000,)).mean()

    loc = torch.tensor([0.0, 3.0], dtype=torch.float64)
    gradient, value = torch.func.vmap(torch.func.grad_and_value(mean), randomness="different")(loc)
    torch.testing.assert_close(value, loc + 0.5, atol=0.1, rtol=0)
    torch.testing.assert_close(gradient, torch.ones(2).double(), atol=1e-6, rtol=0)


def test_other_pools_have_it_too() -> None:
    loc = torch.tensor([0.0, 3.0], dtype=torch.float64)

    def value(loc: Tensor) -> Tensor:
        return HolderPool([student(loc), student(-loc)], [0.5, 0.5], exponent=-1.0).log_normalizer

    torch.testing.assert_close(torch.func.vmap(value)(loc), value(loc), atol=1e-8, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["StudentT", "NegativeBinomial"])
def test_a_compiler_makes_one_graph_of_it(name: str) -> None:
    given = inputs(name)
    with pyro.validation_enabled(False):
        expected = torch.func.vmap(log_prob(name))(*given)
        mapped = torch.compile(lambda *t: torch.func.vmap(log_prob(name))(*t), fullgraph=True, backend="eager")
        actual = mapped(*given)
    torch.testing.assert_close(actual, expected, atol=1e-9, rtol=0)
    used = [t for t, wanted in zip(given[:-1], _used(name, given), strict=True) if wanted]
    gradients = [torch.autograd.grad(value.sum(), used) for value in (actual, expected)]
    torch.testing.assert_close(*gradients, atol=1e-8, rtol=1e-8)


def test_independent_outputs_are_pooled_one_by_one_and_masks_meet() -> None:
    loc, weight = real(2, 4, 3), torch.rand(4, dtype=torch.float64)
    y = real(4, 3, seed=1)
    members = [student(loc[k]) for k in range(2)]
    each = NumericalPool(members, [weight.unsqueeze(-1), 1 - weight.unsqueeze(-1)]).log_prob(y)
    for weights in ([weight, 1 - weight], torch.stack([weight, 1 - weight], -1)):
        pool = numerical_pool([m.to_event(1) for m in members], weights)
        assert (pool.batch_shape, pool.event_shape) == ((4,), (3,))
        torch.testing.assert_close(pool.log_prob(y), each.sum(-1))
    outputs = torch.tensor([True, False, True])
    rows = torch.tensor([True, True, False, True])
    masked = numerical_pool(
        [members[0].mask(outputs).to_event(1).mask(rows), members[1].mask(outputs).to_event(1)], [weight, 1 - weight]
    )
    torch.testing.assert_close(masked.log_prob(y), (each * outputs).sum(-1) * rows)
    with pytest.raises(ValueError, match=r"components: expected one number of independent dimensions, got \[0, 1\]"):
        numerical_pool([members[0].to_event(1), members[1]], [0.5, 0.5])
    batch = numerical_pool(dist.StudentT(3.0, loc[:, 0, 0], 1.0), torch.tensor([0.5, 0.5]).double())
    torch.testing.assert_close(batch.log_normalizer, NumericalPool(members, [0.5, 0.5]).log_normalizer[0, 0])

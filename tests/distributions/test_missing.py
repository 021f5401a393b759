"""A component of weight zero is removed whatever its parameters are: a missing expert has none that are finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_probmix.distributions import LinearPool, LogLinearPool, NumericalPool, linear_pool, log_linear_pool
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.held_tensors import held_tensors
from pyro_probmix.training.data import without_validation
from tests.cases import CASES, NAMES, Case, unmasked

pytestmark = pytest.mark.faults("missing expert")


def unchecked(make: Callable[..., Any], parameters: list[Tensor]) -> Any:
    """The member that nobody looks at: as a model does in training, with validation off."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        return make(*parameters)
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def missing(case: Case, parameters: tuple[Tensor, ...], row: int | None, value: float) -> list[Tensor]:
    """Parameters of which one row of the batch, or all, are not finite."""
    free = []
    for t in parameters:
        t = t.clone()
        t[... if row is None else row] = value
        free.append(t.requires_grad_())
    return free


def draw(case: Case, seed: int, shape: tuple[int, ...] = (3,)) -> tuple[Tensor, ...]:
    return case.parameters(torch.Size(shape), torch.Generator().manual_seed(seed))


def held(p: Any) -> list[Tensor]:
    """The parameters that a component holds: what made them is its own affair."""
    return [t for t in held_tensors(p) if t.requires_grad]


# Which are no members with a row that is not finite: one refuses it, one has a row for all of its batch.
ROWS = [name for name in NAMES if name not in ("SineBivariateVonMises", "expanded Gamma")]


def present_and_missing(name: str, value: float) -> tuple[Any, Any]:
    """A component of three rows, and one whose middle row is not finite."""
    case = CASES[name]
    parameters = draw(case, 1)
    if name == "LowRankMultivariateNormal":  # which factors a matrix as it is made
        loc, factor, diag = parameters
        free = [*missing(case, (loc,), 1, value), factor.requires_grad_(), *missing(case, (diag,), 1, math.inf)]
    else:
        free = missing(case, parameters, 1, value)
    return case.make(*draw(case, 0)), unchecked(case.make, free)


WEIGHTS = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]], dtype=torch.float64)


@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ROWS)
def test_log_linear_pools(name: str, value: float, first: bool) -> None:
    """The row of the missing component is that of the other; no gradient reaches it, and those of others are finite."""
    p, gone = present_and_missing(name, value)
    members = [gone, p] if first else [p, gone]
    weights = (WEIGHTS.flip(-1) if first else WEIGHTS.clone()).requires_grad_()
    pool = LogLinearPool(members, weights)
    y = p.sample()
    log_prob, xi = unmasked(pool.fused).log_prob(y), pool.log_normalizer
    torch.testing.assert_close(log_prob[1], unmasked(corrected(p)).log_prob(y)[1])
    torch.testing.assert_close(xi[1], torch.zeros_like(xi[1]), atol=1e-9, rtol=0)
    assert log_prob.isfinite().all()
    parameters = held(gone)
    gradients = torch.autograd.grad((log_prob + xi).sum(), [weights, *parameters], allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)
    for t, g in zip(parameters, gradients[1:], strict=True):
        assert g is None or t.shape[:1] != (3,) or not g[1].any()
    fused = log_linear_pool(members, weights.detach())
    torch.testing.assert_close(unmasked(fused).log_prob(y), log_prob)
    assert pool.expand((2, 3)).log_normalizer.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ROWS)
def test_linear_pools(name: str, value: float) -> None:
    p, gone = present_and_missing(name, value)
    weights = WEIGHTS.clone().requires_grad_()
    y = p.sample()
    for members in ([p, gone], [gone, p]):
        ours = weights if members[0] is p else weights.flip(-1)
        pool = LinearPool(members, ours)
        log_prob = pool.log_prob(y)
        torch.testing.assert_close(log_prob[1], corrected(p).log_prob(y)[1])
        parameters = held(gone)
        gradients = torch.autograd.grad(log_prob[1].sum(), [weights, *parameters], allow_unused=True, retain_graph=True)
        assert all(g is None or g.isfinite().all() for g in gradients)
        assert all(g is None or not g.any() for g in gradients[1:])
        assert pool.sample((5,)).shape == (5, *pool.shape())


SCALARS = ["Normal", "Laplace", "Gamma", "Poisson", "LogNormal", "Beta"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", SCALARS)
def test_numerical_pools(name: str, value: float) -> None:
    p, gone = present_and_missing(name, value)
    weights = WEIGHTS.clone().requires_grad_()
    pool = NumericalPool([gone, p], weights.flip(-1))
    y = p.sample()
    log_prob = pool.log_prob(y)
    torch.testing.assert_close(log_prob[1], p.log_prob(y)[1])
    parameters = held(gone)
    gradients = torch.autograd.grad(log_prob[1] + pool.log_normalizer[1], [weights, *parameters], allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)
    assert all(g is None or not g.any() for g in gradients[1:])


def test_components_of_other_families() -> None:
    gone = unchecked(dist.StudentT, [torch.tensor(v) for v in (math.nan, math.inf, math.nan)])
    for kind in (linear_pool, NumericalPool):
        y, pool = torch.tensor(0.3), kind([gone, dist.Normal(1.0, 2.0)], [0, 1])
        torch.testing.assert_close(pool.log_prob(y), dist.Normal(1.0, 2.0).log_prob(y))
        torch.testing.assert_close(pool.mean, torch.tensor(1.0))


def test_products_of_experts_without_one() -> None:
    """Weights of one and zero a row: the experts that are there."""
    loc = torch.tensor([[0.0, 1.0], [math.nan, 2.0], [3.0, math.nan]], requires_grad=True)
    scale = torch.tensor([[1.0, 2.0], [math.nan, 0.5], [1.5, math.inf]], requires_grad=True)
    there = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    prior = dist.Normal(torch.zeros(3), 1.0)
    experts = [dist.Normal(loc[:, k], scale[:, k], validate_args=False) for k in range(2)]
    weights = torch.cat([torch.ones(3, 1), there], -1)
    fused = log_linear_pool([prior, *experts], weights, simplex=False)
    precision = 1 + torch.where(there == 1, scale, math.inf).square().reciprocal().sum(-1)
    mean = torch.where(there == 1, loc / scale.square(), 0).sum(-1) / precision
    torch.testing.assert_close(fused.scale, precision.rsqrt())
    torch.testing.assert_close(fused.loc, mean)
    gradients = torch.autograd.grad(fused.loc.sum() + fused.scale.sum(), [loc, scale])
    for g in gradients:
        assert g.isfinite().all()
        assert torch.equal(g != 0, there == 1)


def test_the_batched_form() -> None:
    loc = torch.tensor([[0.0, 1.0], [math.nan, 2.0]])
    weights = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    batched = dist.Normal(loc, 1.0, validate_args=False)
    y = torch.zeros(2)
    expected = dist.Normal(torch.tensor([0.5, 2.0]), 1.0).log_prob(y)
    torch.testing.assert_close(log_linear_pool(batched, weights).log_prob(y), expected)
    assert linear_pool(batched, weights).log_prob(y)[1] == expected[1]
    assert NumericalPool(batched, weights).log_prob(y).isfinite().all()


@pytest.mark.parametrize("kind", [log_linear_pool, linear_pool])
def test_several_are_missing(kind: Callable[..., Any]) -> None:
    members = [dist.Gamma(torch.tensor(v), 1.0, validate_args=False) for v in (math.nan, 2.0, math.inf)]
    y = torch.tensor(0.7)
    torch.testing.assert_close(kind(members, [0, 1, 0]).log_prob(y), dist.Gamma(2.0, 1.0).log_prob(y))


@pytest.mark.parametrize("kind", [log_linear_pool, linear_pool])
def test_one_component_for_rows_with_and_without_it(kind: Callable[..., Any]) -> None:
    """Where it counts the pool is not a number; where it does not, it is not there."""
    gone = dist.Normal(math.nan, 1.0, validate_args=False)
    p = dist.Normal(1.0, 1.0, validate_args=False)
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    log_prob = kind([p, gone], weights).log_prob(torch.zeros(2))
    assert log_prob[0] == p.log_prob(torch.tensor(0.0))
    assert log_prob[1].isnan()


FIXED = {
    "NegativeBinomial": lambda n, t: dist.NegativeBinomial(n, logits=t, validate_args=False),
    "GammaPoisson": lambda n, t: dist.GammaPoisson(n, t, validate_args=False),
    "Weibull": lambda n, t: dist.Weibull(t, n, validate_args=False),
    "Laplace": lambda n, t: dist.Laplace(n, t, validate_args=False),
    "AffineBeta": lambda n, t: dist.AffineBeta(t, t, n, 1.0, validate_args=False),
}


@pytest.mark.parametrize("kind", [log_linear_pool, linear_pool])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_parameters_may_be_missing_too(name: str, kind: Callable[..., Any]) -> None:
    n, t = torch.full((2,), 2.0), torch.full((2,), 1.5)
    lost = torch.tensor([1.0, math.nan])
    p, gone = FIXED[name](n, t), unchecked(FIXED[name], [n * lost, t * lost])
    pool = kind([gone, p], torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    y = torch.tensor([3.0, 3.0]) if name != "AffineBeta" else torch.tensor([2.5, 2.5])
    torch.testing.assert_close(pool.log_prob(y), p.log_prob(y))


def test_it_works_under_vmap_and_in_one_graph() -> None:
    loc = torch.tensor([[0.0, math.nan], [1.0, 2.0]])
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    for kind, expected in ((log_linear_pool, [0.0, 1.5]), (linear_pool, [0.0, 1.5])):

        def mean(loc: Tensor, weights: Tensor, kind: Callable[..., Any] = kind) -> Tensor:
            members = [dist.Normal(t, 1.0, validate_args=False) for t in loc.unbind(-1)]
            return kind(members, weights).mean

        with without_validation():
            gradient = torch.func.vmap(torch.func.grad(mean))(loc, weights)
            assert torch.equal(gradient, weights)
            assert torch.func.vmap(mean)(loc, weights).tolist() == expected
            compiled = torch.compile(mean, backend="eager", fullgraph=True)
            assert compiled(loc, weights).tolist() == expected


# Where it takes part, it is an error.


@pytest.mark.parametrize("kind", [log_linear_pool, linear_pool, NumericalPool])
def test_the_error_names_the_component_and_the_row(kind: Callable[..., Any]) -> None:
    scale = torch.tensor([[1.0, math.nan, 1.0], [1.0, 1.0, -1.0]])
    members = [dist.Normal(torch.zeros(3), s, validate_args=False) for s in scale]
    weights = torch.tensor([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
    members.append(dist.Normal(torch.zeros(3), 1.0))  # which validates
    weights = torch.cat([0.5 * weights, torch.full((3, 1), 0.5)], -1)
    if kind is not NumericalPool:
        assert kind(members, weights).batch_shape == (3,)  # NaN and a negative scale have no weight
    weights[1] = torch.tensor([0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match=r"expected scale in .* of that at index 0, got another at batch index \[1\]"):
        kind(members, weights)
    wrapped = [m.to_event(1).mask(torch.tensor(True)) for m in members]
    if kind is not NumericalPool:
        with pytest.raises(ValueError, match=r"components: expected scale in .* of that at index 0, got another"):
            kind(wrapped, [0.2, 0.3, 0.5])


def test_components_that_are_there_stay_themselves() -> None:
    p, q = dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0)
    assert linear_pool([p, q], [1, 0]).components == (p, q)
    assert LogLinearPool([p, q], [1, 0]).components == (p, q)
    nothing = dist.Categorical(logits=torch.tensor([0.0, -math.inf]))
    assert linear_pool([nothing, nothing], [1, 0]).components == (nothing, nothing)  # a class of no mass is one

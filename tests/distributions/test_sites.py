"""What Pyro asks of a distribution at a site, asked of every kind of pool of every family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_probmix.distributions import (
    LinearPool,
    LogLinearPool,
    NumericalPool,
    log_linear_pool,
    mean_parameters,
    sufficient_statistics,
)
from pyro_probmix.distributions.exponential_family import set_validation
from tests.cases import CASES, NAMES, unmasked
from tests.distributions.test_sampling import LEAST, SIZE, draws, fit, fit_of_means, on_grid

WEIGHTS = [0.3, 0.7]

KINDS: dict[str, Callable[[Sequence[Any], Any], Any]] = {
    "LogLinearPool": LogLinearPool,
    "log_linear_pool": log_linear_pool,
    "LinearPool": LinearPool,
    "NumericalPool": NumericalPool,
}


def is_scalar(name: str) -> bool:
    """Whether a NumericalPool takes it: neither labels without an order, nor what has a mask or an unknown support."""
    apart = "Categorical", "ExtendedBinomial", "masked Exponential"
    return CASES[name].draw().event_shape == () and name not in apart


POOLS = [(kind, name) for kind in KINDS for name in NAMES if kind != "NumericalPool" or is_scalar(name)]
pools = pytest.mark.parametrize(("kind", "name"), POOLS)

# What a kind does by its base class alone, whatever its family, is asked of some families of the slowest kind.
SOME = "Beta", "Gamma", "Normal", "Pareto", "Poisson", "VonMises"
some_pools = pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k, n in POOLS if k != "log_linear_pool" and (k != "NumericalPool" or n in SOME)]
)


def members(name: str, batch_shape: Sequence[int], dtype: torch.dtype = torch.float64) -> list[Any]:
    return [CASES[name].draw(batch_shape, seed, dtype) for seed in range(2)]


def pool_of(kind: str, name: str, batch_shape: Sequence[int] = (3,), dtype: torch.dtype = torch.float64) -> Any:
    return KINDS[kind](members(name, batch_shape, dtype), WEIGHTS)


def close(actual: Tensor, expected: Tensor) -> None:
    tolerance = 1e-8 if expected.dtype == torch.float64 else 2e-3
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pools
@pytest.mark.parametrize(
    ("batch_shape", "dtype"), [((), torch.float32), ((1,), torch.float64), ((3, 2), torch.float32)], ids=str
)
def test_shapes_and_dtypes(kind: str, name: str, batch_shape: tuple[int, ...], dtype: torch.dtype) -> None:
    pool = pool_of(kind, name, batch_shape, dtype)
    assert pool.batch_shape == batch_shape
    assert pool.event_shape == CASES[name].draw().event_shape
    assert pool.event_dim == pool.support.event_dim == len(pool.event_shape)
    for sample_shape in ((), (5,), (4, 1)):
        y = pool.sample(sample_shape)
        assert y.shape == pool.shape(sample_shape) == sample_shape + batch_shape + pool.event_shape
        assert y.dtype in (dtype, torch.int64)
        value = pool.log_prob(y)
        assert value.shape == sample_shape + batch_shape
        assert value.dtype == dtype
        assert value.isfinite().all()
        assert pool.support.check(y).all()


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in POOLS if n != "masked Exponential"])  # by position
def test_a_row_alone_is_the_row_of_a_batch(kind: str, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    case, first, second = CASES[name], torch.Size([3]), torch.Size([3])
    parameters = [case.parameters(first, generator), case.parameters(second, generator)]
    batch = KINDS[kind]([case.make(*p) for p in parameters], WEIGHTS)
    y = batch.sample((4,))
    for row in range(3):
        for at in (row, slice(row, row + 1)):
            alone = KINDS[kind]([case.make(*[t[at] if len(t) > 1 else t[0] for t in p]) for p in parameters], WEIGHTS)
            value = alone.log_prob(y[:, at])
            close(value, batch.log_prob(y)[:, at].expand(value.shape))


@some_pools
def test_values_broadcast_against_the_batch(kind: str, name: str) -> None:
    pool = pool_of(kind, name, (3, 1))
    y = pool.sample()
    for value in (y[:, 0], y[0, 0], y[:1], y.expand(3, 2, *pool.event_shape), y.unsqueeze(0)):
        lead = value.shape[: value.dim() - pool.event_dim]
        shape = torch.broadcast_shapes(lead, (3, 1))
        actual = pool.log_prob(value)
        assert actual.shape == shape
        close(actual, pool.log_prob(value.expand(shape + pool.event_shape).contiguous()))


@pytest.mark.faults("expansion of a component")
@pools
def test_expansion(kind: str, name: str) -> None:
    parts = members(name, (3, 1))
    pool = KINDS[kind](parts, WEIGHTS)
    for shape in ((3, 1), (3, 4), (2, 3, 1), (5, 2, 3, 4)):
        wide = pool.expand(torch.Size(shape))
        assert wide.batch_shape == shape
        assert wide.event_shape == pool.event_shape
        assert wide.has_rsample == pool.has_rsample
        assert wide.has_enumerate_support == pool.has_enumerate_support
        y = wide.sample((2,))
        assert y.shape == (2, *shape, *pool.event_shape)
        close(wide.log_prob(y), pool.log_prob(y))
    assert pool.expand_by([2]).batch_shape == (2, 3, 1)
    assert all(p.batch_shape == (3, 1) for p in (pool, *parts))
    for shape in ((2, 1), (1,), (3,)):
        with pytest.raises((RuntimeError, ValueError)):
            pool.expand(torch.Size(shape))


@pytest.mark.faults("wrong samplers upstream")
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in POOLS if kind != "log_linear_pool"])
def test_draws_of_an_expansion_are_independent_and_have_the_law(kind: str, name: str) -> None:
    """Where a draw were copied along new dimensions, the sample would be of few distinct values."""
    parts, size = members(name, (2,)), 500 if kind == "NumericalPool" else SIZE
    logs = [on_grid(name, p) for p in parts]
    terms = [log_density + torch.tensor(w).double().log() for log_density, w in zip(logs, WEIGHTS)]
    log_density = torch.logaddexp(*terms) if kind == "LinearPool" else 0.3 * logs[0] + 0.7 * logs[1]
    law = unmasked(KINDS[kind](parts, WEIGHTS))
    assert fit(name, draws(law.expand([size // 2, 2]), 2).flatten(0, 1), log_density) > LEAST


@some_pools
def test_masks(kind: str, name: str) -> None:
    pool = pool_of(kind, name)
    y, mask = pool.sample((2,)), torch.tensor([True, False, True])
    value = pool.log_prob(y)
    assert torch.equal(pool.mask(mask).log_prob(y), torch.where(mask, value, 0))
    assert torch.equal(pool.mask(True).log_prob(y), value)
    assert torch.equal(pool.mask(False).log_prob(y), torch.zeros_like(value))
    wider = torch.tensor([[True], [False]])
    assert pool.mask(wider).batch_shape == (2, 3)
    close(pool.mask(wider).log_prob(y), torch.where(wider, value, 0))
    both = pool.mask(mask).expand([2, 3]).mask(wider)
    close(both.log_prob(y), torch.where(mask & wider, value, 0))
    close(pool.mask(mask).to_event(1).log_prob(y), torch.where(mask, value, 0).sum(-1))
    parts = pool.mask(mask).score_parts(y)
    assert torch.equal(parts.log_prob, torch.where(mask, value, 0))


@some_pools
def test_events(kind: str, name: str) -> None:
    pool = pool_of(kind, name, (2, 3))
    y = pool.sample((4,))
    value = pool.log_prob(y)
    for size in range(3):
        joint = pool.to_event(size)
        assert joint.batch_shape == (2, 3)[: 2 - size]
        assert joint.event_shape == (2, 3)[2 - size :] + pool.event_shape
        assert joint.support.event_dim == len(joint.event_shape)
        close(joint.log_prob(y), value.sum(list(range(3 - size, 3))) if size else value)
        assert joint.expand((5,) + (2, 3)[: 2 - size]).sample().shape == (5, 2, 3, *pool.event_shape)
    assert pool.to_event().event_shape == (2, 3, *pool.event_shape)
    close(pool.to_event(1).to_event(1).log_prob(y), value.sum((-1, -2)))
    with pytest.raises((AssertionError, ValueError)):
        pool.to_event(3)


@some_pools
def test_only_reparametrised_draws_have_a_gradient(kind: str, name: str) -> None:
    case, generator = CASES[name], torch.Generator().manual_seed(0)
    free = [t.requires_grad_() for t in case.parameters(torch.Size([3]), generator)]
    pool = KINDS[kind]([case.make(*free), case.draw((3,), 1)], WEIGHTS)
    for p in (pool, pool.expand([2, 3]), pool.to_event(1), pool.mask(torch.ones(3).bool())):
        assert p.has_rsample == pool.has_rsample
        assert not p.sample().requires_grad
        if not p.has_rsample:
            with pytest.raises(NotImplementedError):
                p.rsample()
        elif case.rsample:
            assert p.rsample().requires_grad
            assert p(torch.Size([2])).requires_grad


REPARAMETRISED = [n for n in NAMES if CASES[n].rsample and unmasked(CASES[n].draw()).has_rsample]


@pytest.mark.parametrize("name", REPARAMETRISED)
def test_gradients_of_draws_have_the_mean_of_their_law(name: str) -> None:
    """∂E[T(y)]/∂θ, once of the closed form and once of draws: θ is given to each draw anew, for its own gradient."""
    case, generator, size = CASES[name], torch.Generator().manual_seed(3), 3000
    values = [t.requires_grad_() for t in case.parameters(torch.Size(), generator)]
    other = case.draw((), 1)

    def statistics(parameters: Sequence[Tensor], of: Callable[[Any], Sequence[Tensor]]) -> Tensor:
        law = unmasked(log_linear_pool([case.make(*parameters), other], WEIGHTS))
        return torch.stack([t.reshape(*law.batch_shape, -1).sum(-1) for t in of(law)], -1)

    each = [t.detach().expand(size, *t.shape).contiguous().requires_grad_() for t in values]
    exact = statistics(values, mean_parameters)
    drawn = statistics(each, lambda law: sufficient_statistics(law, law.rsample()))
    for k in range(exact.shape[-1]):
        expected = torch.autograd.grad(exact[k], values, retain_graph=True, allow_unused=True)
        actual = torch.autograd.grad(drawn[:, k].sum(), each, retain_graph=True, allow_unused=True)
        for theirs, ours in zip(expected, actual):
            if theirs is None or ours is None:
                assert all(t is None or not t.any() for t in (theirs, ours))
                continue
            ours, theirs = ours.reshape(size, -1), theirs.flatten()
            assert ours.isfinite().all()
            varies = ours.std(0) > 1e-9 * ours.abs().mean(0)
            torch.testing.assert_close(ours[0, ~varies], theirs[~varies])
            assert not varies.any() or fit_of_means(ours[:, varies], theirs[varies]) > LEAST, k


@pools
def test_support_is_enumerated_whole_or_not_at_all(kind: str, name: str) -> None:
    pool = pool_of(kind, name, (2, 3))
    if not pool.has_enumerate_support:
        with pytest.raises(NotImplementedError):
            pool.enumerate_support()
        return
    narrow, wide = pool.enumerate_support(expand=False), pool.enumerate_support()
    assert narrow.shape == (len(narrow), 1, 1, *pool.event_shape)
    assert wide.shape == (len(narrow), 2, 3, *pool.event_shape)
    assert torch.equal(wide, narrow.expand(wide.shape))
    assert pool.support.check(wide).all()
    for values in (narrow, wide):
        torch.testing.assert_close(unmasked(pool).log_prob(values).exp().sum(0), torch.ones(2, 3).double())


@pytest.mark.faults("validation lost on the way")
@some_pools
def test_values_are_checked_where_validation_is_on(kind: str, name: str) -> None:
    parts = [unmasked(p) for p in members(name, (3,))]
    for on in (True, False):
        for p in parts:
            set_validation(p, on)
        pool = KINDS[kind](parts, WEIGHTS)
        forms = [pool, pool.expand([2, 3]), pool.to_event(1), pool.mask(torch.ones(3).bool())]
        for p in forms if on else []:
            with pytest.raises(ValueError, match="within the support"):
                p.log_prob(torch.full(p.shape(), torch.nan))
        y = pool.sample()
        for p in forms:
            assert p.log_prob(y.expand(p.shape())).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_divergences_broadcast_and_vanish_from_itself(name: str) -> None:
    p, q = (unmasked(d) for d in members(name, (3, 1)))
    pool = LogLinearPool([p, q], WEIGHTS)
    row = LogLinearPool([unmasked(CASES[name].draw((1, 2), 5))], [1.0])
    q = row if name == "expanded Gamma" else q  # Pyro has no KL of an ExpandedDistribution
    for left, right in ((pool, row), (row, pool), (pool, q), (q, pool)):
        kl = kl_divergence(left, right)
        assert kl.shape == torch.broadcast_shapes(left.batch_shape, right.batch_shape)
        assert (kl > 0).all()
    torch.testing.assert_close(kl_divergence(pool, pool), torch.zeros(3, 1).double(), atol=1e-9, rtol=0)
    close(kl_divergence(pool.expand([4, 3, 1]), row), kl_divergence(pool, row).expand(4, 3, 2))


@some_pools
def test_at_a_site(kind: str, name: str) -> None:
    """Plates expand a pool, what is observed is scored, and a draw belongs to its plates."""
    pool = pool_of(kind, name, (3,))
    data = pool.sample()

    def model(y: Tensor | None) -> Tensor:
        with pyro.plate("rows", 2, dim=-2), pyro.plate("data", 3, dim=-1):
            return pyro.sample("y", pool, obs=y)

    observed = pyro.poutine.trace(model).get_trace(data)
    observed.compute_log_prob()
    close(observed.nodes["y"]["log_prob"], pool.log_prob(data).expand(2, 3))
    drawn = pyro.poutine.trace(model).get_trace(None)
    assert drawn.nodes["y"]["value"].shape == (2, 3, *pool.event_shape)
    assert drawn.nodes["y"]["fn"].batch_shape == (2, 3)
    close(drawn.log_prob_sum(), pool.log_prob(drawn.nodes["y"]["value"]).sum())

"""Intervals of any distribution: central ones by their quantiles, the shortest ones against brute force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from torch import Tensor

import pyro_probmix as pm

LEVELS = torch.tensor([0.05, 0.5, 0.9, 0.99], dtype=torch.float64)


def t(*values: Any) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


class Mixture:
    """Normals by SciPy, whose quantiles are read off a fine table of the formula."""

    def __init__(self, loc: Any, scale: Any, weights: Any) -> None:
        self.parts = [st.norm(m, s) for m, s in zip(loc, scale, strict=True)]
        self.weights = weights
        ends = [part.ppf(q) for part in self.parts for q in (1e-15, 1 - 1e-15)]
        pieces = [part.ppf(np.linspace(1e-9, 1 - 1e-9, 200_001)) for part in self.parts]
        self.table = np.unique(np.concatenate([*pieces, [min(ends), max(ends)]]))

    def cdf(self, y: Any) -> Any:
        return sum(w * part.cdf(y) for w, part in zip(self.weights, self.parts, strict=True))

    def ppf(self, q: Any) -> Any:
        return np.interp(q, self.cdf(self.table), self.table)


def mixture(loc: Any, scale: Any, weights: Any) -> tuple[Any, Any]:
    return pm.LinearPool(dist.Normal(*t(loc, scale)), *t(weights)), Mixture(loc, scale, weights)


CASES: list[tuple[Any, Any]] = [
    (dist.Normal(*t(1.0, 2.0)), st.norm(1, 2)),
    (dist.Exponential(*t(1.0)), st.expon()),
    (dist.Gamma(*t(3.0, 1.0)), st.gamma(3)),
    (dist.Gamma(*t(0.3, 1.0)), st.gamma(0.3)),
    (dist.LogNormal(*t(0.0, 1.5)), st.lognorm(1.5)),
    (dist.Beta(*t(2.0, 5.0)), st.beta(2, 5)),
    (dist.Beta(*t(3.0, 0.5)), st.beta(3, 0.5)),
    (dist.StudentT(*t(3.0, 0.0, 1.0)), st.t(3)),
    (dist.Gumbel(*t(0.0, 1.0)), st.gumbel_r()),
    (dist.Pareto(*t(1.0, 0.7)), st.pareto(0.7)),
    mixture([0.0, 6.0], [1.0, 0.5], [0.6, 0.4]),
    mixture([0.0, 6.0], [0.01, 0.5], [0.1, 0.9]),
    mixture([-3.0, 0.0, 1.0, 8.0], [0.3, 1.0, 0.1, 2.0], [0.2, 0.3, 0.1, 0.4]),
]


@pytest.mark.parametrize(("p", "exact"), CASES, ids=[f"{type(p).__name__}-{k}" for k, (p, _) in enumerate(CASES)])
def test_no_interval_is_shorter(p: Any, exact: Any) -> None:
    low, high = pm.interval(p, LEVELS, kind="hdi")
    mass = pm.distributions.cdf(p, high) - pm.distributions.cdf(p, low)
    torch.testing.assert_close(mass, LEVELS, rtol=1e-12, atol=0)
    for k, level in enumerate(LEVELS.tolist()):
        starts = (1 - level) * np.linspace(0, 1, 10_001)
        shortest = (exact.ppf((starts + level).clip(max=1)) - exact.ppf(starts)).min()
        assert float(high[k] - low[k]) == pytest.approx(shortest, rel=1e-4)
        assert float(high[k] - low[k]) <= shortest * (1 + 1e-7)


def test_where_one_mode_is_the_density_is_equal_at_both_ends() -> None:
    for p in (dist.Gamma(*t(3.0, 1.0)), dist.Gumbel(*t(0.0, 1.0)), dist.Beta(*t(2.0, 5.0))):
        low, high = pm.interval(p, LEVELS, kind="hdi")
        torch.testing.assert_close(p.log_prob(low), p.log_prob(high), rtol=0, atol=1e-9)


def test_falling_densities_begin_at_their_bound() -> None:
    low, high = pm.interval(dist.Exponential(torch.tensor([1.0, 3.0])), 0.9, kind="hdi")
    assert low.tolist() == [0.0, 0.0]
    torch.testing.assert_close(high, math.log(10) / torch.tensor([1.0, 3.0]))


def test_of_equal_ones_the_shortest_is_the_central_one() -> None:
    for p in (dist.Uniform(*t(1.0, 3.0)), dist.Normal(*t(0.0, 1.0)), dist.StudentT(*t(2.0, 0.0, 1.0))):
        for ours, central in zip(pm.interval(p, LEVELS, kind="hdi"), pm.interval(p, LEVELS), strict=True):
            torch.testing.assert_close(ours, central, rtol=1e-12, atol=1e-12)


COUNTS: list[Any] = [
    dist.Poisson(*t(0.3)),
    dist.Poisson(*t(7.5)),
    dist.Binomial(20, *t(0.9)),
    dist.Geometric(*t(0.1)),
    dist.NegativeBinomial(*t(2.5, 0.8)),
    dist.ZeroInflatedPoisson(*t(9.0), gate=t(0.3)[0]),
    pm.LinearPool([dist.Poisson(*t(2.0)), dist.Poisson(*t(30.0))], [0.7, 0.3]),
]


@pytest.mark.parametrize("p", COUNTS, ids=[f"{type(p).__name__}-{k}" for k, p in enumerate(COUNTS)])
def test_runs_of_counts_are_the_shortest_and_of_these_the_likeliest(p: Any) -> None:
    values = torch.arange(21.0 if isinstance(p, dist.Binomial) else 200.0, dtype=torch.float64)
    mass = p.log_prob(values).exp()
    sums = [0.0, *mass.cumsum(0).tolist()]
    for level in LEVELS.tolist():
        enough = [  # of equal ones the first
            (j - i, -round(sums[j + 1] - sums[i], 9), i)
            for i in range(len(mass))
            for j in range(i, len(mass))
            if sums[j + 1] - sums[i] >= level
        ]
        length, _, first = min(enough)
        low, high = pm.interval(p, level, kind="hdi")
        assert (float(low), float(high)) == (first, first + length)


def test_runs_of_large_counts() -> None:
    low, high = pm.interval(dist.Poisson(*t(1e8)), 0.9, kind="hdi")
    exact = st.poisson(1e8)
    assert exact.cdf(float(high)) - exact.cdf(float(low) - 1) >= 0.9 - 1e-12
    assert float(high - low) == pytest.approx(2 * 1.6448536 * 1e4, rel=1e-3)


def test_shapes_are_those_of_the_levels_and_the_distribution() -> None:
    p = dist.Normal(torch.zeros(5, 3), 1.0).to_event(1)
    for kind in ("central", "hdi"):
        for end in pm.interval(p, torch.tensor([[0.5, 0.9]]), kind):
            assert end.shape == (1, 2, 5, 3)
    empty = dist.Poisson(torch.ones(0))
    assert pm.interval(empty, 0.5, "hdi")[0].shape == (0,)
    assert pm.quantile(empty, 0.5).shape == (0,)


def test_central_ones_are_differentiable() -> None:
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    low, high = pm.interval(dist.Normal(0.0, scale), 0.9)
    (slope,) = torch.autograd.grad(high - low, scale)
    torch.testing.assert_close(slope, ((high - low) / 2).detach())
    assert not pm.interval(dist.Normal(0.0, scale), 0.9, "hdi")[0].requires_grad


def test_of_draws_it_is_from_one_to_another() -> None:
    draws = torch.randn(3, 201, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).exp()
    p = dist.Empirical(draws, torch.zeros(3, 201, dtype=torch.float64))
    ordered = draws.sort(-1).values
    for level in (0.1, 0.5, 0.9):
        inside = math.ceil(level * 201)
        width = ordered[:, inside - 1 :] - ordered[:, : 201 - inside + 1]
        first = width.argmin(-1, keepdim=True)
        low, high = pm.interval(p, level, kind="hdi")
        torch.testing.assert_close(low, ordered.gather(-1, first).squeeze(-1))
        torch.testing.assert_close(high, ordered.gather(-1, first + inside - 1).squeeze(-1))
    assert pm.interval(dist.Delta(*t(2.0)), 0.5, kind="hdi") == (2, 2)
    mixed = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Delta(torch.tensor([0.0, 1.0])))
    with pytest.raises(TypeError, match="mass at single values"):
        pm.interval(mixed, 0.5, kind="hdi")


@pytest.mark.parametrize("kind", ["central", "hdi"])
def test_intervals_of_a_known_mixture_cover_what_they_say(kind: str) -> None:
    p, exact = mixture([-3.0, 0.0, 1.0, 8.0], [0.3, 1.0, 0.1, 2.0], [0.2, 0.3, 0.1, 0.4])
    low, high = (end.numpy() for end in pm.interval(p, LEVELS, kind))
    np.testing.assert_allclose(exact.cdf(high) - exact.cdf(low), LEVELS.numpy(), rtol=1e-12)

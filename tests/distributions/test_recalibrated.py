"""A law of distribution function R(F(y)) is one: mass, quantiles, draws and moments."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from scipy import integrate
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.distributions import RecalibratedDistribution, cdf, index_select, quantile

KNOTS, LEVELS = torch.tensor([0.0, 0.1, 0.6, 1.0]).double(), torch.tensor([0.0, 0.3, 0.5, 1.0]).double()
TWO = torch.tensor([0.5, 2.0]).double()
LAWS = {
    "Normal": lambda: dist.Normal(torch.tensor([-1.0, 2.0]).double(), TWO),
    "LogNormal": lambda: dist.LogNormal(torch.zeros(2).double(), 0.5 * TWO),
    "StudentT": lambda: dist.StudentT(5.0, torch.zeros(2).double(), TWO),
    "Gamma": lambda: dist.Gamma(3 * TWO, TWO),
    "pool": lambda: pm.LinearPool(dist.Normal(torch.tensor([[-3.0, 0.0], [1.0, 4.0]]).double(), 1.0), [0.3, 0.7]),
    "stretched": lambda: pm.distributions.affine(dist.Laplace(torch.zeros(2).double(), 1.0), 1.0, TWO),
}


def recalibrated(p: Any) -> RecalibratedDistribution:
    return RecalibratedDistribution(p, KNOTS, LEVELS)


def reference_r(u: Tensor) -> Tensor:
    return torch.from_numpy(np.interp(u.numpy(), KNOTS.numpy(), LEVELS.numpy()))


@pytest.mark.parametrize("name", LAWS)
def test_its_functions_agree(name: str) -> None:
    """The cdf is R(F), its quantiles invert it, and the density is its derivative."""
    p = LAWS[name]()
    q, levels = recalibrated(p), torch.tensor([0.02, 0.2, 0.41, 0.77, 0.99]).double()
    y = quantile(q, levels)
    torch.testing.assert_close(q.cdf(y), levels.unsqueeze(-1).expand(5, 2))
    torch.testing.assert_close(q.cdf(y), reference_r(cdf(p, y)))
    step = 1e-6 * y.abs()
    slope = (q.cdf(y + step) - q.cdf(y - step)) / (2 * step)
    torch.testing.assert_close(q.log_prob(y), slope.log(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_its_law(name: str) -> None:
    q = recalibrated(LAWS[name]())
    u = q.cdf(q.sample((4000,)))
    assert all(scipy.stats.kstest(u[:, r].numpy(), "uniform").pvalue > 1e-6 for r in range(2))


@pytest.mark.parametrize("name", LAWS)
def test_moments_are_integrals_of_the_density(name: str) -> None:
    p = LAWS[name]()
    q = recalibrated(p)
    bends = quantile(p, KNOTS.clamp(1e-14, 1 - 1e-14))
    y = torch.cat(
        [
            torch.lerp(a, b, torch.linspace(1e-9, 1 - 1e-9, 8001, dtype=torch.float64)[:, None])
            for a, b in pairwise(bends)
        ]
    )
    density = q.log_prob(y).exp()
    total, mean, square = (
        sum(
            integrate.simpson(f, x=x, axis=0)
            for f, x in zip((density * y**power).split(8001), y.split(8001), strict=True)
        )
        for power in range(3)
    )
    np.testing.assert_allclose(total, 1, rtol=2e-5)
    np.testing.assert_allclose(q.mean, mean, atol=3e-5)
    np.testing.assert_allclose(q.variance, square - mean**2, rtol=1e-3)


def test_the_identity_changes_nothing() -> None:
    p, y = LAWS["pool"](), torch.tensor([0.3, 1.0]).double()
    q = RecalibratedDistribution(p, KNOTS, KNOTS)
    torch.testing.assert_close(q.log_prob(y), p.log_prob(y))
    torch.testing.assert_close(q.mean, p.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.variance, p.variance, rtol=1e-8, atol=0)


def test_moments_that_the_base_lacks_are_not_made_up() -> None:
    q = recalibrated(dist.Cauchy(torch.zeros(2).double(), 1.0))
    assert bool(q.mean.isnan().all())
    assert recalibrated(dist.StudentT(1.5, torch.zeros(2).double(), 1.0)).variance.tolist() == [torch.inf] * 2


@pytest.mark.parametrize("name", LAWS)
def test_rows_expansion_and_pickles_are_the_same_law(name: str) -> None:
    q, rows = recalibrated(LAWS[name]()), torch.tensor([1, 0, 1])
    y = q.sample()
    torch.testing.assert_close(index_select(q, 0, rows).log_prob(y[rows]), q.log_prob(y)[rows])
    torch.testing.assert_close(index_select(q, 0, rows).mean, q.mean[rows])
    torch.testing.assert_close(q.expand([3, 2]).log_prob(y), q.log_prob(y).expand(3, 2))
    torch.testing.assert_close(pickle.loads(pickle.dumps(q)).log_prob(y), q.log_prob(y))


def test_maps_differ_by_row() -> None:
    knots, levels = torch.stack([KNOTS, KNOTS]), torch.stack([LEVELS, KNOTS])
    p, y = LAWS["Normal"](), torch.tensor([-1.5, 2.5]).double()
    both = RecalibratedDistribution(p, knots, levels).log_prob(y)
    torch.testing.assert_close(both, torch.stack([recalibrated(p).log_prob(y)[0], p.log_prob(y)[1]]))


def test_draws_have_gradients_in_the_parameters() -> None:
    loc = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    q = recalibrated(dist.Normal(loc, 1.0))
    assert q.has_rsample
    torch.testing.assert_close(torch.autograd.grad(q.rsample().sum(), loc)[0], torch.ones(2).double())


def test_single_precision_stays() -> None:
    q = recalibrated(dist.Normal(torch.zeros(2), 1.0))
    values = (
        q.mean,
        q.variance,
        q.sample(),
        q.log_prob(torch.zeros(2)),
        q.cdf(torch.zeros(2)),
        q.icdf(torch.ones(2) / 3),
    )
    assert {value.dtype for value in values} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"base_dist": dist.Poisson(1.0)}, TypeError, "base_dist: expected a density of numbers, got Poisson"),
        (
            {"base_dist": dist.Normal(torch.zeros(2), 1.0).to_event(1)},
            ValueError,
            r"base_dist: expected numbers, event shape \(\) and no mask, got Independent",
        ),
        ({"levels": LEVELS.flip(0)}, ValueError, "levels: expected numbers that increase from 0 to 1, got others"),
        ({"knots": KNOTS / 2}, ValueError, "knots: expected numbers that increase from 0 to 1, got others"),
    ],
)
def test_what_is_no_map_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RecalibratedDistribution(**{"base_dist": dist.Normal(0.0, 1.0), "knots": KNOTS, "levels": LEVELS, **change})

"""Conformal intervals cover as often as they say, whatever the density is, and are those of their score."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.distributions import cdf

DENSITIES = {
    "right": lambda loc: dist.Normal(loc, 1.0),
    "too sure": lambda loc: dist.Normal(loc, 0.2),
    "biased": lambda loc: dist.Normal(loc + 1, 1.0),
    "of another form": lambda loc: dist.Laplace(loc - 0.5, 3.0),
    "mixture": lambda loc: pm.LinearPool(dist.Normal(torch.stack([loc - 1, loc + 2], -1), 0.5), [0.4, 0.6]),
}


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def covered(make: Any, y: Tensor, held: int, score: Any) -> Tensor:
    """The share of new rows that is covered by intervals of level 0.8, for each column, which is fitted by itself."""
    rows = torch.arange(len(y))
    p, new = (make(part).to_event(1) for part in rows.split([held, len(y) - held]))
    lower, upper = pm.ConformalInterval(0.8, score).fit(p, y[:held])(new)
    return ((lower <= y[held:]) & (y[held:] <= upper)).double().mean(0)


@pytest.mark.parametrize("score", ["cdf", "crps"])
@pytest.mark.parametrize("name", DENSITIES)
def test_coverage_is_the_level_on_average_whatever_the_density_is(name: str, score: Any) -> None:
    """Of 500 fits to 19 rows, each tried on ten: from 0.8 to 0.8 + 1/20, up to the error of 500 draws."""
    loc = draws(29, 500)
    coverage = covered(lambda rows: DENSITIES[name](loc[rows]), loc + draws(29, 500), 19, score)
    error = 4.5 * float(coverage.std()) / 500**0.5
    assert 0.8 - error < float(coverage.mean()) < 0.85 + error


@pytest.mark.parametrize("score", ["cdf", "crps"])
def test_the_ends_are_where_the_score_is_the_threshold(score: Any) -> None:
    loc = draws(50)
    p, y = DENSITIES["mixture"](loc), loc + draws(50)
    interval = pm.ConformalInterval(0.9, score).fit(p, y)
    for end in interval(p):
        found = (cdf(p, end) - 0.5).abs() if score == "cdf" else pm.evaluation.crps(p, end)
        torch.testing.assert_close(found, interval.threshold.expand(50), rtol=1e-6, atol=0)


def test_the_threshold_is_the_finite_sample_quantile() -> None:
    p, y = dist.Normal(torch.zeros(19).double(), 1.0), torch.linspace(0.1, 1.9, 19).double()
    scores = (cdf(p, y) - 0.5).abs()
    assert pm.ConformalInterval(0.9).fit(p, y).threshold == scores[17]  # the ⌈20 · 0.9⌉-th
    assert pm.ConformalInterval(0.7).fit(p, y).threshold == scores[13]  # where 20 · 0.7 is rounded up
    assert pm.ConformalInterval(0.951).fit(p, y).threshold == math.inf


@pytest.mark.parametrize("score", ["cdf", "crps"])
@pytest.mark.parametrize(
    ("p", "ends"),
    [
        (dist.Normal(torch.zeros(5), 1.0), (-math.inf, math.inf)),
        (dist.Exponential(torch.ones(5)), (0.0, math.inf)),
        (dist.Uniform(torch.zeros(5), 2.0), (0.0, 2.0)),
        (dist.Binomial(7, torch.full((5,), 0.3)), (0.0, 7.0)),
    ],
    ids=["line", "half line", "segment", "counts"],
)
def test_too_few_rows_give_the_whole_support(p: Any, ends: tuple[float, float], score: Any) -> None:
    lower, upper = pm.ConformalInterval(0.9, score).fit(p, p.sample())(p)
    assert (lower.tolist(), upper.tolist()) == ([ends[0]] * 5, [ends[1]] * 5)


@pytest.mark.parametrize("score", ["cdf", "crps"])
@pytest.mark.parametrize("rate", [0.2, 3.0, 200.0])
def test_counts_are_covered_too(rate: float, score: Any) -> None:
    """Also where all rows have one density, and scores tie."""
    y = dist.Poisson(1.3 * rate).sample((69, 60))
    coverage = covered(lambda rows: dist.Poisson(torch.full((len(rows), 60), rate)), y, 59, score)
    assert float(coverage.mean()) > 0.8 - 4.5 * float(coverage.std()) / 60**0.5


@pytest.mark.parametrize("rate", [0.2, 3.0, 200.0])
def test_ends_of_counts_are_counts(rate: float) -> None:
    """Which hold as many of the labels that they were fitted to as the threshold says."""
    p, y = dist.Poisson(torch.full((59,), rate)), dist.Poisson(1.3 * rate).sample((59,))
    lower, upper = pm.ConformalInterval(0.8).fit(p, y)(p)
    assert torch.equal(lower, lower.round())
    assert bool(((lower >= 0) & (lower <= upper)).all())
    assert int(((lower <= y) & (y <= upper)).sum()) >= 48  # ⌈60 · 0.8⌉


def test_a_density_of_positive_numbers_ends_at_zero() -> None:
    p, y = dist.LogNormal(torch.zeros(40).double(), 1.5), dist.LogNormal(torch.zeros(40).double(), 1.5).sample()
    lower, upper = pm.ConformalInterval(0.8, "crps").fit(p, y)(p)
    assert lower[0] == 0
    assert bool(upper.isfinite().all())


def test_where_no_value_scores_as_well_the_interval_is_the_median() -> None:
    sure, wide = dist.Normal(torch.zeros(30), 0.1), dist.Normal(torch.tensor([5.0]), 100.0)
    lower, upper = pm.ConformalInterval(0.5, "crps").fit(sure, sure.sample())(wide)
    assert lower == upper == 5


@pytest.mark.parametrize("score", ["cdf", "crps"])
def test_outputs_have_an_interval_each(score: Any) -> None:
    loc, scale = draws(60, 2), torch.tensor([0.5, 5.0]).double()
    p, y = dist.Normal(loc, 1.0).to_event(1), loc + scale * draws(60, 2)
    interval = pm.ConformalInterval(0.8, score).fit(p, y)
    lower, upper = interval(p)
    assert lower.shape == upper.shape == (60, 2)
    for d in range(2):
        own = pm.ConformalInterval(0.8, score).fit(dist.Normal(loc[:, d], 1.0), y[:, d])
        torch.testing.assert_close(own.threshold, interval.threshold[d])
        torch.testing.assert_close(own(dist.Normal(loc[:, d], 1.0))[1], upper[:, d])


def test_single_precision_tells_tails_apart() -> None:
    """Labels six deviations away, where F rounds to one in single precision."""
    p, y = dist.Normal(torch.zeros(99), 1.0), torch.linspace(-7, 7, 99)
    lower, upper = pm.ConformalInterval(0.9).fit(p, y)(p)
    assert lower.dtype == torch.float32
    assert upper[0] == pytest.approx(6.4286, abs=0.01)
    assert lower[0] == pytest.approx(-6.4286, abs=0.01)


def test_masks_do_not_hide_intervals() -> None:
    p = dist.Normal(torch.zeros(20), 1.0)
    interval = pm.ConformalInterval(0.8).fit(p, p.sample())
    assert torch.equal(interval(p.mask(False))[0], interval(p)[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1.0,), ValueError, r"level: expected a number in \(0, 1\), got 1.0"),
        (("0.9",), TypeError, r"level: expected a number in \(0, 1\), got '0.9'"),
        ((0.9, "nll"), ValueError, 'score: expected one of "cdf", "crps", got "nll"'),
    ],
)
def test_bad_arguments_are_named(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pm.ConformalInterval(*arguments)

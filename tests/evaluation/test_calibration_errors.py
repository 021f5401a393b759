"""A density whose scale is off by a fifth is told from one that is right, by each of the errors."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyro_probmix as pm

N = 5000
NAMES = ["pit", "qce", "coverage@0.5", "coverage", "width", "sharpness"]


def scores(factor: float, family: str = "Normal") -> dict[str, float]:
    loc, scale = torch.randn(N).double(), torch.rand(N).double() + 0.1
    y = dist.Normal(loc, scale).sample()
    return pm.evaluate(getattr(dist, family)(loc, factor * scale), y, NAMES)


def test_a_density_that_is_right() -> None:
    found = scores(1.0)
    assert found["pit"] < 2.7 / math.sqrt(N)  # the bound of Kolmogorov and Smirnov at 1e-6
    assert found["qce"] < 0.015
    assert found["coverage@0.5"] == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / N))
    assert found["coverage"] == pytest.approx(0.9, abs=5 * math.sqrt(0.09 / N))


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_scale_that_is_off_by_a_fifth(factor: float) -> None:
    """The coverage of an interval of a Normal that is too wide by a factor is known."""
    found = scores(factor)
    assert found["pit"] > 2.7 / math.sqrt(N)
    assert found["qce"] > 0.02
    for name, level in (("coverage@0.5", 0.5), ("coverage", 0.9)):
        expected = 2 * scipy.stats.norm.cdf(factor * scipy.stats.norm.ppf((1 + level) / 2)) - 1
        assert abs(expected - level) > 0.03
        assert found[name] == pytest.approx(expected, abs=5 * math.sqrt(level * (1 - level) / N))


def test_against_scipy() -> None:
    loc, scale, y = torch.randn(50).double(), torch.rand(50).double() + 0.1, torch.randn(50).double()
    found = pm.evaluate(dist.Normal(loc, scale), y, NAMES)
    values = scipy.stats.norm(loc, scale).cdf(y)
    assert found["pit"] == pytest.approx(scipy.stats.kstest(values, "uniform").statistic, rel=1e-9)
    levels = torch.arange(1, 20).double() / 20
    share = (y <= pm.quantile(dist.Normal(loc, scale), levels)).double().mean(-1)
    assert found["qce"] == pytest.approx((share - levels).abs().mean().item(), rel=1e-9)
    assert found["width"] == pytest.approx(2 * scipy.stats.norm.ppf(0.95) * scale.mean().item(), rel=1e-9)
    assert found["sharpness"] == pytest.approx(scale.mean().item(), rel=1e-12)


def test_intervals_of_counts_hold_their_level_or_more() -> None:
    rate = torch.linspace(0.5, 8, N, dtype=torch.float64)
    y = dist.Poisson(rate).sample()
    found = pm.evaluate(dist.Poisson(rate), y, ["coverage", "pit", "qce"])
    low, high = scipy.stats.poisson(rate).ppf(0.05), scipy.stats.poisson(rate).ppf(0.95)
    expected = (scipy.stats.poisson(rate).cdf(high) - scipy.stats.poisson(rate).cdf(low - 1)).mean()
    assert expected > 0.92
    assert found["coverage"] == pytest.approx(expected, abs=5 * math.sqrt(0.09 / N))
    assert found["pit"] < 2.7 / math.sqrt(N)
    assert found["qce"] < 0.015


def test_what_is_masked_does_not_count() -> None:
    loc, y, seen = torch.randn(40, 3).double(), torch.randn(40, 3).double(), torch.rand(40, 3) > 0.3
    found = pm.evaluate(dist.Normal(loc, 1.0).mask(seen).to_event(1), y.where(seen, math.nan), NAMES)
    assert found == pytest.approx(pm.evaluate(dist.Normal(loc[seen], 1.0), y[seen], NAMES), rel=1e-12)


def test_nan_is_shown() -> None:
    p = dist.Normal(torch.tensor([0.0, math.nan]), 1.0, validate_args=False)
    assert all(
        map(math.isnan, pm.evaluate(p, [0.0, 0.0], ["pit", "qce", "coverage", "width", "crps", "pinball"]).values())
    )

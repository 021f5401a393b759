"""Transforms are uniform under the law that the labels are drawn from, those of counts too, and nowhere else."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import scipy.stats
import torch

import pyro_probmix as pm
from pyro_probmix.evaluation import pit

N = 4000
PARAMETERS = {
    name: torch.linspace(low, high, N, dtype=torch.float64)
    for name, (low, high) in {"loc": (-3, 3), "scale": (0.2, 2), "count": (0.5, 8), "share": (0.05, 0.95)}.items()
}
LOC, SCALE, COUNT, SHARE = PARAMETERS.values()
FAMILIES = {
    "Normal": dist.Normal(LOC, SCALE),
    "Laplace": dist.Laplace(LOC, SCALE),
    "StudentT": dist.StudentT(3.0, LOC, SCALE),
    "Gumbel": dist.Gumbel(LOC, SCALE),
    "Gamma": dist.Gamma(COUNT, SCALE),
    "Beta": dist.Beta(COUNT, COUNT.flip(0)),
    "LogNormal": dist.LogNormal(LOC, SCALE),
    "Exponential": dist.Exponential(SCALE),
    "mixture": pm.LinearPool(dist.Normal(torch.stack([LOC, LOC + 4], -1), 1.0), [0.3, 0.7]),
    "vectors": dist.Normal(LOC.reshape(-1, 2), SCALE.reshape(-1, 2)).to_event(1),
    "Poisson": dist.Poisson(COUNT),
    "Binomial": dist.Binomial(6, SHARE),
    "NegativeBinomial": dist.NegativeBinomial(COUNT, SHARE),
    "Geometric": dist.Geometric(SHARE),
    "ZeroInflatedPoisson": dist.ZeroInflatedPoisson(COUNT, gate=SHARE),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_uniform(name: str) -> None:
    p = FAMILIES[name]
    y = p.sample()
    values = pit(p, y, seed=1)
    assert values.shape == y.shape
    assert scipy.stats.kstest(values.flatten(), "uniform").pvalue > 1e-6
    wrong = pit(pm.rows(p, torch.arange(len(y)).flip(0)), y.clamp(0, 6) if name == "Binomial" else y, seed=1)
    assert scipy.stats.kstest(wrong.flatten(), "uniform").pvalue < 1e-6


def test_against_scipy() -> None:
    y = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    p = dist.Poisson(torch.full((3,), 2.0, dtype=torch.float64))
    values = pit(p, y)
    law = scipy.stats.poisson(2)
    assert ((law.cdf(y - 1) <= values.numpy()) & (values.numpy() <= law.cdf(y))).all()
    state = torch.random.get_rng_state()
    assert torch.equal(pit(p, y), values)
    assert not torch.equal(pit(p, y, seed=1), values)
    assert torch.equal(torch.random.get_rng_state(), state)
    found = pit(dist.Gamma(2.0, torch.ones(3).double()), y + 0.5)
    assert found.tolist() == pytest.approx(scipy.stats.gamma(2).cdf(y + 0.5), abs=1e-9)


def test_a_point_that_came_has_uniform_transforms() -> None:
    y = torch.arange(2000.0)
    p = dist.Delta(y)
    assert scipy.stats.kstest(pit(p, y), "uniform").pvalue > 1e-3
    assert pit(p, y + 1).eq(1).all()
    assert pit(p, y - 1).eq(0).all()


def test_what_is_masked_has_none() -> None:
    seen = torch.tensor([[True, False], [True, True]])
    p = dist.Normal(torch.zeros(2, 2), 1.0).mask(seen).to_event(1)
    assert pit(p, [[0.0, float("nan")], [1.0, 2.0]]).isnan().tolist() == (~seen).tolist()


@pytest.mark.parametrize(
    ("p", "y", "error", "message"),
    [
        (dist.Normal(torch.zeros(2), 1.0), [0.0], ValueError, r"y: expected shape \(2,\), got \(1,\)"),
        (dist.Categorical(torch.ones(2, 3)), [0, 1], TypeError, "p: expected a distribution of numbers, got Cat"),
        (dist.VonMises(torch.zeros(2), 1.0), [0.0, 1.0], TypeError, "p: expected a distribution of numbers, got Von"),
        (dist.Poisson(torch.ones(2)), [0.0, 0.5], ValueError, r"y: expected values in .*, got others in 1 of 2 rows"),
    ],
)
def test_bad_input(p: Any, y: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pit(p, y)

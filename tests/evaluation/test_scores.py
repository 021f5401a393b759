"""Scores of rows against scikit-learn, scoringrules and closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import scoringrules
import torch
from sklearn.metrics import mean_absolute_error, mean_pinball_loss

import pyro_probmix as pm

N = 30
LOC, SCALE = torch.linspace(-2, 2, N, dtype=torch.float64), torch.linspace(0.1, 2, N, dtype=torch.float64)
Y = torch.linspace(3, -3, N, dtype=torch.float64)
LAWS = {
    "Normal": (dist.Normal(LOC, SCALE), scipy.stats.norm(LOC, SCALE), Y),
    "Gamma": (dist.Gamma(SCALE, 2.0), scipy.stats.gamma(SCALE, scale=0.5), Y.abs()),
    "Poisson": (dist.Poisson(3 * SCALE), scipy.stats.poisson(3 * SCALE), Y.abs().round()),
}


@pytest.mark.parametrize("name", LAWS)
def test_of_quantiles(name: str) -> None:
    p, law, y = LAWS[name]
    names = ["mae", "pinball", "pinball@0.1", "interval_score", "interval_score@0.5", "width@0.5"]
    found = pm.evaluate(p, y, names)

    def interval_score(level: float) -> float:
        low, high = law.ppf(0.5 - level / 2), law.ppf(0.5 + level / 2)
        return float(scoringrules.interval_score(y.numpy(), low, high, 1 - level).mean())

    expected = {
        "mae": mean_absolute_error(y, law.ppf(0.5)),
        "pinball": 0.5 * mean_absolute_error(y, law.ppf(0.5)),
        "pinball@0.1": mean_pinball_loss(y, law.ppf(0.1), alpha=0.1),
        "interval_score": interval_score(0.9),
        "interval_score@0.5": interval_score(0.5),
        "width@0.5": (law.ppf(0.75) - law.ppf(0.25)).mean(),
    }
    assert found == pytest.approx(expected, rel=1e-8)
    by_row = pm.evaluate(p, y, names, reduction="none")
    assert {name: values.mean().item() for name, values in by_row.items()} == pytest.approx(found, rel=1e-12)


def test_the_pinball_loss_of_all_levels_is_half_the_crps() -> None:
    p, _, y = LAWS["Normal"]
    levels = (torch.arange(500) + 0.5) / 500
    found = pm.evaluate(p, y, ["crps", *(f"pinball@{level}" for level in levels.tolist())])
    crps, *losses = found.values()
    assert 2 * sum(losses) / 500 == pytest.approx(crps, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pinball@0", r'metrics: expected a level in \(0, 1\), such as "pinball@0.8", got "pinball@0"'),
        ("coverage@90", r'metrics: expected a level in \(0, 1\), such as "coverage@0.8", got "coverage@90"'),
        ("width@nan", r"metrics: expected a level in \(0, 1\)"),
        ("interval_score@", r"metrics: expected a level in \(0, 1\)"),
        ("crps@0.5", 'metrics: expected "crps" without a level, got "crps@0.5"'),
        ("pinnball@0.5", 'metrics: expected one of .*"pinball".*, got "pinnball"'),
    ],
)
def test_bad_levels(name: str, message: str) -> None:
    p, _, y = LAWS["Normal"]
    with pytest.raises(ValueError, match=message):
        pm.evaluate(p, y, [name])


def test_energy_score() -> None:
    """Of a Normal whose covariance is the identity at its own mean, and of a vector of one number, it is known."""
    size = 400
    p = dist.Normal(torch.zeros(size, 2).double(), 1.0).to_event(1)
    found = pm.evaluate(p, torch.zeros(size, 2), ["energy_score"], reduction="none")["energy_score"]
    assert found.std().item() > 0
    expected = math.sqrt(math.pi / 2) * (1 - math.sqrt(0.5))
    assert found.mean().item() == pytest.approx(expected, abs=5 * found.std().item() / math.sqrt(size))
    assert found.std().item() < 0.02
    y = torch.linspace(-3, 3, size, dtype=torch.float64)
    one = dist.Normal(torch.zeros(size, 1).double(), 1.0).to_event(1)
    scores = pm.evaluate(one, y.unsqueeze(-1), ["energy_score", "crps"])
    assert scores["energy_score"] == pytest.approx(scores["crps"], abs=0.005)


def test_energy_score_of_correlated_outputs_and_of_what_is_seen() -> None:
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    p = dist.MultivariateNormal(torch.zeros(200, 2).double(), covariance)
    y = p.sample()
    independent = dist.Normal(torch.zeros(200, 2).double(), 1.0).to_event(1)
    right, wrong = (pm.evaluate(q, y, "energy_score")["energy_score"] for q in (p, independent))
    assert right < wrong
    seen = torch.tensor([True, False])
    masked = dist.Normal(torch.zeros(200, 2).double(), 1.0).mask(seen).to_event(1)
    found = pm.evaluate(masked, y.where(seen, math.nan), ["energy_score", "crps"])
    assert found["energy_score"] == pytest.approx(found["crps"], abs=0.01)


@pytest.mark.faults("a score that is infinitely good")
@pytest.mark.parametrize(
    ("p", "law", "y"),
    [
        (dist.Poisson(torch.tensor([144.0]).double()), scipy.stats.poisson(144), 144.0),
        (dist.NegativeBinomial(200, torch.tensor([0.8]).double()), scipy.stats.nbinom(200, 0.2), 800.0),
        (dist.Gamma(torch.tensor([150.0]).double(), 1.0), scipy.stats.gamma(150), 150.0),
        (dist.Normal(torch.tensor([0.0]).double(), 1.0), scipy.stats.norm(), 39.0),
    ],
    ids=["Poisson", "NegativeBinomial", "Gamma", "Normal"],
)
def test_where_scoringrules_is_infinite(p: Any, law: Any, y: float) -> None:
    found = pm.evaluate(p, [y], ["nll", "crps"])
    discrete = p.support.is_discrete
    assert found["nll"] == pytest.approx(-(law.logpmf(y) if discrete else law.logpdf(y)), rel=1e-9)
    if discrete:
        expected = np.square(law.cdf(np.arange(3000)) - (np.arange(3000) >= y)).sum()
    else:  # E|Y − y| − E|Y − Y'| / 2, the latter known
        half = (
            1 / math.sqrt(math.pi) if y == 39 else math.exp(math.lgamma(150.5) - math.lgamma(150)) / math.sqrt(math.pi)
        )
        expected = law.expect(lambda t: abs(t - y), lb=law.ppf(1e-15), ub=law.ppf(1 - 1e-15)) - half
    assert found["crps"] == pytest.approx(expected, rel=1e-6)

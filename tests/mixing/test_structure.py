"""What mixing does to the structure of real data: the spread it takes, and the law of λ that gives it back."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from sklearn.datasets import load_diabetes

import pyro_probmix as pm
from pyro_probmix.mixing import as_coefficient

ROUNDS = 60


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("law", ["Beta", "ExpandedBeta"])
def test_covariance_of_mixed_data(law: str, alpha: float) -> None:
    """It shrinks by 1 − 2E[λ(1 − λ)] = 1 − α/(2α + 1) under Beta(α, α), and stays under its expansion.

    Uniform pairs of the diabetes data, ten inputs and the target; each entry within six standard errors, which are
    those of independent rounds over all rows.
    """
    bunch = load_diabetes()
    data = torch.cat((torch.tensor(bunch.data), torch.tensor(bunch.target).unsqueeze(-1)), -1)
    data = (data - data.mean(0)) / data.std(0, correction=0)
    coefficient = as_coefficient(
        dist.Beta(torch.tensor(alpha, dtype=data.dtype), torch.tensor(alpha, dtype=data.dtype))
        if law == "Beta"
        else pm.ExpandedBeta.variance_preserving(torch.tensor(alpha, dtype=data.dtype))
    )
    factor = 1 - alpha / (2 * alpha + 1) if law == "Beta" else 1.0
    graph, generator = pm.CompleteGraph(len(data)), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    rounds = []
    for _ in range(ROUNDS):
        batch = graph.pair_batch(data, generator=generator)
        weight = coefficient.expand((len(data), 1)).sample()
        mixed = weight * batch.x + (1 - weight) * batch.x[batch.partner]
        rounds.append(mixed.T @ mixed / len(data))
    estimates = torch.stack(rounds)
    error = estimates.mean(0) - factor * (data.T @ data) / len(data)
    assert (error.abs() < 6 * estimates.std(0) / ROUNDS**0.5).all()
    assert error.abs().max() < 0.05

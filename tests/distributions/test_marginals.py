"""The entries of vectors as distributions of their own."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_probmix as pm


def t(*values: Any) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


VECTORS: list[Any] = [
    dist.MultivariateNormal(*t([1.0, -1.0], [[2.0, 0.6], [0.6, 1.0]])),
    dist.LowRankMultivariateNormal(*t([1.0, -1.0], [[0.5], [2.0]], [0.3, 0.7])),
    dist.MultivariateStudentT(*t(5.0, [1.0, -1.0], [[2.0, 0.0], [0.6, 1.0]])),
    dist.Dirichlet(*t([1e-6, 3.0, 1e9])),
    dist.Multinomial(7, *t([0.2, 0.3, 0.5])),
    dist.DirichletMultinomial(*t([1.0, 2.0, 3.0]), total_count=t(7.0)[0]),
    dist.OneHotCategorical(*t([0.2, 0.8])),
    dist.MixtureSameFamily(
        dist.Categorical(*t([0.3, 0.7])),
        dist.MultivariateNormal(*t([[0.0, 1.0], [2.0, -1.0]], [[2.0, 0.6], [0.6, 1.0]])),
    ),
    pm.LinearPool([dist.Dirichlet(*t([1.0, 2.0])), dist.Dirichlet(*t([5.0, 1.0]))], [0.4, 0.6]),
    dist.Empirical(torch.randn(5, 3, 2, dtype=torch.float64), torch.zeros(5, 3, dtype=torch.float64)),
]


@pytest.mark.parametrize("p", VECTORS, ids=lambda p: type(p).__name__)
def test_marginals_have_the_moments_of_the_entries(p: Any) -> None:
    each = pm.distributions.marginals(p)
    assert (each.batch_shape, each.event_shape) == (p.batch_shape + p.event_shape, ())
    torch.testing.assert_close(each.mean, p.mean)
    torch.testing.assert_close(each.variance, p.variance)


def test_mixtures_of_diagonal_normals_have_marginals() -> None:
    loc, scale, logits = torch.randn(3, 4, 2).double(), torch.rand(3, 4, 2).double() + 0.1, torch.randn(3, 4).double()
    p = dist.MixtureOfDiagNormals(loc, scale, logits)
    y = torch.randn(3, 2).double()
    expected = (logits.softmax(-1).unsqueeze(-1) * dist.Normal(loc, scale).cdf(y.unsqueeze(1))).sum(1)
    torch.testing.assert_close(pm.distributions.cdf(p, y), expected)
    shared = dist.MixtureOfDiagNormalsSharedCovariance(loc, scale[:, 0], logits)
    expected = (logits.softmax(-1).unsqueeze(-1) * dist.Normal(loc, scale[:, :1]).cdf(y.unsqueeze(1))).sum(1)
    torch.testing.assert_close(pm.distributions.cdf(shared, y), expected)

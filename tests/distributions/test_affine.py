"""loc + scale · y of any density: its law against samples, closed forms and quadrature."""

from __future__ import annotations

import pickle
from typing import Any

import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.distributions import AffineDistribution, affine, cdf, index_select, quantile

N = 3
LOC, SCALE = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.5, 2.0, 1.5]).double()


def real(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def positive(*shape: int, seed: int = 0) -> Tensor:
    return real(*shape, seed=seed).exp()


LAWS = {
    "Normal": lambda: dist.Normal(real(N), positive(N)),
    "Laplace": lambda: dist.Laplace(real(N), positive(N)),
    "StudentT": lambda: dist.StudentT(7.0 + positive(N), real(N), positive(N)),
    "Exponential": lambda: dist.Exponential(positive(N)),
    "LogNormal": lambda: dist.LogNormal(real(N), 0.5 * positive(N)),
    "Beta": lambda: dist.Beta(1 + positive(N), 1 + positive(N, seed=1)),
    "pool of Normals": lambda: pm.LinearPool(dist.Normal(real(N, 4), positive(N, 4)), real(N, 4).softmax(-1)),
    "pool of a list": lambda: pm.LinearPool([dist.Normal(real(N), 1.0), dist.Laplace(real(1), 2.0)], [0.3, 0.7]),
    "mixture": lambda: dist.MixtureSameFamily(dist.Categorical(logits=real(N, 4)), dist.Normal(real(N, 4), 1.0)),
    "log-linear pool": lambda: pm.LogLinearPool([dist.Normal(real(N), 1.0), dist.Normal(0.0, 2.0)], [0.3, 0.7]),
    "numerical pool": lambda: pm.NumericalPool([dist.StudentT(5.0, real(N), 1.0), dist.Normal(0.0, 2.0)], [0.3, 0.7]),
    "expanded": lambda: dist.Logistic(real(1), 1.0).expand([N]),
}


@pytest.mark.parametrize("name", LAWS)
def test_density_and_quantiles_are_those_of_the_stretched_value(name: str) -> None:
    p = LAWS[name]()
    q = affine(p, LOC, SCALE)
    y = p.sample((50,))
    torch.testing.assert_close(q.log_prob(LOC + SCALE * y), p.log_prob(y) - SCALE.log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.mean, LOC + SCALE * p.mean)
    torch.testing.assert_close(q.variance, SCALE.square() * p.variance)
    torch.testing.assert_close(cdf(q, LOC + SCALE * y), cdf(p, y))
    levels = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(quantile(q, levels), LOC + SCALE * quantile(p, levels))


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_its_law(name: str) -> None:
    q = affine(LAWS[name](), LOC, SCALE)
    u = cdf(q, q.sample((4000,)))
    assert all(scipy.stats.kstest(u[:, r].numpy(), "uniform").pvalue > 1e-6 for r in range(N))


def test_normals_and_their_mixtures_stay_what_they_are() -> None:
    assert type(affine(LAWS["Normal"](), LOC, SCALE)) is dist.Normal
    pool = affine(LAWS["pool of Normals"](), LOC, SCALE)
    assert isinstance(pool, pm.LinearPool)
    assert type(pool.components) is dist.Normal
    torch.testing.assert_close(pool.components.scale, SCALE.unsqueeze(-1) * positive(N, 4))
    assert isinstance(affine(LAWS["mixture"](), LOC, SCALE), dist.MixtureSameFamily)


@pytest.mark.parametrize(
    "p",
    [
        dist.MultivariateNormal(real(N, 2), torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()),
        dist.LowRankMultivariateNormal(real(N, 2), real(N, 2, 1), positive(N, 2)),
        dist.Normal(real(N, 2), positive(N, 2)).to_event(1),
        dist.Gumbel(real(N, 2), positive(N, 2)).to_event(1),
        pm.LinearPool(dist.Normal(real(N, 4, 2), positive(N, 4, 2)).to_event(1), real(N, 4).softmax(-1)),
    ],
    ids=["full covariance", "low rank", "independent", "other independent", "pool"],
)
def test_vectors_are_stretched_output_by_output(p: Any) -> None:
    loc, scale = torch.tensor([1.0, -1.0]).double(), torch.tensor([0.5, 3.0]).double()
    q, y = affine(p, loc, scale), p.sample((20,))
    assert (q.batch_shape, q.event_shape) == (p.batch_shape, p.event_shape)
    torch.testing.assert_close(q.log_prob(loc + scale * y), p.log_prob(y) - scale.log().sum())
    torch.testing.assert_close(q.mean, loc + scale * p.mean)


def test_masks_stay() -> None:
    mask, p = torch.tensor([True, False, True]), LAWS["Laplace"]()
    q = affine(p.mask(mask), LOC, SCALE)
    torch.testing.assert_close(q.log_prob(LOC), affine(p, LOC, SCALE).log_prob(LOC) * mask)


def test_outside_of_the_base_support_is_no_density_and_no_error() -> None:
    q = affine(dist.Exponential(torch.ones(2)), 1.0, 2.0)
    y = torch.tensor([0.0, 1.0], requires_grad=True)
    assert q.log_prob(y).tolist() == [-torch.inf, pytest.approx(-0.6931, abs=1e-4)]
    assert cdf(q, torch.tensor([0.0, 1.0])).tolist() == [0, 0]
    with pytest.raises(ValueError, match="Real"):
        q.log_prob(torch.tensor([torch.nan, 0.0]))


@pytest.mark.parametrize("name", LAWS)
def test_rows_expansion_and_pickles_are_the_same_law(name: str) -> None:
    p, rows = LAWS[name](), torch.tensor([2, 0])
    q, y = affine(p, LOC, SCALE), LOC + SCALE * p.sample()
    torch.testing.assert_close(index_select(q, 0, rows).log_prob(y[rows]), q.log_prob(y)[rows])
    torch.testing.assert_close(q.expand([5, N]).log_prob(y), q.log_prob(y).expand(5, N))
    torch.testing.assert_close(pickle.loads(pickle.dumps(q)).log_prob(y), q.log_prob(y))


def test_gradients_reach_loc_scale_and_the_law() -> None:
    loc, scale, rate = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, 1.5, 2.0))

    def log_prob(loc: Tensor, scale: Tensor, rate: Tensor) -> Tensor:
        return AffineDistribution(dist.Exponential(rate), loc, scale).log_prob(torch.tensor(1.2).double())

    assert torch.autograd.gradcheck(log_prob, (loc, scale, rate))
    draw = AffineDistribution(dist.Exponential(rate), loc, scale).rsample()
    assert all(g is not None for g in torch.autograd.grad(draw, (loc, scale, rate)))


def test_single_precision_stays() -> None:
    q = affine(dist.Laplace(torch.zeros(2), 1.0), torch.ones(2).double(), 2.0)
    assert q.mean.dtype == q.log_prob(torch.zeros(2)).dtype == q.sample().dtype == torch.float32


@pytest.mark.parametrize(
    ("p", "options", "error", "message"),
    [
        (dist.Poisson(1.0), {}, TypeError, "p: expected a density of numbers, got Poisson, of classes or counts"),
        (dist.VonMises(0.0, 1.0), {}, TypeError, "p: expected a density of numbers, got VonMises, of angles"),
        (dist.Dirichlet(torch.ones(3)), {}, TypeError, "p: expected a joint law that is Normal, or .*got Dirichlet"),
        (torch.ones(2), {}, TypeError, "p: expected a distribution, got Tensor"),
        (dist.Normal(0.0, 1.0), {"scale": 0.0}, ValueError, "scale: expected positive numbers, got others"),
        (
            dist.Normal(torch.zeros(3), 1.0),
            {"loc": torch.zeros(2)},
            ValueError,
            r"loc: expected a shape that broadcasts with \(3,\), got \(2,\)",
        ),
    ],
)
def test_what_cannot_be_stretched_is_named(p: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        affine(p, **{"loc": 0.0, "scale": 1.0, **options})

"""The CRPS against quadrature of its definition, and against scoringrules where that is right."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import scoringrules
import torch
from torch import Tensor

import pyro_probmix as pm
from pyro_probmix.evaluation import crps


def by_definition(cdf: Any, y: float, low: float = -math.inf, high: float = math.inf) -> float:
    """∫ (F(t) − 1{y ≤ t})² dt."""
    options: dict[str, Any] = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 500}
    below = scipy.integrate.quad(lambda t: cdf(t) ** 2, low, y, **options)[0]
    return below + scipy.integrate.quad(lambda t: (1 - cdf(t)) ** 2, y, high, **options)[0]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


CLOSED = {
    "Normal": (dist.Normal(double(0.5), 2.0), scipy.stats.norm(0.5, 2), [-3.0, 0.5, 4.0]),
    "Laplace": (dist.Laplace(double(0.5), 2.0), scipy.stats.laplace(0.5, 2), [-3.0, 0.5, 4.0]),
    "Logistic": (dist.Logistic(double(0.5), 2.0), scipy.stats.logistic(0.5, 2), [-3.0, 0.5, 4.0]),
    "Exponential": (dist.Exponential(double(2.0)), scipy.stats.expon(scale=0.5), [0.01, 0.3, 4.0]),
    "LogNormal": (dist.LogNormal(double(0.5), 0.7), scipy.stats.lognorm(0.7, scale=math.exp(0.5)), [0.1, 1.0, 9.0]),
    "Uniform": (dist.Uniform(double(-1.0), 3.0), scipy.stats.uniform(-1, 4), [-1.0, 0.2, 2.9]),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_form(name: str) -> None:
    p, law, values = CLOSED[name]
    found = crps(p.expand([len(values)]), values, "closed form")
    low, high = law.support()
    assert found.tolist() == pytest.approx([by_definition(law.cdf, y, low, high) for y in values], abs=1e-9)


MEANS, SCALES, WEIGHTS = [-3.0, 0.0, 0.2, 5.0], [0.5, 1.0, 0.01, 2.0], [0.1, 0.4, 0.2, 0.3]


def mixtures() -> dict[str, Any]:
    loc, scale, weights = double(*MEANS), double(*SCALES), double(*WEIGHTS)
    left = pm.LinearPool(dist.Normal(loc[:2], scale[:2]), weights[:2] / weights[:2].sum())
    right = pm.LinearPool([dist.Normal(m, s) for m, s in zip(loc[2:], scale[2:])], weights[2:] / weights[2:].sum())
    return {
        "LinearPool": pm.LinearPool(dist.Normal(loc, scale), weights),
        "list": pm.LinearPool([dist.Normal(m, s) for m, s in zip(loc, scale)], weights),
        "PyTorch": dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, scale)),
        "mixture of mixtures": pm.LinearPool([left, right], [0.5, 0.5]),
    }


@pytest.mark.parametrize("name", mixtures())
def test_mixture_of_normals(name: str) -> None:
    values = [-4.0, 0.2, 0.25, 30.0]
    found = crps(mixtures()[name].expand([4]), values, "closed form")
    points = [*MEANS, 0.15, 0.25]

    def law(t: float) -> float:
        return float(np.dot(WEIGHTS, scipy.special.ndtr((t - np.array(MEANS)) / SCALES)))

    def expected(y: float) -> float:
        ends = sorted({-40.0, y, 60.0, *points})
        return sum(
            scipy.integrate.quad(lambda t: (law(t) - (y <= t)) ** 2, a, b, epsabs=1e-13, limit=200)[0]
            for a, b in itertools.pairwise(ends)
        )

    assert found.tolist() == pytest.approx([expected(y) for y in values], abs=1e-9)


def test_mixtures_of_any_size() -> None:
    """Pairs of components are all met once, an even or an odd number of them."""
    for size in range(1, 8):
        loc, scale, y = torch.randn(3, size).double(), torch.rand(3, size).double() + 0.1, torch.randn(3).double()
        weights = torch.rand(3, size).double().softmax(-1)
        expected = scoringrules.crps_mixnorm(y.numpy(), loc.numpy(), scale.numpy(), weights.numpy())
        found = crps(pm.LinearPool(dist.Normal(loc, scale), weights), y)
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_rows_of_a_mixture_of_normals_are_one() -> None:
    p, y = pm.LinearPool(dist.Normal(torch.randn(4, 3).double(), 1.0)), torch.randn(4).double()
    index = torch.tensor([3, 1])
    scores = pm.evaluation.crps(pm.rows(p, index), y[index], method="closed form")
    torch.testing.assert_close(scores, pm.evaluation.crps(p, y)[index])


def test_outputs_are_scored_by_their_marginals() -> None:
    loc, scale, y = torch.randn(5, 4, 2).double(), torch.rand(5, 4, 2).double() + 0.1, torch.randn(5, 2).double()
    weights = torch.rand(5, 4).double().softmax(-1)
    pool = pm.LinearPool(dist.Normal(loc, scale).to_event(1), weights)
    each = [crps(pm.LinearPool(dist.Normal(loc[..., d], scale[..., d]), weights), y[:, d]) for d in range(2)]
    torch.testing.assert_close(crps(pool, y), torch.stack(each, -1))
    listed = pm.LinearPool([dist.Normal(loc[:, k], scale[:, k]).to_event(1) for k in range(4)], weights)
    torch.testing.assert_close(crps(listed, y), crps(pool, y))
    covariance = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    joint = dist.MultivariateNormal(loc[:, 0], covariance)
    torch.testing.assert_close(crps(joint, y), crps(dist.Normal(loc[:, 0], covariance.diagonal().sqrt()), y))


QUADRATURE: dict[str, Any] = {
    **CLOSED,
    "StudentT": (dist.StudentT(double(3.0), 0.5, 2.0), scipy.stats.t(3, 0.5, 2), [-3.0, 0.5, 100.0]),
    "Cauchy": (dist.Cauchy(double(0.5), 2.0), scipy.stats.cauchy(0.5, 2), [-3.0, 0.5, 100.0]),
    "Gamma": (dist.Gamma(double(2.0), 3.0), scipy.stats.gamma(2, scale=1 / 3), [0.001, 0.5, 9.0]),
    "narrow Gamma": (dist.Gamma(double(0.05), 3.0), scipy.stats.gamma(0.05, scale=1 / 3), [0.001, 0.5, 9.0]),
    "Beta": (dist.Beta(double(2.0), 0.5), scipy.stats.beta(2, 0.5), [0.01, 0.5, 0.99]),
    "Gumbel": (dist.Gumbel(double(1.0), 2.0), scipy.stats.gumbel_r(1, 2), [-5.0, 1.0, 9.0]),
    "Weibull": (dist.Weibull(double(1.5), 2.0), scipy.stats.weibull_min(2, scale=1.5), [0.1, 1.0, 9.0]),
    "Pareto": (dist.Pareto(double(1.0), 1.5), scipy.stats.pareto(1.5), [1.0, 1.5, 20.0]),
    "HalfNormal": (dist.HalfNormal(double(2.0)), scipy.stats.halfnorm(scale=2), [0.0, 1.0, 9.0]),
}


@pytest.mark.parametrize("name", QUADRATURE)
def test_quadrature(name: str) -> None:
    p, law, values = QUADRATURE[name]
    found = crps(p.expand([len(values)]), values, "quadrature")
    low, high = (-1000, math.inf) if name == "Gumbel" else law.support()  # SciPy's Gumbel overflows before
    expected = [by_definition(law.cdf, y, low, high) for y in values]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_quadrature_is_the_closed_form() -> None:
    loc, scale, y = torch.randn(40, 9).double(), torch.rand(40, 9).double() ** 4 + 1e-4, 3 * torch.randn(40).double()
    p = pm.LinearPool(dist.Normal(loc, scale), torch.rand(40, 9).double().softmax(-1))
    torch.testing.assert_close(crps(p, y, "quadrature"), crps(p, y, "closed form"), rtol=1e-6, atol=0)


def test_kinks_and_jumps_are_found() -> None:
    """Of Laplace components, and of points with mass, on a batch of several dimensions."""
    low = torch.randn(3, 4).double()
    kinked = pm.LinearPool([dist.Laplace(low, 0.5), dist.Laplace(low + 1.234, 0.01)], [0.6, 0.4])
    jump = pm.LinearPool(dist.Delta(torch.stack([low, low + 0.5], -1)), [0.3, 0.7])
    for p in (kinked, jump):
        found = crps(p, low + 0.77, "quadrature")
        draws = p.sample((20_000,))
        near, other = (draws - low - 0.77).abs().mean(0), (draws - draws.roll(1, 0)).abs()
        error = 5 * (other.std(0) + 1) / math.sqrt(20_000)
        assert ((found - near + 0.5 * other.mean(0)).abs() < error).all()
    torch.testing.assert_close(crps(jump, low + 0.77, "quadrature"), crps(jump, low + 0.77), rtol=1e-6, atol=0)


COUNTS: dict[str, Any] = {
    "Poisson": (dist.Poisson(double(3.0)), scipy.stats.poisson(3), [0, 3, 9, 1000]),
    "Geometric": (dist.Geometric(double(0.2)), scipy.stats.geom(0.2, loc=-1), [0, 4, 30]),
    "Binomial": (dist.Binomial(20, double(0.3)), scipy.stats.binom(20, 0.3), [0, 6, 20]),
    "NegativeBinomial": (dist.NegativeBinomial(double(3.0), double(0.9)), scipy.stats.nbinom(3, 0.1), [0, 20, 300]),
    "many": (dist.Poisson(double(1e4)), scipy.stats.poisson(1e4), [9000, 10_000, 10_300]),
    "more than are summed": (dist.Poisson(double(1e6)), scipy.stats.poisson(1e6), [999_000, 1_000_000, 1_001_000]),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    p, law, values = COUNTS[name]
    k = np.arange(int(max(law.ppf(1 - 1e-15), *values)) + 2)
    below, above = law.cdf(k), law.sf(k)
    expected = [np.square(np.where(k < y, below, above)).sum() for y in values]
    assert crps(p.expand([len(values)]), values).tolist() == pytest.approx(expected, rel=1e-6)


def test_counts_of_any_spread_side_by_side() -> None:
    """Few integers are summed, many are integrated; a row of NaN stays one."""
    mean = double(3.0, 300.0, 1000.0, math.nan, 30_000.0)
    p = dist.NegativeBinomial(torch.full_like(mean, 3.0), logits=(mean / 3).log(), validate_args=False)
    y = double(2.0, 250.0, 3000.0, 1.0, 30_000.0)
    alone = [crps(pm.rows(p, k), y[k]).item() for k in range(5)]
    assert crps(p, y).tolist() == pytest.approx(alone, rel=1e-6, nan_ok=True)
    k = np.arange(1_000_000)
    below = scipy.stats.nbinom(3, 1 / (1 + mean[4] / 3)).cdf(k)
    assert alone[4] == pytest.approx(np.square(below - (k >= y[4].item())).sum(), rel=1e-6)


def test_tails_that_are_too_heavy() -> None:
    """Tails of the power 0.4: the integral of their square is infinite. The Cauchy's is not, though it has no mean."""
    assert crps(dist.Pareto(double(1.0), 0.4), [2.0]).tolist() == [math.inf]
    assert crps(dist.Cauchy(double(0.0), 1.0), [0.0]).item() == pytest.approx(math.log(4) / math.pi, rel=1e-9)


class Drawn(dist.TorchDistribution):
    """A law that can be drawn from, and no more."""

    arg_constraints = {}
    support = dist.constraints.real

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.randn((*sample_shape, *self.batch_shape))


@pytest.mark.parametrize(
    "p",
    [dist.LKJCholesky(2, torch.ones(3)), dist.Stable(torch.full((4,), 1.5), 0.0, 1.0), Drawn(torch.Size([4]))],
    ids=["marginals", "cdf", "density"],
)
def test_laws_without_known_marginals_or_cdf_are_scored_by_draws(p: Any) -> None:
    y = p.sample()
    found = crps(p, y)
    assert found.shape == y.shape
    assert torch.equal(found, crps(p, y, "samples"))
    assert pm.evaluate(p, y, "crps")["crps"] == pytest.approx(found.mean().item(), rel=1e-6)
    with pytest.raises(ValueError, match='method: expected "samples", got "quadrature"'):
        crps(p, y, "quadrature")


def test_what_is_masked_has_none() -> None:
    seen = torch.tensor([[True, False], [True, True]])
    p = dist.Normal(torch.zeros(2, 2), 1.0).mask(seen).to_event(1)
    assert crps(p, [[0.0, math.nan], [1.0, 2.0]]).isnan().tolist() == (~seen).tolist()


@pytest.mark.faults("a score that is infinitely good")
def test_points() -> None:
    """scoringrules has nan at a scale of zero."""
    y = double(1.0, -2.0)
    assert crps(dist.Delta(double(0.5, 0.5)), y).tolist() == [0.5, 2.5]
    two = pm.LinearPool(dist.Delta(double(0.0, 3.0)), double(0.25, 0.75)).expand([2])
    assert crps(two, y).tolist() == pytest.approx([0.25 * 1 + 0.75 * 2 - 0.1875 * 3, 0.25 * 2 + 0.75 * 5 - 0.1875 * 3])


def test_components_of_no_weight() -> None:
    p = pm.LinearPool([dist.Normal(double(0.0), 1.0), dist.Normal(double(math.nan), 1.0, validate_args=False)], [1, 0])
    assert crps(p, [0.3]).item() == crps(dist.Normal(double(0.0), 1.0), [0.3]).item()


def test_gradients() -> None:
    loc, scale, logits = torch.randn(3, 5).double(), torch.rand(3, 5).double() + 0.1, torch.randn(3, 5).double()
    y = torch.randn(3).double()

    def score(loc: Tensor, scale: Tensor, logits: Tensor) -> Tensor:
        return crps(pm.LinearPool(dist.Normal(loc, scale), logits.softmax(-1)), y)

    torch.autograd.gradcheck(score, tuple(t.requires_grad_() for t in (loc, scale, logits)))


def test_samples_are_unbiased_and_seeded() -> None:
    p, y = dist.Normal(torch.zeros(2000).double(), 1.0), torch.full((2000,), 0.7).double()
    exact = crps(p, y)[0].item()
    found = crps(p, y, "samples", num_samples=10)
    assert found.mean().item() == pytest.approx(exact, abs=5 * found.std().item() / math.sqrt(2000))
    state = torch.random.get_rng_state()
    assert torch.equal(crps(p, y, "samples", num_samples=10), found)
    assert not torch.equal(crps(p, y, "samples", num_samples=10, seed=1), found)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_computed_in_double(dtype: torch.dtype) -> None:
    loc, scale = torch.randn(4, 30), torch.rand(4, 30) + 0.1
    p = pm.LinearPool(dist.Normal(loc.to(dtype), scale.to(dtype)))
    found = crps(p, torch.zeros(4, dtype=dtype))
    assert found.dtype == dtype
    expected = crps(pm.LinearPool(dist.Normal(loc.double(), scale.double())), torch.zeros(4).double())
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-6, atol=0)


def test_nan_is_shown() -> None:
    p = pm.LinearPool(dist.Normal(torch.tensor([[0.0, math.nan], [0.0, 1.0]]), 1.0, validate_args=False))
    assert crps(p, [0.0, 0.0]).isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("p", "y", "options", "error", "message"),
    [
        (dist.Normal(0.0, 1.0), 0.0, {"method": "exact"}, ValueError, 'method: expected one of "closed form", '),
        (dist.Normal(0.0, 1.0), [0.0], {}, ValueError, r"y: expected shape \(\), got \(1,\)"),
        (dist.Normal(0.0, 1.0), math.nan, {}, ValueError, "y: expected a finite value, got nan"),
        (dist.Normal(0.0, 1.0), 0.0, {"num_samples": 1}, ValueError, "num_samples: expected an integer >= 2, got 1"),
        (dist.Gamma(1.0, 1.0), 1.0, {"method": "closed form"}, ValueError, 'method: expected "quadrature" or "sa'),
        (
            dist.Categorical(torch.ones(3)),
            1,
            {},
            TypeError,
            "p: expected a distribution of numbers, got Categorical over",
        ),
        (dist.VonMises(0.0, 1.0), 1.0, {}, TypeError, "p: expected a distribution of numbers, got VonMises over ang"),
    ],
)
def test_bad_input(p: Any, y: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        crps(p, y, **options)

"""NumericalPool: what is not closed is normalised to the accuracy asked for, and is a distribution like any other."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.inspect import get_dependencies
from torch import Tensor
from torch.distributions import AffineTransform, biject_to

from pyro_probmix.distributions import LinearPool, LogLinearPool, NumericalPool, entropy, log_linear_pool
from pyro_probmix.distributions.numerical import _measures
from tests.cases import CASES

INF = math.inf
LEVELS = [1e-9, 1e-3, 0.1, 0.5, 0.9, 0.999]


def number(*values: Any) -> list[Tensor]:
    return [torch.tensor(v, dtype=torch.float64) for v in values]


def make(cls: Any, *values: Any) -> Any:
    return cls(*number(*values))


def normals(locs: Sequence[float], scale: float) -> Any:
    loc, scales = number(list(locs), [scale] * len(locs))
    return dist.MixtureSameFamily(dist.Categorical(torch.ones_like(loc)), dist.Normal(loc, scales))


st, sn = scipy.stats, scipy.stats.norm


def mixture(p: Any, q: Any) -> Callable[[float], float]:
    return lambda y: float(np.logaddexp(p.logpdf(y), q.logpdf(y))) - math.log(2)


# Components, SciPy's own log-densities of them, weights, and where quadrature by SciPy must be helped by a break.
HARD: dict[str, tuple[list[Any], list[Callable[[float], float]], list[float], list[float]]] = {
    "StudentT": (
        [make(dist.StudentT, 2.0, 0.0, 1.0), make(dist.StudentT, 5.0, 3.0, 0.5)],
        [st.t(2, 0, 1).logpdf, st.t(5, 3, 0.5).logpdf],
        [0.4, 0.6],
        [-INF, 0, 2.7, 3.2, 10, INF],
    ),
    "heavy tails": (
        [make(dist.StudentT, 0.5, 0.0, 1.0), make(dist.Cauchy, 3.0, 0.5)],
        [st.t(0.5, 0, 1).logpdf, st.cauchy(3, 0.5).logpdf],
        [0.4, 0.6],
        [-1e14, -1e11, -1e8, -1e5, -1e3, -10, 0, 3, 10, 1e3, 1e5, 1e8, 1e11, 1e14],
    ),
    "Laplace": (
        [make(dist.Laplace, 0.0, 1.0), make(dist.Laplace, 3.0, 0.5)],
        [st.laplace(0, 1).logpdf, st.laplace(3, 0.5).logpdf],
        [0.3, 0.7],
        [-INF, 0, 3, INF],
    ),
    "Normal with Laplace": (
        [make(dist.Normal, 0.0, 1.0), make(dist.Laplace, 3.0, 1.0)],
        [sn(0, 1).logpdf, st.laplace(3, 1).logpdf],
        [0.5, 0.5],
        [-INF, -3, 1, 3, 6, INF],
    ),
    "far apart": (
        [make(dist.StudentT, 3.0, 0.0, 1.0), make(dist.Normal, 1000.0, 1.0)],
        [st.t(3, 0, 1).logpdf, sn(1000, 1).logpdf],
        [0.5, 0.5],
        [980, 990, 1000, 1010, 1020],
    ),
    "mass away from all components": (
        [make(dist.Gumbel, 0.0, 1.0), make(dist.Normal, 1000.0, 3.0)],
        [st.gumbel_r(0, 1).logpdf, sn(1000, 3).logpdf],
        [0.5, 0.5],
        [900, 950, 970, 980, 990, 1000, 1010, 1050],
    ),
    "scales of ratio 1e4": (
        [make(dist.StudentT, 3.0, 0.0, 1e-4), make(dist.Normal, 1.0, 1.0)],
        [st.t(3, 0, 1e-4).logpdf, sn(1, 1).logpdf],
        [0.5, 0.5],
        [-20, -0.1, -1e-3, 0, 1e-3, 0.1, 1, 20],
    ),
    "far apart Cauchy": (
        [make(dist.Cauchy, 0.0, 1.0), make(dist.Cauchy, 1e6, 1.0)],
        [st.cauchy(0, 1).logpdf, st.cauchy(1e6, 1).logpdf],
        [0.5, 0.5],
        [-INF, -1e6, -1e3, -5, 5, 1e3, 5e5, 1e6 - 1e3, 1e6 - 5, 1e6 + 5, 1e6 + 1e3, 2e6, INF],
    ),
    "Beta with Uniform": (
        [make(dist.Beta, 0.3, 2.0), make(dist.Uniform, 0.0, 0.7)],
        [st.beta(0.3, 2).logpdf, st.uniform(0, 0.7).logpdf],
        [0.5, 0.5],
        [0, 1e-9, 1e-5, 1e-2, 0.7],
    ),
    "the half-line, singular at its end": (
        [make(dist.Gamma, 0.2, 2.0), make(dist.LogNormal, 0.0, 1.0)],
        [st.gamma(0.2, scale=0.5).logpdf, st.lognorm(1).logpdf],
        [0.7, 0.3],
        [0, 1e-6, 1e-3, 0.1, 1, 5, INF],
    ),
    "HalfCauchy with Weibull": (
        [make(dist.HalfCauchy, 1.0), make(dist.Weibull, 3.0, 0.8)],
        [st.halfcauchy(0, 1).logpdf, st.weibull_min(0.8, scale=3).logpdf],
        [0.5, 0.5],
        [0, 1e-4, 1e-2, 1, 10, INF],
    ),
    "a tail cut off": (
        [make(dist.Normal, 0.0, 1.0), make(dist.Uniform, 3.0, 4.0)],
        [sn(0, 1).logpdf, st.uniform(3, 1).logpdf],
        [0.5, 0.5],
        [3, 4],
    ),
    "two modes between three": (
        [normals([0.0, 100.0], 1.0), make(dist.Normal, 50.0, 1.0)],
        [mixture(sn(0, 1), sn(100, 1)), sn(50, 1).logpdf],
        [0.5, 0.5],
        [15, 25, 35, 50, 65, 75, 85],
    ),
    "LinearPool": (
        [
            LinearPool([make(dist.Normal, 0.0, 1.0), make(dist.Normal, 30.0, 0.01)], [0.5, 0.5]),
            make(dist.Laplace, 3.0, 0.5),
        ],
        [mixture(sn(0, 1), sn(30, 0.01)), st.laplace(3, 0.5).logpdf],
        [0.4, 0.6],
        [-10, 0, 3, 10, 29, 29.95, 30.05, 31],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_density_and_moments_are_those_of_scipy(name: str) -> None:
    components, log_densities, weights, breaks = HARD[name]
    pool = NumericalPool(components, weights)
    anchor = float(pool.icdf(torch.tensor(0.5, dtype=torch.float64)))

    def log_f(y: float) -> float:
        return sum(w * f(y) for w, f in zip(weights, log_densities, strict=True))

    def integral(function: Callable[[float], float]) -> float:
        return sum(
            scipy.integrate.quad(function, a, b, epsabs=0, epsrel=1e-10, limit=200)[0]
            for a, b in itertools.pairwise(breaks)
        )

    top = log_f(anchor)
    log_total = math.log(integral(lambda y: math.exp(log_f(y) - top))) + top
    assert float(pool.log_normalizer) == pytest.approx(-log_total, rel=1e-8, abs=1e-8)
    y = pool.icdf(torch.tensor(LEVELS, dtype=torch.float64))
    expected = torch.tensor([log_f(float(v)) - log_total for v in y], dtype=torch.float64)
    torch.testing.assert_close(pool.log_prob(y), expected, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(pool.cdf(y), torch.tensor(LEVELS, dtype=torch.float64), atol=5e-9, rtol=0)
    if pool.variance.isfinite():
        mean = integral(lambda y: (y - anchor) * math.exp(log_f(y) - log_total)) + anchor
        assert float(pool.mean) == pytest.approx(mean, rel=1e-8, abs=1e-8)
        if min(breaks) > -INF and max(breaks) < INF:
            variance = integral(lambda y: (y - mean) ** 2 * math.exp(log_f(y) - log_total))
            assert float(pool.variance) == pytest.approx(variance, rel=1e-7)


@pytest.mark.parametrize(
    "name", ["Normal", "LogNormal", "Exponential", "Gamma", "Beta", "logit-Normal", "inverse Gamma", "Poisson"]
)
def test_closed_families_agree_with_their_closed_form(name: str) -> None:
    members = [CASES[name].draw((4,), seed) for seed in range(3)]
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.9, 0.05, 0.05]], dtype=torch.float64)
    exact, pool = LogLinearPool(members, weights), NumericalPool(members, weights)
    y = exact.sample((5,))
    torch.testing.assert_close(pool.log_prob(y), exact.log_prob(y), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(pool.log_normalizer, exact.log_normalizer, atol=1e-9, rtol=1e-9)
    if name not in ("logit-Normal", "inverse Gamma"):
        torch.testing.assert_close(pool.mean, exact.mean, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(pool.variance, exact.variance, atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(pool.entropy(), entropy(exact), atol=1e-8, rtol=1e-8)
    if name in ("Normal", "LogNormal", "Exponential"):
        torch.testing.assert_close(pool.cdf(y), exact.cdf(y), atol=1e-10, rtol=0)


def everything(pool: NumericalPool) -> Tensor:
    y = torch.tensor(0.4, dtype=torch.float64)
    values = [pool.log_prob(y), pool.log_normalizer, pool.mean, pool.variance, pool.entropy(), pool.cdf(y)]
    return torch.stack([*values, *pool.icdf(torch.tensor([0.1, 0.5, 0.93], dtype=torch.float64))])


DIFFERENTIABLE: dict[str, tuple[Callable[..., list[Any]], list[float]]] = {
    "StudentT with Laplace": (
        lambda df, loc, scale, m, b: [dist.StudentT(df, loc, scale), dist.Laplace(m, b)],
        [3.0, 0.0, 1.0, 1.3, 0.7],
    ),
    "moving ends": (lambda a, b, low, high: [dist.Beta(a, b), dist.Uniform(low, high)], [0.8, 2.0, 0.1, 0.9]),
    "one moving end": (lambda rate, low, a: [dist.Exponential(rate), dist.Pareto(low, a)], [0.8, 0.3, 1.5]),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name: str) -> None:
    components, values = DIFFERENTIABLE[name]
    inputs = [t.requires_grad_() for t in number(0.3, *values)]
    assert torch.autograd.gradcheck(
        lambda w, *t: everything(NumericalPool(components(*t), [w, 1 - w])), inputs, fast_mode=True
    )


def test_many_points_are_held_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def value_and_gradients() -> list[Tensor]:
        loc = torch.linspace(-2, 2, 5, dtype=torch.float64).requires_grad_()
        value = NumericalPool([dist.StudentT(3.0, loc, 1.0), dist.Laplace(-loc, 0.5)], [0.3, 0.7]).log_normalizer
        (first,) = torch.autograd.grad(value.sum(), loc, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), loc)
        return [value, first, second]

    whole = value_and_gradients()
    monkeypatch.setattr(_measures, "MAX_HELD", 100)
    torch.testing.assert_close(value_and_gradients(), whole, atol=1e-12, rtol=1e-12)


def test_transforms_with_parameters_in_a_batch() -> None:
    loc, scale = number([0.0, 1.0, 5.0], [1.0, 0.1, 3.0])
    affine = dist.TransformedDistribution(
        make(dist.StudentT, 3.0, 0.0, 1.0), dist.transforms.AffineTransform(loc, scale)
    )
    other = dist.Laplace(loc - 1, 1.0)
    pool = NumericalPool([affine, other], [0.5, 0.5])
    direct = NumericalPool([dist.StudentT(3.0, loc, scale), other], [0.5, 0.5])
    torch.testing.assert_close(pool.log_normalizer, direct.log_normalizer, atol=1e-9, rtol=1e-9)


def test_vmap_over_components_weights_or_both_gives_what_batch_dimensions_give() -> None:
    loc, weights = number([0.0, 1.0, 5.0], [[0.3, 0.7], [0.5, 0.5], [1.0, 0.0]])

    def value(loc: Tensor, weights: Tensor) -> Tensor:
        members = [dist.Cauchy(loc, 1.0, validate_args=False), dist.Normal(0.0, 1.0)]
        return NumericalPool(members, weights, validate_args=False).log_normalizer

    for dims in ((0, None), (None, 0), (0, 0)):
        inputs = [t if d == 0 else t[0] for t, d in zip((loc, weights), dims, strict=True)]
        each = torch.stack([value(*[t[k] if d == 0 else t for t, d in zip(inputs, dims)]) for k in range(3)])
        torch.testing.assert_close(torch.func.vmap(value, dims)(*inputs), each, atol=1e-8, rtol=0)
    each = torch.stack([value(a, w) for a, w in zip(loc, weights, strict=True)])
    torch.testing.assert_close(value(loc, weights), each, atol=1e-10, rtol=0)


def test_backward_twice_through_one_pool() -> None:
    loc = torch.tensor(0.5, requires_grad=True)
    pool = NumericalPool([dist.Cauchy(loc, 1.0), dist.Normal(0.0, 1.0)], [0.5, 0.5])
    first, second = (torch.autograd.grad(pool.log_prob(torch.tensor(1.0)), loc) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["StudentT", "Laplace", "Beta with Uniform", "two modes between three"])
def test_draws_follow_the_law(name: str) -> None:
    components, _, weights, _ = HARD[name]
    pool = NumericalPool(components, weights)
    y = pool.sample((2000,))
    assert not y.requires_grad
    assert scipy.stats.kstest(pool.cdf(y).numpy(), "uniform").pvalue > 1e-6
    shares = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    torch.testing.assert_close(pool.cdf(pool.icdf(shares)), shares, atol=1e-12, rtol=0)


def test_reparametrised_draws_have_the_gradient_of_the_moments() -> None:
    loc = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    pool = NumericalPool([dist.Laplace(loc, 1.0), dist.StudentT(5.0, *number(-1.0, 1.0))], [0.5, 0.5])
    (expected,) = torch.autograd.grad(pool.mean, loc)
    shares = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    (actual,) = torch.autograd.grad(pool.icdf(shares).mean(), loc)
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-3)
    assert pool.rsample((3,)).requires_grad


def test_moments_that_do_not_exist() -> None:
    cauchy = NumericalPool([make(dist.Cauchy, 0.0, 1.0), make(dist.Cauchy, 3.0, 1.0)], [0.5, 0.5])
    assert cauchy.mean.isnan()
    assert cauchy.variance.isnan()
    heavy = NumericalPool([make(dist.StudentT, 1.5, 0.0, 1.0), make(dist.StudentT, 1.5, 3.0, 1.0)], [0.5, 0.5])
    assert heavy.mean == pytest.approx(1.5)
    assert heavy.variance == INF


def test_shapes_batches_and_components_in_a_batch() -> None:
    df, loc, scale = number([3.0, 7.0], torch.randn(4, 2).tolist(), (torch.rand(4, 2) + 0.1).tolist())
    batched = NumericalPool(dist.StudentT(df, loc, scale), torch.tensor([0.3, 0.7]))
    members = [dist.StudentT(df[k], loc[:, k], scale[:, k]) for k in range(2)]
    pool = NumericalPool(members, [0.3, 0.7])
    y = pool.sample((3,))
    assert y.shape == (3, 4)
    torch.testing.assert_close(batched.log_prob(y), pool.log_prob(y))
    torch.testing.assert_close(batched.mean, pool.mean)
    wide = pool.expand([5, 4])
    assert wide.rsample((2,)).shape == (2, 5, 4)
    assert wide.log_prob(y.unsqueeze(1)).shape == (3, 5, 4)
    assert wide.mean.shape == wide.entropy().shape == wide.log_normalizer.shape == (5, 4)
    assert wide.weights.shape == (5, 4, 2)
    torch.testing.assert_close(wide.to_event(1).log_prob(y[0].expand(5, 4)), pool.log_prob(y[0]).sum().expand(5))
    for k in range(4):  # members of a batch do not disturb each other
        alone = NumericalPool([dist.StudentT(df[j], loc[k, j], scale[k, j]) for j in range(2)], [0.3, 0.7])
        torch.testing.assert_close(pool.log_normalizer[k], alone.log_normalizer, atol=1e-10, rtol=1e-10)


def test_pickle_deepcopy_and_nesting() -> None:
    p, q, r = make(dist.Cauchy, 0.0, 1.0), make(dist.Laplace, 2.0, 0.5), make(dist.Normal, 1.0, 2.0)
    pool = NumericalPool([p, q, r], [0.2, 0.5, 0.3])
    nested = NumericalPool([NumericalPool([p, q], [2 / 7, 5 / 7]), r], [0.7, 0.3])
    y = pool.sample((5,))
    torch.testing.assert_close(nested.log_prob(y), pool.log_prob(y), atol=1e-9, rtol=1e-9)
    for other in (pickle.loads(pickle.dumps(pool)), copy.deepcopy(pool)):
        assert torch.equal(other.log_prob(y), pool.log_prob(y))


def test_no_peak_of_a_mixture_is_missed() -> None:
    loc, scale = number([0.0, 30.0, 5e4], [1.0, 1e-4, 1e-3])
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(3).double()), dist.Normal(loc, scale))
    members = [dist.Normal(loc[k], scale[k]) for k in range(3)]
    wide = make(dist.Cauchy, 100.0, 50.0)
    pools = [
        NumericalPool([p, wide], [0.5, 0.5])
        for p in (mixture, LinearPool(members), LinearPool(dist.Normal(loc, scale)))
    ]
    # Of peaks that are far apart, p^½ q^½ has the integrals of each: √q(loc) ∫ (p/3)^½.
    shares = (0.5 * wide.log_prob(loc) + 0.5 * scale.log()).exp() * (8 * math.pi) ** 0.25 / math.sqrt(3)
    for pool in pools:
        torch.testing.assert_close((-pool.log_normalizer).exp(), shares.sum(), rtol=1e-3, atol=0)
        assert float(pool.cdf(torch.tensor(29.0).double())) == pytest.approx(float(shares[0] / shares.sum()), rel=1e-3)
    torch.testing.assert_close(pools[1].log_normalizer, pools[0].log_normalizer, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(pools[2].log_normalizer, pools[0].log_normalizer, atol=1e-9, rtol=1e-9)


def test_weight_zero_removes_a_component_and_its_support() -> None:
    loc = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[0.0, 1.0], [0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    pool = NumericalPool([make(dist.Uniform, 0.0, 1.0), dist.Normal(loc, 1.0)], weights)
    value = pool.log_prob(torch.tensor([5.0, 0.5], dtype=torch.float64))
    assert value[0] == dist.Normal(loc, 1.0).log_prob(torch.tensor(5.0))
    assert pool.log_normalizer[0] == 0
    assert all(g.isfinite().all() for g in torch.autograd.grad(value.sum(), [loc, weights]))


def test_weights_off_the_simplex() -> None:
    p, q = make(dist.Normal, 0.0, 1.0), make(dist.Normal, 1.0, 2.0)
    for weights in ([1.0, 1.0], [2.0, -1.0], [0.1, 0.0], [0.3, 0.2]):
        exact = LogLinearPool([p, q], weights, simplex=False)
        pool = NumericalPool([p, q], weights, simplex=False)
        torch.testing.assert_close(pool.log_normalizer, exact.log_normalizer, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(pool.variance, exact.variance, atol=1e-9, rtol=1e-9)
    product = NumericalPool([make(dist.Poisson, 3.0), make(dist.Poisson, 5.0)], [1.0, 1.0], simplex=False)
    k = torch.arange(200, dtype=torch.float64)
    log_f = make(dist.Poisson, 3.0).log_prob(k) + make(dist.Poisson, 5.0).log_prob(k)
    torch.testing.assert_close(product.log_prob(k), log_f - log_f.logsumexp(0))


def test_integers() -> None:
    p, q = make(dist.Poisson, 3.0), make(dist.Geometric, 0.2)
    pool = NumericalPool([p, q], [0.5, 0.5])
    k = torch.arange(400, dtype=torch.float64)
    mass = (0.5 * (p.log_prob(k) + q.log_prob(k))).softmax(0)
    torch.testing.assert_close(pool.log_prob(k).exp(), mass)
    torch.testing.assert_close(pool.mean, (mass * k).sum())
    torch.testing.assert_close(pool.variance, (mass * (k - pool.mean).square()).sum())
    torch.testing.assert_close(pool.entropy(), -(mass * mass.log()).nan_to_num().sum())
    torch.testing.assert_close(pool.cdf(k[:9]), mass.cumsum(0)[:9])
    assert torch.equal(pool.icdf(pool.cdf(k[:9]) - 1e-9), k[:9])
    assert not pool.has_rsample
    assert not pool.has_enumerate_support
    assert torch.equal(pool.sample((1000,)) % 1, torch.zeros(1000).double())
    far = NumericalPool([make(dist.Poisson, 10.0), make(dist.Poisson, 1e4)], [0.5, 0.5])
    torch.testing.assert_close(far.mean, torch.tensor(1e5, dtype=torch.float64).sqrt())
    finite = NumericalPool([dist.Binomial(10, *number(0.3)), dist.BetaBinomial(*number(2.0, 1.0), 10)], [0.5, 0.5])
    assert torch.equal(finite.enumerate_support(), k[:11])
    torch.testing.assert_close(finite.log_prob(finite.enumerate_support()).exp().sum(), torch.tensor(1.0).double())


def test_single_precision() -> None:
    pool = NumericalPool([dist.Gamma(1e4, 1.0), dist.LogNormal(9.2, 0.01)], [0.5, 0.5])
    exact = NumericalPool([make(dist.Gamma, 1e4, 1.0), dist.LogNormal(*number(9.2, 0.01))], [0.5, 0.5])
    assert pool.log_normalizer.dtype == pool.mean.dtype == pool.sample().dtype == torch.float32
    torch.testing.assert_close(pool.mean.double(), exact.mean, atol=0, rtol=1e-5)
    torch.testing.assert_close(pool.variance.double(), exact.variance, atol=0, rtol=1e-4)


def test_observed_and_latent_sites() -> None:
    def model() -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", NumericalPool([dist.Laplace(0.0, 1.0), dist.Normal(4.0, 1.0)], [0.5, 0.5]))
            pyro.sample("y", dist.Normal(z, 1.0), obs=torch.tensor([1.0, 2.0, 3.0]))

    def guide() -> None:
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("data", 3):
            pyro.sample("z", NumericalPool([dist.Laplace(loc, 1.0), dist.Normal(loc, 1.0)], [0.5, 0.5]))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    losses = [svi.step() for _ in range(3)]
    assert all(math.isfinite(loss) for loss in losses)
    assert pyro.param("loc").ne(0).all()


def pool_of(components: Any, weights: Any = (0.5, 0.5), **options: Any) -> Callable[[], Any]:
    return lambda: NumericalPool(components, list(weights), **options).log_normalizer


REFUSALS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no common support": (
        pool_of([dist.Uniform(0.0, 1.0), dist.Uniform(torch.tensor([0.5, 2.0]), 3.0)]),
        ValueError,
        r"components: expected a common support, got none at batch index \[1\]",
    ),
    "an infinite integral": (
        pool_of([dist.Cauchy(0.0, 1.0), dist.Cauchy(torch.tensor([1.0, 2.0]), 1.0)], (0.2, 0.2), simplex=False),
        ValueError,
        r"components, weights: expected a pool with a finite integral .* at batch index \[0, 1\]",
    ),
    "an infinite sum": (
        pool_of([dist.Geometric(0.5), dist.Geometric(0.5)], (-0.5, 0.5), simplex=False),
        ValueError,
        r"expected a pool whose mass is on fewer than \d+ integers",
    ),
    "densities and integers": (
        pool_of([dist.Normal(0.0, 1.0), dist.Poisson(1.0)]),
        TypeError,
        r"components: expected densities only or laws on integers only",
    ),
    "vectors": (
        pool_of([dist.Normal(torch.zeros(2), 1.0).to_event(1)], [1.0]),
        ValueError,
        r"components: expected scalars, event shape \(\) and no mask, got \(2,\) at index 0",
    ),
    "masks": (
        pool_of([dist.Normal(0.0, 1.0), dist.Normal(torch.zeros(2), 1.0).mask(True)]),
        ValueError,
        r"components: .* got a mask at index 1",
    ),
    "weights": (pool_of([dist.Cauchy(0.0, 1.0)] * 2, (0.5, 0.6)), ValueError, r"weights: expected a sum of 1"),
    "an accuracy of zero": (
        pool_of([dist.Cauchy(0.0, 1.0)] * 2, accuracy=0.0),
        ValueError,
        r"accuracy: expected a number in \(0, 1\), got 0.0",
    ),
    "no components": (pool_of([]), ValueError, r"components: expected at least one distribution"),
}


@pytest.mark.faults("no common support")
@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name: str) -> None:
    call, kind, message = REFUSALS[name]
    with pytest.raises(kind, match=message):
        call()


def test_closed_pools_point_here() -> None:
    with pytest.raises(TypeError, match=r"Cauchy has no natural form here.*use NumericalPool"):
        log_linear_pool([dist.Cauchy(0.0, 1.0), dist.Cauchy(1.0, 1.0)], [0.5, 0.5])
    with pytest.raises(TypeError, match=r"got Normal and, at index 1, Gamma; .* use NumericalPool"):
        log_linear_pool([dist.Normal(0.0, 1.0), dist.Gamma(1.0, 1.0)], [0.5, 0.5])


def test_angles_are_pooled_on_the_circle() -> None:
    """Torch calls the support of VonMises real; its density has mass one in each period."""
    pool = NumericalPool([dist.VonMises(torch.tensor(0.0).double(), 1.0), dist.Normal(0.0, 10.0)], [0.5, 0.5])
    total = scipy.integrate.quad(lambda y: pool.log_prob(torch.tensor(y)).exp().item(), -math.pi, math.pi)[0]
    assert total == pytest.approx(1, abs=1e-6)
    assert pool.log_normalizer >= 0
    assert pool.sample((100,)).abs().max() <= math.pi


def test_mixtures_of_von_mises_live_on_one_turn_too() -> None:
    members = [dist.VonMises(torch.tensor(loc).double(), 2.0) for loc in (0.0, 1.0)]
    mixture = LinearPool(members, [0.5, 0.5])
    pool = NumericalPool([mixture, mixture], [0.5, 0.5])
    assert abs(pool.log_normalizer.item()) < 1e-9
    y = torch.linspace(-3, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(pool.log_prob(y), mixture.log_prob(y), atol=1e-9, rtol=0)


def test_a_batched_mixture_is_a_component() -> None:
    mixture = LinearPool(dist.Normal(torch.tensor([[0.0, 1.0]] * 3).double(), 1.0))
    listed = LinearPool([dist.Normal(torch.tensor([loc] * 3).double(), 1.0) for loc in (0.0, 1.0)])
    found, expected = (NumericalPool([p, dist.Laplace(0.0, 1.0)], [0.5, 0.5]).log_normalizer for p in (mixture, listed))
    torch.testing.assert_close(found, expected)


def test_quantiles_at_the_ends_with_a_gradient() -> None:
    loc = torch.tensor(0.0, requires_grad=True)
    quantiles = NumericalPool([dist.Normal(loc, 1.0), dist.Laplace(3.0, 1.0)], [0.5, 0.5]).icdf(
        torch.tensor([0.0, 0.5, 1.0])
    )
    assert quantiles[0].item() == -INF
    assert quantiles[2].item() == INF
    (slope,) = torch.autograd.grad(quantiles[1], loc)
    assert 0 < slope < 1


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"components: expected a batch of one at least, got batch shape \(0,\)"):
        NumericalPool([dist.Normal(torch.zeros(0), 1.0), dist.Laplace(0.0, 1.0)], [0.5, 0.5])


SHARP = {
    "Normal": (make(dist.Normal, 0.0, 0.01), make(dist.Normal, 1.0, 0.01)),
    "Gamma": (make(dist.Gamma, 1e3, 1.0), make(dist.Gamma, 1e4, 1.0)),
    "LogNormal": (make(dist.LogNormal, 0.0, 0.01), make(dist.LogNormal, 1.0, 0.01)),
    "VonMises": (make(dist.VonMises, 0.0, 1e3), make(dist.VonMises, 3.0, 1e3)),
    "Exponential": (make(dist.Exponential, 1.0), make(dist.Exponential, 1e6)),
}


@pytest.mark.parametrize("weight", [0.4, 0.95])
@pytest.mark.parametrize("name", SHARP)
def test_an_integral_of_next_to_nothing_is_found(name: str, weight: float) -> None:
    """The components hardly overlap, and the product of their densities is far below the smallest number."""
    components, weights = list(SHARP[name]), [weight, 1 - weight]
    numerical, closed = NumericalPool(components, weights), LogLinearPool(components, weights)
    tolerance = 1e-6 if name == "VonMises" else 1e-9  # that of PyTorch's Bessel functions
    torch.testing.assert_close(numerical.log_normalizer, closed.log_normalizer, rtol=tolerance, atol=tolerance)
    y = closed.mean
    torch.testing.assert_close(numerical.log_prob(y), closed.log_prob(y), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weight", [0.1, 0.35])
@pytest.mark.parametrize("name", ["Exponential", "Weibull", "Gamma", "InverseGamma"])
def test_mass_at_the_edge_of_a_panel_is_seen(name: str, weight: float) -> None:
    """Of a tail that falls within the first step of a long panel, all nodes are where nothing is left."""
    laws = {
        "Exponential": (make(dist.Exponential, 1.0), st.expon()),
        "Weibull": (make(dist.Weibull, 1.105, 0.855), st.weibull_min(0.855, scale=1.105)),
        "Gamma": (make(dist.Gamma, 1.7, 1.3), st.gamma(1.7, scale=1 / 1.3)),
        "InverseGamma": (make(dist.InverseGamma, 3.0, 2.0), st.invgamma(3.0, scale=2.0)),
    }
    p, reference = laws[name]
    pool = NumericalPool([p, make(dist.LogNormal, -0.1, 1.0)], [weight, 1 - weight])
    t = np.linspace(-60, 60, 400_001)  # a trapezoid in log y, which nothing is hidden from
    y = np.exp(t)
    log_f = weight * reference.logpdf(y) + (1 - weight) * st.lognorm(1.0, scale=math.exp(-0.1)).logpdf(y) + t
    mass = np.exp(log_f)
    mass /= mass.sum()
    mean = (mass * y).sum()
    assert float(pool.mean) == pytest.approx(mean, rel=1e-8)
    assert float(pool.variance) == pytest.approx((mass * (y - mean) ** 2).sum(), rel=1e-7)


def test_a_half_line_that_ends_above() -> None:
    mirrored = dist.TransformedDistribution(make(dist.Exponential, 1.0), [AffineTransform(2.0, -1.0)])
    pool = NumericalPool([mirrored, make(dist.Normal, 0.0, 1.0)], [0.5, 0.5])
    y = biject_to(pool.support)(torch.tensor([-3.0, 0.3, 5.0], dtype=torch.float64))
    assert (y < 2).all()
    assert pool.log_prob(y).isfinite().all()


def test_pyro_finds_what_depends_on_a_pool() -> None:
    def model() -> None:
        z = pyro.sample("z", NumericalPool([make(dist.Normal, 0.0, 1.0), make(dist.Laplace, 0.0, 1.0)], [0.5, 0.5]))
        pyro.sample("y", dist.Normal(z, 1.0), obs=torch.zeros(()))

    assert get_dependencies(model)["prior_dependencies"]["y"] == {"y": set(), "z": set()}

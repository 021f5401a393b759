"""Single precision is right to 1e-3 nats of large counts, too: in likelihoods, pools and divergences."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats as st
import torch
from torch import Tensor
from torch.distributions import kl_divergence

import pyro_probmix as pm
from pyro_probmix.distributions import entropy, linear_pool, log_linear_pool
from pyro_probmix.distributions.corrected import corrected, corrected_class
from pyro_probmix.training.data import without_validation

pytestmark = pytest.mark.faults("large counts in single precision")

Row = tuple[Callable[..., Any], tuple[Any, ...], Any, Callable[..., Any]]


def odds(logits: Any) -> Any:
    return scipy.special.expit(logits)


# What makes it, its parameters, a likely value, and SciPy's log-density of the value and the same parameters.
ROWS: dict[str, Row] = {
    "Poisson": (dist.Poisson, (1e6,), 1_000_700.0, lambda y, a: st.poisson(a).logpmf(y)),
    "sparse Poisson": (
        lambda a: dist.Poisson(a, is_sparse=True),
        (1e6,),
        1_000_700.0,
        lambda y, a: st.poisson(a).logpmf(y),
    ),
    "NegativeBinomial": (
        lambda n, logits: dist.NegativeBinomial(n, logits=logits),
        (1e6, 0.3),
        1_350_900.0,
        lambda y, n, logits: st.nbinom(n, odds(-logits)).logpmf(y),
    ),
    "NegativeBinomial of probs": (
        dist.NegativeBinomial,
        (1e6, 0.5),
        1_000_900.0,
        lambda y, n, p: st.nbinom(n, 1 - p).logpmf(y),
    ),
    "GammaPoisson": (dist.GammaPoisson, (1e6, 0.7), 1_428_900.0, lambda y, n, r: st.nbinom(n, r / (1 + r)).logpmf(y)),
    "Binomial": (dist.Binomial, (3e6, 0.3), 900_300.0, lambda y, n, p: st.binom(n, p).logpmf(y)),
    "Binomial of logits": (
        lambda n, logits: dist.Binomial(n, logits=logits),
        (3e6, -0.7),
        995_500.0,
        lambda y, n, logits: st.binom(n, odds(logits)).logpmf(y),
    ),
    "ExtendedBinomial": (dist.ExtendedBinomial, (3e6, 0.3), 900_300.0, lambda y, n, p: st.binom(n, p).logpmf(y)),
    "Multinomial": (
        lambda logits: dist.Multinomial(2_000_000, logits=logits),
        ([0.2, -0.3, 1.0],),
        [522_300.0, 316_200.0, 1_161_500.0],
        lambda y, logits: st.multinomial(2_000_000, scipy.special.softmax(logits)).logpmf(y),
    ),
    "Gamma": (dist.Gamma, (1e6, 2.0), 500_700.0, lambda y, a, b: st.gamma(a, scale=1 / b).logpdf(y)),
    "Chi2": (dist.Chi2, (1e6,), 1_000_900.0, lambda y, a: st.chi2(a).logpdf(y)),
    "InverseGamma": (dist.InverseGamma, (1e6, 2.0), 2.002e-6, lambda y, a, b: st.invgamma(a, scale=b).logpdf(y)),
    "Beta": (dist.Beta, (1e6, 2e6), 0.3336, lambda y, a, b: st.beta(a, b).logpdf(y)),
    "AffineBeta": (
        lambda a, b: dist.AffineBeta(a, b, 0.0, 4.0),
        (1e6, 2e6),
        1.3344,
        lambda y, a, b: st.beta(a, b, 0, 4).logpdf(y),
    ),
    "Dirichlet": (
        dist.Dirichlet,
        ([1e6, 2e6, 1e5],),
        [0.32275, 0.645, 0.03225],
        # SciPy's takes no value whose sum is rounded.
        lambda y, a: (
            scipy.special.gammaln(a.sum()) - scipy.special.gammaln(a).sum() + scipy.special.xlogy(a - 1, y).sum()
        ),
    ),
    "StudentT": (dist.StudentT, (1e8, 1.0, 2.0), 3.0, lambda y, df, m, s: st.t(df, m, s).logpdf(y)),
    "FisherSnedecor": (dist.FisherSnedecor, (1e6, 2e6), 1.001, lambda y, a, b: st.f(a, b).logpdf(y)),
    "BetaBinomial": (
        dist.BetaBinomial,
        (1e6, 2e6, 3e6),
        1_000_900.0,
        lambda y, a, b, n: st.betabinom(n, a, b).logpmf(y),
    ),
    "DirichletMultinomial": (
        lambda a: dist.DirichletMultinomial(a, 3_000_000),
        ([1e6, 2e6],),
        [1_000_900.0, 1_999_100.0],
        lambda y, a: st.betabinom(3e6, *a).logpmf(y[0]),
    ),
    "ZeroInflatedPoisson": (
        lambda a, g: dist.ZeroInflatedPoisson(a, gate=g),
        (1e6, 0.25),
        1_000_700.0,
        lambda y, a, g: st.poisson(a).logpmf(y) + np.log1p(-g),
    ),
    "ZeroInflatedNegativeBinomial": (
        lambda n, logits, g: dist.ZeroInflatedNegativeBinomial(n, logits=logits, gate_logits=g),
        (1e6, 0.3, -1.0),
        1_350_900.0,
        lambda y, n, logits, g: st.nbinom(n, odds(-logits)).logpmf(y) + np.log(odds(-g)),
    ),
    "ZeroInflatedDistribution": (
        lambda a, g: dist.ZeroInflatedDistribution(dist.Poisson(a), gate=g),
        (1e6, 0.25),
        1_000_700.0,
        lambda y, a, g: st.poisson(a).logpmf(y) + np.log1p(-g),
    ),
}
OPEN = {"StudentT", "FisherSnedecor", "BetaBinomial", "DirichletMultinomial"}  # not closed under log-linear pooling


def tensors(name: str, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor]:
    """Parameters and value, rounded to single precision."""
    _, parameters, y, _ = ROWS[name]
    *rounded, y = (torch.tensor(v, dtype=torch.float32).to(dtype) for v in (*parameters, y))
    return rounded, y


def exact(name: str) -> float:
    parameters, y = tensors(name, torch.float64)
    return float(ROWS[name][3](y.numpy(), *[t.numpy() for t in parameters]))


@pytest.mark.parametrize("name", ROWS)
def test_the_density_is_scipys(name: str) -> None:
    parameters, y = tensors(name)
    p = corrected(ROWS[name][0](*parameters))
    log_prob = p.log_prob(y)
    assert log_prob.dtype == torch.float32
    assert log_prob.item() == pytest.approx(exact(name), abs=1e-3)


@pytest.mark.parametrize("name", ROWS)
def test_pools_have_it(name: str) -> None:
    """Of a member with itself, which is that member; with masks and as independent events."""
    parameters, y = tensors(name)
    p, expected = ROWS[name][0](*parameters), pytest.approx(exact(name), abs=1e-3)
    assert linear_pool([p, p], [0.25, 0.75]).log_prob(y).item() == expected
    mask = torch.tensor(True)
    assert linear_pool([p.mask(mask), p.mask(mask)], [0.25, 0.75]).log_prob(y).item() == expected
    assert linear_pool(p.expand([2]), [0.25, 0.75]).log_prob(y).item() == expected
    if name in OPEN:
        return
    wrapped = p.expand([1]).to_event(1).mask(mask)
    for pool in (log_linear_pool([p, p], [0.25, 0.75]), log_linear_pool([wrapped, wrapped], [0.25, 0.75])):
        # Single precision has rounded the pooled parameters, too.
        assert pool.log_prob(y.expand(pool.shape())).item() == pytest.approx(exact(name), abs=0.02)
    pool = log_linear_pool([p, p], [0, 1])
    assert pool.log_prob(y).item() == expected
    if name != "sparse Poisson":
        assert pm.LogLinearPool([p, p], [0.25, 0.75]).log_normalizer.item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", ROWS)
def test_gradients_are_those_of_double_precision(name: str) -> None:
    gradients = []
    for dtype in (torch.float32, torch.float64):
        parameters, y = tensors(name, dtype)
        free = [t.requires_grad_() for t in parameters]
        log_prob = corrected(ROWS[name][0](*free)).log_prob(y)
        gradients.append(torch.autograd.grad(log_prob, free, allow_unused=True))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            atol = 0.1 if name == "Multinomial" else 1e-7  # y − n p, of a million counts, has been rounded
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", ROWS)
def test_it_is_the_same_law_in_all_else(name: str) -> None:
    parameters, y = tensors(name, torch.float64)
    p = ROWS[name][0](*parameters)
    ours = corrected(p)
    assert isinstance(ours, type(p))
    assert type(ours).__name__ == type(p).__name__
    assert corrected(ours) is ours
    assert torch.equal(ours.log_prob(y), p.log_prob(y))  # in double precision Pyro's own
    assert torch.equal(ours.mean, p.mean)
    torch.manual_seed(0)
    drawn = ours.sample((3,))
    torch.manual_seed(0)
    assert torch.equal(drawn, p.sample((3,)))
    for again in (ours.expand((2,)), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(again) is type(ours)
        assert torch.equal(again.log_prob(y), p.log_prob(y).expand(again.batch_shape))
    assert ours._validate_args == p._validate_args
    if name not in ("ExtendedBinomial", "StudentT"):  # whose support has no end
        with pytest.raises(ValueError, match="support"):
            ours.log_prob(y - 1e9)


LIKELIHOODS = {
    "Poisson": ((), {}),
    "NegativeBinomial": ((), {"total_count": 1e6}),
    "Gamma": ((), {}),
    "Beta": ((), {}),
    "StudentT": ((), {}),
    "Dirichlet": ((3,), {}),
    "ZeroInflatedPoisson": ((), {}),
}


def likelihood_at_the_row(name: str) -> tuple[pm.nn.DistributionLikelihood, Tensor, Tensor]:
    shape, fixed = LIKELIHOODS[name]
    likelihood = pm.nn.DistributionLikelihood(getattr(dist, name), shape, **fixed)
    raw = {"Poisson": [1e6], "NegativeBinomial": [0.3], "Gamma": [1e6, 2.0], "Beta": [1e6, 2e6]}
    raw |= {"StudentT": [1e8, 1.0, 2.0], "Dirichlet": [1e6, 2e6, 1e5], "ZeroInflatedPoisson": [1e6, -1.0]}
    return likelihood, torch.tensor(raw[name]).expand(2, -1), tensors(name)[1].expand((2, *shape))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_score_as_in_double_precision(name: str) -> None:
    """At the same parameters, under vmap and in one graph of a compiler, too."""
    likelihood, raw, y = likelihood_at_the_row(name)
    p = likelihood(raw)
    names = [n for n in likelihood.parameter_names if n != "gate_logits"]
    double = {n: getattr(p, n).double() for n in (*names, *LIKELIHOODS[name][1])}
    if name == "ZeroInflatedPoisson":
        double["gate_logits"] = p.gate_logits.double()
    expected = getattr(dist, name)(**double).log_prob(y.double())

    def score(raw: Tensor, y: Tensor) -> Tensor:
        return likelihood(raw).log_prob(y)

    with without_validation():
        compiled = torch.compile(score, backend="eager", fullgraph=True)
        for log_prob in (score(raw, y), torch.func.vmap(score)(raw, y), compiled(raw, y)):
            torch.testing.assert_close(log_prob.double(), expected, atol=1e-3, rtol=0)
            assert log_prob.dtype == torch.float32


@pytest.mark.parametrize("name", ROWS)
def test_every_family_of_the_kind_has_a_class(name: str) -> None:
    assert corrected_class(type(ROWS[name][0](*tensors(name)[0]))) is not type(ROWS[name][0](*tensors(name)[0]))


# Entropies and divergences.

SHIFTED = {
    "Poisson": (1e6,),
    "NegativeBinomial": (1e6, 0.3001),
    "GammaPoisson": (1e6, 0.7001),
    "Binomial": (3e6, 0.3001),
    "Gamma": (1.0002e6, 2.0),
    "Chi2": (1.0002e6,),
    "InverseGamma": (1.0002e6, 2.0),
    "Beta": (1.0002e6, 2e6),
    "Dirichlet": ([1.0002e6, 2e6, 1e5],),
}


@pytest.mark.parametrize("name", SHIFTED)
def test_expectations_are_those_of_double_precision(name: str) -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        make, parameters = ROWS[name][0], tensors(name, dtype)[0]
        other = [torch.tensor(v, dtype=torch.float32).to(dtype) for v in SHIFTED[name]]
        p, q = make(*parameters), make(*other)
        pool = pm.LogLinearPool([p, q], [0.25, 0.75])
        measured = (pm.distributions.entropy(p), pm.cross_entropy(p, q), pm.distributions.kl_divergence(p, q))
        measured = (*measured, pm.bhattacharyya_distance(p, q), pool.log_normalizer, kl_divergence(pool, p))
        assert all(t.dtype == dtype for t in measured)
        results.append([t.item() for t in measured])
    assert results[0] == pytest.approx(results[1], abs=1e-3)


@pytest.mark.faults("entropies at the ends")
@pytest.mark.parametrize("size", [1e5, 1e6, 1e8])
def test_entropies_of_gamma_and_beta_are_scipys(size: float) -> None:
    a, b = torch.tensor(size), torch.tensor(2 * size)
    for p, scipy_law in (
        (dist.Gamma(a, 2.0), st.gamma(a.double().item(), scale=0.5)),
        (dist.Beta(a, b), st.beta(a.double().item(), b.double().item())),
    ):
        for found in (entropy(p), log_linear_pool([p], [1]).entropy()):
            assert found.item() == pytest.approx(scipy_law.entropy(), abs=1e-4)


@pytest.mark.faults("entropies at the ends")
@pytest.mark.parametrize("p", [dist.Gamma(torch.tensor([2.0, 1e20]), 1.0), dist.Beta(1e20, 1e20), dist.Poisson(1e18)])
def test_entropies_that_no_precision_resolves_are_refused(p: Any) -> None:
    with pytest.raises(ValueError, match="p, q: expected parameters so small that double precision resolves"):
        entropy(p)


@pytest.mark.faults("entropies at the ends")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logits", [-2.0, 0.0, 3.0])
@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-3, 0.1, 30.0])
def test_entropies_of_small_counts_are_the_sums(size: float, logits: float, dtype: torch.dtype) -> None:
    n, logit = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in (size, logits))
    counts = torch.arange(3000, dtype=torch.float64)

    def summed(n: Tensor, logit: Tensor) -> Tensor:
        rise = (n + counts[1:]).lgamma() - (n + 1).lgamma() + n.log()
        log_mass = rise - (counts[1:] + 1).lgamma() - n * torch.nn.functional.softplus(logit)
        log_mass = log_mass + counts[1:] * torch.nn.functional.logsigmoid(logit)
        log_none = -n * torch.nn.functional.softplus(logit)
        return -(log_mass.exp() * log_mass).sum() - log_none.exp() * log_none

    wide = [t.detach().double().requires_grad_() for t in (n, logit)]
    expected = summed(*wide)
    slopes = torch.autograd.grad(expected, wide)
    rtol = 1e-5 if dtype == torch.float32 else 1e-8
    for p in (dist.NegativeBinomial(n, logits=logit), dist.GammaPoisson(n, (-logit).exp())):
        found = entropy(p)
        assert found.item() == pytest.approx(expected.item(), rel=rtol)
        for ours, theirs in zip(torch.autograd.grad(found, (n, logit)), slopes, strict=True):
            assert ours.item() == pytest.approx(theirs.item(), rel=10 * rtol)


# Zero-inflated laws that have been asked for their moments.

GATES = [{"gate": torch.tensor([0.0, 0.3, 1.0])}, {"gate_logits": torch.tensor([-2.0, 0.3, 40.0])}]


def inflated(gate: dict[str, Tensor]) -> list[Any]:
    rate = torch.tensor([1.0, 2.0, 3.0])
    return [
        dist.ZeroInflatedPoisson(rate, **gate),
        dist.ZeroInflatedNegativeBinomial(rate, logits=torch.zeros(3), **gate),
        dist.ZeroInflatedDistribution(dist.Geometric(logits=torch.zeros(3)), **gate),
    ]


@pytest.mark.faults("zero-inflated after its mean")
@pytest.mark.parametrize("gate", GATES, ids=["gate", "logits"])
@pytest.mark.parametrize("kind", range(3))
def test_zero_inflated_pools_are_the_same_after_their_moments(gate: dict[str, Tensor], kind: int) -> None:
    y = torch.tensor([0.0, 0.0, 0.0])
    members = [inflated(gate)[kind], inflated(gate)[kind]]
    pools = [
        linear_pool(members, [0.5, 0.5]),
        linear_pool(members[0].expand([2, 3]).to_event(1).expand([2]), [0.5, 0.5]),
        log_linear_pool(members, [0.5, 0.5]),
        corrected(members[0]),
    ]
    for pool in pools:
        before, shape = pool.log_prob(y), pool.shape()
        pool.mean, pool.variance, pool.sample()
        assert pool.sample((2,)).shape == (2, *shape)
        assert pool.expand((4, *pool.batch_shape)).sample().shape == (4, *shape)
        assert torch.equal(pool.log_prob(y), before)


@pytest.mark.faults("zero-inflated after its mean")
@pytest.mark.parametrize("gate", GATES, ids=["gate", "logits"])
def test_a_zero_inflated_law_that_was_asked_for_its_mean_is_pooled(gate: dict[str, Tensor]) -> None:
    y = torch.zeros(3)
    for fresh, asked in zip(inflated(gate), inflated(gate), strict=True):
        asked.mean, asked.sample(), asked.gate, asked.gate_logits
        pool = linear_pool([asked, asked], [0.5, 0.5])
        assert torch.equal(pool.log_prob(y), linear_pool([fresh, fresh], [0.5, 0.5]).log_prob(y))
        assert pool.expand((2, 3)).sample().shape == (2, 3)


@pytest.mark.faults("zero-inflated after its mean")
@pytest.mark.parametrize("name", ["ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial"])
def test_predictives_of_zero_inflated_likelihoods_are_drawn_from_after_their_mean(name: str) -> None:
    fixed = {} if name == "ZeroInflatedPoisson" else {"total_count": 3.0}
    likelihood = pm.nn.DistributionLikelihood(getattr(dist, name), **fixed)
    encoder = pm.nn.NormalEmbedding(torch.nn.Linear(2, 2), 2)
    decoder = torch.nn.Linear(2, likelihood.num_outputs)
    for model in (
        pm.ERM(torch.nn.Linear(2, likelihood.num_outputs), likelihood),
        pm.ManifoldProbMix(encoder, decoder, likelihood, vicinity=pm.DiracVicinity("linear")),
    ):
        p = model.predictive(torch.zeros(4, 2))
        y = torch.tensor([0.0, 1.0, 2.0, 3.0])
        before = p.log_prob(y)
        p.mean, p.variance  # noqa: B018
        assert p.sample((5,)).shape == (5, 4)
        assert p.expand((3, 4)).sample().shape == (3, 4)
        torch.testing.assert_close(p.log_prob(y), before, rtol=0, atol=0)

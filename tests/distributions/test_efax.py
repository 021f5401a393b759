"""The natural forms agree with those of efax, an independent implementation in JAX, where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from pyro_probmix.distributions import cross_entropy, log_normalizer, mean_parameters, natural_parameters
from tests.cases import CASES

efax = pytest.importorskip("efax", exc_type=ImportError)
jax = pytest.importorskip("jax")

pytestmark = pytest.mark.filterwarnings("default")  # JAX and its companions warn of each other

Arrays = tuple[Any, ...]


@pytest.fixture(autouse=True)
def double_precision() -> Any:
    with jax.experimental.enable_x64():
        yield


@dataclass(frozen=True)
class Row:
    """How efax writes one family.

    Attributes:
        natural: efax's natural form from our natural parameters.
        means: our mean parameters from efax's expectation form.
        offset: our log-normalizer less efax's, the base measure making up for it; from the member and η.
        member: the distribution, if not that of the registry.
        entropy: whether efax has the entropy.
    """

    natural: Callable[..., Any]
    means: Callable[[Any], Arrays]
    offset: Callable[..., Any] = lambda p, *eta: 0.0
    member: Callable[[], Any] | None = None
    entropy: bool = True


def normal_means(e: Any) -> Arrays:
    return e.mean, e.second_moment


def normal_like(name: str) -> Row:
    return Row(lambda p, *eta: getattr(efax, name)(*eta), normal_means)


def categorical() -> Row:
    def means(e: Any) -> Arrays:
        return (np.concatenate([e.probability, 1 - e.probability.sum(-1, keepdims=True)], -1),)

    return Row(
        lambda p, eta: efax.MultinomialNP(eta[..., :-1] - eta[..., -1:]),
        means,
        lambda p, eta: eta[..., -1],  # efax holds the last logit at zero
    )


ROWS: dict[str, Row] = {
    "Bernoulli": Row(lambda p, eta: efax.BernoulliNP(eta), lambda e: (e.probability,)),
    "Beta": Row(
        lambda p, a, b: efax.BetaNP(np.stack([a, b], -1)),
        lambda e: (e.mean_log_probability[..., 0], e.mean_log_probability[..., 1]),
    ),
    "Categorical": categorical(),
    "Chi2": Row(lambda p, eta: efax.ChiSquareNP(eta), lambda e: (e.mean_log,)),
    "Dirichlet": Row(lambda p, eta: efax.DirichletNP(eta), lambda e: (e.mean_log_probability,)),
    "Exponential": Row(lambda p, eta: efax.ExponentialNP(eta), lambda e: (e.mean,)),
    "Gamma": Row(lambda p, shape, rate: efax.GammaNP(rate, shape), lambda e: (e.mean_log, e.mean)),
    "Geometric": Row(lambda p, eta: efax.GeometricNP(eta), lambda e: (e.mean,)),
    "Independent Normal": Row(
        lambda p, *eta: efax.MultivariateDiagonalNormalNP(*eta), lambda e: (e.mean, e.second_moment)
    ),
    "InverseGamma": Row(  # efax has T(y) = (1/y, −log y) and h(y) = y⁻²
        lambda p, shape, rate: efax.InverseGammaNP(rate, -shape - 2),
        lambda e: (-e.base_distribution().mean_log, e.base_distribution().mean),
    ),
    "LogNormal": Row(
        lambda p, *eta: efax.LogNormalNP(*eta),
        lambda e: (e.base_distribution().mean, e.base_distribution().second_moment),
    ),
    "MultivariateNormal": Row(lambda p, *eta: efax.MultivariateNormalNP(*eta), normal_means),
    "LowRankMultivariateNormal": Row(lambda p, *eta: efax.MultivariateNormalNP(*eta), normal_means),
    "NegativeBinomial": Row(
        lambda p, eta: efax.NegativeBinomialNP(eta, np.full(3, 4)),
        lambda e: (e.mean,),
        member=lambda: dist.NegativeBinomial(4, logits=torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)),
        entropy=False,
    ),
    "Normal": Row(lambda p, *eta: efax.NormalNP(*eta), normal_means),
    "OneHotCategorical": categorical(),
    "Poisson": Row(lambda p, eta: efax.PoissonNP(eta), lambda e: (e.mean,), entropy=False),
    "VonMises": Row(
        lambda p, *eta: efax.VonMisesFisherNP(np.stack(eta, -1)), lambda e: (e.mean[..., 0], e.mean[..., 1])
    ),
    "VonMises3D": Row(lambda p, eta: efax.VonMisesFisherNP(eta), lambda e: (e.mean,)),
    "Weibull": Row(
        lambda p, eta: efax.WeibullNP(p.concentration.numpy(), eta),
        lambda e: (e.chi,),
        lambda p, eta: np.log(p.concentration.numpy()),
    ),
}


# efax calls SciPy's logsumexp on JAX arrays, which SciPy allows where this variable is set before its import.
ARRAY_API = pytest.mark.skipif(os.environ.get("SCIPY_ARRAY_API") != "1", reason="SCIPY_ARRAY_API is not 1")


@pytest.mark.parametrize("name", [pytest.param(n, marks=ARRAY_API if "Categorical" in n else ()) for n in ROWS])
def test_natural_form_is_that_of_efax(name: str) -> None:
    row = ROWS[name]
    p = row.member() if row.member else CASES[name].draw((3,))
    eta = [t.numpy() for t in natural_parameters(p)]
    theirs = row.natural(p, *eta)
    expected = np.asarray(theirs.log_normalizer()) + row.offset(p, *eta)
    np.testing.assert_allclose(log_normalizer(p).numpy(), expected, rtol=1e-9, atol=1e-9)
    for ours, mean in zip(mean_parameters(p), row.means(theirs.to_exp()), strict=True):
        np.testing.assert_allclose(ours.numpy(), np.asarray(mean), rtol=1e-7, atol=1e-7)
    if row.entropy:
        np.testing.assert_allclose(cross_entropy(p, p).numpy(), np.asarray(theirs.entropy()), rtol=1e-7, atol=1e-7)

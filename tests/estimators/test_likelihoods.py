"""Likelihoods by name: densities and quantiles in the units of the targets are those of SciPy, whatever the method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.special import expit

import pyro_probmix as pm
from pyro_probmix.estimators import LIKELIHOODS
from tests.estimators.cases import METHODS, SMALL, fitted_again

OPEN = ("student_t", "mixture", "negative_binomial")  # not closed under log-linear pooling


def targets(name: str, positive: Any) -> Any:
    """Targets that a likelihood takes."""
    if not LIKELIHOODS[name].is_density:
        return np.random.default_rng(1).poisson(3 * positive).astype(float)
    return positive / (1 + positive) if name == "beta" else 50 * positive


def softplus(raw: Any) -> Any:
    return np.logaddexp(0, raw)


def zero_inflated(raw: Any, y: Any) -> Any:
    """What the tests ask of a frozen law of SciPy, which has no such law."""
    rate, gate = y.mean() * (softplus(raw[:, 0]) + 1e-6), expit(raw[:, 1])
    law = stats.poisson(rate)

    class Law:
        def logpmf(self, k: Any) -> Any:
            return np.log(gate * (k == 0) + (1 - gate) * law.pmf(k))

        def ppf(self, q: float) -> Any:
            return np.where(q <= gate, 0, law.ppf(np.clip((q - gate) / (1 - gate), 0, 1)).clip(min=0))

        def mean(self) -> Any:
            return (1 - gate) * rate

        def std(self) -> Any:
            return np.sqrt((1 - gate) * rate * (1 + gate * rate))

    return Law()


def shape(raw: Any) -> Any:
    return 1 / (softplus(raw[:, 1]) + 1e-3) ** 2


def negative_binomial(raw: Any, y: Any) -> Any:
    total, mean = softplus(raw[:, 1]) + 1e-6, y.mean() * (softplus(raw[:, 0]) + 1e-6)
    return stats.nbinom(total, total / (total + mean))


def beta(raw: Any, _: Any) -> Any:
    mean = 1e-6 + (1 - 2e-6) * expit(raw[:, 0])
    return stats.beta(mean * shape(raw), (1 - mean) * shape(raw))


# From the raw outputs of a network and the training targets.
REFERENCES: dict[str, Callable[[Any, Any], Any]] = {
    "normal": lambda raw, y: stats.norm(y.mean() + y.std() * raw[:, 0], y.std() * (softplus(raw[:, 1]) + 1e-4)),
    "student_t": lambda raw, y: stats.t(
        2 + 1e-6 + softplus(raw[:, 2]), y.mean() + y.std() * raw[:, 0], y.std() * (softplus(raw[:, 1]) + 1e-4)
    ),
    "lognormal": lambda raw, y: stats.lognorm(
        np.log(y).std() * (softplus(raw[:, 1]) + 1e-4),
        scale=np.exp(np.log(y).mean() + np.log(y).std() * raw[:, 0]),
    ),
    "gamma": lambda raw, y: stats.gamma(shape(raw), scale=y.mean() * (softplus(raw[:, 0]) + 1e-6) / shape(raw)),
    "beta": beta,
    "poisson": lambda raw, y: stats.poisson(y.mean() * (softplus(raw[:, 0]) + 1e-6)),
    "negative_binomial": negative_binomial,
    "zero_inflated_poisson": zero_inflated,
}


def fitted(name: str, skewed: Any, method: str = "erm", **options: Any) -> tuple[Any, Any, Any]:
    X, positive = skewed
    y = targets(name, positive)
    return pm.ProbMixRegressor(method, likelihood=name, **{**SMALL, **options}).fit(X, y), X, y


@pytest.mark.parametrize("name", REFERENCES)
def test_a_density_is_scipys_in_the_units_of_the_target(name: str, skewed: Any) -> None:
    model, X, y = fitted(name, skewed)
    with torch.no_grad():
        raw = model.models_[0].decoder(torch.as_tensor(model.preparation_.transform(X))).numpy()
    expected = REFERENCES[name](raw, y)
    log_density = expected.logpdf if LIKELIHOODS[name].is_density else expected.logpmf
    p = model.predict_distribution(X)
    np.testing.assert_allclose(p.log_prob(torch.as_tensor(y)), log_density(y), rtol=1e-9)
    assert model.log_likelihood(X, y) == pytest.approx(log_density(y).mean(), rel=1e-9)
    mean, deviation = model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-9)
    np.testing.assert_allclose(deviation, expected.std(), rtol=1e-6)
    quantiles = model.predict_quantiles(X, (0.05, 0.5, 0.95))
    np.testing.assert_allclose(quantiles, np.stack([expected.ppf(q) for q in (0.05, 0.5, 0.95)], -1), rtol=1e-6)
    np.testing.assert_allclose(model.predict_interval(X, 0.9), quantiles[:, ::2], rtol=1e-9)


def test_a_mixture_is_the_sum_of_its_normals(skewed: Any) -> None:
    model, X, y = fitted("mixture", skewed, num_components=2)
    with torch.no_grad():
        raw = model.models_[0].decoder(torch.as_tensor(model.preparation_.transform(X))).numpy()
    weights = np.exp(raw[:, :2] - np.logaddexp(raw[:, :1], raw[:, 1:2]))
    locs = y.mean() + y.std() * (raw[:, 2:4] + np.array([-1, 1]))
    scales = y.std() * (softplus(raw[:, 4:]) + 1e-4)
    density = (weights * stats.norm(locs, scales).pdf(y[:, None])).sum(-1)
    np.testing.assert_allclose(model.predict_distribution(X).log_prob(torch.as_tensor(y)), np.log(density), rtol=1e-9)
    np.testing.assert_allclose(model.predict(X), (weights * locs).sum(-1), rtol=1e-9)


@pytest.mark.parametrize("name", [name for name, own in LIKELIHOODS.items() if own.how != "none"])
def test_units_change_the_log_likelihood_by_their_logarithm(name: str, skewed: Any) -> None:
    model, X, y = fitted(name, skewed)
    other = pm.ProbMixRegressor("erm", likelihood=name, **SMALL).fit(X, 1000 * y)
    assert other.log_likelihood(X, 1000 * y) == pytest.approx(model.log_likelihood(X, y) - np.log(1000), rel=1e-6)
    np.testing.assert_allclose(other.predict_quantiles(X), 1000 * model.predict_quantiles(X), rtol=1e-6)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_it_or_says_what_does(method: str, name: str, skewed: Any) -> None:
    if method == "probmix" and name in OPEN:
        with pytest.raises((TypeError, ValueError), match=r"ManifoldProbMix.*fusion=\"linear\" or \"numerical\""):
            fitted(name, skewed, method)
        return
    model, X, y = fitted(name, skewed, method, num_members=2)
    assert model.likelihood_ == name
    assert np.isfinite(model.log_likelihood(X, y))
    again = fitted_again(model)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.log_likelihood(X, y) == model.log_likelihood(X, y)


@pytest.mark.parametrize("fusion", ["linear", "numerical"])
@pytest.mark.parametrize("name", OPEN)
def test_what_is_not_closed_is_pooled_otherwise(name: str, fusion: str, skewed: Any) -> None:
    model, X, y = fitted(name, skewed, "probmix", fusion=fusion, epochs=1, hidden_features=(4,))
    assert np.isfinite(model.log_likelihood(X, y))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_several_outputs_are_independent(name: str, skewed: Any) -> None:
    X, positive = skewed
    y = targets(name, positive)
    both = np.stack([y, y[::-1]], -1)
    model = pm.ProbMixRegressor("manifold_probmix", likelihood=name, **SMALL).fit(X, both)
    assert model.predict(X).shape == both.shape
    assert model.predict_quantiles(X[:4], [0.1, 0.9]).shape == (4, 2, 2)
    assert model.predict_interval(X[:4]).shape == (4, 2, 2)
    np.testing.assert_array_equal(fitted_again(model).predict(X), model.predict(X))


# What targets are refused.

OUTSIDE = {
    "lognormal": (0.0, "positive numbers", "normal"),
    "gamma": (-1.0, "positive numbers", "student_t"),
    "beta": (1.0, "numbers between 0 and 1", "gamma"),
    "poisson": (0.5, "counts 0, 1, 2", "mixture"),
    "negative_binomial": (-1.0, "counts 0, 1, 2", "normal"),
    "zero_inflated_poisson": (1.5, "counts 0, 1, 2", "mixture"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_targets_that_it_has_no_density_of_are_refused_by_rows(name: str, skewed: Any) -> None:
    X, positive = skewed
    y = targets(name, positive)
    value, values, other = OUTSIDE[name]
    y[[4, 7]] = value
    message = rf'y: expected {values}.* for likelihood "{name}", got others in 2 of 120 rows \(rows 4, 7\); .*"{other}"'
    with pytest.raises(ValueError, match=message):
        pm.ProbMixRegressor("erm", likelihood=name, **SMALL).fit(X, y)


@pytest.mark.parametrize(
    ("likelihood", "kind", "message"),
    [
        ("gaussian", ValueError, 'likelihood: expected one of "normal", .* "auto", got "gaussian"'),
        (3, TypeError, 'likelihood: expected a name such as "normal", or a Likelihood, got int'),
        (pm.nn.NormalLikelihood(2), ValueError, r"likelihood: expected one of event shape \(\), .* got \(2,\)"),
    ],
)
def test_what_is_no_likelihood_is_named(likelihood: Any, kind: Any, message: str, skewed: Any) -> None:
    with pytest.raises(kind, match=message):
        pm.ProbMixRegressor("erm", likelihood=likelihood, **SMALL).fit(*skewed)


# One's own.


@pytest.mark.parametrize(
    ("family", "how"),
    [(dist.Laplace, "standard"), (dist.Gumbel, "standard"), (dist.Weibull, "divided"), (dist.InverseGamma, "divided")],
)
def test_a_likelihood_of_ones_own_has_the_units_of_the_target(family: Any, how: str, skewed: Any) -> None:
    X, y = skewed
    likelihood = pm.nn.DistributionLikelihood(family)
    model = pm.ProbMixRegressor("erm", likelihood=likelihood, **SMALL).fit(X, y)
    other = pm.ProbMixRegressor("erm", likelihood=likelihood, **SMALL).fit(X, 100 * y)
    assert model.likelihood_ is model.likelihood
    assert other.log_likelihood(X, 100 * y) == pytest.approx(model.log_likelihood(X, y) - np.log(100), rel=1e-6)
    np.testing.assert_allclose(other.predict_quantiles(X, 0.5), 100 * model.predict_quantiles(X, 0.5), rtol=1e-6)
    with pytest.raises(TypeError, match="likelihood: expected"):
        model.fitted_settings()


def test_a_known_joint_law_may_be_ones_own(skewed: Any) -> None:
    X, y = skewed
    both = np.stack([y, y[::-1]], -1)
    likelihood = pm.nn.DistributionLikelihood(dist.MultivariateNormal, 2)
    model = pm.ProbMixRegressor("manifold_probmix", likelihood=likelihood, **SMALL).fit(X, both)
    assert model.predict(X).shape == both.shape
    assert np.isfinite(model.log_likelihood(X, both))

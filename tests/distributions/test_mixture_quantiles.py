"""Quantiles and distribution functions of mixtures, against SciPy and the roots of their formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats as st
import torch

import pyro_probmix as pm
from pyro_probmix.distributions.cumulative.scalar import law_of
from tests.distributions.scipy_laws import FAMILIES, NAMES, SHARES, t


@pytest.mark.parametrize(("p", "exact"), FAMILIES, ids=NAMES)
def test_quantiles_of_a_mixture_of_equals_are_those_of_scipy(p: Any, exact: Any) -> None:
    found = pm.quantile(pm.LinearPool([p, p], [0.3, 0.7]), SHARES)
    y = torch.as_tensor(exact.ppf(SHARES.numpy()), dtype=torch.float64)
    torch.testing.assert_close(found, y, rtol=1e-9, atol=1e-9)


UNLIKE: list[tuple[Any, list[Any]]] = [
    (dist.Gamma(*t([0.05, 30.0], [2.0, 0.1])), [st.gamma(0.05, scale=0.5), st.gamma(30, scale=10)]),
    (dist.Beta(*t([0.2, 300.0], [3.0, 2.0])), [st.beta(0.2, 3), st.beta(300, 2)]),
    (dist.StudentT(*t([2.1, 9.0], [0.0, 50.0], [1.0, 0.1])), [st.t(2.1), st.t(9, 50, 0.1)]),
    (dist.StudentT(*t([1.5, 9.0], [0.0, 50.0], [1.0, 0.1])), [st.t(1.5), st.t(9, 50, 0.1)]),
    (dist.Poisson(*t([0.3, 400.0])), [st.poisson(0.3), st.poisson(400)]),
    (dist.NegativeBinomial(*t([0.2, 30.0], [0.9, 0.5])), [st.nbinom(0.2, 0.1), st.nbinom(30, 0.5)]),
]


@pytest.mark.parametrize(("components", "exact"), UNLIKE, ids=[type(p).__name__ for p, _ in UNLIKE])
def test_quantiles_of_a_mixture_of_unlike_components(components: Any, exact: list[Any]) -> None:
    """Those of densities are the roots of the formula; of counts the least integers that reach the share."""
    weights = [0.6, 0.4]

    def share(y: float) -> float:
        return float(sum(w * p.cdf(y) for w, p in zip(weights, exact, strict=True)))

    for q in (1e-3, 0.05, 0.5, 0.61, 0.95, 1 - 1e-6):
        y = float(pm.quantile(pm.LinearPool(components, weights), q))
        if components.support.is_discrete:
            assert share(y - 1) < q <= share(y)
        else:
            ends = [p.ppf(q) for p in exact]
            root = scipy.optimize.brentq(lambda y, q=q: share(y) - q, min(ends), max(ends), xtol=1e-300, rtol=1e-14)
            assert y == pytest.approx(root, rel=1e-9)


def mixture(loc: np.ndarray, scale: np.ndarray, weights: np.ndarray) -> Any:
    return lambda y: float((weights * st.norm.cdf(y, loc, scale)).sum())


def test_quantiles_of_a_mixture_are_the_roots_of_its_formula() -> None:
    rng = np.random.RandomState(0)
    loc, scale, weights = 5 * rng.randn(7, 12), rng.rand(7, 12) ** 3 + 0.01, rng.dirichlet(np.ones(12), 7)
    weights[:, 3] = 0
    weights /= weights.sum(-1, keepdims=True)
    pool = pm.LinearPool(dist.Normal(torch.as_tensor(loc), torch.as_tensor(scale)), torch.as_tensor(weights))
    same = dist.MixtureSameFamily(
        dist.Categorical(torch.as_tensor(weights)), dist.Normal(torch.as_tensor(loc), torch.as_tensor(scale))
    )
    y = pm.quantile(pool, SHARES)
    torch.testing.assert_close(pm.quantile(same, SHARES), y)
    torch.testing.assert_close(pool.icdf(SHARES.unsqueeze(-1)), y)
    for k, q in enumerate(SHARES.tolist()):
        for i in range(7):
            F = mixture(loc[i], scale[i], weights[i])
            root = scipy.optimize.brentq(lambda x, q=q, F=F: F(x) - q, -60, 60, xtol=1e-14, rtol=1e-15)
            assert float(y[k, i]) == pytest.approx(root, abs=1e-9 if q < 1 - 1e-5 else 1e-7)


@pytest.mark.parametrize("form", ["batch of batches", "list of batches", "list of lists"])
def test_quantiles_of_a_mixture_of_mixtures_are_the_roots_of_its_formula(form: str) -> None:
    """In each form, two rows at once, with a component that has no weight and would else be the outermost."""
    rng = np.random.default_rng(0)
    loc, scale = 5 * rng.normal(size=(2, 3, 4)), rng.uniform(0.2, 2, (2, 3, 4))
    outer, inner = rng.dirichlet(np.ones(3), 2), rng.dirichlet(np.ones(4), (2, 3))
    inner[:, 0] = [0.5, 0.2, 0.3, 0.0]
    loc[:, 0, 3] = 1e6
    parts = tuple(map(torch.as_tensor, (loc, scale, inner, outer)))
    whole = dist.MixtureSameFamily(dist.Categorical(parts[2]), dist.Normal(*parts[:2]))
    normals = [[dist.Normal(parts[0][:, i, k], parts[1][:, i, k]) for k in range(4)] for i in range(3)]
    members: Any = {
        "batch of batches": whole,
        "list of batches": [
            pm.LinearPool(dist.Normal(*(t[:, i] for t in parts[:2])), parts[2][:, i]) for i in range(3)
        ],
        "list of lists": [pm.LinearPool(normals[i], parts[2][:, i]) for i in range(3)],
    }
    p = pm.LinearPool(members[form], parts[3])
    assert p.batch_shape == (2,)
    for row in range(2):
        weights = outer[row][:, None] * inner[row]

        def share(y: float, row: int = row, weights: Any = weights) -> float:
            return float((weights * st.norm.cdf(y, loc[row], scale[row])).sum())

        for q in (1e-6, 0.05, 0.5, 0.95):
            expected = scipy.optimize.brentq(lambda y, q=q: share(y) - q, -100, 100, xtol=1e-13)
            assert pm.quantile(p, q)[row].item() == pytest.approx(expected, rel=1e-10, abs=1e-10)
            assert p.cdf(torch.tensor(expected, dtype=torch.float64))[row].item() == pytest.approx(q, rel=1e-9)


def test_a_gap_is_left_at_its_lower_end() -> None:
    low, high = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)
    p = dist.MixtureSameFamily(dist.Categorical(torch.ones(2).double()), dist.Uniform(low, high))
    torch.testing.assert_close(pm.median(p), torch.tensor(1.0).double())


def test_weights_that_sum_to_one_but_for_rounding_leave_no_mass_at_infinity() -> None:
    p = pm.LinearPool(dist.Normal(torch.zeros(50), 1.0))
    assert float(p.weights.double().sum()) != 1
    law = law_of(p)
    assert law.cdf(torch.tensor(50.0).double()) == 1
    assert law.survival(torch.tensor(9.0).double()) < 1e-18
    assert law_of(pm.distributions.affine(dist.Laplace(0.0, 1.0), 0.0, 2.0)).survival(torch.tensor(200.0).double()) > 0


def test_far_tails_of_a_mixture() -> None:
    p = pm.LinearPool([dist.Normal(*t(0.0, 1.0)), dist.Normal(*t(1.0, 1.0))], [0.5, 0.5])
    for q in (1e-300, 1e-30):
        root = scipy.optimize.brentq(
            lambda y, q=q: np.logaddexp(st.norm.logcdf(y), st.norm.logcdf(y - 1)) + math.log(0.5 / q), -50, 0
        )
        assert float(pm.quantile(p, q)) == pytest.approx(root, rel=1e-10)
    assert pm.quantile(p, torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == [-math.inf, math.inf]


def test_the_gradient_in_a_weight_of_zero() -> None:
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    pool = pm.LinearPool([dist.Normal(*t(0.0, 1.0)), dist.Normal(*t(2.0, 1.0))], weights)
    (slope,) = torch.autograd.grad(pm.distributions.cdf(pool, 0.5), weights)
    torch.testing.assert_close(slope, torch.as_tensor(st.norm.cdf([0.5, -1.5])))


def test_a_point_chosen_by_a_mask_has_its_mass_at_itself() -> None:
    p = dist.MaskedMixture(torch.tensor([True, False]), dist.Normal(torch.zeros(2), 1.0), dist.Delta(torch.ones(2)))
    assert pm.distributions.cdf(p, 1.0).tolist() == [1.0, pytest.approx(st.norm.cdf(1.0))]
    assert pm.median(p).tolist() == [1.0, 0.0]

"""Bands of predictive densities are their quantiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from matplotlib import pyplot

import pyro_probmix as pm
from pyro_probmix.evaluation import plots
from tests.evaluation.drawn import X, Y, line, polygon


@pytest.mark.parametrize(
    "p",
    [
        dist.Normal(X, 1.0 + X),
        dist.Gamma(2.0 + X, torch.ones(4)),
        dist.Poisson(1.0 + 5 * X),
        pm.LinearPool([dist.Normal(X, 1.0), dist.Normal(-X, 2.0)], weights=[0.3, 0.7]),
    ],
    ids=["Normal", "Gamma", "Poisson", "LinearPool"],
)
def test_bands_are_the_quantiles(p: Any) -> None:
    ax = plots.density_bands(p, X, Y, levels=[0.8, 0.5])
    for level in (0.5, 0.8):
        low, high = pm.interval(p, level)
        found = polygon(ax, f"{100 * level:g} % band")
        assert list(found) == sorted(X.tolist())
        for place, ends in zip(X.tolist(), torch.stack([low, high], -1).tolist(), strict=True):
            assert found[place] == pytest.approx(ends, abs=1e-6)
    order = X.argsort()
    median = torch.stack([X, pm.median(p)], -1)[order]
    np.testing.assert_allclose(line(ax, "median"), median, atol=1e-6)
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), torch.stack([X, Y], -1))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["80 % band", "50 % band", "median", "data"]


def test_a_model_is_asked_over_the_range_of_its_inputs() -> None:
    likelihood = pm.nn.NormalLikelihood()
    model = pm.ERM(pm.nn.MLP(1, [4], likelihood.num_outputs), likelihood)
    found = line(plots.density_bands(model, X[:, None]), "median")
    assert (found[0, 0], found[-1, 0], len(found)) == (0.0, 4.0, 200)
    inputs = torch.as_tensor(found[:, :1].copy(), dtype=torch.float32)
    np.testing.assert_allclose(found[:, 1], model.predictive(inputs).mean.detach(), atol=1e-5)


def test_embeddings_that_are_drawn_give_smooth_bands_and_leave_random_numbers_alone() -> None:
    likelihood = pm.nn.NormalLikelihood()
    embedding = pm.nn.NormalEmbedding(pm.nn.MLP(1, [4], 8), 8)
    model = pm.ManifoldProbMix(embedding, torch.nn.Linear(8, likelihood.num_outputs), likelihood)
    before = torch.get_rng_state()
    median = line(plots.density_bands(model, X), "median")[:, 1]
    assert torch.equal(torch.get_rng_state(), before)
    assert np.abs(np.diff(median, n=2)).max() < 0.05 * np.ptp(median)


def test_an_estimator_has_bands_in_the_units_of_its_labels() -> None:
    x = np.linspace(0, 1, 40)[:, None]
    estimator = pm.ProbMixRegressor(epochs=2, hidden_features=(4,), num_neighbors=None, num_members=1)
    estimator.fit(x, 1000 + x[:, 0])
    ax = plots.density_bands(estimator, x, 1000 + x[:, 0])
    assert 990 < line(ax, "median")[:, 1].min() < line(ax, "median")[:, 1].max() < 1010


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: plots.density_bands(dist.Normal(X, 1.0), X, levels=[1.0]),
            ValueError,
            r"levels: .* \(0, 1\), got 1.0",
        ),
        (lambda: plots.density_bands(dist.Normal(X, 1.0), X, levels=[]), ValueError, "levels: expected at least one"),
        (
            lambda: plots.density_bands(dist.Normal(X, 1.0), torch.zeros(4, 2)),
            ValueError,
            r"x: expected shape \(N, 1\), got \(4, 2\)",
        ),
        (
            lambda: plots.density_bands(dist.Normal(X, 1.0), X[:3]),
            ValueError,
            r"p: expected batch shape \(3,\) .*, got \(4,\)",
        ),
        (
            lambda: plots.density_bands(dist.Normal(X, 1.0).expand([3, 4]).to_event(1), X[:3]),
            ValueError,
            r"p: .* event shape \(\), .* and \(4,\)",
        ),
        (
            lambda: plots.density_bands(dist.Normal(X, 1.0), X, Y[:2]),
            ValueError,
            r"y: expected shape \(4,\), got \(2,\)",
        ),
        (
            lambda: plots.density_bands(dist.Normal(X, 1.0), X, Y / 0),
            ValueError,
            "y: expected finite values, got NaN or inf in 4 of 4",
        ),
        (
            lambda: plots.density_bands(torch.nn.Linear(1, 1), X),
            TypeError,
            "model: expected a ready model or a fitted estimator, got Linear",
        ),
        (lambda: plots.density_bands(dist.Categorical(torch.ones(4, 2)), X), (TypeError, ValueError), "class"),
    ],
)
def test_bad_input_is_named_and_nothing_is_drawn(call: Callable[[], Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
    assert not pyplot.get_fignums()

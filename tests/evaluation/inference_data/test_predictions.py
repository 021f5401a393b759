"""What one network, an ensemble or an estimator predicts is exported as it is, without what only a posterior has."""

from __future__ import annotations

import warnings
from typing import Any

import arviz
import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_probmix as pm

X, Y = torch.linspace(-1, 1, 12).reshape(6, 2), torch.linspace(0, 1, 6)


def groups(idata: Any) -> set[str]:
    """In ArviZ 0 and 1."""
    return set(idata.children if hasattr(idata, "children") else idata.groups())


def plain() -> Any:
    likelihood = pm.nn.NormalLikelihood()
    return pm.ERM(pm.nn.MLP(2, [4], likelihood.num_outputs), likelihood)


def manifold() -> Any:
    likelihood = pm.nn.NormalLikelihood()
    encoder = nn.Sequential(nn.Linear(2, 4), nn.Tanh())
    embedding = pm.nn.NormalEmbedding(encoder, 4, initial_scale=0.5)
    return pm.ManifoldProbMix(embedding, nn.Linear(4, likelihood.num_outputs), likelihood)


def replicas() -> Any:
    data = [(X, Y), (X, Y + 1)]
    return pm.fit_replicas(lambda r: manifold(), data, epochs=2, progress=False)


def density(model: Any) -> Any:
    return model.ensemble(X, seed=3) if isinstance(model, pm.Replicas) else model.predictive(X, 400, seed=3)


@pytest.mark.parametrize("make", [plain, manifold, replicas], ids=lambda make: make.__name__)
def test_draws_are_of_the_predictive_density_and_data_are_as_they_are(make: Any) -> None:
    model = make()
    idata = pm.to_inference_data(model, X, Y, num_samples=400, seed=3)
    assert groups(idata) == {"posterior_predictive", "observed_data", "constant_data"}
    p, y = density(model), idata.posterior_predictive["y"]
    assert y.dims == ("chain", "draw", "observation")
    assert y.shape == (1, 400, 6)
    standard_error = p.variance.sqrt().detach().numpy() / 20
    assert np.all(np.abs(y.values[0].mean(0) - p.mean.detach().numpy()) < 5 * standard_error)
    ratio = y.values[0].var(0) / p.variance.detach().numpy()
    assert np.all((ratio > 0.6) & (ratio < 1.6))
    np.testing.assert_array_equal(idata.observed_data["y"].values, Y.numpy())
    np.testing.assert_array_equal(idata.constant_data["x"].values, X.numpy())


def test_new_rows_are_predictions() -> None:
    idata = pm.to_inference_data(manifold(), X, num_samples=50)
    assert groups(idata) == {"predictions", "predictions_constant_data"}
    assert idata.predictions["y"].shape == (1, 50, 6)
    np.testing.assert_array_equal(idata.predictions_constant_data["x"].values, X.numpy())


@pytest.mark.faults("importance weights over prior draws")
@pytest.mark.parametrize("make", [plain, manifold, replicas], ids=lambda make: make.__name__)
def test_arviz_refuses_leave_one_out_of_what_is_no_posterior(make: Any) -> None:
    idata = pm.to_inference_data(make(), X, Y, num_samples=50)
    with pytest.raises((TypeError, KeyError, ValueError), match=r"log_likelihood|log likelihood|posterior"):
        arviz.loo(idata)


@pytest.mark.faults("random state disturbed")
@pytest.mark.parametrize("make", [plain, manifold, replicas], ids=lambda make: make.__name__)
def test_global_random_state_is_left_alone_and_the_seed_decides(make: Any) -> None:
    model = make()
    state = torch.random.get_rng_state()
    first, again, other = (pm.to_inference_data(model, X, Y, num_samples=5, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (first.posterior_predictive["y"] == again.posterior_predictive["y"]).all()
    assert not (first.posterior_predictive["y"] == other.posterior_predictive["y"]).any()


def test_what_another_shape_has_or_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"y: expected shape \(6,\), got \(6, 1\)"):
        pm.to_inference_data(plain(), X, Y.unsqueeze(-1))
    with pytest.raises(ValueError, match=r"y: expected finite values, got NaN or inf in 1 of 6 rows \(row 2\)"):
        pm.to_inference_data(plain(), X, Y.where(torch.arange(6) != 2, torch.nan))
    with pytest.raises(TypeError, match=r"model: expected a ready model, replicas, an estimator or an MCMC, .* Linear"):
        pm.to_inference_data(nn.Linear(2, 2), X, Y)
    with pytest.raises(ValueError, match="guide: expected a trained guide beside args, got None"):
        pm.to_inference_data(plain(), args=(X, Y))
    with pytest.raises(ValueError, match="num_samples: expected an integer >= 1, got 0"):
        pm.to_inference_data(plain(), X, Y, num_samples=0)


@pytest.mark.parametrize("name", ["x", "y"])
def test_lists_are_refused(name: str) -> None:
    given = {"x": X, "y": Y}
    with pytest.raises(TypeError, match=f"{name}: expected a tensor, an array or a data frame, got list"):
        pm.to_inference_data(plain(), **{**given, name: given[name].tolist()})


class Mixture(pm.nn.NormalLikelihood):
    """Of a mixture density network: its pool is the law of y, not one of embedding samples."""

    def forward(self, raw: Any) -> Any:
        locs = raw[..., :1] + torch.tensor([0.0, 100.0])
        return pm.LinearPool(dist.Normal(locs, raw[..., 1:].exp()), torch.tensor([0.99, 0.01]))


def test_a_mixture_likelihood_is_drawn_from_as_a_whole() -> None:
    model = pm.ERM(pm.nn.MLP(2, [4], 2), Mixture())
    idata = pm.to_inference_data(model, X, Y, num_samples=50)
    assert idata.posterior_predictive["y"].shape == (1, 50, 6)
    assert idata.posterior_predictive["y"].values.mean() < 20


def test_bfloat16_and_gradients() -> None:
    model = pm.ERM(nn.Linear(2, 2), pm.nn.NormalLikelihood()).bfloat16()
    idata = pm.to_inference_data(model, X.bfloat16(), Y.bfloat16(), num_samples=3)
    assert idata.posterior_predictive["y"].dtype == np.float32
    idata = pm.to_inference_data(model.float(), X.clone().requires_grad_(), Y, num_samples=3)
    np.testing.assert_array_equal(idata.constant_data["x"].values, X.numpy())


# Counts, classes and several outputs.


def test_counts_are_integers_so_that_their_pit_is_centred() -> None:
    """ArviZ's PIT of the same counts as floats has mean 0.63."""
    likelihood = pm.nn.DistributionLikelihood(dist.Poisson)
    model = pm.ERM(nn.Linear(1, likelihood.num_outputs), likelihood)
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.zero_()
    x = torch.zeros(500, 1)
    y = model.predictive(x).sample()
    assert y.is_floating_point()
    idata = pm.to_inference_data(model, x, y, num_samples=200)
    assert idata.posterior_predictive["y"].dtype == idata.observed_data["y"].dtype == np.int64
    drawn, seen = idata.posterior_predictive["y"].values[0], idata.observed_data["y"].values
    assert ((drawn < seen).mean(0) + (drawn == seen).mean(0) / 2).mean() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match=r"y: expected whole numbers, being counts or classes, got 0\.5"):
        pm.to_inference_data(model, x, torch.full((500,), 0.5))


def test_several_outputs_have_a_dimension_of_their_own() -> None:
    model = pm.ERM(nn.Linear(2, 4), pm.nn.NormalLikelihood(2))
    y = pd.DataFrame({"height": np.zeros(6), "weight": np.ones(6)})
    idata = pm.to_inference_data(model, X, y, num_samples=7)
    assert idata.posterior_predictive["y"].dims == ("chain", "draw", "observation", "y_dim_0")
    assert idata.observed_data["y"].sel(y_dim_0="weight").values.tolist() == [1] * 6
    named = pm.to_inference_data(
        model, X, y.to_numpy(), dims={"y": ["row", "output"], "x": ["row", "column"]}, coords={"output": ["a", "b"]}
    )
    assert named.posterior_predictive["y"].sel(output="b").dims == ("chain", "draw", "row")
    assert named.constant_data["x"].dims == ("row", "column")
    with pytest.raises(ValueError, match=r"dims: expected 2 names for 'y', got \['row'\]"):
        pm.to_inference_data(model, X, y, dims={"y": ["row"]})


# Arrays, data frames, estimators.


def test_arrays_and_frames_are_those_of_the_tensors() -> None:
    model = manifold()
    frame = pd.DataFrame(X.double().numpy(), columns=["age", "dose"], index=[3, 1, 4, 15, 9, 2])
    series = pd.Series(Y.numpy(), index=frame.index)
    expected = pm.to_inference_data(model, X, Y, num_samples=9).posterior_predictive["y"].values
    for x, y in ((X.numpy(), Y.numpy()), (X.double().numpy(), Y.numpy()), (frame, series)):
        idata = pm.to_inference_data(model, x, y, num_samples=9)
        np.testing.assert_array_equal(idata.posterior_predictive["y"].values, expected)
    assert idata.constant_data["feature"].values.tolist() == ["age", "dose"]
    assert idata.posterior_predictive["observation"].values.tolist() == [3, 1, 4, 15, 9, 2]
    assert float(idata.constant_data["x"].sel(observation=15, feature="dose")) == pytest.approx(float(X[3, 1]))


def test_a_regressor_predicts_in_units_of_y() -> None:
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(rng.randn(60, 2), columns=["age", "dose"])
    y = 1000 + 50 * frame["age"]
    model = pm.ProbMixRegressor("probmix", epochs=30, hidden_features=(8,), num_members=2, random_state=0).fit(frame, y)
    idata = pm.to_inference_data(model, frame, y, num_samples=300)
    mean, std = model.predict(frame, return_std=True)
    draws = idata.posterior_predictive["y"].values[0]
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * std / np.sqrt(300))
    np.testing.assert_array_equal(idata.observed_data["y"].values, y)
    assert idata.constant_data["feature"].values.tolist() == ["age", "dose"]


def test_a_classifier_predicts_labels(tmp_path: Any) -> None:
    rng = np.random.RandomState(0)
    X = rng.randn(60, 2)
    y = np.where(X[:, 0] > 0, "good", "bad").astype(object)
    model = pm.ProbMixClassifier("probmix", epochs=30, hidden_features=(8,), random_state=0).fit(X, y)
    idata = pm.to_inference_data(model, X, y, num_samples=100)
    draws = idata.posterior_predictive["y"].values[0]
    assert set(draws.ravel()) == {"good", "bad"}
    shares = (draws == "good").mean(0)
    np.testing.assert_allclose(shares, model.predict_proba(X)[:, 1], atol=0.25)
    np.testing.assert_array_equal(idata.observed_data["y"].values, y.astype(str))
    idata.to_netcdf(tmp_path / "labels.nc")
    with warnings.catch_warnings():  # to which xarray adds a filter
        again = arviz.from_netcdf(tmp_path / "labels.nc")
    assert (again.posterior_predictive["y"].values[0] == draws).all()
    numbers = pm.ProbMixClassifier("probmix", epochs=1, random_state=0).fit(X, np.where(X[:, 0] > 0, 7, 3))
    assert set(pm.to_inference_data(numbers, X).predictions["y"].values.ravel()) <= {3, 7}

"""The ArviZ export holds what the model predicts, and ArviZ can work with it."""

import arviz
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_probmix as pm

X, Y = torch.linspace(-1, 1, 12).reshape(6, 2), torch.linspace(0, 1, 6)


def _models():
    torch.manual_seed(0)
    likelihood = pm.nn.NormalLikelihood()
    encoder = nn.Sequential(nn.Linear(2, 4), nn.Tanh())
    yield "erm", pm.ERM(pm.nn.MLP(2, [4], likelihood.num_outputs), likelihood)
    embedding = pm.nn.NormalEmbedding(encoder, 4, initial_scale=0.5)
    yield "manifold", pm.ManifoldProbMix(embedding, nn.Linear(4, likelihood.num_outputs), likelihood)


@pytest.mark.parametrize(("name", "model"), list(_models()), ids=lambda v: v if isinstance(v, str) else "")
def test_groups_agree_with_the_predictive(name, model):
    idata = pm.to_inference_data(model, X, Y, num_samples=400, seed=3)
    p = model.predictive(X, 400, seed=3)
    draws = idata.posterior_predictive["y"].values
    assert draws.shape == (1, 400, 6)
    standard_error = p.variance.sqrt().detach().numpy() / 20
    assert np.all(np.abs(draws[0].mean(0) - p.mean.detach().numpy()) < 5 * standard_error)
    log_likelihood = torch.as_tensor(idata.log_likelihood["y"].values[0])
    torch.testing.assert_close(log_likelihood.logsumexp(0) - np.log(400), p.log_prob(Y).detach())
    np.testing.assert_array_equal(idata.observed_data["y"].values, Y.numpy())
    np.testing.assert_array_equal(idata.constant_data["x"].values, X.numpy())


def test_arviz_computes_with_it():
    _, model = list(_models())[1]
    idata = pm.to_inference_data(model, X, Y, num_samples=50)
    score = arviz.r2_score(Y.numpy(), idata.posterior_predictive["y"].values[0])
    assert np.isfinite(score["r2"])


@pytest.mark.faults("random state disturbed")
def test_global_random_state_is_left_alone_and_the_seed_decides():
    _, model = list(_models())[1]
    state = torch.random.get_rng_state()
    first, again, other = (pm.to_inference_data(model, X, Y, num_samples=5, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (first.posterior_predictive["y"] == again.posterior_predictive["y"]).all()
    assert not (first.posterior_predictive["y"] == other.posterior_predictive["y"]).all()


def test_labels_of_another_shape_are_refused():
    _, model = next(_models())
    with pytest.raises(ValueError, match=r"y: expected shape \(6,\), got \(6, 1\)"):
        pm.to_inference_data(model, X, Y.unsqueeze(-1))


class Mixture(pm.nn.NormalLikelihood):
    """Of a mixture density network: its pool is the law of y, not one of embedding samples."""

    def forward(self, raw):
        locs = raw[..., :1] + torch.tensor([0.0, 100.0])
        return pm.LinearPool(dist.Normal(locs, raw[..., 1:].exp()), torch.tensor([0.99, 0.01]))


def test_a_mixture_likelihood_is_drawn_from_as_a_whole():
    torch.manual_seed(0)
    model = pm.ERM(pm.nn.MLP(2, [4], 2), Mixture())
    p = model.predictive(X)
    idata = pm.to_inference_data(model, X, Y, num_samples=50)
    assert idata.posterior_predictive["y"].shape == (1, 50, 6)
    assert idata.posterior_predictive["y"].values.mean() < 20
    log_likelihood = torch.as_tensor(idata.log_likelihood["y"].values[0])
    torch.testing.assert_close(log_likelihood, p.log_prob(Y).detach().expand(50, 6))


def test_bfloat16_and_gradients():
    model = pm.ERM(nn.Linear(2, 2), pm.nn.NormalLikelihood()).bfloat16()
    idata = pm.to_inference_data(model, X.bfloat16(), Y.bfloat16(), num_samples=3)
    assert idata.posterior_predictive["y"].dtype == np.float32
    idata = pm.to_inference_data(model.float(), X.clone().requires_grad_(), Y, num_samples=3)
    np.testing.assert_array_equal(idata.constant_data["x"].values, X.numpy())


@pytest.mark.parametrize("name", ["x", "y"])
def test_what_is_no_tensor_is_refused(name):
    model, given = pm.ERM(nn.Linear(2, 2), pm.nn.NormalLikelihood()), {"x": X, "y": Y}
    with pytest.raises(TypeError, match=f"{name}: expected a tensor, got list"):
        pm.to_inference_data(model, **{**given, name: given[name].tolist()})

"""Posteriors are exported with the log-densities of the plain model, latents of the rows integrated out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

import pyro_probmix as pm
from pyro_probmix.models import PosteriorGuide

ROWS, DRAWS = 12, 30
X = torch.linspace(-1, 1, ROWS).double()
Y = 2 * X + torch.tensor([0.3, -0.5, 0.1]).double().repeat(4)
BATCH = pm.PairBatch(X, Y, torch.arange(ROWS).roll(1))
PRIOR = dist.Normal(torch.tensor(0.0).double(), 2.0)
SLOPES = torch.linspace(1, 3, DRAWS).double()

prior_draws = pytest.mark.faults("importance weights over prior draws")


def linear(x: Tensor, y: Tensor | None = None) -> Any:
    slope = pyro.sample("slope", PRIOR)
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(slope * x, 0.5), obs=y)


def with_embedding(x: Tensor, y: Tensor | None = None) -> Any:
    slope = pyro.sample("slope", PRIOR)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x, 0.3))
        return pyro.sample("y", dist.Normal(slope * z, 0.5), obs=y)


class Known(pyro.infer.mcmc.mcmc_kernel.MCMCKernel):
    """Gives samples that are known, in turn."""

    def __init__(self, model: Any, samples: dict[str, Tensor], diverging: tuple[list[int], ...] = ()) -> None:
        self.model, self.transforms, self.samples, self.diverging = model, {}, samples, list(diverging)

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        self.turn = 0

    @property
    def initial_params(self) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.samples.items()}

    @initial_params.setter
    def initial_params(self, params: Any) -> None:
        pass

    def diagnostics(self) -> dict[str, Any]:
        return {"divergences": self.diverging.pop(0)} if self.diverging else {}

    def sample(self, params: Any) -> dict[str, Tensor]:
        self.turn += 1
        return {name: value[self.turn - 1] for name, value in self.samples.items()}


def sampled(model: Any, *args: Any, **samples: Tensor) -> MCMC:
    mcmc = MCMC(Known(model, samples), num_samples=DRAWS, warmup_steps=0, disable_progbar=True)
    mcmc.run(*args)
    return mcmc


def variable(group: Any, name: str) -> Tensor:
    return torch.as_tensor(group[name].values)


def mixed(model: Any, at: str = "y") -> Any:
    return pm.mix(model, at=at, coefficient=dist.Beta(2.0, 2.0), vicinity=pm.NormalVicinity(0.1))


# The plain model, on the data as they are.


def around(model: Any) -> Any:
    return lambda batch: model(batch)


def given_coefficient(model: Any) -> Any:
    return poutine.condition(model, data={"mixing_coefficient": torch.full((ROWS,), 0.3).double()})


@prior_draws
@pytest.mark.parametrize("wrap", [lambda model: model, around, given_coefficient])
def test_a_mixed_model_is_scored_as_the_plain_one(wrap: Callable[[Any], Any]) -> None:
    λ = torch.rand(DRAWS, ROWS).double()
    mcmc = sampled(wrap(mixed(linear)), BATCH, slope=SLOPES, mixing_coefficient=λ)
    idata = pm.to_inference_data(mcmc)
    assert set(idata.posterior.data_vars) == {"slope"}
    plain = dist.Normal(SLOPES.unsqueeze(-1) * X, 0.5)
    torch.testing.assert_close(variable(idata.log_likelihood, "y")[0], plain.log_prob(Y))
    torch.testing.assert_close(variable(idata.log_prior, "slope")[0], PRIOR.log_prob(SLOPES))
    assert idata.log_likelihood["y"].dims == ("chain", "draw", "observation")
    torch.testing.assert_close(variable(idata.observed_data, "y"), Y)
    torch.testing.assert_close(variable(idata.constant_data, "x"), X)
    residuals = (variable(idata.posterior_predictive, "y")[0] - plain.mean) / 0.5
    assert abs(float(residuals.mean())) < 5 / (DRAWS * ROWS) ** 0.5
    assert float(residuals.std()) == pytest.approx(1, abs=0.2)


@prior_draws
@pytest.mark.parametrize("fused", ["z", "y", None])
def test_embeddings_are_integrated_out_and_not_conditioned_on(fused: str | None) -> None:
    """Whatever their draws were: log N(y; w x, 0.5² + 0.3² w²)."""
    model, args = (with_embedding, (X, Y)) if fused is None else (mixed(with_embedding, fused), (BATCH,))
    mcmc = sampled(model, *args, slope=SLOPES, z=100 + torch.rand(DRAWS, ROWS).double())
    idata = pm.to_inference_data(mcmc, num_embeddings=4000)
    assert set(idata.posterior.data_vars) == ({"slope", "z"} if fused is None else {"slope"})
    w = SLOPES.unsqueeze(-1)
    marginal = dist.Normal(w * X, (0.25 + 0.09 * w**2).sqrt())
    torch.testing.assert_close(variable(idata.log_likelihood, "y")[0], marginal.log_prob(Y), rtol=0, atol=0.12)
    residuals = (variable(idata.posterior_predictive, "y")[0] - marginal.mean) / marginal.stddev
    assert float(residuals.std()) == pytest.approx(1, abs=0.2)


def test_few_embeddings_are_biased_as_documented() -> None:
    """By half the relative variance over K."""

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.sample("slope", dist.Normal(torch.tensor(2.0).double(), 1e-6))

    idata = pm.to_inference_data(with_embedding, guide=guide, args=(X, Y), num_samples=2000, num_embeddings=25)
    found = variable(idata.log_likelihood, "y")[0].mean(0)
    terms = dist.Normal(2 * (X + 0.3 * torch.randn(200_000, 1).double()), 0.5).log_prob(Y).exp()
    bias = terms.var(0) / terms.mean(0) ** 2 / 2 / 25
    torch.testing.assert_close(terms.mean(0).log() - found, bias, rtol=0.35, atol=0.006)


def states(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.sample("slope", PRIOR)
    with pyro.plate("data", len(x)):
        state = pyro.sample("state", dist.Categorical(torch.tensor([0.99, 0.01]).double()))
        pyro.sample("y", dist.Normal(slope * x + 8.0 * state, 0.5), obs=y)


def test_states_are_summed_out_exactly() -> None:
    """One in a hundred, whom draws would miss."""
    y = Y + 8 * (torch.arange(ROWS) == 5)
    idata = pm.to_inference_data(sampled(states, X, y, slope=SLOPES), num_embeddings=1)
    normal = dist.Normal(SLOPES[:, None, None] * X[:, None] + torch.tensor([0.0, 8.0]), 0.5)
    terms = normal.log_prob(y[:, None]) + torch.tensor([0.99, 0.01]).double().log()
    torch.testing.assert_close(variable(idata.log_likelihood, "y")[0], terms.logsumexp(-1))


def hidden_markov(y: Tensor) -> None:
    stay = pyro.sample("stay", dist.Beta(torch.tensor(2.0).double(), 2.0))
    with pyro.plate("data", len(y)):
        state: Any = torch.zeros(()).long()
        for t in pyro.markov(range(y.shape[1])):
            probs = torch.where(state == 1, stay, 1 - stay)
            state = pyro.sample(f"state_{t}", dist.Bernoulli(probs))
            pyro.sample(f"y_{t}", dist.Normal(3 * state, 1.0), obs=y[:, t])


def test_sites_of_one_row_are_scored_together_where_states_tie_them() -> None:
    y = torch.tensor([[0.0, 3.0, 2.0], [1.0, 0.5, 4.0]]).double()
    stay = torch.linspace(0.1, 0.9, DRAWS).double()
    found = pm.to_inference_data(sampled(hidden_markov, y, stay=stay)).log_likelihood["joint"]
    assert found.dims == ("chain", "draw", "observation")
    total = torch.zeros(DRAWS, 2).double()
    for path in torch.cartesian_prod(*[torch.arange(2)] * 3):
        log_prob, before = torch.zeros(DRAWS, 1).double(), 0
        for t, now in enumerate(path.tolist()):
            to_one = stay if before == 1 else 1 - stay
            log_prob = log_prob + (to_one if now else 1 - to_one).log().unsqueeze(-1)
            log_prob = log_prob + dist.Normal(3.0 * now, 1.0).log_prob(y[:, t])
            before = now
        total = total + log_prob.exp()
    torch.testing.assert_close(torch.as_tensor(found.values)[0], total.log())


def schools(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(torch.tensor(0.0).double(), 5.0))
    with pyro.plate("groups", 3, dim=-2):
        effect = pyro.sample("effect", dist.Normal(mean, 1.0))
        with pyro.plate("pupils", 4, dim=-1):
            pyro.sample("y", dist.Normal(effect, 0.5), obs=y)


def test_latents_of_fewer_plates_than_the_rows_are_of_the_posterior() -> None:
    y, effect = torch.randn(3, 4).double(), torch.randn(DRAWS, 3, 1).double()
    idata = pm.to_inference_data(sampled(schools, y, mean=SLOPES, effect=effect))
    found = idata.log_likelihood["y"]
    assert found.dims == ("chain", "draw", "groups", "pupils")
    torch.testing.assert_close(torch.as_tensor(found.values)[0], dist.Normal(effect, 0.5).log_prob(y))
    assert idata.posterior["effect"].dims[:3] == ("chain", "draw", "groups")
    log_prior = dist.Normal(SLOPES[:, None, None], 1.0).log_prob(effect)
    torch.testing.assert_close(variable(idata.log_prior, "effect")[0], log_prior)


def two_outputs(x: Tensor, count: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", PRIOR)
    with pyro.plate("data", len(x)):
        pyro.sample("count", dist.Poisson((slope * x).exp()), obs=count)
        pyro.sample("y", dist.Normal((slope * x).unsqueeze(-1).expand(-1, 2), 0.5).to_event(1), obs=y)


def test_several_sites_have_a_variable_each() -> None:
    count, y = torch.poisson(torch.full((ROWS,), 2.0)).double(), torch.stack([Y, Y + 1], -1)
    idata = pm.to_inference_data(sampled(two_outputs, X, count, y, slope=SLOPES), dims={"y": ["observation", "output"]})
    loc = SLOPES.unsqueeze(-1) * X
    expected = {
        "count": dist.Poisson(loc.exp()).log_prob(count),
        "y": dist.Normal(loc.unsqueeze(-1).expand(-1, -1, 2), 0.5).to_event(1).log_prob(y),
    }
    for name, log_prob in expected.items():
        torch.testing.assert_close(variable(idata.log_likelihood, name)[0], log_prob)
    assert idata.posterior_predictive["y"].dims == ("chain", "draw", "observation", "output")
    assert idata.posterior_predictive["count"].dtype == idata.observed_data["count"].dtype == np.int64


# Ready models.


def network() -> Any:
    layer = PyroModule[nn.Linear](1, 1, bias=False).double()
    layer.weight = PyroSample(dist.Normal(torch.zeros(1, 1).double(), 2.0).to_event(2))
    return layer


def ready(method: str, **arguments: Any) -> Any:
    likelihood, networks = pm.nn.NormalLikelihood(scale=0.5).double(), [network()]
    if method.startswith("Manifold"):
        networks = [nn.Identity(), *networks]
    if method == "ManifoldProbMix":
        networks[0] = pm.nn.NormalEmbedding(nn.Identity(), 1, initial_scale=0.3).double()
    return getattr(pm, method)(*networks, likelihood, **arguments)


@prior_draws
@pytest.mark.parametrize("method", ["ERM", "Mixup", "ManifoldMixup", "ProbMix", "ManifoldProbMix"])
def test_ready_models_are_scored_unmixed(method: str) -> None:
    model, weight = ready(method), SLOPES.reshape(-1, 1, 1)
    samples = {"decoder.weight": weight, "mixing_coefficient": torch.rand(DRAWS, ROWS).double()}
    if method == "ManifoldProbMix":
        samples["embedding"] = 100 + torch.rand(DRAWS, ROWS, 1).double()
    batch = pm.PairBatch(X.unsqueeze(-1), Y, BATCH.partner)
    idata = pm.to_inference_data(sampled(model, batch, **samples), num_embeddings=4000)
    assert set(idata.posterior.data_vars) == {"decoder.weight"}
    w = SLOPES.unsqueeze(-1)
    scale = torch.tensor(0.5) if method != "ManifoldProbMix" else (0.25 + 0.09 * w**2).sqrt()
    expected = dist.Normal(w * X, scale).log_prob(Y)
    atol = 0.12 if method == "ManifoldProbMix" else 1e-7
    torch.testing.assert_close(variable(idata.log_likelihood, "y")[0], expected, rtol=0, atol=atol)
    prior = dist.Normal(0.0, 2.0).log_prob(SLOPES)
    torch.testing.assert_close(variable(idata.log_prior, "decoder.weight")[0], prior)
    assert idata.constant_data["x"].dims == ("observation", "feature")


def test_nuts_of_a_ready_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 1)
    model = ready("ProbMix", coefficient=dist.Beta(2.0, 2.0))
    batch = pm.PairBatch(X.unsqueeze(-1), Y, BATCH.partner)
    with pytest.warns(UserWarning, match="Chains will be drawn sequentially"):
        mcmc = MCMC(NUTS(model, max_tree_depth=3), 10, 10, num_chains=2, disable_progbar=True)
    mcmc.run(batch)
    idata = pm.to_inference_data(mcmc)
    weights = variable(idata.posterior, "decoder.weight")
    torch.testing.assert_close(weights, mcmc.get_samples(group_by_chain=True)["decoder.weight"])
    expected = dist.Normal(weights.squeeze(-1) * X, 0.5).log_prob(Y)
    torch.testing.assert_close(variable(idata.log_likelihood, "y"), expected, rtol=0, atol=1e-7)
    diverging = idata.sample_stats["diverging"]
    assert diverging.shape == (2, 10)
    for chain, found in mcmc.diagnostics()["divergences"].items():
        assert diverging.values[int(chain.split()[1])].nonzero()[0].tolist() == found


def test_each_of_many_chains_has_its_own_divergences(monkeypatch: pytest.MonkeyPatch) -> None:
    """ArviZ's own ``from_pyro`` mixes them up from eleven chains on."""
    monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 1)
    diverging = tuple([chain] for chain in range(12))
    with pytest.warns(UserWarning, match="Chains will be drawn sequentially"):
        mcmc = MCMC(Known(linear, {"slope": SLOPES}, diverging), 12, 0, num_chains=12, disable_progbar=True)
    mcmc.run(X, Y)
    idata = pm.to_inference_data(mcmc)
    np.testing.assert_array_equal(idata.sample_stats["diverging"].values, np.eye(12, dtype=bool))
    assert not hasattr(pm.to_inference_data(sampled(linear, X, Y, slope=SLOPES)), "sample_stats")


@pytest.mark.parametrize("prepared", [True, False])
def test_a_guide_of_weights_takes_data_or_a_batch(prepared: bool) -> None:
    model, x = ready("ProbMix"), X.unsqueeze(-1)
    guide, batch = model.guide_for(AutoNormal, init_scale=0.1), pm.PairBatch(x, Y, BATCH.partner)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    svi.step(batch)
    median = float(guide.weights.median(batch)["decoder.weight"])
    trained = copy.deepcopy(guide.state_dict())
    idata = pm.to_inference_data(model, guide=guide, args=(batch,) if prepared else (x, Y), num_samples=200)
    weights = variable(idata.posterior, "decoder.weight")
    assert float(weights.mean()) == pytest.approx(median, abs=0.05)
    assert float(weights.std()) == pytest.approx(0.1, rel=0.25)
    expected = dist.Normal(weights[..., 0] * X, 0.5).log_prob(Y)
    torch.testing.assert_close(variable(idata.log_likelihood, "y"), expected, rtol=0, atol=1e-7)
    assert all(torch.equal(value, trained[name]) for name, value in guide.state_dict().items())


def test_a_data_frame_names_rows_and_features() -> None:
    frame = pd.DataFrame({"dose": X.numpy()}, index=100 + np.arange(ROWS))
    model = ready("ProbMix")
    guide = model.guide_for(AutoNormal)
    guide(pm.PairBatch(X.unsqueeze(-1), Y, BATCH.partner))
    named = pm.to_inference_data(model, guide=guide, args=(frame, pd.Series(Y.numpy())), num_samples=9)
    plain = pm.to_inference_data(model, guide=guide, args=(X.unsqueeze(-1), Y), num_samples=9)
    for group in ("log_likelihood", "posterior_predictive", "observed_data"):
        np.testing.assert_array_equal(getattr(named, group)["y"].values, getattr(plain, group)["y"].values)
    assert named.log_likelihood["observation"].values.tolist() == frame.index.tolist()
    assert named.constant_data["feature"].values.tolist() == ["dose"]


def test_a_value_that_a_user_conditions_on_is_no_row() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        scale = pyro.sample("scale", dist.Gamma(torch.tensor(2.0).double(), 1.0))
        slope = pyro.sample("slope", PRIOR)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(slope * x, scale), obs=y)

    mcmc = sampled(poutine.condition(model, data={"scale": torch.tensor(0.7).double()}), X, Y, slope=SLOPES)
    idata = pm.to_inference_data(mcmc)
    expected = dist.Normal(SLOPES.unsqueeze(-1) * X, 0.7).log_prob(Y)
    torch.testing.assert_close(variable(idata.log_likelihood, "y")[0], expected)
    assert set(idata.observed_data.data_vars) == {"y"}


# Any Pyro model, however it is written.


def looked_at(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.sample("slope", PRIOR)
    scale = 0.5 if float(slope) > 2 else 1.0
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x, scale), obs=y)


def test_a_model_that_looks_at_values_is_run_draw_by_draw() -> None:
    idata = pm.to_inference_data(sampled(looked_at, X, Y, slope=SLOPES))
    scale = torch.where(SLOPES > 2, 0.5, 1.0).unsqueeze(-1)
    expected = dist.Normal(SLOPES.unsqueeze(-1) * X, scale).log_prob(Y)
    torch.testing.assert_close(variable(idata.log_likelihood, "y")[0], expected)


def test_a_reparametrized_model() -> None:
    model = poutine.reparam(mixed(linear), config={"slope": LocScaleReparam(0.0)})
    idata = pm.to_inference_data(sampled(model, BATCH, slope_decentered=SLOPES / 2))
    expected = dist.Normal(SLOPES.unsqueeze(-1) * X, 0.5).log_prob(Y)
    torch.testing.assert_close(variable(idata.log_likelihood, "y")[0], expected)


def with_parameter(x: Tensor, y: Tensor | None = None) -> None:
    slope, shift = pyro.sample("slope", PRIOR), pyro.param("shift", torch.tensor(0.0).double())
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x + shift, 0.5), obs=y)


@pytest.mark.faults("random state disturbed")
def test_parameters_are_the_trained_ones_and_store_and_random_state_are_left_alone() -> None:
    guide = AutoNormal(with_parameter)
    SVI(with_parameter, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(X, Y)
    store = pyro.get_param_store()
    store["shift"] = torch.tensor(7.0).double()
    state, ids = torch.get_rng_state(), {name: id(value) for name, value in store._params.items()}
    first, again, other = (
        pm.to_inference_data(with_parameter, guide=guide, args=(X,), kwargs={"y": Y}, num_samples=9, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: id(value) for name, value in store._params.items()} == ids
    slope = variable(first.posterior, "slope").unsqueeze(-1)
    torch.testing.assert_close(
        variable(first.log_likelihood, "y"), dist.Normal(slope * X + 7, 0.5).log_prob(Y), rtol=0, atol=1e-10
    )
    assert first.posterior_predictive.identical(again.posterior_predictive)
    assert not (first.posterior["slope"] == other.posterior["slope"]).any()


@pytest.mark.faults("weights and masks ignored")
def test_rows_that_are_masked_are_left_out() -> None:
    mask = torch.arange(ROWS) % 3 > 0
    batch = pm.PairBatch(X, Y.masked_fill(~mask, 1e6), BATCH.partner, mask=mask)
    idata = pm.to_inference_data(sampled(mixed(linear), batch, slope=SLOPES))
    expected = dist.Normal(SLOPES.unsqueeze(-1) * X[mask], 0.5).log_prob(Y[mask])
    torch.testing.assert_close(variable(idata.log_likelihood, "y")[0], expected)
    assert idata.log_likelihood["observation"].values.tolist() == mask.nonzero().squeeze(-1).tolist()
    torch.testing.assert_close(variable(idata.observed_data, "y"), Y[mask])
    torch.testing.assert_close(variable(idata.constant_data, "x"), X[mask])
    assert idata.posterior_predictive["y"].shape == (1, DRAWS, int(mask.sum()))


@pytest.mark.faults("scale of a minibatch")
def test_a_row_counts_once_whatever_it_stands_for() -> None:
    model, batch = ready("ERM"), pm.PairBatch(X.unsqueeze(-1), Y, BATCH.partner)
    mcmc = sampled(model, batch, 5 * ROWS, **{"decoder.weight": SLOPES.reshape(-1, 1, 1)})
    annealed = sampled(poutine.scale(linear, 0.1), X, Y, slope=SLOPES)
    expected = dist.Normal(SLOPES.unsqueeze(-1) * X, 0.5).log_prob(Y)
    for run in (mcmc, annealed):
        idata = pm.to_inference_data(run)
        torch.testing.assert_close(variable(idata.log_likelihood, "y")[0], expected, rtol=0, atol=1e-7)
        (log_prior,) = idata.log_prior.data_vars.values()
        torch.testing.assert_close(torch.as_tensor(log_prior.values)[0], PRIOR.log_prob(SLOPES))


# What is refused.


class Amortised(nn.Module):
    def forward(self, x: Tensor, partner_x: Tensor, label: Tensor, coefficient: Tensor) -> Any:
        return dist.Normal(x, 0.3).to_event(1)


def fixed_network() -> Any:
    embedding = pm.nn.NormalEmbedding(nn.Identity(), 1).double()
    return pm.ManifoldProbMix(embedding, nn.Linear(1, 1).double(), pm.nn.NormalLikelihood(scale=0.5).double())


def only_embedding(x: Tensor, y: Tensor | None = None) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x, 0.3))
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)


NO_POSTERIOR = r"expected draws of weights or of another latent outside of the data plate, got draws of {}: an "
NO_POSTERIOR += r"embedding is drawn from q\(z\|x\), .*no posterior.*pm.compare_scores on held-out rows"


@prior_draws
@pytest.mark.parametrize("guide", [lambda model: model.guide, lambda model: PosteriorGuide(model, Amortised())])
def test_a_guide_of_embeddings_alone_gives_no_posterior(guide: Callable[[Any], Any]) -> None:
    model = fixed_network()
    batch = pm.PairBatch(X.unsqueeze(-1), Y, BATCH.partner)
    with pytest.raises(ValueError, match="guide: " + NO_POSTERIOR.format("embedding")):
        pm.to_inference_data(model, guide=guide(model), args=(batch,), num_samples=5)
    model = mixed(only_embedding, "z")
    with pytest.raises(ValueError, match="guide: " + NO_POSTERIOR.format("z")):
        pm.to_inference_data(model, guide=model.guide, args=(BATCH,), num_samples=5)
    with pytest.raises(ValueError, match="mcmc: " + NO_POSTERIOR.format("z")):
        pm.to_inference_data(sampled(only_embedding, X, Y, z=torch.rand(DRAWS, ROWS).double()))


@prior_draws
def test_a_point_is_no_posterior() -> None:
    guide = AutoDelta(linear)
    guide(X, Y)
    with pytest.raises(
        ValueError, match=r"guide: expected draws that differ, got the same slope in each.*compare_scores"
    ):
        pm.to_inference_data(linear, guide=guide, args=(X, Y), num_samples=5)


def unplated(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", PRIOR)
    pyro.sample("y", dist.Normal(slope * x, 0.5).to_event(1), obs=y)


def subsampled(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", PRIOR)
    with pyro.plate("data", len(x), subsample_size=3) as rows:
        pyro.sample("y", dist.Normal(slope * x[rows], 0.5), obs=y[rows])


def two_slopes(x: Tensor, y: Tensor) -> None:
    with poutine.block(hide=["other"]):
        linear(x, y)
    pyro.sample("other", PRIOR)


def unobserved(x: Tensor, y: Tensor) -> None:
    linear(x)


REFUSED = [
    (
        unplated,
        (X, Y),
        r"model: expected an observed site in a vectorized plate of the rows, got y of batch shape \(\)",
    ),
    (unobserved, (X, Y), "model: expected an observed site in a vectorized plate of the rows, got none"),
    (subsampled, (X, Y), "model: expected all rows in plate 'data', got a random subsample of 3 of 12"),
    (two_slopes, (X, Y), "mcmc: expected draws of other, got draws of slope"),
    (
        mixed(linear),
        (pm.PairBatch(X, Y, BATCH.partner, weight=torch.arange(1.0, 1 + ROWS)),),
        "model: expected rows of weight one, got weights at y",
    ),
]


@pytest.mark.parametrize(
    ("model", "args", "message"), REFUSED, ids=["unplated", "unobserved", "sub", "other", "weight"]
)
def test_models_without_rows_of_their_own_are_refused(model: Any, args: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pm.to_inference_data(sampled(model, *args, slope=SLOPES))


def test_masks_of_single_outputs_are_refused() -> None:
    model = pm.ERM(network(), pm.nn.NormalLikelihood(1, scale=0.5).double())
    batch = pm.PairBatch(X.unsqueeze(-1), Y.unsqueeze(-1), BATCH.partner, mask=torch.rand(ROWS, 1) > 0.5)
    mcmc = sampled(model, batch, **{"decoder.weight": SLOPES.reshape(-1, 1, 1)})
    with pytest.raises(ValueError, match="mask: expected one of rows, got one of single outputs at 'y'"):
        pm.to_inference_data(mcmc)


def test_calls_that_do_not_fit_are_refused() -> None:
    mcmc = sampled(linear, X, Y, slope=SLOPES)
    guide = AutoNormal(linear)
    for call, message in (
        (lambda: pm.to_inference_data(mcmc, X, Y), "x, y: expected None beside a posterior"),
        (lambda: pm.to_inference_data(mcmc, guide=guide), "guide: expected None beside an MCMC, got AutoNormal"),
        (lambda: pm.to_inference_data(linear, guide=guide), r"args: expected what .* such as \(x, y\), got None"),
        (lambda: pm.to_inference_data(linear, guide=guide, args=(X, Y)), "guide: expected one that has been trained"),
        (lambda: pm.to_inference_data(linear, guide=lambda x, y: None, args=(X, Y)), "guide: expected draws of slope"),
        (
            lambda: pm.to_inference_data(MCMC(NUTS(linear), num_samples=1, disable_progbar=True)),
            "model: expected the MCMC of a model that has run, got one that has not",
        ),
        (
            lambda: pm.to_inference_data(MCMC(NUTS(potential_fn=lambda z: z["a"] ** 2), 1, initial_params={"a": X[0]})),
            "model: expected the MCMC of a model that has run, got that of a potential function",
        ),
        (lambda: pm.to_inference_data(mcmc, num_embeddings=0), "num_embeddings: expected an integer >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"args: expected a sequence, such as \(x, y\), got Tensor"):
        pm.to_inference_data(linear, guide=guide, args=X)

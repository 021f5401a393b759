"""Networks whose weights have priors: drawn once, scored once, trained under every method, and predicted with."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGaussian,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalMessenger,
    AutoStructured,
    init_to_value,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn
from torch.distributions import constraints

import pyro_probmix as pm
from pyro_probmix.models import DensityModel, Mixing, PosteriorGuide
from tests.models.cases import EMBEDDING, FEATURES, METHODS, make_batch, make_model, particles

SIZE = 6
ONCE = "weights drawn once a row"

bayesian = pytest.mark.faults(ONCE)
methods = pytest.mark.parametrize("method", METHODS)


def normal_prior(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> PyroSample:
    prior = dist.Normal(torch.zeros(shape, dtype=dtype), scale)
    return PyroSample(prior.to_event(len(shape)))


def network(*sizes: int, dtype: torch.dtype) -> Any:
    """Linear layers, weights of which have priors, biases being parameters."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = PyroModule[nn.Linear](inputs, outputs, dtype=dtype)
        layer.weight = normal_prior(outputs, inputs, dtype=dtype)
        layers += [layer, PyroModule[nn.Tanh]()]
    return PyroModule[nn.Sequential](*layers[:-1])


def bayesian_model(method: str, dtype: torch.dtype = torch.float64, **arguments: Any) -> Any:
    networks = [network(FEATURES, 5, 2, dtype=dtype)]
    if method.startswith("Manifold"):
        encoder = network(FEATURES, EMBEDDING, dtype=dtype)
        if method == "ManifoldProbMix":
            encoder = pm.nn.NormalEmbedding(encoder, EMBEDDING, network(FEATURES, EMBEDDING, dtype=dtype))
        networks = [encoder, network(EMBEDDING, 5, 2, dtype=dtype)]
    return getattr(pm, method)(*networks, pm.nn.NormalLikelihood(), **arguments)


def weights_of(model: Any) -> dict[str, Tensor]:
    """The weights and their shapes, as their sites should be named."""
    return {
        f"{name}.weight": module._pyro_samples["weight"]
        for name, module in model.named_modules()
        if "weight" in getattr(module, "_pyro_samples", ())
    }


def train(model: Any, guide: Any, batch: pm.PairBatch, steps: int = 2, elbo: Any = None, **arguments: Any) -> list[Any]:
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo or Trace_ELBO())
    return [svi.step(batch, **arguments) for _ in range(steps)]


# Where weights are drawn, and how often.


@pytest.mark.faults("weights drawn once a row")
@bayesian
@methods
def test_weights_are_drawn_once_for_all_rows_outside_the_plate(method: str) -> None:
    model, batch = bayesian_model(method), make_batch()
    trace = poutine.trace(model).get_trace(batch)
    sites = {name: site for name, site in trace.nodes.items() if site["type"] == "sample" and name != "data"}
    for name, prior in weights_of(model).items():
        assert sites[name]["value"].shape == prior.event_shape
        assert sites[name]["fn"].batch_shape == ()
        assert not sites[name]["cond_indep_stack"]
    for name in sites.keys() - weights_of(model).keys() - {"mixing_coefficient"}:
        assert [frame.name for frame in sites[name]["cond_indep_stack"]] == ["data"]
    guide = model.guide_for(AutoNormal)
    train(model, guide, batch, 1)
    drawn = poutine.trace(guide).get_trace(batch)
    assert {n: drawn.nodes[n]["value"].shape for n in weights_of(model)} == {
        n: prior.event_shape for n, prior in weights_of(model).items()
    }
    assert ("embedding" in drawn.nodes) == (method == "ManifoldProbMix")
    assert ("mixing_coefficient" in drawn.nodes) == (method != "ERM")


@pytest.mark.faults("weights drawn once a row")
@bayesian
@methods
def test_the_loss_is_the_risk_given_the_weights_and_their_prior_once(method: str) -> None:
    """At a point mass on w: −Σ log p̃_w(ỹ) − log p(w), for the same λ and embedding as the risk of plain networks."""
    torch.manual_seed(1)
    model, batch = bayesian_model(method), make_batch()
    values = {name: torch.randn(prior.event_shape).double() for name, prior in weights_of(model).items()}
    guide = model.guide_for(AutoDelta, init_loc_fn=init_to_value(values=values))
    guide(batch)

    plain = copy.deepcopy(model)
    for name, value in values.items():
        path, _, attribute = name.rpartition(".")
        module = plain.get_submodule(path)
        del module._pyro_samples[attribute]
        setattr(module, attribute, nn.Parameter(value))
    log_prior = sum(weights_of(model)[name].log_prob(value) for name, value in values.items())
    for num_rows, factor in ((None, 1.0), (15, 15 / SIZE)):
        pyro.set_rng_seed(3)
        arguments = {} if num_rows is None else {"num_rows": num_rows}
        loss = Trace_ELBO().differentiable_loss(model, guide, batch, **arguments)
        pyro.set_rng_seed(3)
        expected = factor * SIZE * plain.risk(batch) - log_prior
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.faults("weights drawn once a row")
@bayesian
@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal], ids=lambda guide: guide.__name__)
def test_an_encoder_with_priors_runs_once_a_step(guide: Any) -> None:
    model, batch = bayesian_model("ManifoldProbMix"), make_batch()
    weights = model.guide_for(guide)
    train(model, weights, batch, 1)
    runs: list[int] = []
    for part in (model.encoder, model.decoder):
        part.register_forward_hook(lambda module, inputs, output: runs.append(id(module)))
    train(model, weights, batch, 1)
    assert sorted(runs) == sorted({id(model.encoder), id(model.decoder)})


class Sampling(nn.Module):
    """A network that draws a weight where it runs."""

    def __init__(self, inputs: int, outputs: int, site: str) -> None:
        super().__init__()
        self.site, self.shape = site, (outputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return x @ pyro.sample(self.site, normal_prior(*self.shape).prior).mT


@bayesian
def test_networks_that_draw_where_they_run_are_scored_too() -> None:
    """Their sites are known when they run, so that the encoder runs in guide and model."""
    embedding = pm.nn.NormalEmbedding(Sampling(FEATURES, EMBEDDING, "first"), EMBEDDING).double()
    model = pm.ManifoldProbMix(embedding, Sampling(EMBEDDING, 2, "second"), pm.nn.NormalLikelihood())
    batch, guide = make_batch(), model.guide_for(AutoNormal)
    train(model, guide, batch)
    drawn = poutine.trace(guide).get_trace(batch)
    replayed = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(batch)
    assert set(guide.weights.median(batch)) == {"first", "second"} <= set(replayed.nodes)
    assert torch.equal(replayed.nodes["first"]["value"], drawn.nodes["first"]["value"])
    assert model.predictive(batch.x, 3, guide=guide).log_prob(batch.y).isfinite().all()


class Declared(PyroModule):
    """Priors declared in the class, one the scale of the other."""

    @PyroSample
    def spread(self) -> Any:
        return dist.Gamma(torch.tensor(2.0).double(), 2.0)

    @PyroSample
    def weight(self) -> Any:
        return dist.Normal(torch.zeros(1, FEATURES).double(), self.spread).to_event(2)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT


class Noise(pm.nn.NormalLikelihood, PyroModule):
    """A likelihood with a prior and a constrained parameter."""

    def __init__(self) -> None:
        super().__init__(scale=1.0)
        self.noise = PyroSample(dist.Gamma(torch.tensor(2.0).double(), 2.0))
        self.shift = PyroParam(torch.tensor(0.5).double(), constraint=constraints.positive)

    def distribution(self, raw: Tensor) -> Any:
        return dist.Normal(raw[..., 0] + self.shift, self.noise)


@bayesian
def test_priors_of_classes_of_priors_and_of_likelihoods() -> None:
    declared = pm.ProbMix(Declared(), pm.nn.NormalLikelihood(scale=1.0))
    with pytest.raises(ValueError, match=r"got priors of decoder\.spread, decoder\.weight; train"):
        declared.risk(make_batch())
    state = torch.get_rng_state()
    model = pm.ProbMix(Declared(), Noise())
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == 0  # construction leaves it alone
    batch = make_batch()
    with pytest.raises(ValueError, match=r"model: expected networks without priors in risk, got priors of decoder\."):
        model.risk(batch)
    guide = model.guide_for(AutoNormal)
    train(model, guide, batch)
    assert set(guide.weights.median(batch)) == {"decoder.spread", "decoder.weight", "likelihood.noise"}
    assert model.predictive(batch.x, 3, guide=guide).log_prob(batch.y).isfinite().all()


# Training.


@bayesian
@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO], ids=lambda elbo: elbo.__name__)
@methods
def test_svi_moves_guide_and_networks(method: str, elbo: Any) -> None:
    model, batch = bayesian_model(method), make_batch()
    guide = model.guide_for(AutoNormal, init_scale=0.05)
    train(model, guide, batch, 1, elbo())
    before = copy.deepcopy((model.state_dict(), guide.state_dict()))
    assert all(math.isfinite(loss) for loss in train(model, guide, batch, 2, elbo()))
    for module, state in zip((model, guide), before, strict=True):
        assert state
        for name, parameter in module.named_parameters():
            assert not torch.equal(parameter, state[name]), name


GUIDES = [AutoDelta, AutoDiagonalNormal, AutoStructured, AutoGaussian, AutoNormalMessenger, AutoLaplaceApproximation]


@bayesian
@pytest.mark.parametrize("autoguide", GUIDES, ids=lambda guide: guide.__name__)
@pytest.mark.parametrize("method", ["Mixup", "ManifoldProbMix"])
def test_any_autoguide(method: str, autoguide: Any) -> None:
    dtype = torch.float32  # for AutoStructured and AutoGaussian have parameters of the default dtype
    model, batch = bayesian_model(method, dtype), make_batch(dtype=dtype)
    guide = model.guide_for(autoguide)
    assert all(math.isfinite(loss) for loss in train(model, guide, batch))
    assert model.predictive(batch.x, 3, guide=guide).log_prob(batch.y).isfinite().all()


@bayesian
@methods
def test_local_parameters_with_torch_optim(method: str) -> None:
    batch = make_batch()
    with pyro.settings.context(module_local_params=True):
        model = bayesian_model(method)
        guide = model.guide_for(AutoNormal)
        guide(batch)
        loss_fn = Trace_ELBO()(model, guide)
        parameters = {id(p) for module in (model, guide) for p in module.parameters()}
        assert {id(p) for p in loss_fn.parameters()} == parameters
        before = copy.deepcopy(loss_fn.state_dict())
        optimizer = torch.optim.Adam(loss_fn.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            loss_fn(batch, num_rows=20).backward()
            optimizer.step()
        assert model.predictive(batch.x, 3, guide=guide).log_prob(batch.y).isfinite().all()
    assert len(pyro.get_param_store()) == 0
    for name, parameter in loss_fn.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@bayesian
@pytest.mark.faults("scale of a minibatch")
@methods
def test_batches_of_unequal_size(method: str) -> None:
    model = bayesian_model(method)
    guide = model.guide_for(AutoNormal)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    x, y = torch.randn(11, FEATURES).double(), torch.randn(11).double()
    loader = pm.PairLoader(x, y, pm.CompleteGraph(11), batch_size=4, weight=torch.rand(11))
    sizes = []
    for _ in range(2):
        for batch in loader:
            sizes.append(len(batch))
            assert math.isfinite(svi.step(batch, num_rows=len(x)))
    assert len(set(sizes)) > 1
    assert {n: v.shape for n, v in guide.weights.median(batch).items()} == {
        n: prior.event_shape for n, prior in weights_of(model).items()
    }


@pytest.mark.faults("scale of a minibatch")
@pytest.mark.parametrize("guide", [lambda model: model.guide, lambda model: PosteriorGuide(model, Amortised())])
def test_rows_of_which_the_batch_is_a_part_scale_the_loss(guide: Callable[[Any], Any]) -> None:
    model, batch = make_model("ManifoldProbMix"), make_batch()
    losses = []
    for arguments in ({}, {"num_rows": 3 * SIZE}):
        pyro.set_rng_seed(0)
        losses.append(Trace_ELBO().loss(model, guide(model), batch, **arguments))
    assert losses[1] == pytest.approx(3 * losses[0])


# A Bayesian linear regression, whose posterior is known.

ROWS, NOISE, SPREAD = 40, 0.5, 2.0


def linear_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, targets, and the mean and covariance of w given y = x w + NOISE ε, w ~ N(0, SPREAD²)."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(ROWS, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(ROWS, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([1.5, -0.7]).double() + NOISE * noise
    covariance = (x.mT @ x / NOISE**2 + torch.eye(2).double() / SPREAD**2).inverse()
    return x, y, covariance @ x.mT @ y / NOISE**2, covariance


def linear_model(method: str) -> Any:
    """Its λ is one, so that nothing is mixed; an encoder hands x on."""
    layer = PyroModule[nn.Linear](2, 1, bias=False)
    layer.weight = normal_prior(1, 2, scale=SPREAD)
    likelihood = pm.nn.NormalLikelihood(scale=NOISE).double()
    arguments: dict[str, Any] = {} if method == "ERM" else {"coefficient": dist.Delta(torch.tensor(1.0).double())}
    networks: list[Any] = [layer]
    if method == "ManifoldMixup":
        networks = [nn.Identity(), layer]
    elif method == "ManifoldProbMix":
        networks = [pm.nn.NormalEmbedding(nn.Identity(), 2).double(), layer]
        arguments["propagate"] = "mean"
    return getattr(pm, method)(*networks, likelihood, **arguments)


class Posterior:
    """The exact posterior of the weight as guide."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean, self.covariance = mean, covariance

    def __call__(self, batch: pm.PairBatch, num_rows: int | None = None) -> None:
        law = dist.MultivariateNormal(self.mean, self.covariance)
        w = pyro.sample("w", law, infer={"is_auxiliary": True})
        pyro.sample("decoder.weight", dist.Delta(w.unsqueeze(0), event_dim=2))


@bayesian
@methods
def test_the_elbo_at_the_exact_posterior_is_the_evidence_whatever_is_drawn(method: str) -> None:
    x, y, mean, covariance = linear_data()
    model = linear_model(method)
    guide = model.guide_for(lambda weights: Posterior(mean, covariance))
    evidence = dist.MultivariateNormal(
        torch.zeros(ROWS).double(), SPREAD**2 * x @ x.mT + NOISE**2 * torch.eye(ROWS).double()
    )
    batch = pm.CompleteGraph(ROWS).pair_batch(x, y)
    for _ in range(3):
        loss = Trace_ELBO().loss(model, guide, batch)
        assert loss == pytest.approx(-float(evidence.log_prob(y)), rel=1e-10)


@bayesian
@pytest.mark.faults("scale of a minibatch")
@methods
def test_the_mean_of_batch_losses_is_the_loss_of_all_rows(method: str) -> None:
    """Each weighted with its share of the rows; the prior then counts once an epoch."""
    x, y, mean, covariance = linear_data()
    model = linear_model(method)
    guide = model.guide_for(lambda weights: Posterior(mean, covariance))

    def loss(rows: slice) -> float:
        pyro.set_rng_seed(2)
        size = len(x[rows])
        batch = pm.PairBatch(x[rows], y[rows], torch.arange(size).roll(1))
        return size / ROWS * Trace_ELBO().loss(model, guide, batch, num_rows=ROWS)

    batches = [slice(0, 16), slice(16, 32), slice(32, ROWS)]
    assert sum(map(loss, batches)) == pytest.approx(loss(slice(None)), rel=1e-10)


@bayesian
@pytest.mark.parametrize("batch_size", [None, 16])
def test_the_posterior_is_recovered_by_svi(batch_size: int | None) -> None:
    """Of ProbMix at λ = 1, in batches of unequal size too, and the predictive density with it."""
    x, y, mean, covariance = linear_data()
    model = linear_model("ProbMix")
    guide = model.guide_for(AutoMultivariateNormal, init_scale=0.1)
    loader = pm.PairLoader(x, y, pm.CompleteGraph(ROWS), batch_size, generator=torch.Generator().manual_seed(0))
    steps = 400
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 1e-2 ** (1 / steps)}), Trace_ELBO())
    with pyro.validation_enabled(False):
        taken = 0
        while taken < steps:
            for batch in loader:
                svi.step(batch, num_rows=ROWS)
                taken += 1
    found = guide.weights.get_posterior()
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=0.25 * float(covariance.diagonal().min().sqrt()))
    torch.testing.assert_close(found.variance, covariance.diagonal(), rtol=0.25, atol=0)
    p = model.predictive(x, num_samples=400, guide=guide)
    spread = ((x @ covariance) * x).sum(-1)
    torch.testing.assert_close(p.mean, x @ mean, rtol=0, atol=0.05)
    torch.testing.assert_close(p.variance, spread + NOISE**2, rtol=0.1, atol=0)


@bayesian
def test_the_laplace_approximation_sees_the_labels() -> None:
    """Of a quadratic log-posterior it is exact: at the mode, the inverse of its curvature."""
    x, y, mean, covariance = linear_data()
    model = linear_model("ERM")
    batch = pm.CompleteGraph(ROWS).pair_batch(x, y)
    at_mode = init_to_value(values={"decoder.weight": mean.unsqueeze(0)})
    guide = model.guide_for(AutoLaplaceApproximation, init_loc_fn=at_mode)
    guide(batch)
    guide = model.guide_for(lambda weights: guide.weights.laplace_approximation(batch))
    torch.testing.assert_close(guide.weights.get_posterior().covariance_matrix, covariance, rtol=1e-8, atol=0)
    assert model.predictive(x, 3, guide=guide).batch_shape == (ROWS,)


@bayesian
def test_without_a_guide_everything_latent_is_scored() -> None:
    """As under MCMC: the weights, λ, and the embedding, which a guide would draw as the model does."""
    model, batch = bayesian_model("ManifoldProbMix", coefficient=dist.Beta(2.0, 2.0)), make_batch()
    trace = poutine.trace(model).get_trace(batch)
    trace.compute_log_prob()
    sites = {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and n != "data"}
    assert sites.keys() == {*weights_of(model), "mixing_coefficient", "embedding", "y"}
    assert all(site["log_prob_sum"] != 0 for site in sites.values())
    coefficient, z = (sites[name]["value"] for name in ("mixing_coefficient", "embedding"))
    weights = {name: sites[name]["value"] for name in weights_of(model)}
    seen = []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    poutine.condition(model, data=weights)(batch)
    (q,) = seen
    partner = dist.Normal(q.base_dist.loc[batch.partner], q.base_dist.scale[batch.partner]).to_event(1)
    fused = pm.log_linear_pool([q, partner], [coefficient, 1 - coefficient])
    torch.testing.assert_close(sites["embedding"]["log_prob"], fused.log_prob(z))


@bayesian
def test_posterior_samples_by_pyros_predictive() -> None:
    model, batch = bayesian_model("ManifoldProbMix"), make_batch()
    guide = model.guide_for(AutoNormal)
    train(model, guide, batch)
    absent = pm.PairBatch(batch.x, None, batch.partner)
    draws = Predictive(model, guide=guide, num_samples=4)(absent)
    assert draws["y"].shape == (4, SIZE)
    assert draws["decoder.0.weight"].shape[-2:] == (5, EMBEDDING)


# Prediction.


@bayesian
@methods
def test_predictive_is_the_mixture_over_draws_of_the_guide(method: str) -> None:
    model, batch = (
        bayesian_model(method, **({"propagate": "mean"} if method == "ManifoldProbMix" else {})),
        make_batch(),
    )
    guide = model.guide_for(AutoNormal, init_scale=0.5)
    train(model, guide, batch)
    p = model.predictive(batch.x, num_samples=7, seed=4, guide=guide)
    assert isinstance(p, pm.LinearPool)
    assert p.batch_shape == (SIZE,)
    assert p.weights.shape == (SIZE, 7)
    pyro.set_rng_seed(4)
    log_probs = []
    for _ in range(7):
        weights = poutine.trace(guide.weights).get_trace(batch).nodes
        given = poutine.condition(model, data={name: weights[name]["value"] for name in weights_of(model)})
        alone = pm.PairBatch(batch.x, batch.y, torch.arange(SIZE))  # whatever λ is, a pair of one is itself
        random_state = torch.get_rng_state()
        node = poutine.trace(given).get_trace(alone).nodes["y"]
        torch.set_rng_state(random_state)
        log_probs.append(node["fn"].base_dist.log_prob(batch.y) if method != "ERM" else node["fn"].log_prob(batch.y))
    expected = torch.stack(log_probs).logsumexp(0) - math.log(7)
    torch.testing.assert_close(p.log_prob(batch.y), expected, rtol=1e-7, atol=1e-7)


@bayesian
@pytest.mark.faults("random state disturbed")
def test_predictive_is_reproducible_and_leaves_random_state_and_store_alone() -> None:
    model, batch = bayesian_model("ManifoldProbMix"), make_batch()
    guide = model.guide_for(AutoNormal)
    train(model, guide, batch)
    other = bayesian_model("ManifoldProbMix")
    state, store = torch.get_rng_state(), pyro.get_param_store()
    before = {name: id(parameter) for name, parameter in store._params.items()}
    p, again = (model.predictive(batch.x, 3, guide=guide) for _ in range(2))
    assert torch.equal(p.log_prob(batch.y), again.log_prob(batch.y))
    assert not torch.equal(p.mean, model.predictive(batch.x, 3, seed=1, guide=guide).mean)
    other.predictive(batch.x, 3, guide=guide.weights)  # whose biases the store has never seen
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: id(parameter) for name, parameter in store._params.items()} == before
    model.predictive(batch.x, 3, seed=None, guide=guide)
    assert not torch.equal(torch.get_rng_state(), state)


@bayesian
def test_draws_of_the_guide_keep_no_graph_and_gradients_reach_x() -> None:
    model = pm.ProbMix(PyroModule[nn.Linear](FEATURES, 2, bias=False), pm.nn.NormalLikelihood())
    model.decoder.weight = normal_prior(2, FEATURES)
    batch, guide = make_batch(), model.guide_for(AutoNormal)
    train(model, guide, batch)
    assert not model.predictive(batch.x, 3, guide=guide).mean.requires_grad
    x = batch.x.clone().requires_grad_()
    model.predictive(x, 3, guide=guide).mean.sum().backward()
    assert (x.grad != 0).all()


# Names, copies and stores.


@bayesian
@pytest.mark.faults("copies and transforms")
@pytest.mark.parametrize("trained", [False, True])
def test_a_copied_guide_trains_with_its_copied_model(trained: bool) -> None:
    model, batch = bayesian_model("ManifoldProbMix"), make_batch()
    guide = model.guide_for(AutoNormal)
    if trained:
        train(model, guide, batch)
    other_model, other_guide = copy.deepcopy((model, guide))
    assert {*weights_of(other_model)} == {*weights_of(model)}
    train(other_model, other_guide, batch)
    before = copy.deepcopy(other_guide.state_dict())
    train(model, guide, batch)
    for name, value in other_guide.state_dict().items():
        assert torch.equal(value, before[name]), name
    if trained:
        with_pickle = pickle.loads(pickle.dumps((other_model, other_guide)))
        p, q = (m.predictive(batch.x, 3, guide=g) for m, g in ((other_model, other_guide), with_pickle))
        assert torch.equal(p.log_prob(batch.y), q.log_prob(batch.y))


@bayesian
@pytest.mark.faults("models that meet in the store")
def test_modules_of_pyro_inside_of_those_of_torch_do_not_meet() -> None:
    class Shifted(PyroModule):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.shift = PyroParam(torch.full((EMBEDDING,), shift).double(), constraint=constraints.positive)
            self.weight = normal_prior(EMBEDDING, FEATURES)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.mT + self.shift

    batch, models = make_batch(), []
    for shift in (1.0, 2.0):
        embedding = pm.nn.NormalEmbedding(Shifted(shift), EMBEDDING).double()
        model = pm.ManifoldProbMix(embedding, pm.nn.MLP(EMBEDDING, [], 2).double(), pm.nn.NormalLikelihood())
        guide = model.guide_for(AutoNormal)
        assert float(model.encoder.encoder.shift.detach()[0]) == pytest.approx(shift)
        train(model, guide, batch)
        assert float(model.encoder.encoder.shift.detach()[0]) == pytest.approx(shift, abs=0.1)
        assert list(guide.weights.median(batch)) == ["encoder.encoder.weight"]
        models.append(model)
    assert {id(p) for p in models[0].parameters()}.isdisjoint(id(p) for p in models[1].parameters())


# What is refused.


def refusals() -> dict[str, Callable[[Any, pm.PairBatch], Any]]:
    data = (torch.randn(SIZE, FEATURES).double(), torch.randn(SIZE).double())

    def lightning(model: Any, batch: Any) -> Any:
        return pytest.importorskip("pyro_probmix.training.lightning").ProbMixModule(model)

    return {
        "risk": lambda model, batch: model.risk(batch),
        "predictive without a guide": lambda model, batch: model.predictive(batch.x),
        "fit": lambda model, batch: pm.fit(model, data, progress=False),
        "fit_replicas": lambda model, batch: pm.fit_replicas(lambda r: model, [data], progress=False),
        "ProbMixModule": lightning,
        "model.guide": lambda model, batch: train(model, model.guide, batch),
    }


@bayesian
@pytest.mark.parametrize("doing", refusals())
@pytest.mark.parametrize("method", ["ERM", "ManifoldProbMix"])
def test_what_knows_nothing_of_priors_refuses_them_by_name(method: str, doing: str) -> None:
    model, batch = bayesian_model(method), make_batch()
    first = next(iter(weights_of(model)))
    with pytest.raises(ValueError, match=f"model: expected networks without priors in {doing}, got priors of {first}"):
        refusals()[doing](model, batch)
    with pytest.raises(ValueError, match=r"model\.guide_for\(AutoNormal\)"):
        refusals()[doing](model, batch)


@bayesian
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("method", ["ERM", "ManifoldProbMix"])
def test_vectorized_particles_are_refused_and_others_are_not(method: str, trained: bool) -> None:
    model, batch = bayesian_model(method), make_batch()
    guide = model.guide_for(AutoNormal)
    if trained:
        train(model, guide, batch)
    with pytest.raises(ValueError, match=r"vectorize_particles: expected False .* 'num_particles_vectorized'"):
        train(model, guide, batch, elbo=Trace_ELBO(**particles(3)))
    assert math.isfinite(train(model, guide, batch, elbo=Trace_ELBO(num_particles=3))[0])


@bayesian
def test_guides_without_a_weight_are_refused() -> None:
    model, batch = bayesian_model("ManifoldProbMix"), make_batch()
    inference = PosteriorGuide(model, Amortised())
    with pytest.raises(ValueError, match=r"guide: expected one that draws encoder\.encoder\.0\.weight, .*guide_for"):
        train(model, inference, batch)
    partial = model.guide_for(lambda weights: AutoNormal(poutine.block(weights, hide=["decoder.0.weight"])))
    with pytest.raises(ValueError, match=r"guide: expected one that draws decoder\.0\.weight, "):
        train(model, partial, batch)
    with pytest.raises(ValueError, match=r"guide: expected one that draws decoder\.0\.weight, got one that draws enc"):
        model.predictive(batch.x, 3, guide=partial)


class Amortised(nn.Module):
    def forward(self, x: Tensor, partner_x: Tensor, label: Tensor, coefficient: Tensor) -> Any:
        return dist.Normal(torch.zeros(len(x), EMBEDDING).double(), 1.0).to_event(1)


@bayesian
def test_guides_that_cannot_be_made_or_drawn_from() -> None:
    model, batch = bayesian_model("ProbMix"), make_batch()
    with pytest.raises(TypeError, match=r"autoguide: expected a class such as AutoNormal, .* got AutoNormal"):
        model.guide_for(AutoNormal(model))
    with pytest.raises(TypeError, match="autoguide: expected one that makes a guide, got one that makes NoneType"):
        model.guide_for(lambda weights: None)
    guide = model.guide_for(AutoNormal)
    with pytest.raises(ValueError, match="guide: expected one that has been trained, got AutoNormal, not yet called"):
        model.predictive(batch.x, guide=guide)
    with pytest.raises(ValueError, match=r"guide: expected that of weights with priors, .* got model\.guide"):
        model.predictive(batch.x, guide=model.guide)
    train(model, guide, batch)
    with pytest.raises(TypeError, match="noise: expected None with a guide, got Tensor"):
        model.predictive(batch.x, guide=guide, noise=torch.zeros(3))
    with pytest.raises(ValueError, match="num_rows: expected at least 6, the number of nodes in the batch, got 5"):
        train(model, guide, batch, num_rows=5)
    plain = make_model("ProbMix")
    with pytest.raises(ValueError, match=r"model: expected networks with priors, .* got none"):
        train(plain, plain.guide_for(AutoNormal), batch)


@pytest.mark.faults("nothing was fused")
@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("Y", "'x', 'y', there being no encoder, got 'Y'"),
        ("embedding", "'x', 'y', there being no encoder, got 'embedding'"),
        (("x", "y"), r"'x', 'y', there being no encoder, got \('x', 'y'\)"),
    ],
)
def test_a_site_that_the_model_does_not_have(at: Any, expected: str) -> None:
    likelihood, mixing = pm.nn.NormalLikelihood(), Mixing(at, dist.Beta(0.2, 0.2))
    with pytest.raises(ValueError, match=f"mixing.at: expected one of {expected}"):
        DensityModel(None, pm.nn.MLP(FEATURES, [], 2), likelihood, mixing)
    model = pm.ERM(pm.nn.MLP(FEATURES, [], 2), likelihood)
    with pytest.raises(ValueError, match=f"mixing.at: expected one of {expected}"):
        model.mixing = mixing
    assert model.mixing.at is None


@pytest.mark.faults("nothing was fused")
def test_sites_that_a_model_with_an_encoder_has() -> None:
    model = make_model("ManifoldMixup")
    for at in ("x", "embedding", "y", None):
        model.mixing = Mixing(at, None if at is None else dist.Beta(0.2, 0.2))
        assert model.risk(make_batch()).isfinite()
    with pytest.raises(ValueError, match=r"mixing.at: expected one of 'x', 'embedding', 'y', got 'z'"):
        model.mixing = Mixing("z", dist.Beta(0.2, 0.2))
    with pytest.raises(TypeError, match="mixing: expected a Mixing, got str"):
        model.mixing = "x"

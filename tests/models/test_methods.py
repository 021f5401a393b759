"""The ready methods under Pyro and in plain torch: one number, one encoder run, no state shared between models."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import pyro_probmix as pm
from pyro_probmix.models import DensityModel
from tests.models.cases import (
    CLASSES,
    FEATURES,
    LIKELIHOODS,
    METHODS,
    MIXING_METHODS,
    make_batch,
    make_data,
    make_model,
)

LABELS = ["exact", "sample"]
GRAPHS = ["complete", "neighbors"]


def particles(number: int) -> dict[str, Any]:
    return {"num_particles": number, "vectorize_particles": number > 1, "max_plate_nesting": 1}


def labels_of(method: str, labels: str) -> dict[str, Any]:
    return {} if method == "ERM" else {"labels": labels}


def encoder_of(model: Any) -> nn.Module:
    """The network that sees x, whose runs are counted."""
    if model.encoder is None:
        return model.decoder
    return getattr(model.encoder, "encoder", model.encoder)


# loss / B is the risk, values and gradients.


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("method", METHODS)
def test_loss_over_batch_size_is_the_risk(
    method: str, likelihood: str, dtype: torch.dtype, labels: Any, num_samples: int
) -> None:
    model = make_model(method, likelihood, dtype, **labels_of(method, labels))
    batch = make_batch(likelihood, dtype=dtype)
    parameters = list(model.parameters())
    pyro.set_rng_seed(1)
    elbo = Trace_ELBO(**particles(num_samples))
    loss = elbo.differentiable_loss(model, model.guide, batch) / len(batch)
    pyro.set_rng_seed(1)
    risk = model.risk(batch, num_samples)
    assert risk.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(loss, risk, rtol=tolerance, atol=tolerance)
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (loss, risk))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("method", MIXING_METHODS)
def test_one_coefficient_an_edge_serves_all_samples(method: str) -> None:
    """λ of shape (B,) is λ of shape (K, B) with equal rows: embedding and label still have K draws."""
    model, batch = make_model(method, vicinity=pm.NormalVicinity(0.3), labels="sample"), make_batch()
    coefficient = torch.rand(6, dtype=torch.float64)
    risks = []
    for given in (coefficient, coefficient.expand(4, 6)):
        pyro.set_rng_seed(2)
        risks.append(model.risk(batch, 4, coefficient=given).item())
    assert risks[0] == risks[1]


@pytest.mark.parametrize("num_samples", [1, 3])
def test_stochastic_embedding_without_mixing(num_samples: int) -> None:
    """The plain latent variable model that M-ProbMix mixes."""
    mixing = make_model("ManifoldProbMix")
    model = DensityModel(mixing.encoder, mixing.decoder, mixing.likelihood)
    batch = make_batch()
    pyro.set_rng_seed(1)
    loss = Trace_ELBO(**particles(num_samples)).loss(model, model.guide, batch) / 6
    pyro.set_rng_seed(1)
    assert loss == pytest.approx(model.risk(batch, num_samples).item(), rel=1e-13)


@pytest.mark.parametrize("method", MIXING_METHODS)
def test_labels_argument_overrules_the_model(method: str) -> None:
    """The model's own setting is only a default, and stays as it was."""
    arguments = {"vicinity": pm.NormalVicinity(0.5)}
    exact, sample = (make_model(method, labels=labels, **arguments) for labels in LABELS)
    sample.load_state_dict(exact.state_dict())
    batch = make_batch()

    def risk(model: Any, labels: Any) -> float:
        pyro.set_rng_seed(2)
        return model.risk(batch, labels=labels).item()

    assert risk(exact, "sample") == risk(sample, None) != risk(exact, None) == risk(sample, "exact")


@pytest.mark.parametrize("likelihood", ["normal", "normals", "categorical", "bernoullis"])
@pytest.mark.parametrize("method", MIXING_METHODS)
def test_sampled_labels_converge_to_the_exact_expectation(method: str, likelihood: str) -> None:
    """Eq. 16 as K grows, for fixed λ and a deterministic embedding: within five standard errors."""
    vicinity = {
        "categorical": pm.LabelVicinity(0.2, CLASSES, fusion="log-linear"),
        "bernoullis": pm.LabelVicinity(0.2, 2),
    }.get(likelihood, pm.NormalVicinity(0.3))
    arguments = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    model = make_model(method, likelihood, vicinity=vicinity, **arguments)
    batch = make_batch(likelihood)
    coefficient = torch.rand(6, dtype=torch.float64)
    with torch.no_grad():
        exact = model.risk(batch, labels="exact", coefficient=coefficient).item()
        draws = torch.stack([model.risk(batch, 100, "sample", coefficient) for _ in range(40)])
    assert abs(draws.mean().item() - exact) < 5 * draws.std().item() / 40**0.5
    assert draws.std() > 0


def test_risk_with_many_samples_converges() -> None:
    """All of λ, the embedding and the label: the means of two large halves agree."""
    model = make_model("ManifoldProbMix", vicinity=pm.NormalVicinity(0.1), labels="sample")
    batch = make_batch()
    with torch.no_grad():
        draws = torch.stack([model.risk(batch, 200) for _ in range(40)])
    first, second = draws.chunk(2)
    assert (first.mean() - second.mean()).abs() < 5 * (draws.var() / 10).sqrt()
    singles = torch.stack([model.risk(batch).detach() for _ in range(200)])
    assert draws.std() < 0.25 * singles.std()


# Training, both ways that Pyro has.


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("likelihood", ["normal", "normals", "categorical", "gamma", "poisson"])
@pytest.mark.parametrize("method", METHODS)
def test_svi_with_the_global_store(method: str, likelihood: str, graph: str) -> None:
    """pyro.optim moves every parameter of the module itself."""
    model = make_model(method, likelihood, torch.float32)
    before = copy.deepcopy(model.state_dict())
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(2):
        assert svi.step(make_batch(likelihood, dtype=torch.float32, graph=graph)) < 1e4
    store = pyro.get_param_store()
    assert {id(store._params[name]) for name in store.keys()} == {id(p) for p in model.parameters()}  # noqa: SIM118
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("likelihood", ["normal", "normals", "categorical", "gamma", "poisson"])
@pytest.mark.parametrize("method", METHODS)
def test_local_parameters_with_torch_optim(method: str, likelihood: str, graph: str) -> None:
    """Trace_ELBO()(model, guide) is a module with the model's parameters; the global store stays empty."""
    batch = make_batch(likelihood, dtype=torch.float32, graph=graph)
    with pyro.settings.context(module_local_params=True):
        model = make_model(method, likelihood, torch.float32)
        before = copy.deepcopy(model.state_dict())
        loss_fn = Trace_ELBO()(model, model.guide)
        assert {id(p) for p in loss_fn.parameters()} == {id(p) for p in model.parameters()}
        optimizer = torch.optim.Adam(loss_fn.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            loss_fn(batch).backward()
            optimizer.step()
    assert len(pyro.get_param_store()) == 0
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_svi_learns() -> None:
    likelihood = pm.nn.NormalLikelihood()
    x = torch.linspace(-1, 1, 12)[:, None]
    model = pm.ProbMix(pm.nn.MLP(1, [8], likelihood.num_outputs), likelihood)
    graph = pm.NearestNeighborGraph(x, num_neighbors=2)
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step(graph.pair_batch(x, 2 * x[:, 0])) / 12 for _ in range(100)]
    assert losses[-1] < 0.3 < 1 < losses[0]


@pytest.mark.parametrize("elbo", [TraceMeanField_ELBO, RenyiELBO])
@pytest.mark.parametrize("method", METHODS)
def test_other_elbos(method: str, elbo: Any) -> None:
    arguments = {"alpha": 0, "num_particles": 2} if elbo is RenyiELBO else {}
    model = make_model(method)
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), elbo(**arguments))
    assert abs(svi.step(make_batch())) < 1e4


ELBOS = {
    "one particle": lambda: Trace_ELBO(),
    "three particles": lambda: Trace_ELBO(**particles(3)),
    "renyi": lambda: RenyiELBO(alpha=0, **particles(3)),
}


@pytest.mark.parametrize("elbo", ELBOS.values(), ids=ELBOS)
@pytest.mark.parametrize("method", METHODS)
def test_encoder_runs_once_a_step(method: str, elbo: Any) -> None:
    model, batch = make_model(method), make_batch()
    runs = []
    encoder_of(model).register_forward_hook(lambda module, inputs, output: runs.append(inputs[0].shape))
    decoder_runs = []
    model.decoder.register_forward_hook(lambda module, inputs, output: decoder_runs.append(output.shape))
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), elbo())
    svi.step(batch)
    runs.clear(), decoder_runs.clear()
    svi.step(batch)
    assert len(runs) == len(decoder_runs) == 1
    runs.clear(), decoder_runs.clear()
    model.risk(batch, num_samples=3)
    assert len(runs) == len(decoder_runs) == 1


@pytest.mark.parametrize("method", METHODS)
def test_sites_of_the_model(method: str) -> None:
    model = make_model(method)
    sites = {
        name: site
        for name, site in poutine.trace(model).get_trace(make_batch()).nodes.items()
        if site["type"] == "sample"
    }
    expected = {
        "ERM": {"data", "y"},
        "Mixup": {"data", "mixing_coefficient", "x", "y"},
        "ProbMix": {"data", "mixing_coefficient", "y"},
    }.get(method, {"data", "mixing_coefficient", "embedding", "y"})
    assert set(sites) == expected
    guide_sites = set(poutine.trace(model.guide).get_trace(make_batch()).nodes)
    assert guide_sites >= expected & {"mixing_coefficient"}
    assert ("embedding" in guide_sites) == (method == "ManifoldProbMix")
    assert "y" not in guide_sites


# Other ways of torch.


class Risk(nn.Module):
    """The risk as a module's call, for torch.func."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: pm.PairBatch, **arguments: Any) -> Tensor:
        return self.model.risk(batch, **arguments)


@pytest.mark.parametrize("likelihood", ["normal", "categorical", "gamma"])
@pytest.mark.parametrize("method", METHODS)
def test_vmap_over_stacked_parameters_and_data(method: str, likelihood: str) -> None:
    arguments = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    models = [Risk(make_model(method, likelihood, **arguments)) for _ in range(3)]
    batches = [make_batch(likelihood) for _ in range(3)]
    coefficients = torch.rand(3, 6, dtype=torch.float64)
    parameters, buffers = stack_module_state(models)
    data = [torch.stack([getattr(batch, name) for batch in batches]) for name in ("x", "y", "partner")]

    def risk(parameters: Any, buffers: Any, coefficient: Tensor, *data: Tensor) -> Tensor:
        arguments = {"coefficient": coefficient}
        return functional_call(models[0], (parameters, buffers), (pm.PairBatch(*data),), arguments)

    with pyro.validation_enabled(False):
        together = vmap(risk, randomness="different")(parameters, buffers, coefficients, *data)
        replicas = zip(models, batches, coefficients, strict=True)
        alone = torch.stack([model(batch, coefficient=given) for model, batch, given in replicas])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_vmap_draws_a_noise_and_a_coefficient_for_each_replica() -> None:
    model, batch = Risk(make_model("ManifoldProbMix")), make_batch()
    parameters, buffers = stack_module_state([model] * 4)

    def risk(parameters: Any, buffers: Any, coefficient: Tensor | None = None) -> Tensor:
        return functional_call(model, (parameters, buffers), (batch,), {"coefficient": coefficient})

    with pyro.validation_enabled(False):
        half = torch.full((4, 6), 0.5, dtype=torch.float64)
        by_noise = vmap(risk, randomness="different")(parameters, buffers, half)
        by_both = vmap(risk, randomness="different")(parameters, buffers)
    assert len(set(by_noise.tolist())) == len(set(by_both.tolist())) == 4


@pytest.mark.parametrize(
    ("method", "likelihood", "labels"),
    [
        *((method, "normal", "exact") for method in METHODS),
        ("ERM", "categorical", "exact"),
        ("Mixup", "normals", "sample"),
        ("ProbMix", "categorical", "exact"),
        ("ProbMix", "gamma", "exact"),
        ("ManifoldProbMix", "categorical", "sample"),
    ],
)
def test_compile_without_a_graph_break(method: str, likelihood: str, labels: Any) -> None:
    model, batch = make_model(method, likelihood), make_batch(likelihood)
    torch._dynamo.reset()
    compiled = torch.compile(lambda batch: model.risk(batch, labels=labels), fullgraph=True, backend="eager")
    with pyro.validation_enabled(False):
        pyro.set_rng_seed(4)
        ours = compiled(batch)
        pyro.set_rng_seed(4)
        theirs = model.risk(batch, labels=labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


# Two models never meet.


def train(model: Any, batch: pm.PairBatch, steps: int = 3) -> None:
    svi = SVI(model, model.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    for step in range(steps):
        pyro.set_rng_seed(step)
        svi.step(batch)


def assert_equal_parameters(one: nn.Module, other: nn.Module) -> None:
    for (name, ours), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("method", METHODS)
def test_models_trained_in_turn_do_not_meet(method: str) -> None:
    batch = make_batch()
    pyro.set_rng_seed(0)
    alone = make_model(method)
    train(alone, batch)
    pyro.clear_param_store()

    pyro.set_rng_seed(0)
    model = make_model(method)
    other = make_model(method)
    start = copy.deepcopy(model.state_dict())
    train(other, batch)
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name]), name
    train(model, batch)
    assert_equal_parameters(model, alone)


def duplicate(model: Any, way: str) -> Any:
    if way == "deepcopy":
        return copy.deepcopy(model)
    if way == "pickle":
        return pickle.loads(pickle.dumps(model))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_copy_is_a_model_of_its_own(method: str, used: bool, way: str) -> None:
    model, batch = make_model(method), make_batch()
    if used:
        train(model, batch)
    other = duplicate(model, way)
    assert_equal_parameters(model, other)
    before = copy.deepcopy(model.state_dict())
    train(other, batch)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    train(model, batch)
    assert_equal_parameters(model, other)
    assert {id(p) for p in model.parameters()}.isdisjoint(id(p) for p in other.parameters())


def test_copies_of_models_whose_networks_are_pyro_modules() -> None:
    """Pyro names such networks after the model that they are in."""
    likelihood = pm.nn.NormalLikelihood()
    network = PyroModule[nn.Sequential](PyroModule[nn.Linear](FEATURES, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    model, batch = pm.ProbMix(network, likelihood), make_batch()
    train(model, batch)
    other = copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())
    train(other, batch)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(other.state_dict()["decoder.0.weight"], before["decoder.0.weight"])


def test_the_users_own_parameters_stay() -> None:
    mine = pyro.param("mine", torch.ones(2))
    model = make_model("ManifoldProbMix")
    train(model, make_batch())
    train(copy.deepcopy(model), make_batch())
    model.predictive(make_batch().x)
    assert pyro.get_param_store()["mine"] is mine


# Prediction.


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("method", METHODS)
def test_predictive_has_the_shape_of_the_labels(method: str, likelihood: str) -> None:
    model, batch = make_model(method, likelihood), make_batch(likelihood)
    p = model.predictive(batch.x, num_samples=8)
    assert p.batch_shape == (6,)
    assert p.event_shape == batch.y.shape[1:]
    assert p.log_prob(batch.y).shape == (6,)
    assert p.sample((5,)).shape == (5, *batch.y.shape)
    assert p.log_prob(batch.y).dtype == torch.float64
    assert isinstance(p, pm.LinearPool) == (method == "ManifoldProbMix")


@pytest.mark.parametrize("method", ["ERM", "Mixup", "ProbMix"])
def test_predictive_is_the_likelihood(method: str) -> None:
    model, batch = make_model(method), make_batch()
    expected = model.likelihood(model.decoder(batch.x))
    assert torch.equal(model.predictive(batch.x).loc, expected.loc)
    assert torch.equal(model.predictive(batch.x).scale, expected.scale)


def test_predictive_is_the_mixture_over_embeddings() -> None:
    """The integral of eq. 21, by the same draws written out, and by a second, larger Monte-Carlo estimate."""
    model, batch = make_model("ManifoldProbMix"), make_batch()
    with torch.no_grad():
        p = model.predictive(batch.x, num_samples=4000)
        q = model.encoder(batch.x)
        log_likelihood = model.likelihood(model.decoder(q.sample((40000,)))).log_prob(batch.y)
        density = log_likelihood.exp()
        error = density.std(0) * (1 / 40000 + 1 / 4000) ** 0.5
        assert ((p.log_prob(batch.y).exp() - density.mean(0)).abs() < 5 * error).all()

        pyro.set_rng_seed(9)
        z = q.rsample((16,))
        expected = model.likelihood(model.decoder(z)).log_prob(batch.y).logsumexp(0) - torch.tensor(16.0).log()
        ours = model.predictive(batch.x, num_samples=16, seed=9).log_prob(batch.y)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_predictive_of_propagated_means() -> None:
    model, batch = make_model("ManifoldProbMix", propagate="mean"), make_batch()
    expected = model.likelihood(model.decoder(model.encoder(batch.x).mean))
    assert torch.equal(model.predictive(batch.x).loc, expected.loc)


def test_predictive_is_reproducible_and_leaves_the_random_state() -> None:
    model, batch = make_model("ManifoldProbMix"), make_batch()
    state = torch.get_rng_state()
    first, again = (model.predictive(batch.x, num_samples=3).log_prob(batch.y) for _ in range(2))
    other = model.predictive(batch.x, num_samples=3, seed=1).log_prob(batch.y)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    from_state = model.predictive(batch.x, num_samples=3, seed=None).log_prob(batch.y)
    assert not torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(from_state, first)


@pytest.mark.parametrize("method", METHODS)
def test_absent_labels_are_drawn(method: str) -> None:
    model = make_model(method)
    batch = make_batch()
    y = model(pm.PairBatch(batch.x, None, batch.partner))
    assert y.shape == (6,)
    samples = Predictive(model, num_samples=4)(pm.PairBatch(batch.x, None, batch.partner))
    assert samples["y"].shape == (4, 6)


def test_absent_labels_are_drawn_from_the_fused_predictive() -> None:
    """Eq. 13, for ProbMix at λ = 1/4."""
    model = make_model("ProbMix", coefficient=dist.Delta(torch.tensor(0.25)))
    x = torch.randn(2000, FEATURES, dtype=torch.float64)
    batch = pm.CompleteGraph(2000).pair_batch(x)
    with torch.no_grad():
        p = model.predictive(x)
        partner = dist.Normal(p.loc[batch.partner], p.scale[batch.partner])
        fused = pm.log_linear_pool([p, partner], [0.25, 0.75])
        y = poutine.trace(model).get_trace(batch).nodes["y"]["value"]
    assert scipy.stats.kstest(((y - fused.loc) / fused.scale).numpy(), "norm").pvalue > 1e-6


class SomeMissing(pm.nn.NormalLikelihood):
    """A likelihood that counts some nodes only."""

    def _distribution(self, raw: Tensor) -> Any:
        return super()._distribution(raw).mask(torch.tensor([True, True, False, True, True, True]))


@pytest.mark.parametrize("method", ["ERM", "Mixup", "ProbMix"])
def test_masked_likelihood(method: str) -> None:
    """An edge counts where both its nodes do, in the loss of Pyro and in the risk."""
    model = getattr(pm, method)(pm.nn.MLP(FEATURES, [5], 2), SomeMissing()).double()
    batch = make_batch()
    batch = pm.PairBatch(batch.x, batch.y, torch.tensor([1, 2, 3, 4, 5, 0]))
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(model, model.guide, batch) / 6
    pyro.set_rng_seed(1)
    torch.testing.assert_close(loss, model.risk(batch), rtol=1e-13, atol=0)
    trace = poutine.trace(model).get_trace(batch)
    trace.compute_log_prob()
    counted = [True, method == "ERM", False, True, True, True]
    assert (trace.nodes["y"]["log_prob"] != 0).tolist() == counted


# What the methods are in special cases.


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_erm_is_the_negative_log_likelihood(likelihood: str) -> None:
    model, batch = make_model("ERM", likelihood), make_batch(likelihood)
    expected = -model.predictive(batch.x).log_prob(batch.y).mean()
    torch.testing.assert_close(model.risk(batch), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("coefficient", [0.0, 1.0])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("method", MIXING_METHODS)
def test_coefficient_zero_or_one_is_erm_of_the_partner_or_the_node(
    method: str, likelihood: str, coefficient: float, labels: Any
) -> None:
    arguments: dict[str, Any] = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    law = dist.Delta(torch.tensor(coefficient))
    model = make_model(method, likelihood, coefficient=law, labels=labels, **arguments)
    batch = make_batch(likelihood)
    log_p = model.predictive(batch.x).log_prob(batch.y)
    expected = -(log_p if coefficient == 1 else log_p[batch.partner]).mean()
    torch.testing.assert_close(model.risk(batch), expected, rtol=1e-12, atol=1e-12)


VICINITIES: dict[str, Any] = {
    "normal": pm.NormalVicinity(0.2),
    "categorical": pm.LabelVicinity(0.2, CLASSES, fusion="log-linear"),
    "poisson": None,
}


@pytest.mark.parametrize("likelihood", VICINITIES)
@pytest.mark.parametrize("method", MIXING_METHODS)
def test_an_edge_is_the_same_from_both_its_ends(method: str, likelihood: str) -> None:
    """(i, j, λ) and (j, i, 1 - λ): the loss of each edge, not only their sum."""
    arguments: dict[str, Any] = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    batch = pm.PairBatch(*make_data(likelihood, size=2), torch.tensor([1, 0]))
    law = dist.Delta(torch.tensor([0.3, 0.7], dtype=torch.float64))
    model = make_model(method, likelihood, vicinity=VICINITIES[likelihood], coefficient=law, **arguments)
    trace = poutine.trace(model).get_trace(batch)
    trace.compute_log_prob()
    ours, theirs = trace.nodes["y"]["log_prob"]
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("method", METHODS)
def test_single_precision_agrees_with_double(method: str, likelihood: str) -> None:
    arguments: dict[str, Any] = {"propagate": "mean"} if method == "ManifoldProbMix" else {}
    single = make_model(method, likelihood, torch.float32, **arguments)
    double = copy.deepcopy(single).double()
    batch = make_batch(likelihood, dtype=torch.float32)
    y = batch.y.double() if batch.y.is_floating_point() else batch.y
    coefficient = torch.rand(6)
    ours = single.risk(batch, coefficient=coefficient)
    theirs = double.risk(pm.PairBatch(batch.x.double(), y, batch.partner), coefficient=coefficient.double())
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_a_law_of_the_coefficient_in_another_dtype() -> None:
    """A law that stays where it is, here a mixture in single precision, with a model in double precision."""
    law = dist.Uniform(torch.tensor(0.0), torch.tensor(1.0))
    for method in MIXING_METHODS:
        model = make_model(method, coefficient=law)
        assert model.risk(make_batch()).dtype == torch.float64
        assert SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(make_batch()) < 1e4


@pytest.mark.parametrize("method", METHODS)
def test_batch_of_one(method: str) -> None:
    model, batch = make_model(method), make_batch(size=1)
    assert torch.isfinite(model.risk(batch))
    assert SVI(model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(batch) < 1e4


# Bad input.


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("shape", [(6, 1), (6, 2)])
@pytest.mark.parametrize("method", METHODS)
def test_labels_of_another_shape(method: str, shape: tuple[int, ...], validate: bool) -> None:
    model, batch = make_model(method), make_batch()
    wrong = pm.PairBatch(batch.x, torch.zeros(shape, dtype=torch.float64), batch.partner)
    message = rf"y: expected shape \(6,\), got \(6, {shape[1]}\)"
    with pyro.validation_enabled(validate):
        with pytest.raises(ValueError, match=message):
            model.risk(wrong)
        with pytest.raises(ValueError, match=message):
            Trace_ELBO().loss(model, model.guide, wrong)


@pytest.mark.parametrize("method", METHODS)
def test_labels_outside_the_support(method: str) -> None:
    model, batch = make_model(method, "bernoullis"), make_batch("bernoullis")
    wrong = pm.PairBatch(batch.x, torch.full((6, 2), 0.5, dtype=torch.float64), batch.partner)
    with pytest.raises(ValueError, match="within the support"):
        model.risk(wrong)
    with pytest.raises(ValueError, match="within the support"):
        Trace_ELBO().loss(model, model.guide, wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples: expected at least 1, got 0"),
        ({"labels": "foo"}, 'labels: expected "exact" or "sample"'),
        ({"coefficient": torch.rand(5)}, r"coefficient: expected shape \(6,\) or \(1, 6\), got \(5,\)"),
        ({"coefficient": torch.rand(2, 6)}, r"coefficient: .* got \(2, 6\)"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_bad_arguments_of_the_risk(method: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(method).risk(make_batch(), **arguments)


def test_absent_labels_have_no_risk() -> None:
    batch = make_batch()
    with pytest.raises(ValueError, match="batch: expected labels y, got None"):
        make_model("ProbMix").risk(pm.PairBatch(batch.x, None, batch.partner))


def test_predictive_of_no_samples() -> None:
    with pytest.raises(ValueError, match="num_samples: expected at least 1, got 0"):
        make_model("ManifoldProbMix").predictive(torch.zeros(2, FEATURES).double(), num_samples=0)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: pm.ManifoldProbMix(nn.Linear(2, 2), nn.Linear(2, 2), pm.nn.NormalLikelihood()),
            TypeError,
            "embedding: expected a module with an event_shape",
        ),
        (
            lambda: pm.ManifoldMixup(
                pm.nn.NormalEmbedding(nn.Linear(2, 2), 2), nn.Linear(2, 2), pm.nn.NormalLikelihood()
            ),
            TypeError,
            "encoder: expected a network whose output is the embedding, .*ManifoldProbMix",
        ),
        (lambda: pm.ERM(nn.Linear(2, 2), nn.Identity()), TypeError, "likelihood: expected a module with"),
        (
            lambda: make_model("ManifoldProbMix", propagate="foo"),
            ValueError,
            'propagate: expected "sample" or "mean", got \'foo\'',
        ),
        (lambda: make_model("ProbMix", labels="foo"), ValueError, "labels: expected"),
        (lambda: make_model("ProbMix", coefficient=0.2), TypeError, "coefficient: expected a distribution"),
        (lambda: make_model("ProbMix", vicinity="normal"), TypeError, "vicinity: expected a Vicinity"),
    ],
    ids=["embedding", "encoder", "likelihood", "propagate", "labels", "coefficient", "vicinity"],
)
def test_bad_arguments_of_the_methods(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_a_likelihood_of_no_exponential_family() -> None:
    likelihood = pm.nn.DistributionLikelihood(dist.StudentT, df=4.0)
    model = pm.ProbMix(pm.nn.MLP(FEATURES, [], 2).double(), likelihood)
    batch = make_batch()
    with pytest.raises(TypeError, match="StudentT has no natural form"):
        model.risk(batch)
    # Mixup fuses its input, so any likelihood will do.
    assert torch.isfinite(pm.Mixup(model.decoder, likelihood).risk(batch))

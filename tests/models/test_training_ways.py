"""The ready methods trained by SVI, torch and torch.func: one encoder run a step, no state shared by models."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import pyro_probmix as pm
from tests.models.cases import (
    FEATURES,
    METHODS,
    make_batch,
    make_model,
    particles,
)

GRAPHS = ["complete", "neighbors"]


def encoder_of(model: Any) -> nn.Module:
    """The network that sees x, whose runs are counted."""
    if model.encoder is None:
        return model.decoder
    return getattr(model.encoder, "encoder", model.encoder)


# Training, both ways that Pyro has.


@pytest.mark.faults("models that meet in the store")
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


@pytest.mark.faults("models that meet in the store")
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


@pytest.mark.faults("copies and transforms")
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


@pytest.mark.faults("copies and transforms")
@pytest.mark.parametrize(
    ("method", "likelihood", "labels"),
    [
        *((method, "normal", "exact") for method in METHODS),
        ("ERM", "categorical", "exact"),
        ("Mixup", "normals", "sample"),
        ("ProbMix", "categorical", "exact"),
        ("ProbMix", "gamma", "exact"),
        ("ProbMix", "poisson", "exact"),
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


@pytest.mark.faults("models that meet in the store")
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


@pytest.mark.faults("copies and transforms")
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


@pytest.mark.faults("copies and transforms")
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


@pytest.mark.faults("models that meet in the store")
def test_the_users_own_parameters_stay() -> None:
    mine = pyro.param("mine", torch.ones(2))
    model = make_model("ManifoldProbMix")
    train(model, make_batch())
    train(copy.deepcopy(model), make_batch())
    model.predictive(make_batch().x)
    assert pyro.get_param_store()["mine"] is mine

"""``pm.fit_replicas``: many trainings in one, each as ``pm.fit`` would have done it alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import nn

import pyro_probmix as pm
from pyro_probmix.mixing.graphs import base as graphs_module
from tests.models import cases
from tests.training.global_state import global_state
from tests.training.replica_cases import assert_as_fit, assert_same, computations, data, fit_replicas, initial, maker

METHODS = cases.METHODS


# Each replica is what `fit` makes of it.


@pytest.mark.parametrize("likelihood", ["normal", "categorical"])
@pytest.mark.parametrize("method", METHODS)
def test_replicas_are_trained_as_fit_trains(method: str, likelihood: str) -> None:
    make_model = maker(method, likelihood)
    own = [data(r, likelihood=likelihood) for r in range(3)]
    validation = [data(10 + r, 7, likelihood) for r in range(3)]
    replicas = fit_replicas(make_model, own, validation=validation)
    assert replicas.failed == {}
    assert_as_fit(replicas, make_model, own, validation)


@pytest.mark.parametrize("likelihood", ["normals", "one-hot", "bernoullis", "gamma", "poisson"])
def test_other_likelihoods(likelihood: str) -> None:
    make_model = maker("ProbMix", likelihood, labels="exact" if likelihood in ("normals", "one-hot") else "sample")
    own = [data(r, likelihood=likelihood) for r in range(2)]
    assert_as_fit(fit_replicas(make_model, own), make_model, own)


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("method", ["ERM", "ProbMix", "ManifoldProbMix"])
def test_uneven_lengths(method: str, batch_size: int | None) -> None:
    """Padded rows change neither loss, gradient nor validation; a short replica waits for the others."""
    make_model = maker(method)
    own = [data(r, size) for r, size in enumerate([12, 7, 3, 11])]
    validation = [data(10 + r, size) for r, size in enumerate([4, 9, 1, 6])]
    arguments: dict[str, Any] = {"batch_size": batch_size}
    replicas = fit_replicas(make_model, own, validation=validation, **arguments)
    assert_as_fit(replicas, make_model, own, validation, **arguments)


@pytest.mark.parametrize("likelihood", ["normal", "categorical"])
@pytest.mark.parametrize("method", ["ProbMix", "ManifoldProbMix"])
def test_sampled_labels_and_several_samples(method: str, likelihood: str) -> None:
    vicinity = pm.NormalVicinity(0.1) if likelihood == "normal" else pm.LabelVicinity(0.1, cases.CLASSES)
    make_model = maker(method, likelihood, labels="sample", vicinity=vicinity)
    own = [data(r, size, likelihood) for r, size in enumerate([12, 9])]
    assert_as_fit(fit_replicas(make_model, own, num_samples=3), make_model, own, num_samples=3)


def test_other_laws_of_the_coefficient() -> None:
    """λ at fixed nodes is a part of the computation: another law is another computation. One λ a batch is drawn."""

    def make_model(r: int) -> Any:
        return cases.make_model("ProbMix", coefficient=pm.GaussJacobi(0.5 + r, num_nodes=3))

    own = [data(0, 12), data(1, 9)]
    assert_as_fit(fit_replicas(make_model, own), make_model, own)
    per_batch = maker("ProbMix", per="batch")
    assert_as_fit(fit_replicas(per_batch, own), per_batch, own)
    alike = maker("ManifoldProbMix", coefficient=pm.GaussJacobi(0.5, num_nodes=3))
    assert_as_fit(fit_replicas(alike, own), alike, own)


def test_a_model_with_draws_of_its_own() -> None:
    """By a method that knows nothing of parts."""

    class Halves(pm.ProbMix):
        def draw(self, batch: Any, num_samples: int = 1, labels: Any = None) -> Any:
            return {"coefficient": torch.full((len(batch),), 0.5).double()}

    def make_model(r: int) -> Any:
        return Halves(nn.Linear(3, 2), pm.nn.NormalLikelihood(), coefficient=dist.Beta(0.2, 0.2)).double()

    replicas = fit_replicas(make_model, [data(0), data(1, 9)])
    assert replicas.failed == {}


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("sizes", [(12, 9), (12, 12)])
def test_beta_laws(sizes: tuple[int, int], num_samples: int) -> None:
    """Each replica's own, made into λ for all at once; or by each itself, where the edges of one have laws."""
    shapes = [(), () if sizes[1] < 12 else (12,)]

    def make_model(r: int) -> Any:
        a1 = torch.full(shapes[r], 0.1 + r).double()
        return cases.make_model("ManifoldProbMix", coefficient=dist.Beta(a1, 2 * a1))

    own = [data(r, size) for r, size in enumerate(sizes)]
    replicas = fit_replicas(make_model, own, num_samples=num_samples)
    assert_as_fit(replicas, make_model, own, num_samples=num_samples)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_graphs(batch_size: int | None) -> None:
    own = [data(r, size) for r, size in enumerate([12, 9])]
    graphs = [pm.NearestNeighborGraph(x, num_neighbors=2) for x, _ in own]
    arguments: dict[str, Any] = {"batch_size": batch_size}
    one_each = fit_replicas(maker(), own, graph=graphs, **arguments)
    made = fit_replicas(maker(), own, graph=lambda x: pm.NearestNeighborGraph(x, num_neighbors=2), **arguments)
    assert_as_fit(one_each, maker(), own, graphs=graphs, **arguments)
    for model, other in zip(one_each.models, made.models, strict=True):
        assert_same(model, other, rtol=0)


def test_one_graph_for_all() -> None:
    x, y = data()
    graph = pm.NearestNeighborGraph(x, num_neighbors=2)
    replicas = fit_replicas(maker(), [(x, y)] * 3, graph=graph)
    assert_as_fit(replicas, maker(), [(x, y)] * 3, graphs=[graph] * 3)
    parameters = [next(model.parameters()) for model in replicas.models]
    assert not torch.equal(parameters[0], parameters[1])


def test_hyperparameters() -> None:
    """Learning rate and law of λ in one computation; vicinity and network in turn, the results in order."""

    def make_model(r: int) -> Any:
        arguments = {"coefficient": dist.Beta(0.1 + r, 0.1 + r), "vicinity": pm.NormalVicinity(0.1 if r % 2 else 0.0)}
        model = cases.make_model("ProbMix", **arguments)
        if r == 3:
            model.decoder.append(nn.Tanh())
        return model

    own, rates = [data(r) for r in range(5)], [0.001, 0.01, 0.02, 0.03, 0.1]
    assert computations(make_model, own, learning_rate=rates) == 3  # replicas 0, 2 and 4 are one
    replicas = fit_replicas(make_model, own, learning_rate=rates)
    assert_as_fit(replicas, make_model, own, learning_rate=rates)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: cases.make_model("ERM"), lambda: cases.make_model("Mixup")),
        (lambda: nn.Dropout(0.1), lambda: nn.Dropout(0.2)),
        (nn.ReLU, nn.Tanh),
        (lambda: nn.LeakyReLU(0.1), lambda: nn.LeakyReLU(0.2)),
        (lambda: pm.nn.NormalLikelihood(min_scale=1e-3), lambda: pm.nn.NormalLikelihood(min_scale=1e-2)),
    ],
)
def test_what_is_one_computation(one: Any, other: Any) -> None:
    """What is made alike is alike, whatever its parameters; what differs in an attribute is not."""

    def model(make: Any) -> Any:
        made = make()
        if isinstance(made, pm.models.DensityModel):
            return made
        likelihood = made if isinstance(made, pm.nn.NormalLikelihood) else pm.nn.NormalLikelihood()
        layers = [nn.Linear(3, 2)] + ([] if likelihood is made else [made])
        return pm.ERM(nn.Sequential(*layers), likelihood).double()

    own = [data(r) for r in range(2)]
    assert computations(lambda r: model(one), own) == 1
    assert computations(lambda r: model(other if r else one), own) == 2


def test_embeddings_and_scales() -> None:
    """A variance network, a fixed scale, propagated means, a homoscedastic likelihood."""

    def embedding(r: int) -> Any:
        encoder = pm.nn.MLP(3, [], 4, output_activation=nn.Tanh)
        if r < 2:
            return pm.nn.NormalEmbedding(encoder, 4, variance_network=pm.nn.MLP(3, [5], 4))
        return pm.nn.NormalEmbedding(encoder, 4, scale=0.3)

    def make_model(r: int) -> Any:
        likelihood = pm.nn.NormalLikelihood(homoscedastic=True)
        propagate = "mean" if r == 3 else "sample"
        return pm.ManifoldProbMix(embedding(r), pm.nn.MLP(4, [5], 1), likelihood, propagate=propagate).double()

    own = [data(r) for r in range(4)]
    replicas = fit_replicas(make_model, own, validation=own)
    assert_as_fit(replicas, make_model, own, own)


def test_pyro_parameters() -> None:
    """Constrained parameters of Pyro modules are stacked as they are optimised, unconstrained."""

    def make_model(r: int) -> Any:
        network = PyroModule[nn.Sequential](PyroModule[nn.Linear](3, 4), nn.Tanh(), PyroModule[nn.Linear](4, 2))
        network[0].bias = PyroParam(torch.ones(4), dist.constraints.positive)
        return pm.ProbMix(network, pm.nn.NormalLikelihood()).double()

    own = [data(r) for r in range(2)]
    assert computations(make_model, own) == 1
    replicas = fit_replicas(make_model, own)
    assert_as_fit(replicas, make_model, own)
    assert list(pyro.get_param_store()) == []


def test_single_precision() -> None:
    own = [(x.float(), y.float()) for x, y in map(data, range(2))]
    make_model = maker(dtype=torch.float32)
    replicas = fit_replicas(make_model, own)
    for r, model in enumerate(replicas.models):
        alone = initial(make_model, r)
        pm.fit(alone, own[r], seed=replicas.seeds[r], epochs=4, learning_rate=0.02, progress=False)
        assert_same(model, alone, rtol=1e-5)


def test_what_networks_draw() -> None:
    """Dropout is each replica's own, comes from the seed, and is no copy of what a replica draws."""

    def make_model(r: int) -> Any:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        return pm.ERM(network, pm.nn.NormalLikelihood()).double()

    own = [data()] * 3
    first = fit_replicas(make_model, own)
    torch.manual_seed(5)
    assert fit_replicas(make_model, own).histories == first.histories
    assert len({tuple(history.train_loss) for history in first.histories}) == 3
    assert fit_replicas(make_model, own, seed=1).histories != first.histories
    model = first.models[0]
    assert torch.equal(model.predictive(own[0][0]).mean, model.predictive(own[0][0]).mean)


# What a replica does not depend on.


@pytest.mark.parametrize("method", ["ProbMix", "ManifoldProbMix"])
def test_a_replica_depends_on_the_seed_and_its_number_alone(method: str) -> None:
    own = [data(r, size) for r, size in enumerate([12, 9, 12, 10, 12])]
    arguments: dict[str, Any] = {"batch_size": 5, "validation": own}
    together = fit_replicas(maker(method), own, **arguments)
    pyro.set_rng_seed(7)
    in_chunks = fit_replicas(maker(method), own, chunk_size=2, **arguments)
    fewer = fit_replicas(maker(method), own[:2], batch_size=5, validation=own[:2])
    other_seed = fit_replicas(maker(method), own, seed=1, **arguments)
    for r in range(5):
        assert_same(in_chunks.models[r], together.models[r])
        assert in_chunks.seeds[r] == together.seeds[r] != other_seed.seeds[r]
    for r in range(2):
        assert_same(fewer.models[r], together.models[r])
    assert together.histories[0].train_loss != other_seed.histories[0].train_loss


@pytest.mark.faults("random state disturbed")
@pytest.mark.parametrize("bad", [False, True])
def test_global_state_stays(bad: bool) -> None:
    pyro.param("mine", torch.ones(2))
    x, y = data()
    before = global_state()
    if bad:
        with pytest.raises(ValueError, match="replica 1: y: expected shape"):
            fit_replicas(maker("ManifoldProbMix"), [(x, y), (x, y[:, None])])
    else:
        fit_replicas(maker("ManifoldProbMix"), [(x, y)] * 2, validation=[(x, y)] * 2, batch_size=5)
    assert global_state() == before


# The result.


def test_models_are_ordinary_models() -> None:
    x, y = data()
    replicas = fit_replicas(maker("ManifoldProbMix"), [(x, y)] * 2)
    for model in replicas.models:
        assert not model.training
        assert model.predictive(x).batch_shape == (12,)
        assert not list(pyro.get_param_store())
    history = pm.fit(replicas.models[1], (x, y), epochs=2, progress=False)
    assert len(history.train_loss) == 2


def test_ensemble() -> None:
    x, y = data()
    replicas = fit_replicas(maker(), [(x, y)] * 3)
    members = [model.predictive(x) for model in replicas.models]
    linear = replicas.ensemble(x)
    expected = torch.stack([p.log_prob(y) for p in members]).logsumexp(0) - math.log(3)
    torch.testing.assert_close(linear.log_prob(y), expected, rtol=1e-12, atol=1e-12)
    pooled = replicas.ensemble(x, pooling="log-linear", members=[0, 2])
    expected = pm.log_linear_pool([members[0], members[2]], [0.5, 0.5]).log_prob(y)
    torch.testing.assert_close(pooled.log_prob(y), expected, rtol=1e-12, atol=1e-12)
    replicas.failed[1] = 0
    chosen = replicas.ensemble(x).log_prob(y)
    torch.testing.assert_close(chosen, replicas.ensemble(x, members=[0, 2]).log_prob(y), rtol=0, atol=0)
    with pytest.raises(ValueError, match='pooling: expected one of "linear", "log-linear", got "geometric"'):
        replicas.ensemble(x, pooling="geometric")
    with pytest.raises(ValueError, match="members: expected one at least, got none"):
        replicas.ensemble(x, members=[])


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    fit_replicas(maker(), [data(r) for r in range(3)], epochs=50, progress=True, chunk_size=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "3 replicas" in shown.err
    assert "train=" in shown.err
    fit_replicas(maker(), [data()])
    assert capsys.readouterr().err == ""


class Epochs(pm.CompleteGraph):
    """Writes down which epochs it was told of."""

    def __init__(self, num_nodes: int) -> None:
        super().__init__(num_nodes)
        self.epochs: list[int] = []

    def start_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def test_graphs_are_told_of_each_epoch_once() -> None:
    graphs = [Epochs(12) for _ in range(2)]
    fit_replicas(maker(), [data(0), data(1)], graph=graphs, epochs=3)
    assert [graph.epochs for graph in graphs] == [[0, 1, 2]] * 2


def test_data_are_looked_at_once_with_a_graph_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(graphs_module, "check_finite", lambda name, tensor: looked.append(name))
    fit_replicas(maker(), [data(r) for r in range(3)], graph=pm.CompleteGraph(12), batch_size=5)
    assert sorted(looked) == ["x"] * 3 + ["y"] * 3


def test_parametrized_networks() -> None:
    """Such a network cannot be pickled."""

    def make_model(r: int) -> Any:
        layer = nn.Linear(cases.FEATURES, 2)
        nn.utils.parametrize.register_parametrization(layer, "weight", nn.Tanh())
        return pm.ProbMix(layer, pm.nn.NormalLikelihood()).double()

    own = [data(r) for r in range(2)]
    assert_as_fit(fit_replicas(make_model, own), make_model, own)


@pytest.mark.parametrize("validated", [True, False])
def test_lazy_layers_are_made_from_the_seed(validated: bool) -> None:
    def make_model(r: int) -> Any:
        network = nn.Sequential(nn.LazyLinear(4, dtype=torch.float64), nn.Tanh(), nn.LazyLinear(2, dtype=torch.float64))
        return pm.ProbMix(network, pm.nn.NormalLikelihood())

    own = [data()] * 2
    held_out = [data(5)] * 2 if validated else None
    replicas = fit_replicas(make_model, own, validation=held_out, epochs=1, learning_rate=1e-9)
    one, other = (model.decoder[0].weight for model in replicas.models)
    assert (one - other).abs().min() > 1e-6
    assert_as_fit(replicas, make_model, own, held_out, epochs=1, learning_rate=1e-9)


def test_rates_may_be_an_array() -> None:
    own = [data(r) for r in range(2)]
    rates = [0.02, 0.01]
    for one in (np.array(0.02), torch.tensor(0.02, dtype=torch.float64)):
        assert_as_fit(fit_replicas(maker(), own, learning_rate=one), maker(), own, learning_rate=0.02)
    for replicas in (
        fit_replicas(maker(), own, learning_rate=kind(rates)) for kind in (np.array, torch.DoubleTensor, list)
    ):
        assert_as_fit(replicas, maker(), own, learning_rate=rates)

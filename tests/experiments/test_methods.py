"""The eleven columns: their names and order, the graph of each, and that nothing else differs."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch

import pyro_probmix as pm
from pyro_probmix.datasets import load
from pyro_probmix.experiments import METHODS, ExperimentSettings, select_methods
from pyro_probmix.models import assemble

MODELS = {
    "erm": pm.ERM,
    "mixup": pm.Mixup,
    "local_mixup": pm.Mixup,
    "manifold_mixup": pm.ManifoldMixup,
    "local_manifold_mixup": pm.ManifoldMixup,
    "probmix": pm.ProbMix,
    "local_probmix": pm.ProbMix,
    "manifold_probmix": pm.ManifoldProbMix,
    "local_manifold_probmix": pm.ManifoldProbMix,
    "manifold_probmix_separate_variance": pm.ManifoldProbMix,
    "local_manifold_probmix_separate_variance": pm.ManifoldProbMix,
}


def test_names_and_order_are_those_of_the_tables():
    assert list(METHODS) == list(MODELS)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("data", "beta"), [("diabetes", 0.01), ("diabetes", 0.0), ("iris", 0.01), ("iris", 0.0)])
def test_every_method_trains_on_its_graph(name, data, beta):
    method, dataset = METHODS[name], load(data)
    model = method.make_model(dataset, ExperimentSettings(beta=beta))
    assert type(model) is MODELS[name]
    x = torch.randn(20, dataset.num_features)
    y = torch.randn(20) if data == "diabetes" else torch.arange(20) % 3
    graph = method.graph(x, 3)
    assert isinstance(graph, pm.NearestNeighborGraph if name.startswith("local_") else pm.CompleteGraph)
    risk = model.risk(graph.pair_batch(x, y))
    risk.backward()
    assert risk.isfinite()
    assert model.predictive(x, num_samples=2).log_prob(y).shape == (20,)


@pytest.mark.parametrize("name", METHODS)
def test_methods_share_one_architecture(name):
    model = METHODS[name].make_model(load("diabetes"), ExperimentSettings(hidden_features=(14, 5)))
    shapes = sorted(tuple(p.shape) for p in model.parameters())
    width = 7 if "separate_variance" in name else 14
    network = [(width, 10), (width,), (5, width), (5,), (2, 5), (2,)]
    variance = [(width, 10 if width == 7 else 14), (width,)] if "manifold_probmix" in name else []
    assert shapes == sorted(network + variance)


def test_methods_are_selected_in_the_order_of_the_tables():
    assert select_methods("probmix,,erm , probmix") == ("erm", "probmix")


@pytest.mark.parametrize(("names", "got"), [("erm,mixop", "mixop"), ("", "none"), (" , ", "none")])
def test_unknown_methods_list_the_legal_ones(names, got):
    with pytest.raises(ValueError, match=f"methods: expected some of {', '.join(METHODS)}.*, got {got}"):
        select_methods(names)


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("manifold_mixop", {}, 'method: expected one of "erm", .*, got "manifold_mixop"'),
        ("probmix", {"separate_variance": True}, "separate_variance: expected False for ProbMix"),
        ("manifold_probmix", {"embedding_dim": 7}, "embedding_dim: expected 8, the width of the first layer, got 7"),
        ("erm", {"beta": -1.0}, "beta: expected"),
    ],
)
def test_what_cannot_be_assembled_is_refused(method, change, message):
    likelihood = pm.nn.NormalLikelihood()
    network = pm.nn.MLP(2, [8], likelihood.num_outputs)
    options = {"embedding_dim": 8, "coefficient": dist.Beta(0.2, 0.2), "beta": 0.01} | change
    with pytest.raises(ValueError, match=message):
        assemble(method, network, likelihood=likelihood, **options)

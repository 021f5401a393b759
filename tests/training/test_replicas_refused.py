"""What ``pm.fit_replicas`` refuses, naming the argument and the replica, before anything is trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_probmix as pm
from tests.models import cases
from tests.training.replica_cases import assert_same, data, fit_replicas, initial, maker

X, Y = data()
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no data": ({"data": []}, ValueError, "data: expected one replica at least, got none"),
    "one pair": ({"data": (X, Y)}, TypeError, r"replica 0: data: expected a pair \(x, y\)"),
    "nan": ({"data": [(X, Y), (X, Y * math.nan)]}, ValueError, "replica 1: y: expected finite values"),
    "rows": ({"data": [(X, Y[:9])]}, ValueError, "replica 0: y: expected shape"),
    "validation": ({"validation": [(X, Y)]}, ValueError, "validation: expected one for each of the 2 replicas, got 1"),
    "validation rows": ({"validation": [(X, Y), (X, Y[:9])]}, ValueError, "replica 1: validation: .*got 12 and 9"),
    "graphs": ({"graph": [pm.CompleteGraph(12)]}, ValueError, "graph: expected one for each of the 2 replicas, got 1"),
    "graph": ({"graph": [pm.CompleteGraph(12), pm.CompleteGraph(9)]}, ValueError, r"replica 1: x: expected shape \(9"),
    "embedding graph": (
        {"graph": lambda x: pm.EmbeddingGraph(x, nn.Linear(x.shape[1], 2).to(x), num_neighbors=2)},
        ValueError,
        "replica 0: graph: expected one that does not look at a network, got EmbeddingGraph",
    ),
    "rates": ({"learning_rate": [0.1]}, ValueError, "learning_rate: expected one for each of the 2 replicas, got 1"),
    "rate": ({"learning_rate": [0.1, -1.0]}, ValueError, "replica 1: learning_rate: .*got -1.0"),
    "epochs": ({"epochs": 0}, ValueError, "^epochs: expected an integer >= 1, got 0"),
    "epochs each": ({"epochs": [4]}, ValueError, "epochs: expected one for each of the 2 replicas, got 1"),
    "epochs in a table": ({"epochs": [[4], [4]]}, TypeError, r"replica 0: epochs: expected an integer >= 1, got \[4\]"),
    "rates in a table": (
        {"learning_rate": np.array([[0.1], [0.2]])},
        TypeError,
        r"replica 0: learning_rate: expected a number in \(0, inf\), got \[0.1\]",
    ),
    "epochs of one": ({"epochs": [4, 2.5]}, TypeError, "replica 1: epochs: expected an integer >= 1, got 2.5"),
    "samples": ({"num_samples": 0}, ValueError, "num_samples: expected an integer >= 1, got 0"),
    "batch size": ({"batch_size": 0}, ValueError, "replica 0: batch_size: expected an integer >= 1, got 0"),
    "patience": ({"patience": 0, "validation": [(X, Y)] * 2}, ValueError, "patience: expected an integer >= 1, got 0"),
    "patience alone": ({"patience": 5}, ValueError, "patience: expected validation data with it, got 5 without"),
    "every": ({"validation_every": 0}, ValueError, "validation_every: expected an integer >= 1, got 0"),
    "seed": ({"seed": -1}, ValueError, "^seed: expected an integer >= 0, got -1"),
    "chunk": ({"chunk_size": 0}, ValueError, "chunk_size: expected an integer >= 1, got 0"),
    "no model": ({"make_model": lambda r: nn.Linear(2, 2)}, TypeError, "replica 0: make_model: expected a model"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message):
        fit_replicas(**{"make_model": maker(), "data": [(X, Y)] * 2} | arguments)


def test_replicas_that_share_parameters() -> None:
    network = pm.nn.MLP(3, [], 2)
    with pytest.raises(ValueError, match=r"make_model: .* replicas 0 and 1 share"):
        fit_replicas(lambda r: pm.ERM(network, pm.nn.NormalLikelihood()).double(), [(X, Y)] * 2)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda model: model.decoder.append(nn.BatchNorm1d(2)), r"treat each row alone, got BatchNorm1d \(decoder.3\)"),
        (lambda model: model.requires_grad_(False), "trainable parameters of one dtype, got none"),
        (lambda model: model.decoder[0].float(), "one dtype, got torch.float32, torch.float64"),
    ],
)
def test_networks_that_cannot_be_stacked(prepare: Any, message: str) -> None:
    def make_model(r: int) -> Any:
        model = cases.make_model("ERM")
        prepare(model)
        return model

    with pytest.raises(ValueError, match="make_model: expected .*" + message):
        fit_replicas(make_model, [(X, Y)] * 2, chunk_size=2)


@pytest.mark.faults("unequal fixed parameters")
def test_a_likelihood_that_vmap_cannot_follow_is_named() -> None:
    """PyTorch's log_prob of a Multinomial indexes by a mask."""

    def make_model(r: int) -> Any:
        likelihood = pm.nn.DistributionLikelihood(dist.Multinomial, 3, total_count=5)
        return pm.ERM(nn.Linear(2, likelihood.num_outputs), likelihood)

    own = (torch.zeros(4, 2), torch.tensor([5.0, 0, 0]).expand(4, 3))
    with pytest.raises(ValueError, match=r"make_model: expected networks and a likelihood .* got .*Multinomial"):
        fit_replicas(make_model, [own])


def test_a_refusal_comes_before_any_training() -> None:
    models: list[Any] = []

    def make_model(r: int) -> Any:
        layers = [nn.Linear(cases.FEATURES, 2), *([nn.BatchNorm1d(2)] if r else [])]
        models.append(pm.ProbMix(nn.Sequential(*layers), pm.nn.NormalLikelihood()).double())
        return models[-1]

    with pytest.raises(ValueError, match="replica 1: make_model: expected networks that treat each row alone"):
        fit_replicas(make_model, [data(0), data(1)])
    assert_same(models[0], initial(make_model, 0), rtol=0)
    x, y = data()
    with pytest.raises(ValueError, match=r"replica 0: validation x: expected rows that the networks take, got shape"):
        fit_replicas(maker(), [(x, y)], validation=[(x[:, :1], y)])


@pytest.mark.faults("unequal fixed parameters")
def test_a_fixed_parameter_that_varies_unseen_is_refused() -> None:
    """Under vmap it cannot be compared: the pool would silently be that of another density."""

    class Embedding(nn.Module):
        event_shape = torch.Size([1])

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Any:
            return dist.Laplace(self.layer(x), 1.0).to_event(1)

    def make(r: int) -> Any:
        return pm.ManifoldProbMix(Embedding(), nn.Linear(1, 2), pm.nn.NormalLikelihood())

    x = torch.randn(12, 1)
    with pytest.raises(ValueError, match=r"embedding: expected a loc of Laplace that is held fixed"):
        pm.fit_replicas(make, [(x, x[:, 0])], epochs=2, progress=False)

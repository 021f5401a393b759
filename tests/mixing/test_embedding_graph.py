"""Neighbours in embedding space: found anew when they should be, and nothing else is disturbed."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_probmix.mixing import PairLoader
from pyro_probmix.mixing.graphs import EmbeddingGraph, NearestNeighborGraph

X = torch.arange(12.0).reshape(6, 2) ** 2


class Flip(nn.Module):
    """The first coordinate, or the second: two orders of the points."""

    def __init__(self) -> None:
        super().__init__()
        self.coordinate = 0
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        return x[:, self.coordinate] * torch.tensor([1.0, -3.0, 1.0, 5.0, -1.0, 2.0])[: len(x)] ** self.coordinate


def test_neighbours_are_those_of_the_embeddings() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh())
    for metric in ("euclidean", "cosine"):
        graph = EmbeddingGraph(X, network, 3, metric=metric)
        expected = NearestNeighborGraph(network(X).detach(), 3, metric=metric)
        assert torch.equal(graph.neighbors, expected.neighbors)


def test_the_loader_refreshes_every_so_many_epochs() -> None:
    embed = Flip()
    graph = EmbeddingGraph(X, embed, 2, refresh_every=3)
    first = graph.neighbors
    embed.coordinate = 1
    refreshed = []
    loader = PairLoader(X, None, graph, batch_size=4)
    for _ in range(7):
        calls = len(embed.calls)
        list(loader)
        refreshed.append(len(embed.calls) > calls)
    assert refreshed == [False, False, False, True, False, False, True]
    assert not torch.equal(graph.neighbors, first)
    embed.coordinate = 0
    graph.refresh()
    assert torch.equal(graph.neighbors, first)


def test_an_interrupted_loader_goes_on_with_its_epoch() -> None:
    graph = EmbeddingGraph(X, Flip(), 2, refresh_every=3)
    loader = PairLoader(X, None, graph)
    loader.epoch = 3
    calls = len(graph.embed.calls)  # type: ignore[attr-defined]
    list(loader)
    assert len(graph.embed.calls) == calls + 1  # type: ignore[attr-defined]
    assert loader.epoch == 4


def test_embeddings_are_computed_in_parts() -> None:
    embed = Flip()
    EmbeddingGraph(X, embed, 2, embed_size=4)
    assert embed.calls == [4, 2]


class Stochastic(nn.Module):
    """Dropout in training mode, batch statistics, and a draw of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return self.frozen(self.dropout(self.norm(x))) + 1e-9 * torch.randn(2)

    def embed(self, x: Tensor) -> Tensor:
        return self(x)


@pytest.mark.parametrize("method", [False, True], ids=["module", "method"])
@pytest.mark.parametrize("training", [False, True])
def test_modes_statistics_gradients_and_random_state_stay(training: bool, method: bool) -> None:
    network = Stochastic().train(training)
    network.frozen.eval()
    modes = [part.training for part in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = torch.get_rng_state()
    graph = EmbeddingGraph(X, network.embed if method else network, 2)
    graph.refresh()
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_a_failing_embedding_leaves_everything_as_it_was() -> None:
    network = Stochastic()
    graph = EmbeddingGraph(X, network, 2)
    neighbors = graph.neighbors
    nn.init.constant_(network.frozen.weight, float("nan"))
    with pytest.raises(ValueError, match=r"^embed\(x\): expected finite values, got NaN or inf in 6 of 6 rows"):
        graph.refresh()
    assert network.training
    assert graph.neighbors is neighbors


def test_an_embedding_density_gives_its_mean() -> None:
    graph = EmbeddingGraph(X, lambda x: dist.Normal(x, 100.0).to_event(1), 2)
    assert torch.equal(graph.neighbors, NearestNeighborGraph(X, 2).neighbors)
    assert repr(graph) == "EmbeddingGraph(num_nodes=6, num_neighbors=2, refresh_every=10)"


BAD_EMBEDDINGS = {
    "x is a list": ({"x": [1.0]}, TypeError, "x: expected a tensor, got list"),
    "NaN in x": ({"x": torch.full((6, 2), float("nan"))}, ValueError, "x: expected finite values"),
    "not callable": ({"embed": 3}, TypeError, "embed: expected a function of rows of x, got int"),
    "no tensor": ({"embed": lambda x: 3.0}, TypeError, "embed: expected a tensor or a distribution, got float"),
    "rows lost": ({"embed": lambda x: x[1:]}, ValueError, r"embed: expected shape \(6, \.\.\.\).*got \(5, 2\)"),
    "k = n": ({"num_neighbors": 6}, ValueError, "num_neighbors: expected fewer than the 6 nodes, got 6"),
    "refresh_every = 0": ({"refresh_every": 0}, ValueError, "refresh_every: expected an integer >= 1, got 0"),
    "embed_size = 0": ({"embed_size": 0}, ValueError, "embed_size: expected an integer >= 1, got 0"),
}


@pytest.mark.parametrize("case", BAD_EMBEDDINGS)
def test_bad_embeddings_are_refused(case: str) -> None:
    changed, error, message = BAD_EMBEDDINGS[case]
    with pytest.raises(error, match=f"^{message}"):
        EmbeddingGraph(**{"x": X, "embed": nn.Identity(), "num_neighbors": 2, **changed})  # type: ignore[arg-type]

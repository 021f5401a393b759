"""Edges come in proportion to w_ij: in full batches and mini-batches, of every graph that draws partners."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor

from pyro_probmix.mixing import PairLoader
from pyro_probmix.mixing.graphs import KernelGraph, LabelGraph, NearestNeighborGraph, PartnerGraph, WeightedGraph

N = 5
POINTS = torch.tensor([0.0, 1.0, 1.5, 4.0, 4.5], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 0, 1])
EDGES = torch.tensor([[2, 0], [0, 1], [2, 3], [0, 1], [3, 3], [1, 2], [2, 4]])
WEIGHTS = torch.tensor([0.5, 1.0, 0.0, 2.0, 1.5, 0.1, 4.0])
RING = torch.tensor([[i, (i + step) % N] for i in range(N) for step in (1, 2)])


def kernel(points: Tensor, bandwidth: float) -> Tensor:
    return torch.exp(-((points.unsqueeze(1) - points) ** 2) / (2 * bandwidth**2))


def listed(edges: Tensor, weights: Tensor) -> Tensor:
    return torch.zeros(N, N, dtype=torch.float64).index_put_(tuple(edges.T), weights.double(), accumulate=True)


def nearest(graph: NearestNeighborGraph) -> Tensor:
    return torch.zeros(N, N, dtype=torch.float64).scatter_(1, graph.neighbors, 1.0)


def by_rows(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=1, keepdim=True)


SAME = (LABELS.unsqueeze(1) == LABELS).double().fill_diagonal_(0.0)
CROSS = (LABELS.unsqueeze(1) != LABELS).double()
NEAREST = NearestNeighborGraph(POINTS, 2)
CUT = torch.eye(N, dtype=torch.float64) + nearest(NEAREST)

# The weights of each graph up to a factor.
LAWS: dict[str, tuple[PartnerGraph, Tensor]] = {
    "edges": (WeightedGraph(EDGES, WEIGHTS, N), listed(EDGES, WEIGHTS)),
    "one edge": (WeightedGraph(EDGES[:1], WEIGHTS[:1], N), listed(EDGES[:1], WEIGHTS[:1])),
    "huge weights": (WeightedGraph(EDGES, 1e300 * WEIGHTS.double(), N), listed(EDGES, WEIGHTS)),
    "edges, equal rows": (
        WeightedGraph(RING, torch.tensor([0.1, 0.9]).repeat(N), N),
        listed(RING, torch.tensor([0.1, 0.9]).repeat(N)),
    ),
    "same, pairs": (LabelGraph(LABELS), SAME),
    "same, nodes": (LabelGraph(LABELS, uniform_over="nodes"), by_rows(SAME)),
    "cross, pairs": (LabelGraph(LABELS, kind="cross"), CROSS),
    "cross, nodes": (LabelGraph(LABELS, kind="cross", uniform_over="nodes"), by_rows(CROSS)),
    "neighbours": (NEAREST, nearest(NEAREST)),
    "kernel of x": (KernelGraph(POINTS, bandwidth_x=2.0), by_rows(kernel(POINTS, 2.0))),
    "kernel of both": (
        KernelGraph(POINTS, LABELS, bandwidth_x=2.0, bandwidth_y=0.8),
        by_rows(kernel(POINTS, 2.0) * kernel(LABELS.double(), 0.8)),
    ),
    "kernel, cut": (KernelGraph(POINTS, bandwidth_x=2.0, num_neighbors=2), by_rows(kernel(POINTS, 2.0) * CUT)),
}


def edge_counts(loader: PairLoader) -> Tensor:
    counts = torch.zeros(N, N, dtype=torch.float64)
    for batch in loader:
        edges = batch.x * N + batch.x[batch.partner]
        counts += torch.bincount(edges, minlength=N * N).reshape(N, N).double() / len(batch)
    return counts / len(loader)


@pytest.mark.parametrize("batch_size", [None, 1, 4])
@pytest.mark.parametrize("name", LAWS)
def test_edges_come_in_proportion_to_their_weights(name: str, batch_size: int | None) -> None:
    graph, weights = LAWS[name]
    weights = weights / weights.sum()
    nodes, _ = graph.sample_batch()
    if batch_size is not None or nodes is not None:
        weights = (weights + weights.T) / 2  # both ends carry an edge
    loader = PairLoader(torch.arange(N), None, graph, batch_size, generator=torch.Generator().manual_seed(5))
    draws = torch.stack([edge_counts(loader) for _ in range(400)])
    error = (draws.mean(0) - weights).abs()
    # 25 edges and a bound of 5.5 standard errors: a false alarm has p < 1e-6.
    assert (error <= 5.5 * draws.std(0) / len(draws) ** 0.5 + 1e-9).all(), error
    assert draws.mean(0)[weights == 0].sum() == 0


@pytest.mark.parametrize("name", LAWS)
def test_partners_of_a_node_have_its_row_of_weights(name: str) -> None:
    graph, weights = LAWS[name]
    for node in weights.sum(1).nonzero().squeeze(1).tolist():
        sources = torch.full((4000,), node)
        partners = graph.sample_partners(sources, torch.Generator().manual_seed(1))
        counts = torch.bincount(partners, minlength=N)
        law = weights[node] / weights[node].sum()
        assert counts[law == 0].sum() == 0
        if (law > 0).sum() > 1:
            assert scipy.stats.chisquare(counts[law > 0], len(sources) * law[law > 0]).pvalue > 1e-6


@pytest.mark.parametrize(
    "name", ["same, nodes", "cross, nodes", "edges, equal rows", "neighbours", "kernel of x", "kernel, cut"]
)
def test_rows_of_equal_weight_make_every_node_a_source(name: str) -> None:
    nodes, partner = LAWS[name][0].sample_batch()
    assert nodes is None
    assert partner.shape == (N,)


def test_a_node_comes_as_often_as_it_should_up_to_less_than_two() -> None:
    n = 40
    row_weights = torch.rand(n, dtype=torch.float64) ** 3
    graph = WeightedGraph(torch.stack((torch.arange(n), torch.zeros(n).long()), 1), row_weights, n)
    nodes, _ = graph.sample_batch()
    assert nodes is not None
    counts = torch.bincount(nodes[: n // 2], minlength=n)
    assert ((counts - n / 2 * row_weights / row_weights.sum()).abs() < 2).all()


@pytest.mark.faults("scale of a minibatch")
def test_the_risk_of_an_uneven_graph_is_estimated_without_bias() -> None:
    # A loss of the edge that is the same from both ends, as with a symmetric mixing coefficient.
    graph, weights = LAWS["edges"]
    loss = POINTS.unsqueeze(1) * POINTS + (POINTS.unsqueeze(1) - POINTS).abs()
    full = (weights * loss).sum() / weights.sum()
    for batch_size in (None, 2):
        loader = PairLoader(torch.arange(N), None, graph, batch_size, generator=torch.Generator().manual_seed(2))
        risks = torch.stack(
            [torch.stack([loss[b.x, b.x[b.partner]].mean() for b in loader]).mean() for _ in range(1000)]
        )
        assert abs(risks.mean() - full) <= 5 * risks.std() / len(risks) ** 0.5


def test_label_pairs_in_large_uneven_classes() -> None:
    y = torch.repeat_interleave(torch.arange(4), torch.tensor([2, 500, 30, 3000]))[torch.randperm(3532)]
    for kind in ("same", "cross"):
        for uniform_over in ("pairs", "nodes"):
            graph = LabelGraph(y, kind, uniform_over)
            for chunk in (None, torch.randperm(len(y))[:999]):
                batch = graph.pair_batch(torch.arange(len(y)), y, chunk=chunk)
                assert batch.y is not None
                assert (batch.x != batch.x[batch.partner]).all()
                assert ((batch.y == batch.y[batch.partner]) == (kind == "same")).all()

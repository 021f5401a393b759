"""Graphs: neighbours are exact wherever the data lie, never the node itself; partners have the stated law."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from scipy.spatial.distance import cdist
from torch import Tensor

from pyro_probmix.mixing.graphs import (
    CompleteGraph,
    EmbeddingGraph,
    KernelGraph,
    LabelGraph,
    NearestNeighborGraph,
    SamplingGraph,
    WeightedGraph,
)

NAN = float("nan")

LINE = torch.arange(8.0)
GRAPHS = [
    CompleteGraph(8),
    NearestNeighborGraph(LINE, 2),
    EmbeddingGraph(LINE.unsqueeze(1), torch.nn.Tanh(), 2),
    LabelGraph(LINE % 2),
    LabelGraph(LINE > 1, kind="cross"),
    WeightedGraph(torch.tensor([[0, 1], [1, 2]]), torch.tensor([1.0, 2.0]), 8),
    KernelGraph(LINE, LINE),
    KernelGraph(LINE, num_neighbors=3),
]


def assert_nearest(graph: NearestNeighborGraph, points: np.ndarray, k: int, metric: str = "euclidean") -> None:
    """Check that each row's distances are its k smallest, the node itself left out; ties in any order."""
    n = len(points)
    assert graph.neighbors.shape == (n, k)
    assert graph.neighbors.dtype == torch.int64
    chosen = graph.neighbors.numpy()
    assert not (chosen == np.arange(n)[:, None]).any()
    assert all(len(set(row)) == k for row in chosen.tolist())
    distances = cdist(points, points, metric)
    np.fill_diagonal(distances, np.inf)
    found = np.take_along_axis(distances, chosen, axis=1)
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :k], rtol=1e-12, atol=0)


# Neighbours


@pytest.mark.faults("a node its own neighbour")
@pytest.mark.faults("distances far from the origin")
@pytest.mark.parametrize("dimension", [1, 3, 30])
@pytest.mark.parametrize("offset", [0.0, 100.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_are_scipys(dimension: int, offset: float, dtype: torch.dtype) -> None:
    # At 1e6 the expanded square |x|² - 2xy + |y|² leaves no digit of distances around 1e-3.
    x = (1e-3 * torch.randn(60, dimension, dtype=torch.float64) + offset).to(dtype)
    assert_nearest(NearestNeighborGraph(x, num_neighbors=5), x.double().numpy(), 5)


@pytest.mark.faults("distances far from the origin")
def test_neighbours_in_far_apart_clusters() -> None:
    x = torch.cat([centre + torch.randn(20, 2, dtype=torch.float64) for centre in (-1e8, 0.0, 1e8)])
    assert_nearest(NearestNeighborGraph(x, num_neighbors=4), x.numpy(), 4)


@pytest.mark.faults("a node its own neighbour")
@given(
    hypothesis.extra.numpy.arrays(
        np.int64, st.tuples(st.integers(2, 12), st.integers(1, 3)), elements=st.integers(-2, 2)
    ),
    st.data(),
)
@settings(max_examples=60)
def test_neighbours_among_ties_and_duplicates(points: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(points) - 1))
    graph = NearestNeighborGraph(torch.from_numpy(points), num_neighbors=k)
    assert_nearest(graph, points.astype(float), k)


@pytest.mark.faults("a node its own neighbour")
@pytest.mark.parametrize("n", [2, 7, 200])
def test_all_points_equal(n: int) -> None:
    x = torch.full((n, 2), 3.0)
    for k in (1, n - 1):
        assert_nearest(NearestNeighborGraph(x, num_neighbors=k), x.double().numpy(), k)


@pytest.mark.parametrize(("metric", "scipy_name"), [("manhattan", "cityblock"), ("cosine", "cosine")])
def test_metric(metric: str, scipy_name: str) -> None:
    x = torch.randn(40, 3, dtype=torch.float64)
    graph = NearestNeighborGraph(x, 3, metric=metric)
    assert_nearest(graph, x.numpy(), 3, scipy_name)
    assert not torch.equal(graph.neighbors, NearestNeighborGraph(x, 3).neighbors)


def test_metric_as_a_function() -> None:
    x = torch.randn(20, 3, dtype=torch.float64)
    graph = NearestNeighborGraph(x, 3, metric=lambda a, b: float(np.abs(a - b).sum()))
    assert torch.equal(graph.neighbors, NearestNeighborGraph(x, 3, metric="manhattan").neighbors)


def test_points_of_any_shape_and_kind() -> None:
    x = torch.randn(20, 3, 4, dtype=torch.float64)
    expected = NearestNeighborGraph(x.reshape(20, 12)).neighbors
    for same in (x, x.clone().requires_grad_(), x.transpose(1, 2), x.repeat_interleave(2, 0)[::2]):
        assert torch.equal(NearestNeighborGraph(same).neighbors, expected)
    line = torch.tensor([0, 1, 5, 7])
    assert NearestNeighborGraph(line, 1).neighbors.tolist() == [[1], [0], [3], [2]]


BAD_NEIGHBOURS = {
    "k = n": (torch.randn(5, 2), 5, ValueError, "num_neighbors: expected fewer than the 5 nodes, got 5"),
    "k > n": (torch.randn(5, 2), 9, ValueError, "num_neighbors: expected fewer than the 5 nodes, got 9"),
    "k = 0": (torch.randn(5, 2), 0, ValueError, "num_neighbors: expected an integer >= 1, got 0"),
    "k < 0": (torch.randn(5, 2), -2, ValueError, "num_neighbors: expected an integer >= 1, got -2"),
    "k is a float": (torch.randn(5, 2), 2.0, TypeError, "num_neighbors: expected an integer >= 1, got 2.0"),
    "k is a bool": (torch.randn(5, 2), True, TypeError, "num_neighbors: expected an integer >= 1, got True"),
    "one point": (torch.randn(1, 2), 1, ValueError, "num_neighbors: expected fewer than the 1 nodes, got 1"),
    "NaN": (torch.tensor([[0.0], [NAN], [2.0], [NAN]]), 1, ValueError, r"x: .*2 of 4 rows \(rows 1, 3\)"),
    "inf": (torch.tensor([[0.0], [-float("inf")], [2.0]]), 1, ValueError, r"x: .*1 of 3 rows \(row 1\)"),
    "no points": (torch.zeros(0, 2), 1, ValueError, r"x: expected shape .*got \(0, 2\)"),
    "no coordinates": (torch.zeros(3, 0), 1, ValueError, r"x: expected shape .*got \(3, 0\)"),
    "a scalar": (torch.tensor(1.0), 1, ValueError, r"x: expected shape .*got \(\)"),
    "complex": (torch.zeros(3, 1).cfloat(), 1, TypeError, "x: expected a real tensor, got torch.complex64"),
    "an array": (np.zeros((3, 1)), 1, TypeError, "x: expected a real tensor, got ndarray"),
    "overflow": (
        1e200 * torch.eye(3).double(),
        1,
        ValueError,
        "x: expected points whose squared dist",
    ),
}


@pytest.mark.faults("NaN in the data")
@pytest.mark.faults("a node its own neighbour")
@pytest.mark.parametrize("case", BAD_NEIGHBOURS)
def test_bad_neighbours_are_refused(case: str) -> None:
    x, k, error, message = BAD_NEIGHBOURS[case]
    with pytest.raises(error, match=rf"^{message}"):
        NearestNeighborGraph(x, k)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, -1])
def test_complete_graph_needs_a_node(n: int) -> None:
    with pytest.raises(ValueError, match=rf"^num_nodes: expected an integer >= 1, got {n}$"):
        CompleteGraph(n)


@pytest.mark.faults("random state disturbed")
def test_building_draws_no_random_numbers() -> None:
    x = torch.randn(30, 2)
    before = torch.get_rng_state(), np.random.get_state()
    NearestNeighborGraph(x)
    CompleteGraph(30)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_equal(np.random.get_state(), before[1])


# Full batches


def test_complete_full_batch_is_a_uniform_permutation() -> None:
    graph, x = CompleteGraph(3), torch.zeros(3, 1)
    orders = torch.tensor([graph.pair_batch(x).partner.tolist() for _ in range(3000)])
    assert (orders.sort(1).values == torch.arange(3)).all()
    _, counts = orders.unique(dim=0, return_counts=True)
    assert len(counts) == 6
    assert scipy.stats.chisquare(counts).pvalue > 1e-6


def test_neighbour_full_batch_is_a_uniform_neighbour() -> None:
    x = torch.randn(6, 2)
    graph = NearestNeighborGraph(x, num_neighbors=3)
    partners = torch.stack([graph.pair_batch(x).partner for _ in range(2000)])
    for node in range(6):
        values, counts = partners[:, node].unique(return_counts=True)
        assert values.tolist() == sorted(graph.neighbors[node].tolist())
        assert scipy.stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("graph", [CompleteGraph(8), NearestNeighborGraph(torch.arange(8.0), 2)], ids=repr)
def test_pair_batch(graph: SamplingGraph) -> None:
    x, y = torch.randn(8, 2), torch.randn(8)
    before = torch.get_rng_state()
    batch = graph.pair_batch(x, y, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert batch.x is x
    assert batch.y is y
    assert torch.equal(batch.partner, graph.pair_batch(x, y, torch.Generator().manual_seed(0)).partner)
    with pytest.raises(ValueError, match=r"^x: expected shape \(8, \.\.\.\), one row per node .*got \(7, 2\)"):
        graph.pair_batch(x[:7], y)
    with pytest.raises(ValueError, match=r"^y: expected shape \(8, \.\.\.\), one row per node .*got \(1, 8\)"):
        graph.pair_batch(x, y.unsqueeze(0))
    with pytest.raises(TypeError, match=r"^y: expected a tensor, got float"):
        graph.pair_batch(x, 1.0)  # type: ignore[arg-type]


@pytest.mark.faults("tensors on another device")
@pytest.mark.parametrize("graph", GRAPHS, ids=repr)
def test_indices_stay_on_the_cpu_under_another_default_device(graph: SamplingGraph) -> None:
    for chunk in (None, torch.arange(4), torch.arange(1)):
        with torch.device("meta"):
            nodes, partner = graph.sample_batch(chunk)
        assert partner.device.type == "cpu"
        assert nodes is None or nodes.device.type == "cpu"


# Values are checked once


def test_values_are_checked_once_per_tensor_and_version() -> None:
    graph, x, y = CompleteGraph(4), torch.zeros(4, 1), torch.zeros(4)
    graph.pair_batch(x, y)
    y.data[2] = NAN  # which leaves the version as it is, so that nobody looks
    graph.pair_batch(x, y)
    y[3] = 1.0
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^y: .*\(row 2\)"):
            graph.pair_batch(x, y)
    y[2] = 0.0
    graph.pair_batch(x, y)
    with pytest.raises(ValueError, match=r"^x: .*\(row 0\)"):
        graph.pair_batch(torch.tensor([NAN, 0.0, 0.0, 0.0]))


def test_inference_tensors_are_always_checked() -> None:
    graph = CompleteGraph(4)
    with torch.inference_mode():
        x = torch.zeros(4, 1)
        graph.pair_batch(x)
        x[1] = NAN
        with pytest.raises(ValueError, match=r"^x: expected finite values"):
            graph.pair_batch(x)


def test_graph_keeps_no_data_alive() -> None:
    graph, x = CompleteGraph(4), torch.zeros(4, 1)
    graph.pair_batch(x)
    alive = weakref.ref(x)
    del x
    gc.collect()
    assert alive() is None
    with pytest.raises(ValueError, match=r"^x: expected finite values"):
        graph.pair_batch(torch.full((4, 1), NAN))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda g: pickle.loads(pickle.dumps(g))])
@pytest.mark.parametrize("graph", GRAPHS, ids=repr)
def test_copies(graph: SamplingGraph, duplicate: object) -> None:
    x = torch.zeros(8, 1)
    graph.pair_batch(x)
    other = duplicate(graph)  # type: ignore[operator]
    assert repr(other) == repr(graph)
    for chunk in (None, torch.arange(3)):
        draws = [g.sample_batch(chunk, torch.Generator().manual_seed(0)) for g in (graph, other)]
        assert str(draws[0]) == str(draws[1])


# Another graph


class TwoEdges(SamplingGraph):
    """Edge (0, 1) with weight 3/4 and edge (2, 3) with 1/4: some nodes come several times, some never."""

    def sample_batch(
        self, chunk: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor | None, Tensor]:
        size = (self.num_nodes if chunk is None else len(chunk)) // 2
        sources = 2 * (torch.rand(size, generator=generator) < 0.25).long()
        return torch.cat((sources, sources + 1)), torch.arange(2 * size).roll(size)


def test_a_graph_may_choose_its_nodes() -> None:
    with pytest.raises(TypeError, match="abstract"):
        SamplingGraph(4)  # type: ignore[abstract]
    batch = TwoEdges(4).pair_batch(torch.arange(4.0), torch.arange(4))
    assert batch.y is not None
    assert torch.equal(batch.x, batch.y.float())
    assert ((batch.x - batch.x[batch.partner]).abs() == 1).all()

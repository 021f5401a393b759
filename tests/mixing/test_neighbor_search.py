"""The searches behind neighbour graphs: the tiled one is exact, whatever the data; the approximate one nearly so."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch import Tensor

from pyro_probmix.mixing.graphs import NearestNeighborGraph
from pyro_probmix.mixing.graphs.search import tiled_search


def assert_exact(points: Tensor, found: Tensor) -> None:
    """Check distances against SciPy's tree, relative to the distance; ties in any order."""
    n, k = found.shape
    assert not (found == torch.arange(n).unsqueeze(1)).any()
    assert all(len(set(row)) == k for row in found.tolist())
    distances = np.linalg.norm(points.numpy()[found] - points.numpy()[:, None], axis=2)
    expected = KDTree(points.numpy()).query(points.numpy(), k + 1)[0][:, 1:]
    np.testing.assert_allclose(distances, expected, rtol=1e-12, atol=0)


def clusters(d: int) -> Tensor:
    return torch.cat([centre + torch.randn(800, d, dtype=torch.float64) for centre in (-1e9, 0.0, 1e9)])


DATA = {
    "Normal": lambda: torch.randn(3000, 16, dtype=torch.float64),
    "Normal at an offset": lambda: 1e-3 * torch.randn(2500, 10, dtype=torch.float64) + 1e6,
    "tiny": lambda: 1e-200 * torch.randn(2500, 8, dtype=torch.float64),
    "huge": lambda: 1e150 * torch.randn(2500, 8, dtype=torch.float64),
    "heavy tails": lambda: torch.distributions.StudentT(torch.tensor(1.0).double()).sample((2500, 8)),
    "far clusters": lambda: clusters(8),
    "grid": lambda: torch.randint(0, 3, (2500, 8)).double(),
    "one outlier": lambda: torch.cat((torch.randn(2499, 8), torch.full((1, 8), 1e12))).double(),
    "sorted line": lambda: torch.arange(2500.0).double().unsqueeze(1),
    "line in the order of blocks": lambda: torch.arange(2560.0).double().reshape(64, 40).T.reshape(-1, 1),
}


@pytest.mark.faults("distances far from the origin")
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("k", [1, 5])
def test_tiled_search_is_exact(name: str, k: int) -> None:
    points = DATA[name]()
    assert_exact(points, tiled_search(points, k))


@pytest.mark.faults("a node its own neighbour")
@pytest.mark.parametrize("points", [torch.full((2500, 3), 0.1), torch.zeros(2500, 3)], ids=["0.1", "0"])
def test_tiled_search_of_equal_points(points: Tensor) -> None:
    found = tiled_search(points.double(), 5)
    assert not (found == torch.arange(2500).unsqueeze(1)).any()
    assert all(len(set(row)) == 5 for row in found.tolist())


def record_products(monkeypatch: pytest.MonkeyPatch, coarse: bool = False) -> dict[torch.dtype, int]:
    """Count the numbers that matrix products give, by their precision."""
    product, counted = torch.mm, {torch.float32: 0, torch.float64: 0}

    def mm(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        counted[a.dtype] += out.numel()
        product(a, b, out=out)
        return out.copy_(out.bfloat16()) if coarse and a.dtype == torch.float32 else out

    monkeypatch.setattr(torch, "mm", mm)
    return counted


def test_a_large_graph_is_searched_by_products_in_single_precision_for_nearly_all_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(5100, 16, dtype=torch.float64)
    counted = record_products(monkeypatch)
    found = NearestNeighborGraph(x, 3).neighbors
    assert counted[torch.float32] >= 5100**2
    assert counted[torch.float64] < counted[torch.float32] / 100
    assert_exact(x, found)
    assert torch.equal(found, NearestNeighborGraph(x, 3).neighbors)


@pytest.mark.faults("distances far from the origin")
def test_products_of_less_precision_than_their_type_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a machine that was told to multiply in bfloat16: nothing is settled in single precision.
    counted = record_products(monkeypatch, coarse=True)
    points = torch.randn(2500, 16, dtype=torch.float64)
    found = tiled_search(points, 5)
    assert counted[torch.float64] == counted[torch.float32]
    assert_exact(points, found)


# Approximate


@pytest.mark.faults("distances far from the origin")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_approximate_search(metric: str) -> None:
    pytest.importorskip("faiss")
    x = 1e-3 * torch.randn(3000, 8, dtype=torch.float64) + (1e3 if metric == "euclidean" else 0.0)
    approximate = NearestNeighborGraph(x, 5, metric, approximate=True).neighbors
    exact = NearestNeighborGraph(x, 5, metric).neighbors
    recall = (approximate.unsqueeze(2) == exact.unsqueeze(1)).any(2).double().mean()
    assert recall > 0.9
    assert not (approximate == torch.arange(3000).unsqueeze(1)).any()
    assert torch.equal(approximate, NearestNeighborGraph(x, 5, metric, approximate=True).neighbors)


@pytest.mark.faults("a node its own neighbour")
@pytest.mark.parametrize("k", [1, 5])
def test_approximate_search_of_few_and_of_equal_points(k: int) -> None:
    pytest.importorskip("faiss")
    for points in (torch.randn(6, 2), torch.ones(600, 2), torch.randint(0, 2, (900, 2)).float()):
        found = NearestNeighborGraph(points, k, approximate=True).neighbors
        assert found.shape == (len(points), k)
        assert not (found == torch.arange(len(points)).unsqueeze(1)).any()
        assert all(len(set(row)) == k for row in found.tolist())


def test_approximate_search_refuses_other_metrics() -> None:
    with pytest.raises(ValueError, match=r"^metric: expected 'euclidean' or 'cosine' .*got 'manhattan'$"):
        NearestNeighborGraph(torch.randn(20, 2), 3, "manhattan", approximate=True)


def test_approximate_search_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"^approximate: expected the package faiss-cpu, .*\[approximate\]"):
        NearestNeighborGraph(torch.randn(20, 2), 3, approximate=True)

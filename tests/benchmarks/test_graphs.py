"""What finding neighbours costs: k = 5 in 16 dimensions, exactly, approximately, and by other exact searches.

Measured by ``pytest tests/benchmarks/test_graphs.py --benchmark-enable -s``, at 10⁶ points by setting
``NEIGHBOR_POINTS=1000000``. Besides the seconds of the table, each line says how many of the true neighbours were
found, and the most memory that the process has taken so far. The k-d tree and scikit-learn's products are left out
beyond 10⁵ points, where they take hours. One thread takes 2.4 seconds of processor time for 5,120 of 10⁶ points
exactly, so 460 for all, and took 179 approximately, in 1.7 GiB. The ratios to faiss's flat index are to be at most 1.2.
"""

from __future__ import annotations

import os
import resource
import time

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from pyro_probmix import NearestNeighborGraph

POINTS = int(os.environ.get("NEIGHBOR_POINTS", "6000"))
DIMENSIONS = 16
K = 5
FOUND: dict[str, Tensor] = {}


def search(way: str, x: Tensor) -> Tensor:
    if way in ("exact", "approximate"):
        return NearestNeighborGraph(x, K, approximate=way == "approximate").neighbors
    if way == "faiss, exact in single precision":
        import faiss

        index = faiss.IndexFlatL2(x.shape[1])
        index.add(x.numpy())
        return torch.from_numpy(index.search(x.numpy(), K + 1)[1][:, 1:])
    algorithm = {"k-d tree": "kd_tree", "scikit-learn's products": "brute"}[way]
    fitted = NearestNeighbors(n_neighbors=K, algorithm=algorithm).fit(x.double().numpy())
    return torch.from_numpy(fitted.kneighbors(return_distance=False))


@pytest.mark.parametrize(
    "way", ["exact", "approximate", "faiss, exact in single precision", "k-d tree", "scikit-learn's products"]
)
def test_neighbours(benchmark, way: str) -> None:
    if way not in ("exact", "k-d tree", "scikit-learn's products"):
        pytest.importorskip("faiss")
    if POINTS > 100_000 and way in ("k-d tree", "scikit-learn's products"):
        pytest.skip("hours at this size")
    benchmark.group = f"neighbours of {POINTS} points, threads: {torch.get_num_threads()}"
    x = torch.randn(POINTS, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    if "exact" not in FOUND and POINTS <= 100_000:
        FOUND["exact"] = search("exact", x)
    found = benchmark.pedantic(search, (way, x), rounds=1)
    FOUND.setdefault(way, found)
    parts = zip(found.split(10_000), FOUND.get("exact", found).split(10_000), strict=True)
    hits = sum((some.unsqueeze(2) == true.unsqueeze(1)).any(2).sum().item() for some, true in parts)
    recall = hits / found.numel()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{way}: {recall:.4f} of the neighbours, at most {peak:.2f} GiB")
    assert recall > (0.9 if way == "approximate" else 0.999)


@pytest.mark.parametrize(("points", "dimensions"), [(5_000, 13), (20_000, 16), (50_000, 16)])
def test_exact_search_over_faiss(benchmark, reported, points: int, dimensions: int) -> None:
    pytest.importorskip("faiss")
    benchmark.group = f"{points} × {dimensions}"
    x = torch.randn(points if benchmark.enabled else 1100, dimensions, generator=torch.Generator().manual_seed(0))
    ways = ("exact", "faiss, exact in single precision")
    seconds: dict[str, list[float]] = {way: [] for way in ways}

    def turn() -> None:
        for way in ways:
            start = time.process_time()
            search(way, x)
            seconds[way].append(time.process_time() - start)

    benchmark.pedantic(turn, rounds=4)
    if benchmark.enabled:
        exact, theirs = (min(seconds[way]) for way in ways)
        reported("exact neighbours over faiss", f"{benchmark.group}: {exact / theirs:.2f}, at most 1.2")

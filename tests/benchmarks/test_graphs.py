"""What finding neighbours costs: k = 5 in 16 dimensions, exactly, approximately, and by other exact searches.

Measured by ``pytest tests/benchmarks/test_graphs.py --benchmark-enable -s``, at 10⁶ points by setting
``NEIGHBOR_POINTS=1000000``. Besides the seconds of the table, each line says how many of the true neighbours were
found, and the most memory that the process has taken so far. The k-d tree and scikit-learn's products are left out
beyond 10⁵ points, where they take hours. One thread took 733 seconds of processor time for 10⁶ points exactly and
179 approximately, in 1.7 GiB.
"""

from __future__ import annotations

import os
import resource

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

        index = faiss.IndexFlatL2(DIMENSIONS)
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

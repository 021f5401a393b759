"""Searches for nearest neighbours: exact in few or many dimensions, or approximate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pyro_probmix._checks import check_finite, check_integer
from pyro_probmix._imports import imported

__all__ = ["Metric", "as_points", "check_search", "nearest_neighbors", "squared_distances", "tiled_search"]

Metric: TypeAlias = str | Callable[[Any, Any], float]

# A k-d tree is quicker than the tiled search up to this many dimensions or points.
_TREE_DIMENSIONS = 8
_TREE_POINTS = 1000

# The products of a tile stay in the cache; a block has every so many-th column of one.
_TILE_ROWS, _TILE_COLUMNS = 256, 1024
_BLOCK = 16
_STRIDE = _TILE_COLUMNS // _BLOCK
_SPARE_BLOCKS = 2
_VALUES = 2**22

# Of about 4 √N lists.
_LISTS_SEARCHED = 64


def as_points(name: str, x: Tensor) -> Tensor:
    """Return data as N points of double precision on the CPU, or refuse them."""
    if not isinstance(x, Tensor) or x.is_complex():
        raise TypeError(f"{name}: expected a real tensor, got {x.dtype if isinstance(x, Tensor) else type(x).__name__}")
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"{name}: expected shape (N, ...) with at least one value, got {tuple(x.shape)}")
    check_finite(name, x)
    points = x.detach().reshape(len(x), -1).to("cpu", torch.float64)
    spread = points.amax(dim=0) - points.amin(dim=0)
    if not bool(torch.isfinite(spread.square().sum())):
        raise ValueError(
            f"{name}: expected points whose squared distances fit into double precision, "
            f"got coordinates from {points.min()} to {points.max()}"
        )
    return points


def check_search(num_nodes: int, num_neighbors: int, metric: Metric = "euclidean", approximate: bool = False) -> int:
    """Return k as an ``int``, or refuse what no search can do among this many nodes."""
    num_neighbors = check_integer("num_neighbors", num_neighbors)
    if num_neighbors >= num_nodes:
        raise ValueError(f"num_neighbors: expected fewer than the {num_nodes} nodes, got {num_neighbors}")
    if not (callable(metric) or _is_metric(metric)):
        raise ValueError(f"metric: expected one of sklearn.neighbors.NearestNeighbors, or a function, got {metric!r}")
    if approximate and metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric: expected 'euclidean' or 'cosine' for the approximate search, got {metric!r}")
    return num_neighbors


def _is_metric(name: Any) -> bool:
    """Whether this is the name of a metric; scikit-learn tells of all but the usual one."""
    if not isinstance(name, str) or name == "euclidean":
        return isinstance(name, str)
    return any(name in known for known in imported("sklearn.neighbors").VALID_METRICS.values())


def nearest_neighbors(points: Tensor, k: int, metric: Metric = "euclidean", approximate: bool = False) -> Tensor:
    """Return the k nearest neighbours of each point, itself left out by its index, nearest first."""
    if approximate:
        # At norm one the nearest in angle are the nearest.
        return _approximate(torch.nn.functional.normalize(points, dim=1) if metric == "cosine" else points, k)
    if metric != "euclidean":
        # Without an argument the search leaves every point out of its own neighbours, by index.
        search = imported("sklearn.neighbors").NearestNeighbors(n_neighbors=k, metric=metric).fit(points.numpy())
        return torch.from_numpy(search.kneighbors(return_distance=False)).to(torch.int64)
    n, d = points.shape
    few_blocks = (k + 1 + _SPARE_BLOCKS) * _BLOCK * 4 > n
    if d <= _TREE_DIMENSIONS or n <= _TREE_POINTS or few_blocks:
        return _tree(points, torch.arange(n, device="cpu"), k)
    return tiled_search(points, k)


def _tree(points: Tensor, rows: Tensor, k: int) -> Tensor:
    """Search with a k-d tree, whose distances come from differences of coordinates in double precision."""
    tree = imported("sklearn.neighbors").NearestNeighbors(n_neighbors=k + 1, algorithm="kd_tree").fit(points.numpy())
    found = torch.from_numpy(tree.kneighbors(points[rows].numpy(), return_distance=False)).to(torch.int64)
    return _without_self(found, rows)


def _without_self(found: Tensor, rows: Tensor) -> Tensor:
    """Drop each row's own index from its k + 1 found ones, or the last where it was not found."""
    is_self = found == rows.unsqueeze(1)
    is_self[:, -1] |= ~is_self.any(dim=1)
    return found[~is_self].reshape(len(found), -1)


def _scaled(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points times a power of two, which rounds nothing, and the same centred, in [-1, 1]."""
    centred = points - points.mean(dim=0)
    _, exponent = math.frexp(centred.abs().max().item())
    factor = math.ldexp(1.0, -max(exponent, -1000))
    return points * factor, centred * factor


def squared_distances(points: Tensor, rows: Tensor, candidates: Tensor) -> Tensor:
    """Return the squared distances of each row's point from its candidates, from differences of coordinates."""
    size = max(1, _VALUES // (candidates.shape[1] * points.shape[1]))
    parts = zip(rows.split(size), candidates.split(size), strict=True)
    return torch.cat([(points[some] - points[few].unsqueeze(1)).square_().sum(dim=2) for few, some in parts])


def _ranked(points: Tensor, rows: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k nearest of each row's candidates, their squared distances, and those of all candidates."""
    squares = squared_distances(points, rows, candidates)
    others = squares.masked_fill(candidates == rows.unsqueeze(1), torch.inf)
    nearest, order = others.topk(k, dim=1, largest=False)
    return candidates.gather(1, order), nearest, squares


def tiled_search(points: Tensor, k: int) -> Tensor:
    r"""Search with matrix products, exactly.

    Of centred points z with norms up to R, the products :math:`s_{ij} = |z_j|^2 - 2\, z_i \cdot z_j` are looked at
    in blocks of some j. The k + 1 nearest of i, itself included, lie in the k + 1 blocks of least minimum;
    a few more blocks are taken, and their points ranked by exact distances. Rounding cannot have hidden a nearer
    point in another block if the k-th exact squared distance is at most :math:`|z_i|^2 + t - \epsilon_i`, where t
    is the largest minimum among the blocks taken and :math:`\epsilon_i` bounds the error of the products of i.
    The bound holds where products have the precision of their type: the minima of the blocks taken must agree
    with the exact ones. Rows that fail are searched again in double precision, and then with a k-d tree.
    """
    found = torch.empty(len(points), k, dtype=torch.int64, device="cpu")
    rows = torch.arange(len(points), device="cpu")
    exact, centred = _scaled(points)
    for dtype in (torch.float32, torch.float64):
        rows = _tiled_pass(exact, centred, rows, found, dtype)
        if not len(rows):
            return found
    found[rows] = _tree(points, rows, k)
    return found


def _tiled_pass(exact: Tensor, centred: Tensor, rows: Tensor, found: Tensor, dtype: torch.dtype) -> Tensor:
    """Fill in what is found for the rows, and return those for which nearer points cannot be ruled out."""
    n, d = centred.shape
    k = found.shape[1]
    norms = centred.square().sum(dim=1)
    # d + 1 products and sums, conversions and the centring round once each; the bound is over four times that.
    radius = norms.amax()
    errors = 4 * (d + 6) * torch.finfo(dtype).eps * (2 * (norms * radius).sqrt() + radius)
    # Places up to a multiple of the tile are filled with a point at infinity.
    exact = torch.cat((exact, torch.full((1, d), torch.inf, dtype=torch.float64, device="cpu")))
    left = torch.cat((centred, torch.ones(n, 1, dtype=torch.float64, device="cpu")), dim=1).to(dtype)
    right = torch.zeros(d + 1, -(-n // _TILE_COLUMNS) * _TILE_COLUMNS, dtype=dtype, device="cpu")
    right[:d, :n] = -2 * left[:, :d].T
    right[d] = torch.inf
    right[d, :n] = norms
    tiles = [tile.contiguous() for tile in right.split(_TILE_COLUMNS, dim=1)]
    products = torch.empty(_TILE_ROWS, _TILE_COLUMNS, dtype=dtype, device="cpu")
    minima = torch.empty(_TILE_ROWS, len(tiles), _STRIDE, dtype=dtype, device="cpu")
    num_blocks = k + 1 + _SPARE_BLOCKS
    offsets = torch.arange(0, _TILE_COLUMNS, _STRIDE, device="cpu")
    doubtful = []
    for part in rows.split(_TILE_ROWS):
        size, queries = len(part), left[part]
        for column, tile in enumerate(tiles):
            torch.mm(queries, tile, out=products[:size])
            torch.amin(products[:size].unflatten(1, (_BLOCK, _STRIDE)), dim=1, out=minima[:size, column])
        least, blocks = _least(minima[:size].flatten(1), num_blocks)
        first = blocks // _STRIDE * _TILE_COLUMNS + blocks % _STRIDE
        candidates = (first.unsqueeze(2) + offsets).flatten(1).clamp_(max=n)
        found[part], nearest, squares = _ranked(exact, part, candidates, k)
        exact_least = squares.unflatten(1, (num_blocks, _BLOCK)).amin(dim=2) - norms[part].unsqueeze(1)
        precise = ((exact_least - least).abs() <= errors[part].unsqueeze(1)).all(dim=1)
        farthest = nearest[:, -1]
        certain = (farthest <= norms[part] + least[:, -1] - errors[part]) & precise | (farthest == 0)
        doubtful.append(part[~certain])
    return torch.cat(doubtful)


def _least(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k least of each row, in order, and where they are: in the k of its parts whose minima are the least."""
    size = values.shape[1]
    if size // _BLOCK < 2 * k:
        return values.topk(k, dim=1, largest=False)
    parts = values.unflatten(1, (_BLOCK, -1)).amin(dim=1).topk(k, dim=1, largest=False).indices
    places = (parts.unsqueeze(2) + torch.arange(0, size, size // _BLOCK, device="cpu")).flatten(1)
    least, order = values.gather(1, places).topk(k, dim=1, largest=False)
    return least, places.gather(1, order)


def _approximate(points: Tensor, k: int) -> Tensor:
    """Search with faiss the lists of points nearest to the query; rows with too few go to the exact search."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "approximate: expected the package faiss-cpu, as installed by 'pip install pyro-probmix[approximate]'"
        ) from error
    n, d = points.shape
    exact, centred = _scaled(points)
    vectors = centred.to(torch.float32).numpy()
    num_lists = min(n, round(4 * math.sqrt(n)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, num_lists)
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, 64
    index.nprobe = _LISTS_SEARCHED
    index.train(vectors)
    index.add(vectors)
    rows = torch.arange(n, device="cpu")
    _, found = index.search(vectors, k + 1)
    candidates = _without_self(torch.from_numpy(found).to(torch.int64), rows)
    short = (candidates < 0).any(dim=1)
    neighbors, _, _ = _ranked(exact, rows, candidates.clamp_(min=0), k)
    if bool(short.any()):
        neighbors[short] = _tree(points, rows[short], k)
    return neighbors

"""Every node with its nearest neighbours, in the space of the inputs or of an embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_probmix._checks import check_integer, check_tensor
from pyro_probmix.mixing.graphs.base import PartnerGraph
from pyro_probmix.mixing.graphs.search import Metric, as_points, check_search, nearest_neighbors

__all__ = ["EmbeddingGraph", "NearestNeighborGraph"]


class _NeighborGraph(PartnerGraph):
    """A graph that draws one of k neighbours, and finds them when it is told."""

    neighbors: Tensor

    def __init__(self, num_nodes: int, num_neighbors: int, metric: Metric, approximate: bool) -> None:
        super().__init__(num_nodes)
        self.num_neighbors = check_search(num_nodes, num_neighbors, metric, approximate)
        self.metric, self.approximate = metric, approximate

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_nodes={self.num_nodes}, num_neighbors={self.num_neighbors})"

    def sample_partners(self, sources: Tensor, generator: torch.Generator | None = None) -> Tensor:
        column = torch.randint(self.num_neighbors, (len(sources),), generator=generator, device="cpu")
        return self.neighbors[sources, column]

    def _search(self, points: Tensor) -> Tensor:
        return nearest_neighbors(points, self.num_neighbors, self.metric, self.approximate)


class NearestNeighborGraph(_NeighborGraph):
    """Every node with its k nearest neighbours: w_ij = 1/(N k) if j is one of them, else 0.

    Neighbours are exact unless asked otherwise: distances come from differences of coordinates in double precision,
    and a node is left out of its own neighbours by its index, so that equal points are neighbours of each other.
    Euclidean neighbours of few points, or in few dimensions, are found with a k-d tree; of more, with matrix
    products whose rounding is bounded, in time proportional to N². The approximate search, with faiss, takes time
    in proportion to N^1.5, two fifths of the exact one's for 10⁶ points of a 16-dimensional Normal, of whose
    neighbours it misses one in twenty.

    Args:
        x: The points, shape ``(N, ...)``, on any device; dimensions after the first are flattened.
        num_neighbors: k, from 1 to N-1.
        metric: A metric of :class:`sklearn.neighbors.NearestNeighbors`, by name or as a function of two rows.
        approximate: Search with faiss, of the extra ``approximate``; the metric is "euclidean" or "cosine".

    Attributes:
        neighbors: Integer tensor of shape ``(N, k)``, nearest first.

    Raises:
        TypeError: If ``x`` is not a real tensor, or ``num_neighbors`` no integer.
        ValueError: If ``x`` is empty or not finite (its rows are named), distances overflow, k is not in 1..N-1,
            or the approximate search does not know the metric.
        ImportError: If ``approximate`` and faiss is not installed.

    Example:
        >>> graph = NearestNeighborGraph(torch.tensor([[0.0], [1.0], [10.0], [12.0]]), num_neighbors=1)
        >>> graph.neighbors.squeeze(1)
        tensor([1, 0, 3, 2])
    """

    def __init__(
        self, x: Tensor, num_neighbors: int = 5, metric: Metric = "euclidean", approximate: bool = False
    ) -> None:
        points = as_points("x", x)
        super().__init__(len(points), num_neighbors, metric, approximate)
        self.neighbors = self._search(points)


class EmbeddingGraph(_NeighborGraph):
    """Every node with its k nearest neighbours in the space of an embedding, found anew every so many epochs.

    The embedding is that of the moment: the graph is built with it, and again at the start of every epoch whose
    number is a multiple of ``refresh_every``, except the first. :class:`~pyro_probmix.PairLoader` starts epochs;
    in a loop without one, call :meth:`refresh`. Embeddings are computed in parts and without gradients, and the
    random state is put back. A module, or the module of a method, is in evaluation mode meanwhile, and each of
    its parts then in the mode that it was in; any other function is called as it is. A deep copy of the graph has a
    copy of the module, which nobody trains.

    Args:
        x: Inputs, shape ``(N, ...)``, on the device of the embedding. The graph keeps them.
        embed: From rows of x, shape ``(B, ...)``, to their embeddings, shape ``(B, ...)``, or to a distribution over
            them, of which the mean is taken.
        num_neighbors: k, from 1 to N-1.
        refresh_every: Epochs from one refresh to the next, at least 1.
        metric: As for :class:`NearestNeighborGraph`.
        approximate: Likewise.
        embed_size: Rows that are embedded at once.

    Attributes:
        neighbors: Integer tensor of shape ``(N, k)``, nearest first.

    Raises:
        TypeError: If ``x`` is not a tensor, ``embed`` cannot be called or gives no real tensor, or an integer is
            none.
        ValueError: As :class:`NearestNeighborGraph`, of the embeddings; if a number is less than 1; or if ``embed``
            does not give one row for each of its rows.
        ImportError: If ``approximate`` and faiss is not installed.

    Example:
        >>> x, encoder = torch.randn(20, 3), torch.nn.Linear(3, 2)
        >>> graph = EmbeddingGraph(x, encoder, num_neighbors=3, refresh_every=5)
        >>> loader = pm.PairLoader(x, None, graph)
        >>> for epoch in range(10):
        ...     for batch in loader:
        ...         pass  # a step; at the start of epoch 5 the neighbours are those under the encoder of then
    """

    def __init__(
        self,
        x: Tensor,
        embed: Callable[[Tensor], Tensor | Distribution],
        num_neighbors: int = 5,
        refresh_every: int = 10,
        metric: Metric = "euclidean",
        approximate: bool = False,
        embed_size: int = 4096,
    ) -> None:
        check_tensor("x", x)
        if not callable(embed):
            raise TypeError(f"embed: expected a function of rows of x, got {type(embed).__name__}")
        super().__init__(x.shape[0] if x.ndim else 0, num_neighbors, metric, approximate)
        self.check_data(x)
        self.x, self.embed = x, embed
        self.refresh_every = check_integer("refresh_every", refresh_every)
        self.embed_size = check_integer("embed_size", embed_size)
        self.refresh()

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, refresh_every={self.refresh_every})"

    def start_epoch(self, epoch: int) -> None:
        """Find the neighbours anew if the number of the epoch, counted from 0, asks for it."""
        if epoch > 0 and epoch % self.refresh_every == 0:
            self.refresh()

    def refresh(self) -> None:
        """Find the neighbours under the embedding as it is now.

        Raises:
            TypeError: If the embedding is not a real tensor.
            ValueError: If it is not finite (rows are named) or does not have one row for each row of x; the
                neighbours are then what they were.
        """
        module = self.embed if isinstance(self.embed, nn.Module) else getattr(self.embed, "__self__", None)
        devices = [self.x.device] if self.x.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices), _evaluating(module):
            parts = [self._embed(rows) for rows in self.x.split(self.embed_size)]
        self.neighbors = self._search(as_points("embed(x)", torch.cat(parts)))

    def _embed(self, rows: Tensor) -> Tensor:
        embedding = self.embed(rows)
        if isinstance(embedding, Distribution):
            embedding = embedding.mean
        if not isinstance(embedding, Tensor):
            raise TypeError(f"embed: expected a tensor or a distribution, got {type(embedding).__name__}")
        if embedding.shape[:1] != rows.shape[:1]:
            raise ValueError(
                f"embed: expected shape ({len(rows)}, ...) for {len(rows)} rows, got {tuple(embedding.shape)}"
            )
        return embedding.reshape(len(rows), -1)


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Set a module to evaluation mode, if it is one, and each of its parts back to the mode that it was in."""
    parts = list(module.modules()) if isinstance(module, nn.Module) else []
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode

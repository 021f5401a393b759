"""Sampling graphs: which nodes are mixed with which, and how often."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from pyro_probmix.mixing.batches import PairBatch, check_finite, check_positive_integer

__all__ = ["CompleteGraph", "NearestNeighborGraph", "SamplingGraph"]


class _FiniteMemory:
    """``check_finite``, once per tensor and version, so that a training loop pays for it once."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[weakref.ref[Tensor], int]] = {}

    def check(self, name: str, tensor: Tensor) -> None:
        version = None if tensor.is_inference() else tensor._version
        reference, seen_version = self._seen.get(name, (None, None))
        if reference is not None and reference() is tensor and version == seen_version:
            return
        check_finite(name, tensor)
        if version is not None:
            self._seen[name] = (weakref.ref(tensor), version)

    def __reduce__(self) -> tuple[type[_FiniteMemory], tuple[()]]:
        return _FiniteMemory, ()


class SamplingGraph(ABC):
    """Which pairs of N nodes are mixed, edge (i, j) in proportion to its weight w_ij.

    A subclass supplies :meth:`sample_batch`; everything else is here.

    Args:
        num_nodes: N >= 1, the number of data rows.

    Raises:
        TypeError: If ``num_nodes`` is no integer.
        ValueError: If ``num_nodes < 1``.
    """

    def __init__(self, num_nodes: int) -> None:
        self.num_nodes = check_positive_integer("num_nodes", num_nodes)
        self._finite = _FiniteMemory()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_nodes={self.num_nodes})"

    def check_data(self, x: Tensor, y: Tensor | None = None) -> None:
        """Refuse data that do not belong to this graph, or are not finite.

        Values are looked at once per tensor; again only after a change in place.

        Args:
            x: Inputs, shape ``(N, ...)``.
            y: Outputs, shape ``(N, ...)``, or None.

        Raises:
            TypeError: If ``x`` or ``y`` is not a tensor.
            ValueError: Naming the argument, if its length is not N or some of its rows hold NaN or inf.
        """
        for name, value in (("x", x),) if y is None else (("x", x), ("y", y)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
            if value.shape[:1] != (self.num_nodes,):
                raise ValueError(
                    f"{name}: expected shape ({self.num_nodes}, ...), one row per node of the graph, "
                    f"got {tuple(value.shape)}"
                )
            self._finite.check(name, value)

    def pair_batch(
        self,
        x: Tensor,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        chunk: Tensor | None = None,
    ) -> PairBatch:
        """Return a batch with freshly drawn partners: the full batch, or the mini-batch of a chunk.

        Args:
            x: Inputs, shape ``(N, ...)``, on any device.
            y: Outputs, shape ``(N, ...)``, on the device of ``x``, or None.
            generator: Source of the random numbers, on the CPU; None is torch's default generator.
            chunk: As for :meth:`sample_batch`; None for the full batch, which does not copy the data.

        Raises:
            TypeError: If ``x`` or ``y`` is not a tensor.
            ValueError: As :meth:`check_data`.
        """
        self.check_data(x, y)
        nodes, partner = self.sample_batch(chunk, generator)
        if nodes is not None:
            nodes = nodes.to(x.device, non_blocking=True)
            x, y = x[nodes], None if y is None else y[nodes]
        return PairBatch(x, y, partner.to(x.device, non_blocking=True))

    @abstractmethod
    def sample_batch(
        self, chunk: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Draw the nodes of a batch and their partners.

        Args:
            chunk: The part of a uniformly random order of all nodes that this batch is made from, shape
                ``(B,)``; None for a full batch.
            generator: Source of the random numbers, on the CPU; None is torch's default generator.

        Returns:
            The nodes, shape ``(M,)``, or None for all N in their order; and, for each of them, the position
            within the batch of its partner, shape ``(M,)``. Both hold 64-bit integers on the CPU.
        """


class CompleteGraph(SamplingGraph):
    """Every node with every node, itself included: w_ij = 1/N².

    Args:
        num_nodes: N >= 1, the number of data rows.

    Raises:
        TypeError: If ``num_nodes`` is no integer.
        ValueError: If ``num_nodes < 1``.

    Example:
        >>> x, y = torch.randn(6, 2), torch.randn(6)
        >>> sorted(CompleteGraph(6).pair_batch(x, y).partner.tolist())
        [0, 1, 2, 3, 4, 5]
    """

    def sample_batch(
        self, chunk: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Draw partners as a random permutation of the batch.

        The full batch takes a uniformly random one: a node meets every node, itself included, with
        probability 1/N. In a chunk of B nodes a uniform permutation would pair a node with itself with
        probability 1/B. It is taken with probability B/N only, and a cycle through the whole chunk otherwise;
        that restores 1/N for every pair. A chunk of one node brings along a partner drawn from all N, since a
        pair takes two.

        Arguments and results are those of :meth:`SamplingGraph.sample_batch`.
        """
        if chunk is None:
            return None, torch.randperm(self.num_nodes, generator=generator, device="cpu")
        size = len(chunk)
        if size == 1 < self.num_nodes:
            other = torch.randint(self.num_nodes, (1,), generator=generator, device="cpu")
            return _swap_halves(chunk, other)
        if torch.rand((), generator=generator, device="cpu").item() * self.num_nodes < size:
            return chunk, torch.randperm(size, generator=generator, device="cpu")
        return chunk, torch.arange(size, device="cpu").roll(1)


class NearestNeighborGraph(SamplingGraph):
    """Every node with its k nearest neighbours: w_ij = 1/(N k) if j is one of them, else 0.

    Neighbours are exact: distances come from differences of coordinates in double precision, and a node is
    left out of its own neighbours by its index, so that equal points are neighbours of each other. Euclidean
    neighbours are found with a k-d tree: quick in few dimensions, in time proportional to N² in many.

    Args:
        x: The points, shape ``(N, ...)``, on any device; dimensions after the first are flattened.
        num_neighbors: k, from 1 to N-1.
        metric: A metric of :class:`sklearn.neighbors.NearestNeighbors`, by name or as a function of two rows.

    Attributes:
        neighbors: Integer tensor of shape ``(N, k)``, nearest first.

    Raises:
        TypeError: If ``x`` is not a real tensor, or ``num_neighbors`` no integer.
        ValueError: If ``x`` is empty or not finite (its rows are named), distances overflow, or k is not in
            1..N-1.

    Example:
        >>> graph = NearestNeighborGraph(torch.tensor([[0.0], [1.0], [10.0], [12.0]]), num_neighbors=1)
        >>> graph.neighbors.squeeze(1)
        tensor([1, 0, 3, 2])
    """

    def __init__(
        self,
        x: Tensor,
        num_neighbors: int = 5,
        metric: str | Callable[[Any, Any], float] = "euclidean",
    ) -> None:
        if not isinstance(x, Tensor) or x.is_complex():
            raise TypeError(f"x: expected a real tensor, got {x.dtype if isinstance(x, Tensor) else type(x).__name__}")
        if x.ndim == 0 or x.numel() == 0:
            raise ValueError(f"x: expected shape (N, ...) with at least one value, got {tuple(x.shape)}")
        super().__init__(len(x))
        num_neighbors = check_positive_integer("num_neighbors", num_neighbors)
        if num_neighbors >= self.num_nodes:
            raise ValueError(f"num_neighbors: expected fewer than the {self.num_nodes} nodes, got {num_neighbors}")
        check_finite("x", x)
        points = x.detach().reshape(self.num_nodes, -1).to("cpu", torch.float64)
        spread = points.amax(dim=0) - points.amin(dim=0)
        if not bool(torch.isfinite(spread.square().sum())):
            raise ValueError(
                "x: expected points whose squared distances fit into double precision, "
                f"got coordinates from {points.min()} to {points.max()}"
            )
        # The brute-force Euclidean search expands the square, which loses all digits at a large offset.
        algorithm = "kd_tree" if metric == "euclidean" else "auto"
        search = NearestNeighbors(n_neighbors=num_neighbors, algorithm=algorithm, metric=metric)
        # Without an argument the search leaves every point out of its own neighbours, by index.
        indices = search.fit(points.numpy()).kneighbors(return_distance=False)
        self.neighbors = torch.from_numpy(indices).to(torch.int64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_nodes={self.num_nodes}, num_neighbors={self.neighbors.shape[1]})"

    def sample_batch(
        self, chunk: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Draw a uniformly random neighbour for each source.

        In the full batch every node is a source. In a mini-batch the sources are the first ``ceil(B/2)``
        nodes of the chunk, their neighbours follow, and the partner swaps these halves: both ends of an edge
        carry it.

        Arguments and results are those of :meth:`SamplingGraph.sample_batch`.
        """
        if chunk is None:
            return None, self._sample_neighbors(torch.arange(self.num_nodes, device="cpu"), generator)
        sources = chunk[: (len(chunk) + 1) // 2]
        return _swap_halves(sources, self._sample_neighbors(sources, generator))

    def _sample_neighbors(self, sources: Tensor, generator: torch.Generator | None) -> Tensor:
        column = torch.randint(self.neighbors.shape[1], (len(sources),), generator=generator, device="cpu")
        return self.neighbors[sources, column]


def _swap_halves(sources: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes and partners of a batch in which each source and the other at its place carry one edge."""
    size = len(sources)
    return torch.cat((sources, others)), torch.arange(2 * size, device="cpu").roll(size)

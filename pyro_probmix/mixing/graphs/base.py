"""Sampling graphs: what all share, every node with every node, and partners drawn given the node."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from pyro_probmix._checks import check_finite, check_integer, check_tensor
from pyro_probmix.mixing.batches import PairBatch

__all__ = ["CompleteGraph", "PartnerGraph", "SamplingGraph", "swap_halves", "uniform"]


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
        self.num_nodes = check_integer("num_nodes", num_nodes)

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
            check_tensor(name, value)
            if value.shape[:1] != (self.num_nodes,):
                raise ValueError(
                    f"{name}: expected shape ({self.num_nodes}, ...), one row per node of the graph, "
                    f"got {tuple(value.shape)}"
                )
            _check_finite_once(name, value)

    def pair_batch(
        self,
        x: Tensor,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        chunk: Tensor | None = None,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> PairBatch:
        """Return a batch with freshly drawn partners: the full batch, or the mini-batch of a chunk.

        Args:
            x: Inputs, shape ``(N, ...)``, on any device.
            y: Outputs, shape ``(N, ...)``, on the device of ``x``, or None.
            generator: Source of the random numbers, on the CPU; None is torch's default generator.
            chunk: As for :meth:`sample_batch`; None for the full batch, which does not copy the data.
            weight: As for :class:`~pyro_probmix.PairBatch`, shape ``(N,)``.
            mask: As for :class:`~pyro_probmix.PairBatch`, shape ``(N,)`` or that of ``y``, all of whose values are
                legal ones; :class:`~pyro_probmix.PairLoader` sees to that.

        Raises:
            TypeError: If ``x`` or ``y`` is not a tensor.
            ValueError: As :meth:`check_data`.
        """
        self.check_data(x, y)
        nodes, partner = self.sample_batch(chunk, generator)
        if nodes is not None:
            nodes = nodes.to(x.device, non_blocking=True)
            x = x.index_select(0, nodes)
            y, weight, mask = (None if t is None else t.index_select(0, nodes) for t in (y, weight, mask))
        return PairBatch(x, y, partner.to(x.device, non_blocking=True), weight, mask)

    def start_epoch(self, epoch: int) -> None:  # noqa: B027
        """Prepare for an epoch; :class:`~pyro_probmix.PairLoader` calls this before its first batch.

        Most graphs never change and do nothing here.

        Args:
            epoch: Its number, counted from 0.
        """

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


# The version of each tensor that has been found finite, so that a training loop pays for the look once.
_FINITE: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _check_finite_once(name: str, tensor: Tensor) -> None:
    version = None if tensor.is_inference() else tensor._version
    if version is None or _FINITE.get(tensor) != version:
        check_finite(name, tensor)
        if version is not None:
            _FINITE[tensor] = version


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
            return swap_halves(chunk, other)
        if torch.rand((), generator=generator, device="cpu").item() * self.num_nodes < size:
            return chunk, torch.randperm(size, generator=generator, device="cpu")
        return chunk, torch.arange(size, device="cpu").roll(1)


class PartnerGraph(SamplingGraph):
    r"""A graph that draws the partner of a node given the node, :math:`w_{ij} = r_i \, p(j \mid i)`.

    A subclass supplies :meth:`sample_partners`, the law p(j | i), and says how often a node is a source.

    Args:
        num_nodes: N >= 1, the number of data rows.
        row_weights: :math:`r_i \ge 0` up to a common factor, shape ``(N,)``, with a positive sum; None where all
            are equal.

    Raises:
        TypeError: If ``num_nodes`` is no integer.
        ValueError: If ``num_nodes < 1``.
    """

    def __init__(self, num_nodes: int, row_weights: Tensor | None = None) -> None:
        super().__init__(num_nodes)
        self._cumulative: Tensor | None = None
        # Sums that ought to be equal are, up to their rounding.
        if row_weights is not None and not row_weights.max() - row_weights.min() <= 1e-12 * row_weights.max():
            self._cumulative = row_weights.to("cpu", torch.float64).cumsum(0)

    def sample_batch(
        self, chunk: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Draw sources in proportion to r_i, and a partner for each.

        Where all r_i are equal, every node is a source of the full batch, in their order, and the sources of a
        mini-batch are the first ``ceil(B/2)`` nodes of the chunk. Elsewhere ``ceil(N/2)`` or ``ceil(B/2)`` sources
        are drawn with replacement, one from each of as many equal parts of the total weight, so that a node comes
        as often as it should up to less than two. Except in the full batch of equal r_i, the partners follow the
        sources and the batch swaps these halves: both ends of an edge carry it.

        Arguments and results are those of :meth:`SamplingGraph.sample_batch`.
        """
        if self._cumulative is not None:
            size = ((self.num_nodes if chunk is None else len(chunk)) + 1) // 2
            places = torch.arange(size, 0, -1, device="cpu") - uniform(size, generator)
            sources = torch.searchsorted(self._cumulative, places / size * self._cumulative[-1])
        elif chunk is None:
            return None, self.sample_partners(torch.arange(self.num_nodes, device="cpu"), generator)
        else:
            sources = chunk[: (len(chunk) + 1) // 2]
        return swap_halves(sources, self.sample_partners(sources, generator))

    @abstractmethod
    def sample_partners(self, sources: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a partner for each source.

        Args:
            sources: Nodes with r_i > 0, shape ``(M,)``, 64-bit integers on the CPU.
            generator: Source of the random numbers, on the CPU; None is torch's default generator.

        Returns:
            Their partners, likewise.
        """


def uniform(size: int, generator: torch.Generator | None) -> Tensor:
    """Return numbers in [0, 1) of double precision on the CPU, shape ``(size,)``."""
    return torch.rand(size, generator=generator, dtype=torch.float64, device="cpu")


def swap_halves(sources: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes and partners of a batch in which each source and the other at its place carry one edge."""
    size = len(sources)
    return torch.cat((sources, others)), torch.arange(2 * size, device="cpu").roll(size)

"""Every node with every node."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_probmix.mixing.graphs.base import SamplingGraph, swap_halves

__all__ = ["CompleteGraph"]


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

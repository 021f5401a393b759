"""Batches of pairs, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyro_probmix._checks import check_finite, check_integer, check_tensor
from pyro_probmix.mixing.batches import PairBatch, check_mask, fill_missing
from pyro_probmix.mixing.graphs import SamplingGraph

__all__ = ["PairLoader", "check_weight"]


def check_weight(name: str, weight: Any, size: int) -> Tensor:
    """The weights of so many rows: refused if they are no tensor of that length, negative, not finite or all 0."""
    check_tensor(name, weight, (size,))
    check_finite(name, weight)
    if bool((weight < 0).any()) or not bool((weight > 0).any()):
        raise ValueError(f"{name}: expected numbers of at least 0 that are not all 0")
    return weight


class PairLoader:
    """Batches of one epoch per iteration, drawn anew each time from a sampling graph.

    An epoch has ``ceil(N / batch_size)`` batches on every graph. Each draws its edges in proportion to w_ij,
    so the mean over an epoch's batches of the batch-mean loss is an unbiased estimate of the full loss. On graphs
    other than the complete graph this asks that the expected loss of an edge be the same from both its ends, as
    it is for a symmetric mixing coefficient. What a mini-batch holds is said at the graph's ``sample_batch``.
    Each iteration is an epoch, of which the graph is told before the first batch.

    Indices are drawn on the CPU and moved to where the data live. A full batch does not copy the data.

    Args:
        x: Inputs, shape ``(N, ...)``, on any device.
        y: Outputs, shape ``(N, ...)``, on the device of ``x``, or None.
        graph: Which pairs are mixed; ``graph.num_nodes`` is N.
        batch_size: Nodes per batch; None, or N and more, is the full batch.
        drop_last: Leave out a last batch of fewer than ``batch_size`` nodes.
        weight: As for :class:`PairBatch`, shape ``(N,)``, up to a common factor: batches have it with mean one over
            all N.
        mask: As for :class:`PairBatch`, shape ``(N,)`` or that of ``y``, which may be anything, NaN included, where
            it is not observed.
        generator: Source of the random numbers, on the CPU; None is torch's default generator.

    Attributes:
        epoch: The number of the next epoch, counted from 0; may be set, to go on after an interruption.

    Raises:
        TypeError: If ``x`` or ``y`` is not a tensor, ``graph`` no graph, or ``batch_size`` no integer.
        ValueError: If ``x`` or ``y`` is not finite or not as long as the graph, ``batch_size < 1``, or
            ``drop_last`` leaves no batch.

    Example:
        >>> from pyro_probmix.mixing.graphs import CompleteGraph
        >>> loader = PairLoader(torch.randn(10, 3), torch.randn(10), CompleteGraph(10), batch_size=4)
        >>> [len(batch) for batch in loader]
        [4, 4, 2]
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        graph: SamplingGraph,
        batch_size: int | None = None,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        check_tensor("x", x)
        if x.dim() == 0:
            raise ValueError("x: expected shape (N, ...), got ()")
        if not hasattr(graph, "check_data"):
            raise TypeError(f"graph: expected a graph, such as CompleteGraph(n), got {type(graph).__name__}")
        check_mask(mask, len(x), y)
        if y is not None and mask is not None:
            y = fill_missing(y, mask)
        graph.check_data(x, y)
        if weight is not None:
            check_weight("weight", weight, len(x))
            weight = weight / weight.to(torch.promote_types(weight.dtype, torch.float32)).mean()
        if batch_size is not None:
            batch_size = check_integer("batch_size", batch_size)
            if drop_last and batch_size > graph.num_nodes:
                raise ValueError(
                    f"batch_size: expected at most {graph.num_nodes}, the number of nodes, with drop_last, "
                    f"got {batch_size}"
                )
        self.x, self.y, self.weight, self.mask = x, y, weight, mask
        self.graph, self.batch_size, self.drop_last, self.generator = graph, batch_size, drop_last, generator
        self.epoch = 0

    def __len__(self) -> int:
        num_nodes = self.graph.num_nodes
        size = self.batch_size or num_nodes
        return num_nodes // size if self.drop_last else -(-num_nodes // size)

    def __iter__(self) -> Iterator[PairBatch]:
        self.graph.start_epoch(self.epoch)
        self.epoch += 1
        num_nodes = self.graph.num_nodes
        if self.batch_size is None or self.batch_size >= num_nodes:
            yield self._batch(None)
            return
        order = torch.randperm(num_nodes, generator=self.generator, device="cpu")
        for chunk in order.split(self.batch_size)[: len(self)]:
            yield self._batch(chunk)

    def _batch(self, chunk: Tensor | None) -> PairBatch:
        rows = {"weight": self.weight, "mask": self.mask}
        return self.graph.pair_batch(self.x, self.y, self.generator, chunk=chunk, **rows)

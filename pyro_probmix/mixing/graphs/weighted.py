"""Edges from the user: a weighted list, or the pairs of equal or of different labels."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_probmix._checks import check_choice, check_finite, check_integer, check_tensor, name_rows
from pyro_probmix.mixing.graphs.base import PartnerGraph, uniform

__all__ = ["LabelGraph", "WeightedGraph"]


class WeightedGraph(PartnerGraph):
    r"""Any weighted edge list: the risk is :math:`\sum_{(i,j)} w_{ij} R_{ij} / \sum_{(i,j)} w_{ij}`, eq. 15.

    Node i is a source in proportion to :math:`r_i = \sum_j w_{ij}`, and its partner is j in proportion to
    :math:`w_{ij}`, so that each edge is drawn in proportion to its weight, whatever the degrees are. Where all
    :math:`r_i` are equal, every node is a source once in a full batch. Elsewhere a node comes as often as its edges
    weigh, and never if they weigh nothing; the nodes of a batch are then not all N in their order, and an edge is
    carried by both its ends, so that the loss of an edge must be the same from both, as it is for a symmetric
    mixing coefficient. For the same reason an undirected graph may list its edges once or both ways.

    Args:
        edges: Pairs (i, j), integers of shape ``(E, 2)``, E >= 1. The weights of equal pairs add up; (i, i) leaves
            a point as it is.
        weights: :math:`w_{ij} \ge 0` up to a common factor, shape ``(E,)``, not all zero.
        num_nodes: N >= 1, the number of data rows.

    Attributes:
        edges: Those of positive weight, sorted by their source, shape ``(E', 2)``.

    Raises:
        TypeError: If ``edges`` are no integers, ``weights`` no real tensor, or ``num_nodes`` no integer.
        ValueError: Naming rows, if shapes do not match, a node is not in 0..N-1, or a weight is negative or not
            finite; or if all weights are zero.

    Example:
        >>> graph = WeightedGraph(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0.25, 0.75]), 4)
        >>> batch = graph.pair_batch(torch.arange(4.0))
        >>> (batch.x - batch.x[batch.partner]).abs().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, edges: Tensor, weights: Tensor, num_nodes: int) -> None:
        num_nodes = check_integer("num_nodes", num_nodes)
        edges, weights = _checked_edges(edges, weights, num_nodes)
        order = torch.argsort(edges[:, 0], stable=True)
        order = order[weights[order] > 0]
        weights = weights[order] / weights.max()
        self.edges = edges[order]
        sources = self.edges[:, 0].contiguous()
        row_weights = torch.zeros(num_nodes, dtype=torch.float64, device="cpu").index_add_(0, sources, weights)
        super().__init__(num_nodes, row_weights)
        nodes = torch.arange(num_nodes + 1, device="cpu")
        self._starts = torch.searchsorted(sources, nodes)
        self._edge_cumulative = torch.cat((weights.new_zeros(1), weights.cumsum(0)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_nodes={self.num_nodes}, num_edges={len(self.edges)})"

    def sample_partners(self, sources: Tensor, generator: torch.Generator | None = None) -> Tensor:
        first, end = self._starts[sources], self._starts[sources + 1]
        below, above = self._edge_cumulative[first], self._edge_cumulative[end]
        places = above - uniform(len(sources), generator) * (above - below)
        found = torch.searchsorted(self._edge_cumulative[1:], places)
        return self.edges[found.clamp(first, end - 1), 1]


def _checked_edges(edges: Tensor, weights: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Return both on the CPU, as 64-bit integers and in double precision, or refuse them."""
    for name, value in (("edges", edges), ("weights", weights)):
        check_tensor(name, value)
    if edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool:
        raise TypeError(f"edges: expected integers, got {edges.dtype}")
    if edges.ndim != 2 or edges.shape[1] != 2 or len(edges) == 0:
        raise ValueError(f"edges: expected shape (E, 2) with E >= 1, got {tuple(edges.shape)}")
    if weights.is_complex():
        raise TypeError(f"weights: expected real numbers, got {weights.dtype}")
    check_tensor("weights", weights, edges.shape[:1])
    check_finite("weights", weights)
    edges = edges.detach().to("cpu", torch.int64)
    weights = weights.detach().to("cpu", torch.float64)
    outside = ((edges < 0) | (edges >= num_nodes)).any(dim=1)
    if bool(outside.any()):
        raise ValueError(f"edges: expected nodes from 0 to {num_nodes - 1}, got others in {name_rows(outside)}")
    if bool((weights < 0).any()):
        raise ValueError(f"weights: expected numbers of at least 0, got negative ones in {name_rows(weights < 0)}")
    if not bool((weights > 0).any()):
        raise ValueError("weights: expected a positive one, got zeros only")
    return edges, weights


class LabelGraph(PartnerGraph):
    r"""Every pair of different nodes with the same label, or with different labels.

    Over pairs, all admissible pairs weigh the same, :math:`w_{ij} = 1 / \sum_i m_i`, where :math:`m_i` is the number
    of partners that node i may have. Among nodes of the same label, the nodes of a large class then come more often
    than in the data, in proportion to the square of its size; what :class:`WeightedGraph` says of batches holds.
    Over nodes, every node is a source as often as any other, and all its partners weigh the same,
    :math:`w_{ij} = 1 / (N m_i)`. In balanced classes both are the same. Memory and time are O(N).

    Args:
        y: Labels, shape ``(N, ...)``, of any type: those of two nodes are the same where all their values are equal.
        kind: "same" or "cross".
        uniform_over: "pairs" or "nodes".

    Raises:
        TypeError: If ``y`` is not a tensor.
        ValueError: If ``y`` is empty or not finite, another argument is none of its values, or some nodes have no
            admissible partner (their rows are named).

    Example:
        >>> y = torch.tensor([0, 1, 0, 1])
        >>> LabelGraph(y).pair_batch(y.unsqueeze(1), y).partner
        tensor([2, 3, 0, 1])
    """

    def __init__(self, y: Tensor, kind: str = "same", uniform_over: str = "pairs") -> None:
        check_tensor("y", y)
        if y.ndim == 0 or y.numel() == 0:
            raise ValueError(f"y: expected shape (N, ...) with at least one value, got {tuple(y.shape)}")
        check_choice("kind", kind, ("same", "cross"))
        check_choice("uniform_over", uniform_over, ("pairs", "nodes"))
        check_finite("y", y)
        rows = y.detach().to("cpu").reshape(len(y), -1)
        _, labels, sizes = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
        num_partners = sizes[labels] - 1 if kind == "same" else len(y) - sizes[labels]
        alone = num_partners == 0
        if bool(alone.any()):
            other = "another node of the same label" if kind == "same" else "a node of another label"
            raise ValueError(f"y: expected {other} for every node, got none for {name_rows(alone)}")
        super().__init__(len(y), num_partners if uniform_over == "pairs" else None)
        self.kind, self.uniform_over, self._num_partners = kind, uniform_over, num_partners
        self._order = torch.argsort(labels, stable=True)
        places = torch.empty_like(self._order)
        places[self._order] = torch.arange(len(y), device="cpu")
        starts = (sizes.cumsum(0) - sizes)[labels]
        # A partner stands a step further in a circle: its class, sorted by label, or all nodes from its class's end.
        self._circle_start = starts if kind == "same" else torch.zeros_like(starts)
        self._circle_size = sizes[labels] if kind == "same" else torch.full_like(starts, len(y))
        self._offset = places - starts + 1 if kind == "same" else starts + sizes[labels]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_nodes={self.num_nodes}, kind={self.kind!r}, uniform_over={self.uniform_over!r})"
        )

    def sample_partners(self, sources: Tensor, generator: torch.Generator | None = None) -> Tensor:
        num_partners = self._num_partners[sources]
        steps = (uniform(len(sources), generator) * num_partners).long().clamp(max=num_partners - 1)
        steps = (self._offset[sources] + steps) % self._circle_size[sources]
        return self._order[self._circle_start[sources] + steps]

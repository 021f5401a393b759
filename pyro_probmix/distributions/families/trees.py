"""Laws of graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.spanning_tree import make_complete_graph
from torch import Tensor

from pyro_probmix.distributions.exponential_family import ExponentialFamily, register_family

__all__ = ["SpanningTreeFamily"]


@register_family(dist.SpanningTree)
class SpanningTreeFamily(ExponentialFamily):
    """SpanningTree: η = edge_logits, T(y) = whether each edge is in the tree, h = 1, A by the matrix-tree theorem.

    It has no batch, as Pyro's has none; a pool draws as its first component does.
    """

    constructor = dist.SpanningTree
    names = ("edge_logits",)
    parameter_dims = (1,)
    natural_dims = (1,)
    linear = True
    bounded = True

    def build(self, p: Any, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        shape = parameters[0].shape
        if shape != p.edge_logits.shape:
            raise ValueError(f"SpanningTree has no batch: expected batch shape (), got {tuple(shape[:-1])}")
        return super().build(p, parameters, sampler_options=p.sampler_options, **fixed)

    def to_natural(self, p: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters

    def from_natural(self, p: Any, *eta: Tensor) -> tuple[Tensor, ...]:
        return eta

    def normalizer(self, p: Any, *parameters: Tensor) -> Tensor:
        return self.build(p, parameters).log_partition_function

    def statistics(self, p: Any, y: Tensor) -> tuple[Tensor, ...]:
        first, second = y.unbind(-1)
        rank = first + second * (second - 1) // 2
        edges = torch.nn.functional.one_hot(rank, len(p.edge_logits)).sum(-2)
        return (edges.to(p.edge_logits.dtype),)

    def at_end(self, name: str, value: Tensor) -> Tensor:
        return ~(value < math.inf)  # a tree may be without an edge

    def moments(self, p: Any) -> tuple[Tensor, ...]:
        first, second = make_complete_graph(p.num_vertices)
        return (p.edge_mean[first, second],)

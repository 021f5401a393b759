"""Laws of graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.spanning_tree import make_complete_graph
from torch import Tensor

from pyro_probmix.distributions.exponential_family import ExponentialFamily, Tensors, register_family

__all__ = ["SpanningTreeFamily"]


@register_family(dist.SpanningTree)
class SpanningTreeFamily(ExponentialFamily):
    """SpanningTree: η = edge_logits, T(y) = whether each edge is in the tree, h = 1, A by the matrix-tree theorem.

    It has no batch, as Pyro's has none; a pool draws as its first component does.
    """

    constructor = dist.SpanningTree
    parameter_dims = (1,)
    linear = True
    bounded = True

    def build(self, parameters: Sequence[Tensor], **fixed: Any) -> Any:
        shape = parameters[0].shape
        if shape != self.p.edge_logits.shape:
            raise ValueError(f"SpanningTree has no batch: expected batch shape (), got {tuple(shape[:-1])}")
        return super().build(parameters, sampler_options=self.p.sampler_options, **fixed)

    def log_normalizer(self, edge_logits: Tensor) -> Tensor:
        return self.build([edge_logits]).log_partition_function

    def sufficient_statistics(self, y: Tensor) -> Tensors:
        first, second = y.unbind(-1)
        rank = first + second * (second - 1) // 2
        edges = torch.nn.functional.one_hot(rank, len(self.p.edge_logits)).sum(-2)
        return (edges.to(self.p.edge_logits.dtype),)

    def at_boundary(self, name: str, value: Tensor) -> Tensor:
        return ~(value < math.inf)  # a tree may be without an edge

    def expected_sufficient_statistics(self, edge_logits: Tensor) -> Tensors:
        first, second = make_complete_graph(self.p.num_vertices)
        return (self.p.edge_mean[first, second],)

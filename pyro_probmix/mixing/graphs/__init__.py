"""Sampling graphs: which nodes are mixed with which, and how often."""

from pyro_probmix.mixing.graphs.base import CompleteGraph, PartnerGraph, SamplingGraph
from pyro_probmix.mixing.graphs.kernel import KernelGraph
from pyro_probmix.mixing.graphs.neighbors import EmbeddingGraph, NearestNeighborGraph
from pyro_probmix.mixing.graphs.weighted import LabelGraph, WeightedGraph

__all__ = [
    "CompleteGraph",
    "EmbeddingGraph",
    "KernelGraph",
    "LabelGraph",
    "NearestNeighborGraph",
    "PartnerGraph",
    "SamplingGraph",
    "WeightedGraph",
]

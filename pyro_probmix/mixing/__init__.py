"""Which pairs are mixed, how much, and what label a pair has."""

from pyro_probmix.mixing.batches import PairBatch
from pyro_probmix.mixing.coefficients import LogSpaceBeta, as_coefficient, coefficient_to
from pyro_probmix.mixing.graphs import (
    CompleteGraph,
    EmbeddingGraph,
    KernelGraph,
    LabelGraph,
    NearestNeighborGraph,
    PartnerGraph,
    SamplingGraph,
    WeightedGraph,
)
from pyro_probmix.mixing.loaders import PairLoader
from pyro_probmix.mixing.quadrature import GaussJacobi
from pyro_probmix.mixing.vicinity import DiracVicinity, LabelVicinity, NormalVicinity, Vicinity, default_vicinity

__all__ = [
    "CompleteGraph",
    "DiracVicinity",
    "EmbeddingGraph",
    "GaussJacobi",
    "KernelGraph",
    "LabelGraph",
    "LabelVicinity",
    "LogSpaceBeta",
    "NearestNeighborGraph",
    "NormalVicinity",
    "PairBatch",
    "PairLoader",
    "PartnerGraph",
    "SamplingGraph",
    "Vicinity",
    "WeightedGraph",
    "as_coefficient",
    "coefficient_to",
    "default_vicinity",
]

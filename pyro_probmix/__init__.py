"""Conditional density estimation with mixup on statistical manifolds, in Pyro."""

from pyro_probmix import distributions, mixing, models, nn
from pyro_probmix._version import __version__
from pyro_probmix.distributions import (
    ExpandedBeta,
    HolderPool,
    LinearPool,
    LogLinearPool,
    NumericalPool,
    bhattacharyya_distance,
    chernoff_coefficient,
    chernoff_information,
    cross_entropy,
    entropy,
    kl_divergence,
    linear_pool,
    log_linear_pool,
    renyi_divergence,
)
from pyro_probmix.evaluation import evaluate, to_inference_data
from pyro_probmix.mixing import (
    CompleteGraph,
    DiracVicinity,
    LabelVicinity,
    NearestNeighborGraph,
    NormalVicinity,
    PairBatch,
    PairLoader,
)
from pyro_probmix.models import ERM, ManifoldMixup, ManifoldProbMix, Mixup, ProbMix, mix
from pyro_probmix.training import History, Replicas, fit, fit_replicas

__all__ = [
    "ERM",
    "CompleteGraph",
    "DiracVicinity",
    "ExpandedBeta",
    "History",
    "HolderPool",
    "LabelVicinity",
    "LinearPool",
    "LogLinearPool",
    "ManifoldMixup",
    "ManifoldProbMix",
    "Mixup",
    "NearestNeighborGraph",
    "NormalVicinity",
    "NumericalPool",
    "PairBatch",
    "PairLoader",
    "ProbMix",
    "Replicas",
    "__version__",
    "bhattacharyya_distance",
    "chernoff_coefficient",
    "chernoff_information",
    "cross_entropy",
    "distributions",
    "entropy",
    "evaluate",
    "fit",
    "fit_replicas",
    "kl_divergence",
    "linear_pool",
    "log_linear_pool",
    "mix",
    "mixing",
    "models",
    "nn",
    "renyi_divergence",
    "to_inference_data",
]

"""Exponential families in natural form, their pools and divergences."""

from pyro_probmix.distributions import families
from pyro_probmix.distributions.affine import AffineDistribution, affine
from pyro_probmix.distributions.classes import class_log_probabilities, class_probabilities
from pyro_probmix.distributions.divergences import (
    bhattacharyya_distance,
    chernoff_coefficient,
    chernoff_information,
    cross_entropy,
    kl_divergence,
    renyi_divergence,
)
from pyro_probmix.distributions.entropies import entropy
from pyro_probmix.distributions.expanded_beta import ExpandedBeta
from pyro_probmix.distributions.exponential_family import (
    ExponentialFamily,
    exponential_family,
    is_exponential_family,
    register_family,
)
from pyro_probmix.distributions.intervals import interval
from pyro_probmix.distributions.linear_pooling import LinearPool, linear_pool
from pyro_probmix.distributions.log_space_beta import LogSpaceBeta
from pyro_probmix.distributions.marginals import marginals
from pyro_probmix.distributions.modes import mode
from pyro_probmix.distributions.natural_form import (
    from_natural_parameters,
    log_base_measure,
    log_normalizer,
    mean_parameters,
    natural_parameters,
    sufficient_statistics,
)
from pyro_probmix.distributions.numerical import HolderPool, NumericalPool, numerical_pool
from pyro_probmix.distributions.pooling import LogLinearPool, log_linear_pool
from pyro_probmix.distributions.quantiles import cdf, median, quantile
from pyro_probmix.distributions.recalibrated import RecalibratedDistribution
from pyro_probmix.distributions.selection import index_select, rows

__all__ = [
    "AffineDistribution",
    "ExpandedBeta",
    "ExponentialFamily",
    "HolderPool",
    "LinearPool",
    "LogLinearPool",
    "LogSpaceBeta",
    "NumericalPool",
    "RecalibratedDistribution",
    "affine",
    "bhattacharyya_distance",
    "cdf",
    "chernoff_coefficient",
    "chernoff_information",
    "class_log_probabilities",
    "class_probabilities",
    "cross_entropy",
    "entropy",
    "exponential_family",
    "families",
    "from_natural_parameters",
    "index_select",
    "interval",
    "is_exponential_family",
    "kl_divergence",
    "linear_pool",
    "log_base_measure",
    "log_linear_pool",
    "log_normalizer",
    "marginals",
    "mean_parameters",
    "median",
    "mode",
    "natural_parameters",
    "numerical_pool",
    "quantile",
    "register_family",
    "renyi_divergence",
    "rows",
    "sufficient_statistics",
]

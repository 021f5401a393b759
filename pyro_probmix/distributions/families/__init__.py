"""One row a family: its natural form, registered by importing this package."""

from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.families import (
    bounded,
    circular,
    counts,
    discrete,
    gamma,
    inflated,
    matrix,
    multivariate,
    normal,
    positive,
    scale,
    simplex,
    supports,
    transformed,
    trees,
    trials,
    wrappers,
)

__all__ = [
    "bounded",
    "circular",
    "corrected_class",
    "counts",
    "discrete",
    "gamma",
    "inflated",
    "matrix",
    "multivariate",
    "normal",
    "positive",
    "scale",
    "simplex",
    "supports",
    "transformed",
    "trees",
    "trials",
    "wrappers",
]

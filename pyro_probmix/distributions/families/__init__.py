"""One row a family: its natural form, registered by importing this package."""

from pyro_probmix.distributions.corrected import corrected_class
from pyro_probmix.distributions.families import (
    circular,
    counts,
    discrete,
    gamma,
    inflated,
    matrix,
    multivariate,
    normal,
    scale,
    simplex,
    supports,
    trees,
    wrappers,
)

__all__ = [
    "circular",
    "corrected_class",
    "counts",
    "discrete",
    "gamma",
    "inflated",
    "matrix",
    "multivariate",
    "normal",
    "scale",
    "simplex",
    "supports",
    "trees",
    "wrappers",
]
